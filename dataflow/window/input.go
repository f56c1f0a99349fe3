package window

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// input is the batch being processed as the tables want it: each argument
// evaluated once, and its values lined up for the run of rows at hand.
type input struct {
	plan  *plan
	evals []*expr.Eval      // by argument; nil: it is a column
	own   []*batch.Column   // by argument: where the evaluated values go
	cols  []*batch.Column   // by argument: the values of the batch
	dicts []*state.KeyTable // by argument; nil unless distinct
	runs  []run             // by argument
	times []int64           // the batch's event times
	seq   int64             // order of arrival of the batch's first position

	hashes []uint64
	one    [1]*batch.Column
}

// run is one argument over a run of rows.
type run struct {
	v    values
	keep []int32 // which rows of the run have a value; meaningless without nulls
	gone []int32 // which have none

	ints    []int64 // memory of v
	doubles []float64
	times   []int64
	seqs    []int64
	pos     []int32
	ids     []int32
}

func newInput(p *plan) *input {
	in := &input{plan: p, runs: make([]run, len(p.args))}
	for i := range p.args {
		a := &p.args[i]
		var e *expr.Eval
		if a.col < 0 {
			e = a.expr.NewEval()
		}
		var d *state.KeyTable
		if a.reads.ids {
			d = state.NewKeyTable([]batch.Type{a.typ})
		}
		in.evals = append(in.evals, e)
		in.own = append(in.own, &batch.Column{Type: a.typ})
		in.cols = append(in.cols, nil)
		in.dicts = append(in.dicts, d)
	}
	return in
}

// begin evaluates the arguments over b. A cast that cannot be done gives null.
func (in *input) begin(b *batch.Batch, c *operator.Counters) {
	in.times = b.Times
	for i, e := range in.evals {
		if e == nil {
			in.cols[i] = b.Cols[in.plan.args[i].col]
			continue
		}
		e.Into(b, in.own[i])
		in.cols[i] = in.own[i]
		c.DivByZero += e.DivByZero
		c.Overflow += e.Overflow
		e.DivByZero, e.Overflow = 0, 0
	}
}

// end forgets the batch.
func (in *input) end(rows int) {
	in.seq += int64(rows)
	in.times = nil
	for i := range in.cols {
		in.cols[i] = nil
	}
}

// line lines up the values of the rows at the positions.
func (in *input) line(pos []int32) {
	for i := range in.runs {
		r, c := &in.runs[i], in.cols[i]
		r.keep, r.gone = r.keep[:0], r.gone[:0]
		p := pos
		if c.Valid != nil {
			r.pos = r.pos[:0]
			for k, q := range pos {
				if c.Valid.Get(int(q)) {
					r.keep = append(r.keep, int32(k))
					r.pos = append(r.pos, q)
				} else {
					r.gone = append(r.gone, int32(k))
				}
			}
			if len(r.gone) > 0 {
				p = r.pos
			}
		}
		in.fill(r, &in.plan.args[i], in.dicts[i], c, p)
	}
}

// fill gathers the values at the positions; values that stand together already
// are not copied.
func (in *input) fill(r *run, a *argPlan, dict *state.KeyTable, c *batch.Column, pos []int32) {
	n := len(pos)
	r.v.col, r.v.pos = c, pos
	if n == 0 {
		r.v = values{}
		return
	}
	from := int(pos[0])
	dense := int(pos[n-1])-from == n-1
	if a.reads.ints || a.reads.doubles && a.typ != batch.Double {
		switch {
		case dense && a.typ != batch.Boolean:
			r.v.ints = c.Ints[from : from+n]
		default:
			r.ints = sized(r.ints, n)
			for i, p := range pos {
				r.ints[i] = fixedAt(c, int(p))
			}
			r.v.ints = r.ints
		}
	}
	if a.reads.doubles {
		r.fillDoubles(a, c, pos, dense)
	}
	if a.reads.order {
		r.times, r.seqs = sized(r.times, n), sized(r.seqs, n)
		for i, p := range pos {
			r.times[i], r.seqs[i] = in.times[p], in.seq+int64(p)
		}
		r.v.times, r.v.seqs = r.times, r.seqs
	}
	if a.reads.ids {
		in.hashes, r.ids = sized(in.hashes, n), sized(r.ids, n)
		in.one[0] = c
		state.HashColumn(c, pos, in.hashes)
		dict.Lookup(in.one[:], pos, in.hashes, r.ids)
		r.v.ids = r.ids
	}
}

func (r *run) fillDoubles(a *argPlan, c *batch.Column, pos []int32, dense bool) {
	n := len(pos)
	if a.typ == batch.Double && dense {
		r.v.doubles = c.Doubles[pos[0] : int(pos[0])+n]
		return
	}
	r.doubles = sized(r.doubles, n)
	if a.typ == batch.Double {
		x := c.Doubles
		for i, p := range pos {
			r.doubles[i] = x[p]
		}
	} else {
		for i, x := range r.v.ints {
			r.doubles[i] = float64(x)
		}
	}
	r.v.doubles = r.doubles
}
