package expr

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

// time runs the functions of one timestamp.
func (e *Eval) time(n *node, sel []int32, dst *batch.Column) {
	c := e.eval(n.args[0], sel)
	e.valid(dst, c)
	x, out := c.Ints, dst.Ints
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		v, f := x[p], noFault
		switch n.op {
		case opExtract:
			v = extractUnit(n.unit, v)
		case opToMillis:
			v = floorDiv(v, 1000)
		case opFromMillis:
			v, f = intOp(opMul, v, 1000)
		default:
			t, ok := truncate(n.unit, v)
			v = t
			if !ok {
				f = overflow
			}
		}
		out[p] = v
		if f != noFault && !dst.IsNull(p) {
			e.null(dst, p, f)
		}
	}
	e.done(n.args[0], c)
}
