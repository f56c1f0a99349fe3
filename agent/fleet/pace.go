package fleet

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// Clock is the fleet's virtual time as a clock for the connectors that hear
// it: it stands while the fleet waits for its listener, so that a slow machine
// makes a slow fleet and not a late one.
type Clock struct{ now atomic.Int64 }

// Now is the virtual time of the last message sent.
func (c *Clock) Now() dataflow.Time { return dataflow.Time(c.now.Load()) }

// After waits in real time.
func (c *Clock) After(d dataflow.Duration) <-chan time.Time { return time.After(d.Go()) }

// Sender sends a fleet.
type Sender struct {
	Fleet     *simulate.Fleet
	Publisher *Publisher
	Start     dataflow.Time         // virtual time of the beginning
	Speed     float64               // virtual seconds a second
	Clock     *Clock                // nil: nobody reads it
	Sent      func(*simulate.Event) // after each message; may wait
}

// Send sends the fleet to its end, or until ctx ends. Where it falls behind
// its speed it goes on from there: it does not hurry afterwards.
func (s *Sender) Send(ctx context.Context) error {
	var ev simulate.Event
	timer := time.NewTimer(0)
	defer timer.Stop()
	base, virtual := time.Now(), s.Start
	for s.Fleet.Next(&ev) {
		due := time.Duration(float64(dataflow.Duration(ev.At-virtual).Go()) / s.Speed)
		switch wait := due - time.Since(base); {
		case wait > 0:
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case wait < -100*time.Millisecond:
			base, virtual = time.Now(), ev.At
		}
		if s.Clock != nil {
			s.Clock.now.Store(int64(ev.At))
		}
		if err := s.Publisher.Publish(ctx, ev.Topic, ev.Payload); err != nil {
			return err
		}
		if s.Sent != nil {
			s.Sent(&ev)
		}
	}
	return nil
}
