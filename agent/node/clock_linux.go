package node

import (
	"golang.org/x/sys/unix"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// newUptime is a clock that never goes back and counts the time in which the
// machine slept: CLOCK_BOOTTIME.
func newUptime() func() dataflow.Time {
	return func() dataflow.Time {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
			panic(err) // it has been there since Linux 2.6.39
		}
		return dataflow.Time(int64(t.Sec)*1e6 + int64(t.Nsec)/1e3)
	}
}
