package sensors

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// wrong is by how many seconds the wall clock is wrong: what stands in the file
// that TIDEMARK_HOSTS_CLOCK names, which may change at any time.
var wrong = openWrong()

func openWrong() *atomic.Int64 {
	f, err := os.Open(os.Getenv("TIDEMARK_HOSTS_CLOCK"))
	if err != nil {
		panic(err)
	}
	page, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*atomic.Int64)(unsafe.Pointer(&page[0]))
}

// WallTime is that of a machine whose clock is wrong.
func WallTime() time.Time {
	return rightTime().Round(0).Add(time.Duration(wrong.Load()) * time.Second)
}
