package operator

import (
	"fmt"
	"runtime/debug"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
)

// Abandoner is an operator without state that holds batches while it works.
type Abandoner interface {
	// Abandon is called when it has panicked, and nothing after it: it releases
	// what it holds.
	Abandon()
}

// PanicError is what a panic of an operator becomes.
type PanicError struct {
	Value   string // what it panicked with, cut short
	Row     string // the row's time and values, cut short; empty: no row is known to be at fault
	Payload string // what the row was decoded from, cut short; empty: it is not known
	Stack   string

	// At is the event time of the row in the batch that the operator was given:
	// where the batch shares the times of another one, the row is found in that
	// one by it. Nil: no row is known.
	At *int64
}

// Error says what happened, with the stack.
func (e *PanicError) Error() string {
	s := "panic: " + e.Value
	if e.Row != "" {
		s += "; row " + e.Row
	}
	if e.Payload != "" {
		s += "; payload " + e.Payload
	}
	return s + "\n" + e.Stack
}

// Bounds of what an error says.
const (
	mostPanic = 200
	mostRow   = 2000
	mostStack = 4000
)

func cut(s string, most int) string {
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// NewPanicError makes the error of a value that was recovered. It is called in
// the deferred function that recovered it, so that the stack is the panic's.
func NewPanicError(recovered any) *PanicError {
	return &PanicError{Value: cut(fmt.Sprint(recovered), mostPanic), Stack: cut(string(debug.Stack()), mostStack)}
}

// Guard calls an operator and catches its panics. What becomes of the row is the
// step's on_error: where rows are rejected (the step has a side stream for
// them), the row at fault goes there and all others go on as if it had not been;
// otherwise the error is a *PanicError that names it.
//
// An operator without state that had emitted nothing of the batch is made anew
// and takes the batch row by row. A panic of one with state is always an error,
// as what the row has done to the state is not known: one that calls a user's
// code takes back itself what a call did (dataflow/process). A panic further
// down, in what Emit calls, is no row's fault, and an error too.
type Guard struct {
	factory  Factory
	op       Operator
	ctx      *Context
	rejected *batch.Schema // nil: the step fails
	pure     bool          // without state
	out      guardedOutput
	before   Counters // as they were before the batch

	// Of a batch that is taken row by row.
	slow *batch.Batch // nil: none is
	rank int          // the next row
	one  *batch.Batch // the row at hand, while the operator has said More
}

// guardedOutput is the operator's output; it notes what was emitted, and whether
// the caller is inside a call of it.
type guardedOutput struct {
	Output
	emitted bool
	inside  bool
	free    bool // nothing was refused since the last Process or Resume
}

func (o *guardedOutput) Emit(b *batch.Batch) bool {
	o.emitted, o.inside = true, true
	free := o.Output.Emit(b)
	o.inside = false
	o.free = o.free && free
	return free
}

func (o *guardedOutput) EmitSide(s Side, b *batch.Batch) bool {
	o.emitted, o.inside = true, true
	free := o.Output.EmitSide(s, b)
	o.inside = false
	o.free = o.free && free
	return free
}

// NewGuard makes an operator of the factory, opens it and guards it.
func NewGuard(f Factory, ctx *Context) (*Guard, error) {
	g := &Guard{factory: f, ctx: ctx, rejected: f.Side(Rejected)}
	if err := g.renew(); err != nil {
		return nil, err
	}
	g.pure = len(g.op.StateTables()) == 0
	return g, nil
}

func (g *Guard) renew() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = NewPanicError(p)
		}
	}()
	g.op = g.factory.New()
	return g.op.Open(g.ctx)
}

// Process is Operator's.
func (g *Guard) Process(b *batch.Batch, out Output) (Progress, error) {
	g.before = *g.ctx.Counters
	g.out = guardedOutput{Output: out, free: true}
	p, fault, err := g.call(b)
	if fault != nil {
		return g.caught(b, fault)
	}
	return p, err
}

// Resume is Operator's.
func (g *Guard) Resume(out Output) (Progress, error) {
	g.out.Output, g.out.free = out, true
	if g.slow != nil {
		return g.rows()
	}
	p, fault, err := g.call(nil)
	if fault != nil {
		return g.caught(nil, fault)
	}
	return p, err
}

// call calls Process, or with no batch Resume.
func (g *Guard) call(b *batch.Batch) (p Progress, fault *PanicError, err error) {
	defer func() {
		if v := recover(); v != nil {
			fault = NewPanicError(v)
		}
	}()
	if b != nil {
		p, err = g.op.Process(b, &g.out)
	} else {
		p, err = g.op.Resume(&g.out)
	}
	return p, nil, err
}

// caught decides what becomes of a panic over b (nil: in Resume).
func (g *Guard) caught(b *batch.Batch, fault *PanicError) (Progress, error) {
	switch {
	case g.out.inside:
		return Done, fault
	case !g.pure || b == nil || g.out.emitted || b.Len() == 0:
		if b != nil && b.Len() == 1 {
			g.blame(fault, b, b.Position(0))
		}
		return Done, fault
	}
	*g.ctx.Counters = g.before
	g.slow, g.rank = b.Retain(), 0
	if err := g.again(); err != nil {
		return Done, err
	}
	return g.rows()
}

