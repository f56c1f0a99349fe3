package expr

import (
	"math/bits"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// kleene combines acc with x by three-valued and/or, in acc: what decides
// (false for and, true for or) wins over null.
func (e *Eval) kleene(op opcode, acc, x *batch.Column) {
	w := batch.Words(e.n)
	if acc.Valid == nil && x.Valid == nil {
		for i, v := range x.Bits[:w] {
			if op == opAnd {
				acc.Bits[i] &= v
			} else {
				acc.Bits[i] |= v
			}
		}
		return
	}
	if acc.Valid == nil {
		v := acc.NewValid(e.n)
		for i := range v {
			v[i] = ^uint64(0)
		}
	}
	for i := range w {
		va, vx := acc.Valid[i], ^uint64(0)
		if x.Valid != nil {
			vx = x.Valid[i]
		}
		t1, f1 := acc.Bits[i]&va, va&^acc.Bits[i]
		t2, f2 := x.Bits[i]&vx, vx&^x.Bits[i]
		t, f := t1&t2, f1|f2
		if op == opOr {
			t, f = t1|t2, f1&f2
		}
		acc.Bits[i], acc.Valid[i] = t, t|f
	}
}

// junction evaluates and, or. An argument that may fail is evaluated only
// where those before it have not decided.
func (e *Eval) junction(n *node, sel []int32, dst *batch.Column) {
	e.into(n.args[0], sel, dst)
	narrow := e.selection(e.count(sel))
	for _, a := range n.args[1:] {
		s := sel
		if a.fails {
			narrow = e.undecided(n.op, dst, sel, narrow[:0])
			s = narrow
		}
		x := e.eval(a, s)
		e.kleene(n.op, dst, x)
		e.done(a, x)
	}
	e.releaseSelection(narrow)
}

// undecided appends the positions where acc is not yet false (for and) or not
// yet true (for or).
func (e *Eval) undecided(op opcode, acc *batch.Column, sel, dst []int32) []int32 {
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		if acc.IsNull(p) || acc.Bits.Get(p) == (op == opAnd) {
			dst = append(dst, int32(p))
		}
	}
	return dst
}

func (e *Eval) not(n *node, sel []int32, dst *batch.Column) {
	e.into(n.args[0], sel, dst)
	for i := range dst.Bits {
		dst.Bits[i] = ^dst.Bits[i]
	}
}

// is evaluates the tests that are never null themselves.
func (e *Eval) is(n *node, sel []int32, dst *batch.Column) {
	x := e.eval(n.args[0], sel)
	for i := range dst.Bits {
		v := ^uint64(0)
		if x.Valid != nil {
			v = x.Valid[i]
		}
		switch n.op {
		case opIsNull:
			v = ^v
		case opIsTrue:
			v &= x.Bits[i]
		case opIsFalse:
			v &^= x.Bits[i]
		}
		dst.Bits[i] = v
	}
	e.done(n.args[0], x)
}

// selectTrue appends the positions of sel where n is true. dst has room.
func (e *Eval) selectTrue(n *node, sel []int32, dst []int32) []int32 {
	switch {
	case n.span != nil:
		x := e.eval(n.args[0], sel)
		if x.Type == batch.Double {
			dst = selectSpan(x.Doubles[:e.n], n.span.doubles(), x.Valid, sel, dst)
		} else {
			dst = selectSpan(x.Ints[:e.n], n.span.ints(), x.Valid, sel, dst)
		}
		e.done(n.args[0], x)
		return dst
	case n.op == opAnd && !n.laterFails():
		a, b := e.selection(e.count(sel)), e.selection(e.count(sel))
		for _, x := range n.args[:len(n.args)-1] {
			a = e.selectTrue(x, sel, a[:0])
			sel = a
			a, b = b, a
		}
		dst = e.selectTrue(n.args[len(n.args)-1], sel, dst)
		e.releaseSelection(a)
		e.releaseSelection(b)
		return dst
	}
	c := e.eval(n, sel)
	dst = e.selectBits(c, sel, dst)
	e.done(n, c)
	return dst
}

// laterFails tells whether an argument after the first may fail. Such a one
// is evaluated where those before it are null, too, which narrowing to what is
// true would leave out.
func (n *node) laterFails() bool {
	for _, a := range n.args[1:] {
		if a.fails {
			return true
		}
	}
	return false
}

// selectSpan stores every position and moves on only past those it keeps, so
// that there is no branch to predict.
func selectSpan[T number](x []T, s bounds[T], valid batch.Bitmap, sel, dst []int32) []int32 {
	k := len(dst)
	lo, hi, flip := s.lo, s.hi, s.flip
	switch {
	case sel != nil && valid == nil:
		room := dst[:k+len(sel)]
		for _, p := range sel {
			room[k] = p
			k += int(bit(x[p] >= lo)&bit(x[p] <= hi) ^ flip)
		}
	case sel != nil:
		room := dst[:k+len(sel)]
		for _, p := range sel {
			room[k] = p
			k += int((bit(x[p] >= lo)&bit(x[p] <= hi) ^ flip) & (valid[uint(p)/64] >> (uint(p) % 64)))
		}
	case valid != nil:
		room := dst[:k+len(x)]
		for from := 0; from < len(x); from += 64 {
			there := valid[from/64]
			for i, v := range x[from:min(from+64, len(x))] {
				room[k] = int32(from + i)
				k += int((bit(v >= lo)&bit(v <= hi) ^ flip) & there) // its lowest bit is this row's
				there >>= 1
			}
		}
	case s.noHi && flip == 0: // one comparison a row is enough
		room := dst[:k+len(x)]
		for i, v := range x {
			room[k] = int32(i)
			k += int(bit(v >= lo))
		}
	case s.noLo && flip == 0:
		room := dst[:k+len(x)]
		for i, v := range x {
			room[k] = int32(i)
			k += int(bit(v <= hi))
		}
	default:
		room := dst[:k+len(x)]
		for i, v := range x {
			room[k] = int32(i)
			k += int(bit(v >= lo)&bit(v <= hi) ^ flip)
		}
	}
	return dst[:k]
}

// selectBits appends the positions where a boolean column is true.
func (e *Eval) selectBits(c *batch.Column, sel, dst []int32) []int32 {
	if sel != nil {
		for _, p := range sel {
			if c.Bits.Get(int(p)) && !c.IsNull(int(p)) {
				dst = append(dst, p)
			}
		}
		return dst
	}
	for i := range batch.Words(e.n) {
		w := c.Bits[i]
		if c.Valid != nil {
			w &= c.Valid[i]
		}
		if rest := e.n - i*64; rest < 64 {
			w &= 1<<uint(rest) - 1
		}
		for ; w != 0; w &= w - 1 {
			dst = append(dst, int32(i*64+bits.TrailingZeros64(w)))
		}
	}
	return dst
}
