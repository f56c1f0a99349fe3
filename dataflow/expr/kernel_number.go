package expr

import (
	"math"
	"math/bits"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// operands evaluates the two arguments of n and gives dst their validity.
func (e *Eval) operands(n *node, sel []int32, dst *batch.Column) (x, y *batch.Column) {
	x = e.eval(n.args[0], sel)
	y = e.eval(n.args[1], sel)
	e.valid(dst, x, y)
	return x, y
}

func (e *Eval) arithmeticDouble(n *node, sel []int32, dst *batch.Column) {
	cx, cy := e.operands(n, sel, dst)
	if e.dense(sel) {
		if a := n.args[1]; a.isConst() {
			doublesByConst(n.op, cx.Doubles[:e.n], a.val.f, dst.Doubles)
		} else {
			doubles(n.op, cx.Doubles[:e.n], cy.Doubles[:e.n], dst.Doubles)
		}
	} else {
		x, y, out := cx.Doubles, cy.Doubles, dst.Doubles
		for _, p := range sel {
			out[p] = doubleOp(n.op, x[p], y[p])
		}
	}
	e.done(n.args[0], cx)
	e.done(n.args[1], cy)
}

func doubles(op opcode, x, y, out []float64) {
	y, out = y[:len(x)], out[:len(x)]
	switch op {
	case opAdd:
		for i, v := range x {
			out[i] = v + y[i]
		}
	case opSub:
		for i, v := range x {
			out[i] = v - y[i]
		}
	case opMul:
		for i, v := range x {
			out[i] = v * y[i]
		}
	case opDiv:
		for i, v := range x {
			out[i] = v / y[i]
		}
	default:
		for i, v := range x {
			out[i] = math.Mod(v, y[i])
		}
	}
}

func doublesByConst(op opcode, x []float64, c float64, out []float64) {
	out = out[:len(x)]
	switch op {
	case opAdd:
		for i, v := range x {
			out[i] = v + c
		}
	case opSub:
		for i, v := range x {
			out[i] = v - c
		}
	case opMul:
		for i, v := range x {
			out[i] = v * c
		}
	case opDiv:
		for i, v := range x {
			out[i] = v / c
		}
	default:
		for i, v := range x {
			out[i] = math.Mod(v, c)
		}
	}
}

func doubleOp(op opcode, x, y float64) float64 {
	switch op {
	case opAdd:
		return x + y
	case opSub:
		return x - y
	case opMul:
		return x * y
	case opDiv:
		return x / y
	}
	return math.Mod(x, y)
}

// intOp is one operation with its faults.
func intOp(op opcode, x, y int64) (int64, fault) {
	switch op {
	case opAdd:
		if s := x + y; (x^s)&(y^s) >= 0 {
			return s, noFault
		}
		return 0, overflow
	case opSub:
		if s := x - y; (x^y)&(x^s) >= 0 {
			return s, noFault
		}
		return 0, overflow
	case opMul:
		if mulOverflows(x, y) == 0 {
			return x * y, noFault
		}
		return 0, overflow
	}
	switch {
	case y == 0:
		return 0, divByZero
	case op == opMod:
		return x % y, noFault
	case x == math.MinInt64 && y == -1:
		return 0, overflow
	}
	return x / y, noFault
}

// mulOverflows is not zero if x*y is out of range: then the upper half of the
// product is not the sign of the lower one.
func mulOverflows(x, y int64) int64 {
	hi, lo := bits.Mul64(uint64(x), uint64(y))
	signed := int64(hi) - (x >> 63 & y) - (y >> 63 & x)
	return signed ^ int64(lo)>>63
}

// arithmeticInt calculates with bigints and timestamps. Sum, difference and
// product run over all positions first and only note that something
// overflowed somewhere: then, rarely, a second pass finds out where.
func (e *Eval) arithmeticInt(n *node, sel []int32, dst *batch.Column) {
	cx, cy := e.operands(n, sel, dst)
	x, y, out := cx.Ints, cy.Ints, dst.Ints
	again := true
	if e.dense(sel) && n.op != opDiv && n.op != opMod {
		again = ints(n.op, x[:e.n], y[:e.n], out)
	}
	if again {
		for k := range e.count(sel) {
			p := k
			if sel != nil {
				p = int(sel[k])
			}
			v, f := intOp(n.op, x[p], y[p])
			out[p] = v
			if f != noFault && !dst.IsNull(p) {
				e.null(dst, p, f)
			}
		}
	}
	e.done(n.args[0], cx)
	e.done(n.args[1], cy)
}

// ints tells whether anything overflowed.
func ints(op opcode, x, y, out []int64) bool {
	y, out = y[:len(x)], out[:len(x)]
	var over int64
	switch op {
	case opAdd:
		for i, v := range x {
			s := v + y[i]
			over |= (v ^ s) & (y[i] ^ s)
			out[i] = s
		}
	case opSub:
		for i, v := range x {
			s := v - y[i]
			over |= (v ^ y[i]) & (v ^ s)
			out[i] = s
		}
	default:
		for i, v := range x {
			out[i] = v * y[i]
			if mulOverflows(v, y[i]) != 0 {
				over = -1
			}
		}
	}
	return over < 0
}

// math runs the functions of one or two numbers.
func (e *Eval) math(n *node, sel []int32, dst *batch.Column) {
	if n.op == opPower {
		cx, cy := e.operands(n, sel, dst)
		for k := range e.count(sel) {
			p := k
			if sel != nil {
				p = int(sel[k])
			}
			dst.Doubles[p] = math.Pow(cx.Doubles[p], cy.Doubles[p])
		}
		e.done(n.args[0], cx)
		e.done(n.args[1], cy)
		return
	}
	c := e.eval(n.args[0], sel)
	e.valid(dst, c)
	if n.typ == batch.Bigint {
		e.mathInt(n, sel, c.Ints, dst)
	} else {
		e.mathDouble(n, sel, c.Doubles, dst.Doubles)
	}
	e.done(n.args[0], c)
}

func (e *Eval) mathInt(n *node, sel []int32, x []int64, dst *batch.Column) {
	out := dst.Ints
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		v, ok := x[p], true
		switch {
		case n.op == opRound:
			v, ok = roundInt(v, -n.digits)
		case n.op == opNeg || v < 0:
			ok = v != math.MinInt64
			v = -v
		}
		out[p] = v
		if !ok && !dst.IsNull(p) {
			e.null(dst, p, overflow)
		}
	}
}

