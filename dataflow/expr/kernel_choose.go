package expr

import (
	"bytes"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// arm is a source of values for some rows: a constant, or a column.
type arm struct {
	n   *node
	col *batch.Column // nil: the constant n
}

func (e *Eval) arm(n *node, sel []int32) arm {
	if n.isConst() {
		return arm{n: n}
	}
	return arm{n, e.eval(n, sel)}
}

func (a arm) isNull(p int) bool {
	if a.col == nil {
		return a.n.val.null
	}
	return a.col.IsNull(p)
}

func (a arm) text(p int) []byte {
	if a.col == nil {
		return a.n.bytes
	}
	return a.col.At(p)
}

// chooser puts dst together from several arms, each row from one of them.
// Fixed-width values are copied as soon as an arm is known; texts must be
// written in order of position, so which arm each row takes is noted first.
type chooser struct {
	e    *Eval
	dst  *batch.Column
	sel  []int32
	base int      // of its arms in e.arms
	pick []uint16 // texts: arm of each position
}

func (e *Eval) choose(sel []int32, dst *batch.Column) chooser {
	c := chooser{e: e, dst: dst, sel: sel, base: len(e.arms)}
	if dst.Type.Variable() {
		if l := len(e.picks); l > 0 {
			c.pick = e.picks[l-1]
			e.picks = e.picks[:l-1]
		}
		if len(c.pick) < e.n {
			c.pick = make([]uint16, e.n)
		}
	}
	return c
}

// take gives the rows at match the values of n, evaluated there only.
func (c *chooser) take(n *node, match []int32) {
	if len(match) == 0 {
		return
	}
	if c.pick != nil {
		c.note(c.e.arm(n, match), match)
		return
	}
	col := c.e.eval(n, match)
	copyFixed(c.dst, col, match, c.e.n)
	c.e.done(n, col)
}

// note remembers that the rows at match take the text of a.
func (c *chooser) note(a arm, match []int32) {
	for _, p := range match {
		c.pick[p] = uint16(len(c.e.arms) - c.base)
	}
	c.e.arms = append(c.e.arms, a)
}

// takeColumn gives the rows at match the values of col, which n evaluated to,
// and takes over col.
func (c *chooser) takeColumn(n *node, col *batch.Column, match []int32) {
	if c.pick != nil {
		c.note(arm{n, col}, match)
		return
	}
	copyFixed(c.dst, col, match, c.e.n)
	c.e.done(n, col)
}

// finish writes the texts and gives back the arms.
func (c *chooser) finish() {
	if c.pick == nil {
		return
	}
	arms := c.e.arms[c.base:]
	for k := range c.e.count(c.sel) {
		p := k
		if c.sel != nil {
			p = int(c.sel[k])
		}
		a := arms[c.pick[p]]
		padTo(c.dst, p)
		if a.isNull(p) {
			c.dst.SetNull(p, c.e.n)
		} else {
			c.dst.Data = append(c.dst.Data, a.text(p)...)
		}
		c.e.endText(c.dst, p)
	}
	padTo(c.dst, c.e.n)
	for _, a := range arms {
		if a.col != nil {
			c.e.done(a.n, a.col)
		}
	}
	c.e.arms = c.e.arms[:c.base]
	c.e.picks = append(c.e.picks, c.pick)
}

// copyFixed copies values of fixed width at the positions, nulls too; dst has
// n positions.
func copyFixed(dst, src *batch.Column, at []int32, n int) {
	switch dst.Type {
	case batch.Boolean:
		for _, p := range at {
			dst.Bits.Put(int(p), src.Bits.Get(int(p)))
		}
	case batch.Double:
		for _, p := range at {
			dst.Doubles[p] = src.Doubles[p]
		}
	default:
		for _, p := range at {
			dst.Ints[p] = src.Ints[p]
		}
	}
	if src.Valid == nil {
		return
	}
	for _, p := range at {
		if !src.Valid.Get(int(p)) {
			dst.SetNull(int(p), n)
		}
	}
}

// caseOf evaluates both forms of case: each condition where none before it was
// true, each value where its condition is.
func (e *Eval) caseOf(n *node, sel []int32, dst *batch.Column) {
	args := n.args
	var of *batch.Column
	if n.op == opSwitch {
		of = e.eval(args[0], sel)
		args = args[1:]
	}
	rest := append(e.selection(e.count(sel)), e.positions(sel)...)
	match := e.selection(len(rest))
	c := e.choose(sel, dst)
	for ; len(args) > 1 && len(rest) > 0; args = args[2:] {
		cond := e.scratch(batch.Boolean)
		if of != nil {
			e.compareTo(opEq, of, args[0], rest, cond)
		} else {
			e.into(args[0], rest, cond)
		}
		match = match[:0]
		k := 0
		for _, p := range rest {
			if cond.Bits.Get(int(p)) && !cond.IsNull(int(p)) {
				match = append(match, p)
			} else {
				rest[k] = p
				k++
			}
		}
		rest = rest[:k]
		e.release(cond)
		c.take(args[1], match)
	}
	c.take(args[len(args)-1], rest)
	c.finish()
	e.releaseSelection(rest)
	e.releaseSelection(match)
	if of != nil {
		e.done(n.args[0], of)
	}
}

// coalesce evaluates each argument where all those before it are null.
func (e *Eval) coalesce(n *node, sel []int32, dst *batch.Column) {
	rest := append(e.selection(e.count(sel)), e.positions(sel)...)
	match := e.selection(len(rest))
	c := e.choose(sel, dst)
	for i, a := range n.args {
		if i == len(n.args)-1 {
			c.take(a, rest)
			break
		}
		if len(rest) == 0 {
			break
		}
		col := e.eval(a, rest)
		match = match[:0]
		k := 0
		for _, p := range rest {
			if col.IsNull(int(p)) {
				rest[k] = p
				k++
			} else {
				match = append(match, p)
			}
		}
		rest = rest[:k]
		c.takeColumn(a, col, match)
	}
	c.finish()
	e.releaseSelection(rest)
	e.releaseSelection(match)
}

// nullif is the first argument, or null where both are equal.
func (e *Eval) nullif(n *node, sel []int32, dst *batch.Column) {
	x := e.eval(n.args[0], sel)
	same := e.scratch(batch.Boolean)
	e.compareTo(opEq, x, n.args[1], sel, same)
	at := e.positions(sel)
	if !dst.Type.Variable() {
		copyFixed(dst, x, at, e.n)
	}
	for _, p := range at {
		equal := same.Bits.Get(int(p)) && !same.IsNull(int(p))
		if dst.Type.Variable() {
			padTo(dst, int(p))
			if !equal {
				dst.Data = append(dst.Data, x.At(int(p))...)
			}
			if x.IsNull(int(p)) {
				dst.SetNull(int(p), e.n)
			}
			e.endText(dst, int(p))
		}
		if equal {
			dst.SetNull(int(p), e.n)
		}
	}
	if dst.Type.Variable() {
		padTo(dst, e.n)
	}
	e.release(same)
	e.done(n.args[0], x)
}

// extreme is least and greatest; nulls are left out. A NaN is greater than
// every number.
func (e *Eval) extreme(n *node, sel []int32, dst *batch.Column) {
	at := e.positions(sel)
	greatest := n.op == opGreatest
	if dst.Type.Variable() {
		e.extremeText(n, greatest, sel, dst)
		return
	}
	for i, a := range n.args {
		x := e.eval(a, sel)
		switch {
		case i == 0:
			copyFixed(dst, x, at, e.n)
		case dst.Type == batch.Boolean:
			for _, p := range at {
				p := int(p)
				if !x.IsNull(p) && (dst.IsNull(p) || dst.Bits.Get(p) != greatest && x.Bits.Get(p) == greatest) {
					dst.Bits.Put(p, x.Bits.Get(p))
					setValid(dst, p)
				}
			}
		case dst.Type == batch.Double:
			extremeOf(dst, x, dst.Doubles, x.Doubles, greatest, at)
		default:
			extremeOf(dst, x, dst.Ints, x.Ints, greatest, at)
		}
		e.done(a, x)
	}
}

func extremeOf[T number](dst, x *batch.Column, best, v []T, greatest bool, at []int32) {
	for _, p := range at {
		if x.IsNull(int(p)) {
			continue
		}
		a, b := best[p], v[p]
		if dst.IsNull(int(p)) || greatest && above(b, a) || !greatest && above(a, b) {
			best[p] = b
			setValid(dst, int(p))
		}
	}
}

// above is a > b with NaN on top.
func above[T number](a, b T) bool { return a > b || a != a && b == b }

func setValid(c *batch.Column, p int) {
	if c.Valid != nil {
		c.Valid.Set(p)
	}
}

func (e *Eval) extremeText(n *node, greatest bool, sel []int32, dst *batch.Column) {
	c := e.choose(sel, dst)
	at := e.positions(sel)
	for i, a := range n.args {
		x := e.arm(a, sel)
		if i == 0 {
			c.note(x, at)
			continue
		}
		for _, p := range at {
			if x.isNull(int(p)) {
				continue
			}
			best := e.arms[c.base+int(c.pick[p])]
			if best.isNull(int(p)) || (bytes.Compare(x.text(int(p)), best.text(int(p))) > 0) == greatest {
				c.pick[p] = uint16(i)
			}
		}
		e.arms = append(e.arms, x)
	}
	c.finish()
}
