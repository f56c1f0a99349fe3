package bench

import (
	"context"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
)

// runDevices compares a watermark for each device with one for all of them,
// over the same rows. The keys are the devices. They come in turn, each time in
// another order, so 100,000 of them are heard of at most 1.8 s after the last
// time. A tenth is silent for 5 s, and so left out after 2 s, and comes back
// while another tenth is silent.
func runDevices(ctx context.Context, o Options) ([]Figure, error) {
	one, each := deviceTimes()
	var figures []Figure
	for _, n := range []struct {
		id   string
		keys int
		bar  float64
	}{{"devices/1k", 1000, 1.5}, {"devices/100k", 100_000, 3}} {
		s := o.engineShape()
		s.keys, s.draw = o.scaled(n.keys, 20), silent
		in := makeInput(s)
		// Two passes first: a device is silent in at most one of them.
		m, err := race(ctx, o, course{id: n.id, warm: 2, passes: 1, rounds: 9},
			contender{"a watermark a device", &job{window: tumbling(engineWindow), time: each, arrivals: true}, in},
			contender{"one watermark", &job{window: tumbling(engineWindow), time: one, arrivals: true}, in})
		if err != nil {
			return nil, err
		}
		figures = append(figures, compare(n.id, m[0], m[1], n.bar))
	}
	return figures, nil
}

// deviceTimes is one watermark for all devices, and one for each.
func deviceTimes() (one, each eventtime.Config) {
	one = eventtime.Config{Strategy: eventtime.Bounded, Bound: 100 * dataflow.Millisecond}
	each = one
	each.PerDevice, each.IdleAfter = true, 2*dataflow.Second
	return one, each
}