// roundInt rounds to a multiple of 10^zeros, halves away from zero; false if
// the result is out of range.
func roundInt(v, zeros int64) (int64, bool) {
	unit := int64(1)
	for range zeros {
		unit *= 10
	}
	r := v % unit
	v -= r
	switch {
	case r >= unit-r: // r >= unit/2 without a fraction
		return v + unit, v <= math.MaxInt64-unit
	case -r >= unit+r:
		return v - unit, v >= math.MinInt64+unit
	}
	return v, true
}

// mathDouble cannot fail, so it runs over all positions unless most are left
// out.
func (e *Eval) mathDouble(n *node, sel []int32, x, out []float64) {
	if !e.dense(sel) {
		for _, p := range sel {
			out[p] = mathOp(n, x[p])
		}
		return
	}
	x, out = x[:e.n], out[:e.n]
	switch n.op {
	case opNeg:
		for i, v := range x {
			out[i] = -v
		}
	case opAbs:
		for i, v := range x {
			out[i] = math.Abs(v)
		}
	case opFloor:
		for i, v := range x {
			out[i] = math.Floor(v)
		}
	case opCeil:
		for i, v := range x {
			out[i] = math.Ceil(v)
		}
	case opSqrt:
		for i, v := range x {
			out[i] = math.Sqrt(v)
		}
	default:
		for i, v := range x {
			out[i] = mathOp(n, v)
		}
	}
}

func mathOp(n *node, v float64) float64 {
	switch n.op {
	case opNeg:
		return -v
	case opAbs:
		return math.Abs(v)
	case opFloor:
		return math.Floor(v)
	case opCeil:
		return math.Ceil(v)
	case opRound:
		return roundDouble(v, n.digits)
	case opSqrt:
		return math.Sqrt(v)
	case opLn:
		return math.Log(v)
	}
	return math.Exp(v)
}

// roundDouble rounds to so many decimal digits, halves away from zero. What is
// too large to have such digits stays as it is.
func roundDouble(v float64, digits int64) float64 {
	if digits == 0 {
		return math.Round(v)
	}
	unit := math.Pow10(int(max(digits, -digits)))
	if digits < 0 {
		return math.Round(v/unit) * unit
	}
	if math.Abs(v) >= 1<<53 || math.IsNaN(v) {
		return v
	}
	return math.Round(v*unit) / unit
}
