//go:build !linux

package node

import (
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// newUptime is a clock that never goes back. Whether it counts the time in which
// the machine slept is the system's; agents are for Linux.
func newUptime() func() dataflow.Time {
	began := time.Now()
	return func() dataflow.Time { return dataflow.Time(time.Since(began).Microseconds()) + 1 }
}
