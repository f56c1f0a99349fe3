package bench

import (
	"context"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// runKeys compares what a row costs with a million keys and with a thousand. In
// both a window has 10 M rows and a round is one window, its firing included:
// ten rows a key, or ten thousand.
func runKeys(ctx context.Context, o Options) ([]Figure, error) {
	s := shape{rows: o.scaled(2_000_000, 500), keys: o.scaled(1_000_000, 100), perSecond: o.scaled(1_000_000, 250), draw: inTurn}
	many := makeInput(s)
	s.keys = o.scaled(1000, 10)
	few := makeInput(s)
	j := &job{window: tumbling(10 * dataflow.Second), time: punctuatedTime()}
	passes := max(1, int(10*int64(dataflow.Second)/s.span()))
	m, err := race(ctx, o, course{id: "scale/keys", warm: passes + 1, passes: passes, rounds: 3},
		contender{"1 M keys", j, many}, contender{"1,000 keys", j, few})
	if err != nil {
		return nil, err
	}
	return []Figure{compare("scale/keys", m[0], m[1], 3)}, nil
}
