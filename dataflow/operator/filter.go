package operator

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
)

// NewFilter makes the operator of `where:`. Rows for which cond is not true go
// no further and are counted as Filtered. Nothing is copied: the output is the
// input with a selection.
func NewFilter(cond *expr.Expr, in *batch.Schema, onError OnError) (Factory, error) {
	if cond.Type() != batch.Boolean {
		return nil, fmt.Errorf("where: %s is %v, a condition must be boolean", cond.Source(), cond.Type())
	}
	f := &filterFactory{cond: cond, in: in, onError: onError}
	if onError == RejectRow {
		f.rejected = rejectedSchema(in)
	}
	return f, nil
}

type filterFactory struct {
	cond         *expr.Expr
	in, rejected *batch.Schema
	onError      OnError
}

func (f *filterFactory) Output() *batch.Schema { return f.in }

func (f *filterFactory) Side(s Side) *batch.Schema {
	if s == Rejected {
		return f.rejected
	}
	return nil
}

func (f *filterFactory) New() Operator {
	return &filter{factory: f, errs: rowErrors{policy: f.onError, rejected: f.rejected}}
}

type filter struct {
	Stateless
	factory *filterFactory
	ctx     *Context
	eval    *expr.Eval
	errs    rowErrors
	pending *batch.Batch // being worked on, or to be emitted when the side stream has room again
}

// Open makes the evaluator.
func (f *filter) Open(ctx *Context) error {
	f.ctx, f.eval = ctx, f.factory.cond.NewEval()
	return nil
}

// Process emits b with fewer rows; its marks stay where they are.
func (f *filter) Process(b *batch.Batch, out Output) (Progress, error) {
	n := b.Len()
	if n == 0 {
		emitMarks(f.ctx, b, b.Schema, out)
		return Done, nil
	}
	d := f.ctx.Pool.DeriveAll(b)
	f.pending = d
	sel := f.eval.Select(b, d.OwnSel(n))
	f.errs.collect(f.ctx, f.eval, "where "+f.factory.cond.Source())
	before := f.ctx.Counters.Rejected
	sel, refused, err := f.errs.settle(f.ctx, b, sel, out)
	if err != nil {
		f.Abandon()
		return Done, err
	}
	f.ctx.Counters.Filtered += int64(n-len(sel)) - (f.ctx.Counters.Rejected - before)
	d.Sel = sel
	if refused {
		return More, nil
	}
	f.pending = nil
	if len(sel) == n {
		out.Emit(b)
	} else {
		f.emit(d, out)
	}
	d.Release()
	return Done, nil
}

// Resume emits the main stream's part after the side stream had no room.
func (f *filter) Resume(out Output) (Progress, error) {
	d := f.pending
	f.pending = nil
	f.emit(d, out)
	d.Release()
	return Done, nil
}

func (f *filter) emit(d *batch.Batch, out Output) {
	if len(d.Sel) == 0 {
		emitMarks(f.ctx, d, d.Schema, out)
		return
	}
	f.ctx.Pool.Account(d)
	out.Emit(d)
}

// Abandon is Abandoner's.
func (f *filter) Abandon() {
	if f.pending != nil {
		f.pending.Release()
		f.pending = nil
	}
}