// again puts a new operator in the place of one without state that panicked.
func (g *Guard) again() error {
	if a, ok := g.op.(Abandoner); ok {
		a.Abandon()
	}
	return g.renew()
}

// blame says which row is at fault.
func (g *Guard) blame(fault *PanicError, b *batch.Batch, pos int) {
	fault.Row, fault.At = cut(describeRow(b, pos), mostRow), &b.Times[pos]
}

// rows takes the batch row by row, from where it is.
func (g *Guard) rows() (Progress, error) {
	for {
		p, err := g.row()
		if err != nil || p != Done {
			return p, err
		}
		if g.rank > g.slow.Len() {
			g.slow.Release()
			g.slow = nil
			return Done, nil
		}
		if !g.out.free {
			return More, nil
		}
	}
}

// row takes the next row of the batch, or goes on with the one at hand; behind
// the last row come the marks that stand there.
func (g *Guard) row() (Progress, error) {
	resumed := g.one != nil
	if !resumed {
		if g.rank == g.slow.Len() {
			g.one = marksBehind(g.slow)
		} else {
			g.one = rowOf(g.slow, g.slow.Position(g.rank))
		}
		g.rank++
		g.before, g.out.emitted = *g.ctx.Counters, false
	}
	if !resumed && g.one.Len() == 0 && len(g.one.Marks) == 0 {
		g.endRow()
		return Done, nil
	}
	in := g.one
	if resumed {
		in = nil
	}
	p, fault, err := g.call(in)
	if fault != nil {
		return g.rejectRow(fault)
	}
	if p == Done || err != nil {
		g.endRow()
	}
	return p, err
}

func (g *Guard) endRow() {
	g.one.Release()
	g.one = nil
}

// rejectRow deals with a row that panicked by itself. The mark before it goes on.
func (g *Guard) rejectRow(fault *PanicError) (Progress, error) {
	one := g.one
	defer g.endRow()
	if one.Len() > 0 {
		g.blame(fault, g.slow, g.slow.Position(g.rank-1))
	}
	if g.out.inside || g.out.emitted || one.Len() == 0 || g.rejected == nil {
		return Done, fault
	}
	*g.ctx.Counters = g.before
	if err := g.again(); err != nil {
		return Done, err
	}
	g.reject(one, fault)
	if len(one.Marks) == 0 {
		return Done, nil
	}
	m := g.ctx.Pool.MarksOnly(one.Schema, one.Marks[len(one.Marks)-1])
	defer m.Release()
	p, next, err := g.call(m)
	if next != nil {
		return Done, next
	}
	return p, err
}

// reject counts the row of a batch of one, and sends it to the side stream.
func (g *Guard) reject(one *batch.Batch, fault *PanicError) {
	reason := "panic: " + fault.Value
	c := g.ctx.Counters
	if c.Rejected++; c.FirstRejected == "" {
		c.FirstRejected = reason
	}
	if !g.out.Wanted(Rejected) {
		return
	}
	r := rowErrors{rejected: g.rejected}
	side := r.sideBatch(g.ctx, one, []expr.RowError{{Row: 0, Reason: reason}})
	g.out.EmitSide(Rejected, side)
	side.Release()
}

// rowOf is the row at a position of b as a batch of its own, with the last mark
// that stands between it and the row before it.
func rowOf(b *batch.Batch, pos int) *batch.Batch {
	before := int32(-1)
	if k := b.Rank(int32(pos)); k > 0 {
		before = int32(b.Position(k - 1))
	}
	var marks []batch.Mark
	for _, m := range b.Marks {
		if m.Row > before && m.Row <= int32(pos) {
			m.Row = 0
			marks = append(marks[:0], m)
		}
	}
	return b.Gather([]int32{int32(pos)}, marks)
}

// marksBehind is the last mark behind the rows of b, or nothing.
func marksBehind(b *batch.Batch) *batch.Batch {
	if n := len(b.Marks); n > 0 && int(b.Marks[n-1].Row) > b.Position(b.Len()-1) {
		return b.Pool().MarksOnly(b.Schema, b.Marks[n-1])
	}
	return b.Gather(nil, nil)
}

// StateTables is Operator's.
func (g *Guard) StateTables() []StateTable { return g.op.StateTables() }

// Snapshot is Operator's.
func (g *Guard) Snapshot(delta bool, emit func(int, *batch.Batch) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = NewPanicError(v)
		}
	}()
	return g.op.Snapshot(delta, emit)
}

// Restore is Operator's.
func (g *Guard) Restore(table int, b *batch.Batch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = NewPanicError(v)
		}
	}()
	return g.op.Restore(table, b)
}

// Expect is Expecter's.
func (g *Guard) Expect(table int, rows int64) {
	if e, is := g.op.(Expecter); is {
		e.Expect(table, rows)
	}
}

// Amends is Amender's; false for an operator that is none.
func (g *Guard) Amends(table int) bool {
	a, is := g.op.(Amender)
	return is && a.Amends(table)
}

// Amend is Amender's.
func (g *Guard) Amend(table int, b *batch.Batch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = NewPanicError(v)
		}
	}()
	return g.op.(Amender).Amend(table, b)
}
