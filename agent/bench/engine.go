package bench

import (
	"context"
	"errors"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// engineShape: 1,000 keys, event time goes on by 1 ms each 100 rows.
func (o Options) engineShape() shape {
	return shape{rows: o.scaled(1_000_000, 1000), keys: o.scaled(1000, 10), perSecond: o.scaled(100_000, 100)}
}

const engineWindow = 10 * dataflow.Second

// runEngine compares the job with a hand-written loop over structs.
func runEngine(ctx context.Context, o Options) (_ []Figure, err error) {
	defer oneCore()()
	s := o.engineShape()
	s.structs = true
	in := makeInput(s)
	j := &job{window: tumbling(engineWindow), time: punctuatedTime()}
	engine, err := j.open(in, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.close()) }()
	var results int64
	hand := newLoop(int64(engineWindow), func(r []result) { results += int64(len(r)) })
	m, err := course{id: "engine", rows: s.rows, warm: 2, passes: 1, rounds: 11, ready: in.shift}.run(ctx, o,
		side{"engine", engine.pass},
		side{"hand-written loop", func() error { hand.rows(in.structs); return nil }})
	if err != nil {
		return nil, err
	}
	if results == 0 || hand.late > 0 {
		return nil, errors.New("bench engine: the loop is wrong")
	}
	return []Figure{compare("engine", m[0], m[1], 2.5)}, nil
}
