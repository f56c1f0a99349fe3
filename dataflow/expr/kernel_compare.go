package expr

import (
	"bytes"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

type number interface{ int64 | float64 }

// bit is 1 for true, without a branch.
func bit(b bool) uint64 {
	var v uint64
	if b {
		v = 1
	}
	return v
}

// span is what a comparison with constants comes down to: is x in [lo, hi],
// both included, or (outside) is it not. NaN is in no span, and a span with a
// NaN for an end is empty: so it differs from everything and is neither less
// nor greater.
type span struct {
	outside  bool
	loI, hiI int64
	loF, hiF float64
}

// spanOfConst is the span of `x op value`.
func spanOfConst(op opcode, t batch.Type, v value) *span {
	s := &span{outside: op == opNe, loI: math.MinInt64, hiI: math.MaxInt64, loF: math.Inf(-1), hiF: math.Inf(1)}
	empty := false
	switch op {
	case opEq, opNe:
		s.loI, s.hiI, s.loF, s.hiF = v.i, v.i, v.f, v.f
	case opLe:
		s.hiI, s.hiF = v.i, v.f
	case opGe:
		s.loI, s.loF = v.i, v.f
	case opLt:
		empty = integral(t) && v.i == math.MinInt64 || t == batch.Double && math.IsInf(v.f, -1)
		s.hiI, s.hiF = v.i-1, math.Nextafter(v.f, math.Inf(-1))
	case opGt:
		empty = integral(t) && v.i == math.MaxInt64 || t == batch.Double && math.IsInf(v.f, 1)
		s.loI, s.loF = v.i+1, math.Nextafter(v.f, math.Inf(1))
	}
	if empty {
		s.loI, s.hiI, s.loF, s.hiF = 1, 0, 1, 0
	}
	return s
}

// bounds is a span of one type. With noHi every number is <= hi, so that >= lo
// says it all (a NaN is neither); noLo likewise.
type bounds[T number] struct {
	lo, hi     T
	noLo, noHi bool
	flip       uint64 // 1: outside
}

func (s *span) ints() bounds[int64] {
	return bounds[int64]{s.loI, s.hiI, s.loI == math.MinInt64, s.hiI == math.MaxInt64, bit(s.outside)}
}

func (s *span) doubles() bounds[float64] {
	return bounds[float64]{s.loF, s.hiF, math.IsInf(s.loF, -1), math.IsInf(s.hiF, 1), bit(s.outside)}
}

// mirrored is the op for which y op x is x op y.
func mirrored(op opcode) opcode {
	switch op {
	case opLt:
		return opGt
	case opLe:
		return opGe
	case opGt:
		return opLt
	case opGe:
		return opLe
	}
	return op
}

// comparison evaluates a comparison of two arguments, or of one with a span.
func (e *Eval) comparison(n *node, sel []int32, dst *batch.Column) {
	x := e.eval(n.args[0], sel)
	if n.span != nil {
		e.valid(dst, x)
		e.spanBits(n.span, x, sel, dst.Bits)
		e.done(n.args[0], x)
		return
	}
	e.compareTo(n.op, x, n.args[1], sel, dst)
	e.done(n.args[0], x)
}

// compareTo compares x with the values of node y.
func (e *Eval) compareTo(op opcode, x *batch.Column, y *node, sel []int32, dst *batch.Column) {
	if y.isConst() && y.typ.Variable() && !y.val.null {
		e.valid(dst, x)
		e.textByConst(op, x, y.val.s, sel, dst.Bits)
		return
	}
	cy := e.eval(y, sel)
	e.valid(dst, x, cy)
	switch y.typ {
	case batch.Boolean:
		compareBits(op, x.Bits, cy.Bits, dst.Bits)
	case batch.Bigint, batch.Timestamp:
		compareNumbers(e, op, x.Ints, cy.Ints, sel, dst.Bits)
	case batch.Double:
		compareNumbers(e, op, x.Doubles, cy.Doubles, sel, dst.Bits)
	default:
		for k := range e.count(sel) {
			p := k
			if sel != nil {
				p = int(sel[k])
			}
			dst.Bits.Put(p, holds(op, bytes.Compare(x.At(p), cy.At(p))))
		}
	}
	e.done(y, cy)
}

// holds tells whether op is true of two values that compare as c.
func holds(op opcode, c int) bool {
	switch op {
	case opEq:
		return c == 0
	case opNe:
		return c != 0
	case opLt:
		return c < 0
	case opLe:
		return c <= 0
	case opGt:
		return c > 0
	}
	return c >= 0
}

func (e *Eval) textByConst(op opcode, x *batch.Column, s string, sel []int32, out batch.Bitmap) {
	ne := op == opNe
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		if v := x.At(p); op == opEq || ne {
			out.Put(p, (string(v) == s) != ne)
		} else {
			out.Put(p, holds(op, compareText(v, s)))
		}
	}
}

