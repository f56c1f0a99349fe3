package bench

import (
	"context"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// runSliding compares sliding windows with tumbling ones of their slide, over
// the same input, once the first window is full. The rounds go over a whole
// window, because the sums of slices are turned round once a window.
func runSliding(ctx context.Context, o Options) ([]Figure, error) {
	var figures []Figure
	for _, c := range slidingCases(o) {
		in := makeInput(c.shape)
		beside := &job{window: tumbling(dataflow.Second), time: punctuatedTime()}
		m, err := race(ctx, o, course{id: c.id, warm: c.warm(), passes: 1, rounds: max(c.window, 12)},
			contender{"sliding", c.job(), in}, contender{"tumbling", beside, in})
		if err != nil {
			return nil, err
		}
		figures = append(figures, compare(c.id, m[0], m[1], c.bar))
	}
	return figures, nil
}

// slidingCase is one size of window.
type slidingCase struct {
	id     string
	shape  shape
	size   dataflow.Duration
	window int // passes that a window is long
	bar    float64
}

// slidingCases: in the second one event time goes on by 1 ms each 20 rows, so
// that each of its 600 slices has about 8,600 of the 10,000 keys.
func slidingCases(o Options) []slidingCase {
	ten := shape{rows: o.scaled(600_000, 600), keys: o.scaled(10_000, 10), perSecond: o.scaled(20_000, 20)}
	return []slidingCase{
		{"engine-sliding/60s", o.engineShape(), 60 * dataflow.Second, 6, 1.5},
		{"engine-sliding/10m", ten, 600 * dataflow.Second, 20, 3},
	}
}

// warm is the passes before the first window is full.
func (c slidingCase) warm() int { return c.window + 1 }

func (c slidingCase) job() *job {
	return &job{window: sliding(c.size, dataflow.Second), time: punctuatedTime()}
}
