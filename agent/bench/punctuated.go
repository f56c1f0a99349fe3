package bench

import "context"

// runPunctuated compares the job with a marker after every row, or after every
// 100, with the job without markers but for one at the end of each batch. The
// columns are the same.
func runPunctuated(ctx context.Context, o Options) ([]Figure, error) {
	s := o.engineShape()
	inputs := []*input{makeInput(s)}
	for _, every := range []int{1, 100} {
		s.markEvery = every
		inputs = append(inputs, makeInput(s))
	}
	var figures []Figure
	for _, p := range []struct {
		parallelism int
		suffix      string
	}{{1, ""}, {4, "-p4"}} {
		for _, in := range inputs {
			in.shift(0)
		}
		j := &job{window: tumbling(engineWindow), time: punctuatedTime(), parallelism: p.parallelism}
		m, err := race(ctx, o, course{id: "punctuated" + p.suffix, warm: 2, passes: 1, rounds: 9},
			contender{"a marker a batch", j, inputs[0]}, contender{"a marker a row", j, inputs[1]}, contender{"a marker each 100 rows", j, inputs[2]})
		if err != nil {
			return nil, err
		}
		figures = append(figures, compare("punctuated/1"+p.suffix, m[1], m[0], 2), compare("punctuated/100"+p.suffix, m[2], m[0], 1.1))
	}
	return figures, nil
}
