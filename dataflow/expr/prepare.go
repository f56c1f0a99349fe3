package expr

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// fold replaces what depends on no column by its value. What would count a
// fault is left to be counted for each row; a row error is known now, and the
// expression is refused.
func fold(src string, n *node) (*node, *Error) {
	constant := len(n.args) > 0
	for i, a := range n.args {
		folded, err := fold(src, a)
		if err != nil {
			return nil, err
		}
		n.args[i] = folded
		constant = constant && folded.isConst()
	}
	if !constant {
		return n, nil
	}
	e := &Expr{source: src, root: n}
	e.prepare(n)
	var out batch.Column
	ev := e.NewEval()
	ev.Into(&batch.Batch{Rows: 1}, &out)
	if errs := ev.Errors(); len(errs) > 0 {
		return nil, &Error{Source: src, Pos: n.pos, Msg: errs[0].Reason}
	}
	if ev.DivByZero != 0 || ev.Overflow != 0 {
		return n, nil
	}
	return &node{op: opConst, typ: n.typ, pos: n.pos, val: valueAt(&out, 0)}, nil
}

// valueAt is the value of a column at a position.
func valueAt(c *batch.Column, p int) value {
	if c.IsNull(p) {
		return value{null: true}
	}
	switch c.Type {
	case batch.Boolean:
		return value{b: c.Bits.Get(p)}
	case batch.Bigint, batch.Timestamp:
		return value{i: c.Ints[p]}
	case batch.Double:
		return value{f: c.Doubles[p]}
	}
	return value{s: string(c.At(p))}
}

// prepare fills in what the kernels want to know of n and the nodes below it:
// it is the last pass over the tree.
func (e *Expr) prepare(n *node) {
	n.fails = n.canFail()
	for _, a := range n.args {
		e.prepare(a)
		n.fails = n.fails || a.fails
	}
	switch n.op {
	case opConst:
		n.slot = e.consts
		e.consts++
		n.bytes = []byte(n.val.s)
	case opColumn:
		if i, found := slices.BinarySearch(e.cols, n.col); !found {
			e.cols = slices.Insert(e.cols, i, n.col)
		}
	case opEq, opNe, opLt, opLe, opGt, opGe:
		prepareComparison(n)
	case opBetween:
		prepareBetween(n)
	case opIn:
		n.set = newConstSet(n.args[1:])
	case opLike:
		if p := n.args[1]; p.isConst() && !p.val.null {
			n.like = newMatcher(p.val.s, n.escape)
		}
	}
}

// canFail tells whether the operation itself may count a fault or list an error.
func (n *node) canFail() bool {
	if n.op == opConst || n.op == opColumn {
		return false
	}
	if n.typ.Variable() {
		return true // its text may be too long
	}
	switch n.op {
	case opAdd, opSub, opMul, opDiv, opMod, opNeg, opAbs, opRound:
		return integral(n.typ)
	case opCast:
		from := n.args[0].typ
		return from == batch.String || from == batch.Double && n.typ == batch.Bigint
	case opDateTrunc, opFromMillis:
		return true
	}
	return false
}

// spannable tells whether n is a constant that a span can hold.
func spannable(n *node) bool {
	return n.isConst() && !n.val.null && (integral(n.typ) || n.typ == batch.Double)
}

// prepareComparison moves a constant to the right and makes a span of it.
func prepareComparison(n *node) {
	if n.args[0].isConst() && !n.args[1].isConst() {
		n.op = mirrored(n.op)
		n.args[0], n.args[1] = n.args[1], n.args[0]
	}
	if y := n.args[1]; spannable(y) {
		n.span = spanOfConst(n.op, y.typ, y.val)
	}
}

func prepareBetween(n *node) {
	if !spannable(n.args[1]) || !spannable(n.args[2]) {
		return
	}
	low, high := spanOfConst(opGe, n.args[1].typ, n.args[1].val), spanOfConst(opLe, n.args[2].typ, n.args[2].val)
	n.span = &span{loI: low.loI, hiI: high.hiI, loF: low.loF, hiF: high.hiF}
}
