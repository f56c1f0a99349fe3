package expr

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Eval holds the scratch memory of one expression in one subtask. Once it has
// seen batches of the usual size it allocates nothing, except for the texts of
// row errors.
//
// A selection (sel) is the positions to work on, ascending; nil means all of
// them. Kernels for values of fixed width that cannot fail may also write at
// other positions, where values are undefined.
type Eval struct {
	// DivByZero and Overflow count the operations on rows that gave null: an
	// integer divided by zero; a bigint or timestamp out of range. They only
	// grow; the caller may set them to zero.
	DivByZero, Overflow int64

	expr *Expr
	errs []RowError

	b      *batch.Batch
	n      int // b.Rows
	consts []constColumn
	free   [batch.Timestamp + 1][]*batch.Column // by type, so that none holds memory of several
	sels   [][]int32
	picks  [][]uint16
	arms   []arm
	parts  []texts
	all    []int32 // 0, 1, 2, ...
}

// NewEval makes the memory to evaluate e in one goroutine.
func (e *Expr) NewEval() *Eval { return &Eval{expr: e, consts: make([]constColumn, e.consts)} }

// Into evaluates every row of b that is there into dst, which gets the type of
// the expression and b.Rows positions; dst is no column of b. Positions that
// b.Sel leaves out are undefined, of variable types empty.
func (e *Eval) Into(b *batch.Batch, dst *batch.Column) {
	e.begin(b)
	e.into(e.expr.root, b.Sel, dst)
	e.end()
}

// Select appends the positions of b that are there and for which a boolean
// expression is true (neither false nor null), ascending, and returns dst.
func (e *Eval) Select(b *batch.Batch, dst []int32) []int32 {
	e.begin(b)
	dst = slices.Grow(dst, b.Len())
	dst = e.selectTrue(e.expr.root, b.Sel, dst)
	e.end()
	return dst
}

// Errors lists the rows of the last call that have no value because of a cast
// that cannot be done or a text that grew too long: at most one a row,
// ascending by row. It is valid until the next call.
func (e *Eval) Errors() []RowError { return e.errs }

func (e *Eval) begin(b *batch.Batch) {
	e.b, e.n = b, b.Rows
	e.errs = e.errs[:0]
}

func (e *Eval) end() {
	e.b = nil
	if len(e.errs) < 2 {
		return
	}
	slices.SortStableFunc(e.errs, func(a, b RowError) int { return int(a.Row) - int(b.Row) })
	e.errs = slices.CompactFunc(e.errs, func(a, b RowError) bool { return a.Row == b.Row })
}

// fault is why an operation on integers has no result.
type fault uint8

const (
	noFault fault = iota
	overflow
	divByZero
)

// null makes the value at p of dst null because of f.
func (e *Eval) null(dst *batch.Column, p int, f fault) {
	if f == overflow {
		e.Overflow++
	} else {
		e.DivByZero++
	}
	dst.SetNull(p, e.n)
}

// fail makes the value at p of dst null and lists the reason.
func (e *Eval) fail(dst *batch.Column, p int, reason string) {
	e.errs = append(e.errs, RowError{Row: int32(p), Reason: reason})
	dst.SetNull(p, e.n)
}

// eval gives the column of n's values: one of the batch, a constant spread, or
// scratch. It is given back with done.
func (e *Eval) eval(n *node, sel []int32) *batch.Column {
	switch n.op {
	case opColumn:
		return e.b.Cols[n.col]
	case opConst:
		return e.spread(n)
	}
	c := e.scratch(n.typ)
	e.into(n, sel, c)
	return c
}

// done gives back a column that eval returned.
func (e *Eval) done(n *node, c *batch.Column) {
	if n.op != opColumn && n.op != opConst {
		e.release(c)
	}
}

// scratch is a column of type t with e.n undefined values.
func (e *Eval) scratch(t batch.Type) *batch.Column {
	var c *batch.Column
	if l := e.free[t]; len(l) > 0 {
		c = l[len(l)-1]
		e.free[t] = l[:len(l)-1]
	} else {
		c = &batch.Column{Type: t}
	}
	c.Resize(e.n)
	return c
}

func (e *Eval) release(c *batch.Column) { e.free[c.Type] = append(e.free[c.Type], c) }

// selection is an empty selection with room for n positions.
func (e *Eval) selection(n int) []int32 {
	if l := len(e.sels); l > 0 {
		s := e.sels[l-1]
		e.sels = e.sels[:l-1]
		if cap(s) >= n {
			return s
		}
	}
	return make([]int32, 0, max(n, 64))
}

func (e *Eval) releaseSelection(s []int32) { e.sels = append(e.sels, s[:0]) }

// positions is sel, spelt out if it is nil.
func (e *Eval) positions(sel []int32) []int32 {
	if sel != nil {
		return sel
	}
	for len(e.all) < e.n {
		e.all = append(e.all, int32(len(e.all)))
	}
	return e.all[:e.n]
}

