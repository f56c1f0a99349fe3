package fleet

import (
	"context"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// Sender sends a fleet.
type Sender struct {
	Fleet     *simulate.Fleet
	Publisher *Publisher
	Start     dataflow.Time         // virtual time of the beginning
	Speed     float64               // virtual seconds a second
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
		if err := s.Publisher.Publish(ctx, ev.Topic, ev.Payload); err != nil {
			return err
		}
		if s.Sent != nil {
			s.Sent(&ev)
		}
	}
	return nil
}
