package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/fleet"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// together is how long after the first marker of an interval all readings of that
// interval have been sent, by the fleet's clock.
const together = 100 * dataflow.Millisecond

// sender sends the fleet.
//
// The fleet's clock stands while too much of what it sent is not acknowledged: a
// slow machine makes a slow fleet, not a late one. And the markers of an
// interval go out when all its readings are acknowledged, because a broker that
// sends again what a killed agent had not acknowledged may do so in any order
// (the embedded one does), and a marker says that nothing before it follows.
type sender struct {
	d     *demo
	p     *fleet.Publisher
	ahead int64            // messages that may be under way
	held  []simulate.Event // markers
	due   dataflow.Time    // of held
}

// send lets the fleet send until its time is over.
func (d *demo) send(ctx context.Context) error {
	f, err := simulate.New(d.config)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	p, err := fleet.Connect("mqtt://"+d.broker.Addr(), "demo-fleet", 1)
	if err != nil {
		return err
	}
	s := &sender{d: d, p: p, ahead: max(20, int64(d.opt.Sensors)*perSecond/4)}
	return errors.Join(s.run(ctx, f), p.Close())
}

func (s *sender) run(ctx context.Context, f *simulate.Fleet) error {
	var ev simulate.Event
	timer := time.NewTimer(0)
	defer timer.Stop()
	base, virtual := time.Now(), s.d.config.Start
	for f.Next(&ev) {
		switch wait := dataflow.Duration(ev.At-virtual).Go() - time.Since(base); {
		case wait > 0:
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case wait < -100*time.Millisecond: // it does not hurry afterwards
			base, virtual = time.Now(), ev.At
		}
		if err := s.take(ctx, &ev); err != nil {
			return err
		}
	}
	return s.release(ctx, s.d.config.Start.Add(s.d.config.Duration))
}

// take sends a reading; a marker waits for the readings.
func (s *sender) take(ctx context.Context, ev *simulate.Event) error {
	if len(s.held) > 0 && ev.At >= s.due {
		if err := s.release(ctx, ev.At); err != nil {
			return err
		}
	}
	if err := s.d.gate(ctx, ev.At); err != nil {
		return err
	}
	if ev.Row.Marker {
		if len(s.held) == 0 {
			s.due = ev.At.Add(together)
		}
		m := *ev
		m.Payload = bytes.Clone(ev.Payload)
		s.held = append(s.held, m)
		return nil
	}
	return s.publish(ctx, ev)
}

// release sends the markers that wait, at a time of the fleet's.
func (s *sender) release(ctx context.Context, at dataflow.Time) error {
	if err := s.d.until(ctx, "the readings of an interval to be acknowledged", func() bool { return s.d.underWay() <= 0 }); err != nil {
		return err
	}
	for i := range s.held {
		s.held[i].At = max(s.held[i].At, at)
		if err := s.publish(ctx, &s.held[i]); err != nil {
			return err
		}
	}
	s.held = s.held[:0]
	return nil
}

func (s *sender) publish(ctx context.Context, ev *simulate.Event) error {
	if err := s.d.until(ctx, "messages to be acknowledged", func() bool { return s.d.underWay() < s.ahead }); err != nil {
		return err
	}
	if err := s.p.Publish(ctx, ev.Topic, ev.Payload); err != nil {
		return err
	}
	s.d.record(ev)
	if s.d.opt.sent != nil {
		s.d.opt.sent()
	}
	return nil
}

// record takes note of what was sent.
func (d *demo) record(ev *simulate.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.oracle.Add(ev)
	d.sent++
	d.clock = max(d.clock, ev.At)
	if !ev.Row.Marker && ev.Fault&simulate.Ahead == 0 {
		d.readings[reading{simulate.Name(ev.Sensor), ev.Row.Seq}]++
	}
	for i := range d.faults {
		if ev.Fault&(1<<i) != 0 {
			d.faults[i]++
		}
	}
}

// underWay is how many messages the job's feed has not acknowledged.
func (d *demo) underWay() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent - d.broker.Stats().Acknowledged
}