// count is the number of positions in sel.
func (e *Eval) count(sel []int32) int {
	if sel != nil {
		return len(sel)
	}
	return e.n
}

// dense tells whether to calculate at every position: few are left out, and a
// loop without indices is several times faster.
func (e *Eval) dense(sel []int32) bool { return sel == nil || 4*len(sel) >= e.n }

// constColumn is a constant spread over as many positions as were ever needed.
type constColumn struct {
	col  batch.Column
	rows int
}

// spread is the column of a constant.
func (e *Eval) spread(n *node) *batch.Column {
	c := &e.consts[n.slot]
	if c.rows >= e.n && c.rows > 0 {
		return &c.col
	}
	c.rows = max(e.n, 1)
	c.col.Type = n.typ
	c.col.Resize(c.rows)
	for p := range c.rows {
		switch n.typ {
		case batch.Boolean:
			c.col.Bits.Put(p, n.val.b)
		case batch.Bigint, batch.Timestamp:
			c.col.Ints[p] = n.val.i
		case batch.Double:
			c.col.Doubles[p] = n.val.f
		default:
			c.col.Data = append(c.col.Data, n.val.s...)
			c.col.Offsets = append(c.col.Offsets, int32(len(c.col.Data)))
		}
		if n.val.null {
			c.col.SetNull(p, c.rows)
		}
	}
	return &c.col
}

// valid makes dst null wherever one of the columns is. It goes by words over
// all positions.
func (e *Eval) valid(dst *batch.Column, cols ...*batch.Column) {
	w := batch.Words(e.n)
	first := true
	for _, c := range cols {
		if c.Valid == nil {
			continue
		}
		if first {
			copy(dst.NewValid(e.n), c.Valid[:w])
			first = false
			continue
		}
		for i, v := range c.Valid[:w] {
			dst.Valid[i] &= v
		}
	}
}

// into evaluates n over sel into dst.
func (e *Eval) into(n *node, sel []int32, dst *batch.Column) {
	dst.Type = n.typ
	dst.Resize(e.n)
	switch n.op {
	case opColumn:
		e.copyColumn(e.b.Cols[n.col], sel, dst)
	case opConst:
		e.copyConst(n, sel, dst)
	case opAdd, opSub, opMul, opDiv, opMod:
		if n.typ == batch.Double {
			e.arithmeticDouble(n, sel, dst)
		} else {
			e.arithmeticInt(n, sel, dst)
		}
	case opEq, opNe, opLt, opLe, opGt, opGe:
		e.comparison(n, sel, dst)
	case opBetween:
		e.between(n, sel, dst)
	case opIn:
		e.in(n, sel, dst)
	case opAnd, opOr:
		e.junction(n, sel, dst)
	case opNot:
		e.not(n, sel, dst)
	case opIsNull, opIsNotNull, opIsTrue, opIsFalse:
		e.is(n, sel, dst)
	case opCase, opSwitch:
		e.caseOf(n, sel, dst)
	case opCoalesce:
		e.coalesce(n, sel, dst)
	case opNullif:
		e.nullif(n, sel, dst)
	case opLeast, opGreatest:
		e.extreme(n, sel, dst)
	case opCast:
		e.cast(n, sel, dst)
	case opLike:
		e.likeTest(n, sel, dst)
	case opNeg, opAbs, opFloor, opCeil, opRound, opSqrt, opLn, opExp, opPower:
		e.math(n, sel, dst)
	case opDateTrunc, opExtract, opToMillis, opFromMillis:
		e.time(n, sel, dst)
	default:
		e.stringFunction(n, sel, dst)
	}
}

func (e *Eval) copyConst(n *node, sel []int32, dst *batch.Column) {
	if n.val.null || !n.typ.Variable() {
		e.copyColumn(e.spread(n), sel, dst)
		return
	}
	for k := range e.count(sel) {
		if sel != nil {
			padTo(dst, int(sel[k]))
		}
		dst.AppendBytes(n.bytes)
	}
	padTo(dst, e.n)
}

// copyColumn copies a column of the batch or a constant, which may be longer
// than the batch.
func (e *Eval) copyColumn(src *batch.Column, sel []int32, dst *batch.Column) {
	e.valid(dst, src)
	switch src.Type {
	case batch.Boolean:
		copy(dst.Bits, src.Bits)
	case batch.Bigint, batch.Timestamp:
		copy(dst.Ints, src.Ints)
	case batch.Double:
		copy(dst.Doubles, src.Doubles)
	default:
		if sel == nil {
			dst.Data = append(dst.Data, src.Data[:src.Offsets[e.n]]...)
			dst.Offsets = append(dst.Offsets, src.Offsets[1:e.n+1]...)
			return
		}
		for _, p := range sel {
			padTo(dst, int(p))
			dst.AppendBytes(src.At(int(p)))
		}
		padTo(dst, e.n)
	}
}
