//go:build !unix

package bench

import "time"

// processorTime falls back on the wall clock.
func processorTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