// compareText is bytes.Compare for a string, without a copy.
func compareText(b []byte, s string) int {
	switch {
	case string(b) < s:
		return -1
	case string(b) > s:
		return 1
	}
	return 0
}

// compareBits compares booleans, false before true.
func compareBits(op opcode, x, y, out batch.Bitmap) {
	for i := range out {
		a, b := x[i], y[i]
		switch op {
		case opEq:
			out[i] = ^(a ^ b)
		case opNe:
			out[i] = a ^ b
		case opLt:
			out[i] = ^a & b
		case opLe:
			out[i] = ^a | b
		case opGt:
			out[i] = a &^ b
		default:
			out[i] = a | ^b
		}
	}
}

func compareNumbers[T number](e *Eval, op opcode, x, y []T, sel []int32, out batch.Bitmap) {
	if op == opGt || op == opGe {
		op, x, y = mirrored(op), y, x
	}
	if !e.dense(sel) {
		for _, p := range sel {
			out.Put(int(p), numbersHold(op, x[p], y[p]))
		}
		return
	}
	for w := range out {
		from := w * 64
		to := min(from+64, e.n)
		out[w] = compareWord(op, x[from:to], y[from:to])
	}
}

// numbersHold knows opEq, opNe, opLt and opLe.
func numbersHold[T number](op opcode, x, y T) bool {
	switch op {
	case opEq:
		return x == y
	case opNe:
		return x != y
	case opLt:
		return x < y
	}
	return x <= y
}

// compareWord compares up to 64 values.
func compareWord[T number](op opcode, x, y []T) (w uint64) {
	y = y[:len(x)]
	switch op {
	case opEq:
		for i, v := range x {
			w |= bit(v == y[i]) << (uint(i) & 63)
		}
	case opNe:
		for i, v := range x {
			w |= bit(v != y[i]) << (uint(i) & 63)
		}
	case opLt:
		for i, v := range x {
			w |= bit(v < y[i]) << (uint(i) & 63)
		}
	default:
		for i, v := range x {
			w |= bit(v <= y[i]) << (uint(i) & 63)
		}
	}
	return w
}

// spanBits sets the bits of the values in s.
func (e *Eval) spanBits(s *span, x *batch.Column, sel []int32, out batch.Bitmap) {
	if x.Type == batch.Double {
		inSpan(e, x.Doubles, s.doubles(), sel, out)
	} else {
		inSpan(e, x.Ints, s.ints(), sel, out)
	}
}

func inSpan[T number](e *Eval, x []T, s bounds[T], sel []int32, out batch.Bitmap) {
	if !e.dense(sel) {
		for _, p := range sel {
			out.Put(int(p), bit(x[p] >= s.lo)&bit(x[p] <= s.hi) != s.flip)
		}
		return
	}
	for w := range out {
		out[w] = spanWord(x[w*64:min(w*64+64, e.n)], s.lo, s.hi) ^ -s.flip
	}
}

