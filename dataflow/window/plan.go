package window

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
)

// plan says which accumulators serve a spec's aggregates. Aggregates share
// what they can: the arguments, and the accumulators of an argument (sum and
// avg share a sum). Every table counts its rows; how many of a slot's values
// are not null is that count minus the nulls, so the usual argument without a
// null costs no count of its own.
type plan struct {
	args []argPlan
	accs []accPlan // by argument
	outs []outPlan
}

type argPlan struct {
	expr  *expr.Expr
	col   int // the column that it is, or -1
	typ   batch.Type
	name  string // names its columns in the state: the first aggregate that uses it
	accs  []int
	reads reads
}

// reads says in which forms the accumulators of an argument want its values.
type reads struct{ ints, doubles, bytes, order, ids bool }

type accPlan struct {
	kind accKind
	arg  int
	name string // the first aggregate that uses it
}

type outPlan struct {
	fn  Func
	typ batch.Type
	arg int // -1: count(*)
	acc int // -1: the counts suffice
}

func newPlan(s *Spec) *plan {
	p := &plan{}
	for _, a := range s.Aggregates {
		o := outPlan{fn: a.Func, typ: a.Type(), arg: -1, acc: -1}
		if a.Func != CountRows {
			o.arg = p.argOf(a)
			if k := kindOf(a.Func, a.Arg.Type()); k != 0 {
				o.acc = p.accOf(k, o.arg, a.Name)
			}
		}
		p.outs = append(p.outs, o)
	}
	return p
}

// kindOf is the accumulator behind a function, 0 if it needs none.
func kindOf(f Func, t batch.Type) accKind {
	switch f {
	case Sum, Avg:
		if t == batch.Bigint {
			return sumInts
		}
		return sumDoubles
	case Stddev, Var:
		return moments
	case Min:
		return minimum
	case Max:
		return maximum
	case First:
		return firstValue
	case Last:
		return lastValue
	case CountDistinct:
		return distinct
	}
	return 0
}

func (p *plan) argOf(a Aggregate) int {
	col, is := a.Arg.Column()
	if !is {
		col = -1
	}
	for i, g := range p.args {
		if col >= 0 && g.col == col || col < 0 && g.col < 0 && g.expr.Source() == a.Arg.Source() {
			return i
		}
	}
	p.args = append(p.args, argPlan{expr: a.Arg, col: col, typ: a.Arg.Type(), name: a.Name})
	return len(p.args) - 1
}

func (p *plan) accOf(k accKind, arg int, name string) int {
	g := &p.args[arg]
	for _, i := range g.accs {
		if p.accs[i].kind == k {
			return i
		}
	}
	p.accs = append(p.accs, accPlan{kind: k, arg: arg, name: name})
	g.accs = append(g.accs, len(p.accs)-1)
	switch {
	case k == distinct:
		g.reads.ids = true
	case k == moments || g.typ == batch.Double:
		g.reads.doubles = true
	case g.typ.Variable():
		g.reads.bytes = true
	default:
		g.reads.ints = true
	}
	if k == firstValue || k == lastValue {
		g.reads.order = true
	}
	return len(p.accs) - 1
}
