package window

import (
	"cmp"
	"slices"

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
	name  string // names its columns in the state: what the expression is, however it is written
	accs  []int
	reads reads
}

// reads says in which forms the accumulators of an argument want its values.
type reads struct{ ints, doubles, bytes, order, ids bool }

type accPlan struct {
	kind accKind
	arg  int
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
			o.arg = p.argOf(a, s.Input)
			if k := kindOf(a.Func, a.Arg.Type()); k != 0 {
				o.acc = p.accOf(k, o.arg)
			}
		}
		p.outs = append(p.outs, o)
	}
	p.sort()
	return p
}

// sort puts arguments and accumulators in the order of what they are, so that
// the state does not depend on the order of the aggregates.
func (p *plan) sort() {
	args := order(p.args, func(a, b argPlan) int { return cmp.Compare(a.name, b.name) })
	for i := range p.accs {
		p.accs[i].arg = args[p.accs[i].arg]
	}
	accs := order(p.accs, func(a, b accPlan) int { return cmp.Or(cmp.Compare(a.arg, b.arg), cmp.Compare(a.kind, b.kind)) })
	for i := range p.args {
		p.args[i].accs = p.args[i].accs[:0]
	}
	for i, a := range p.accs {
		p.args[a.arg].accs = append(p.args[a.arg].accs, i)
	}
	for i := range p.outs {
		if o := &p.outs[i]; o.arg >= 0 {
			o.arg = args[o.arg]
			if o.acc >= 0 {
				o.acc = accs[o.acc]
			}
		}
	}
}

// order sorts s and says where each element went.
func order[T any](s []T, compare func(a, b T) int) (to []int) {
	from := make([]int, len(s))
	for i := range from {
		from[i] = i
	}
	slices.SortStableFunc(from, func(a, b int) int { return compare(s[a], s[b]) })
	old := slices.Clone(s)
	to = make([]int, len(s))
	for i, f := range from {
		s[i], to[f] = old[f], i
	}
	return to
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

func (p *plan) argOf(a Aggregate, in *batch.Schema) int {
	col, is := a.Arg.Column()
	if !is {
		col = -1
	}
	name := a.Arg.Canonical(in)
	for i, g := range p.args {
		if g.col == col && g.name == name {
			return i
		}
	}
	p.args = append(p.args, argPlan{expr: a.Arg, col: col, typ: a.Arg.Type(), name: name})
	return len(p.args) - 1
}

func (p *plan) accOf(k accKind, arg int) int {
	g := &p.args[arg]
	for _, i := range g.accs {
		if p.accs[i].kind == k {
			return i
		}
	}
	p.accs = append(p.accs, accPlan{kind: k, arg: arg})
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