// spanWord is the bits of up to 64 values, eight in one go.
func spanWord[T number](x []T, lo, hi T) (w uint64) {
	i := 0
	for ; i+8 <= len(x); i += 8 {
		v := (*[8]T)(x[i:])
		b := bit(v[0] >= lo)&bit(v[0] <= hi) |
			bit(v[1] >= lo)&bit(v[1] <= hi)<<1 |
			bit(v[2] >= lo)&bit(v[2] <= hi)<<2 |
			bit(v[3] >= lo)&bit(v[3] <= hi)<<3 |
			bit(v[4] >= lo)&bit(v[4] <= hi)<<4 |
			bit(v[5] >= lo)&bit(v[5] <= hi)<<5 |
			bit(v[6] >= lo)&bit(v[6] <= hi)<<6 |
			bit(v[7] >= lo)&bit(v[7] <= hi)<<7
		w |= b << (uint(i) & 63)
	}
	for ; i < len(x); i++ {
		w |= bit(x[i] >= lo) & bit(x[i] <= hi) << (uint(i) & 63)
	}
	return w
}

// between is x >= low and x <= high, each evaluated once.
func (e *Eval) between(n *node, sel []int32, dst *batch.Column) {
	x := e.eval(n.args[0], sel)
	if n.span != nil {
		e.valid(dst, x)
		e.spanBits(n.span, x, sel, dst.Bits)
		e.done(n.args[0], x)
		return
	}
	high := e.scratch(batch.Boolean)
	e.compareTo(opGe, x, n.args[1], sel, dst)
	e.compareTo(opLe, x, n.args[2], sel, high)
	e.kleene(opAnd, dst, high)
	e.release(high)
	e.done(n.args[0], x)
}

// constSet is the constants of an `in`. Short lists are searched from end to
// end, long ones by hash. A NaN equals nothing and is left out.
type constSet struct {
	null    bool
	ints    []int64
	doubles []float64
	texts   []string
	intSet  map[int64]struct{}
	textSet map[string]struct{}
	rest    []*node // what is no constant, and all booleans
}

const longList = 16

func newConstSet(list []*node) *constSet {
	s := &constSet{intSet: make(map[int64]struct{}), textSet: make(map[string]struct{})}
	for _, n := range list {
		switch {
		case n.isNull():
			s.null = true
		case !n.isConst() || n.typ == batch.Boolean:
			s.rest = append(s.rest, n)
		case integral(n.typ):
			s.ints = append(s.ints, n.val.i)
			s.intSet[n.val.i] = struct{}{}
		case n.typ == batch.Double:
			s.doubles = append(s.doubles, n.val.f)
		default:
			s.texts = append(s.texts, n.val.s)
			s.textSet[n.val.s] = struct{}{}
		}
	}
	slices.Sort(s.doubles)
	return s
}

func (s *constSet) hasInt(v int64) bool {
	if len(s.ints) <= longList {
		return slices.Contains(s.ints, v)
	}
	_, ok := s.intSet[v]
	return ok
}

func (s *constSet) hasDouble(v float64) bool {
	if len(s.doubles) <= longList {
		return slices.Contains(s.doubles, v)
	}
	_, ok := slices.BinarySearch(s.doubles, v)
	return ok && v == v
}

func (s *constSet) hasText(v []byte) bool {
	if len(s.texts) <= longList {
		for _, t := range s.texts {
			if string(v) == t {
				return true
			}
		}
		return false
	}
	_, ok := s.textSet[string(v)]
	return ok
}

// in is true if x equals one of the list, else null if x or one of the list is
// null, else false.
func (e *Eval) in(n *node, sel []int32, dst *batch.Column) {
	x := e.eval(n.args[0], sel)
	e.valid(dst, x)
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		switch x.Type {
		case batch.Boolean:
			dst.Bits.Clear(p)
		case batch.Double:
			dst.Bits.Put(p, n.set.hasDouble(x.Doubles[p]))
		case batch.Bigint, batch.Timestamp:
			dst.Bits.Put(p, n.set.hasInt(x.Ints[p]))
		default:
			dst.Bits.Put(p, n.set.hasText(x.At(p)))
		}
	}
	if n.set.null { // not found is unknown
		if dst.Valid == nil {
			copy(dst.NewValid(e.n), dst.Bits)
		} else {
			for i, w := range dst.Bits {
				dst.Valid[i] &= w
			}
		}
	}
	for _, y := range n.set.rest {
		same := e.scratch(batch.Boolean)
		e.compareTo(opEq, x, y, sel, same)
		e.kleene(opOr, dst, same)
		e.release(same)
	}
	e.done(n.args[0], x)
}
