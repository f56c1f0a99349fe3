package sensors

import (
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Clock is the wall clock a connector is given. Readers make an arrival clock
// of it: they never let that go back, even if Now does.
type Clock interface {
	Now() dataflow.Time
	// After sends once, when d has passed.
	After(d dataflow.Duration) <-chan time.Time
}

// Wall is the machine's clock.
type Wall struct{}

// Now is the machine's time, cut to the microsecond.
func (Wall) Now() dataflow.Time { return dataflow.FromGo(WallTime()) }

// WallTime is the machine's wall clock. All that an agent makes of the time of day
// comes from here; every other time.Now measures how long something takes.
func WallTime() time.Time { return time.Now() }

// After is time.After.
func (Wall) After(d dataflow.Duration) <-chan time.Time { return time.After(d.Go()) }
