//go:build unix

package bench

import (
	"syscall"
	"time"
)

// processorTime is what all threads of this process have computed so far. With
// one processor to run on it is the wall time of the work, without the time in
// which the machine did something else.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic("bench: getrusage: " + err.Error()) // it cannot fail for RUSAGE_SELF
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
