package runtime

import (
	"bytes"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// largePages asks the system for large pages, for memory that operators read at
// random. Nil: this one has none, or its administrator wants none.
func largePages() func(memory []byte) {
	const settings = "/sys/kernel/mm/transparent_hugepage/"
	enabled, err := os.ReadFile(settings + "enabled")
	if err != nil || bytes.Contains(enabled, []byte("[never]")) {
		return nil
	}
	text, err := os.ReadFile(settings + "hpage_pmd_size")
	if err != nil {
		return nil
	}
	size, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || size <= 0 {
		return nil
	}
	return func(memory []byte) {
		first := uintptr(unsafe.Pointer(unsafe.SliceData(memory))) // heap memory stays where it is
		from := -int(first) & (size - 1)
		to := from + (len(memory)-from)&^(size-1)
		if to <= from || to > len(memory) {
			return
		}
		// Errors are of no matter: it is a wish. The first is for what is touched
		// from now on, the second (Linux 6.1) for what has been already.
		_ = unix.Madvise(memory[from:to], unix.MADV_HUGEPAGE)
		_ = unix.Madvise(memory[from:to], unix.MADV_COLLAPSE)
	}
}
