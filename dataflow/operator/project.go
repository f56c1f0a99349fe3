package operator

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
)

// Named is a column of a `select:`.
type Named struct {
	Name string
	Expr *expr.Expr
}

// NewProject makes the operator of `select:` without aggregates. Event time,
// marks and selection stay; fields that are just columns are shared with the
// input, not copied.
func NewProject(fields []Named, in *batch.Schema, onError OnError) (Factory, error) {
	cols := make([]batch.Field, len(fields))
	for i, f := range fields {
		cols[i] = batch.Field{Name: f.Name, Type: f.Expr.Type()}
	}
	out, err := batch.NewSchema(cols...)
	if err != nil {
		return nil, fmt.Errorf("select: %w", err)
	}
	f := &projectFactory{fields: fields, out: out, onError: onError}
	if onError == RejectRow {
		f.rejected = rejectedSchema(in)
	}
	return f, nil
}

type projectFactory struct {
	fields        []Named
	out, rejected *batch.Schema
	onError       OnError
}

func (f *projectFactory) Output() *batch.Schema { return f.out }

func (f *projectFactory) Side(s Side) *batch.Schema {
	if s == Rejected {
		return f.rejected
	}
	return nil
}

func (f *projectFactory) New() Operator {
	return &project{factory: f, errs: rowErrors{policy: f.onError, rejected: f.rejected}}
}

type project struct {
	Stateless
	factory *projectFactory
	ctx     *Context
	values  values
	errs    rowErrors
	pending *batch.Batch // being worked on, or to be emitted when the side stream has room again
}

// Open makes the evaluators.
func (p *project) Open(ctx *Context) error {
	p.ctx = ctx
	for i, f := range p.factory.fields {
		p.values.add(i, f.Name, f.Expr)
	}
	return nil
}

// Process emits b with other columns.
func (p *project) Process(b *batch.Batch, out Output) (Progress, error) {
	if b.Len() == 0 {
		emitMarks(p.ctx, b, p.factory.out, out)
		return Done, nil
	}
	d := p.ctx.Pool.Derive(b, p.factory.out)
	p.pending = d
	p.values.fill(p.ctx, b, d, &p.errs)
	if len(p.errs.list) == 0 {
		p.pending = nil
		p.emit(d, out)
		return Done, nil
	}
	sel, refused, err := p.errs.settle(p.ctx, b, positions(b, d.OwnSel(b.Len())), out)
	if err != nil {
		p.Abandon()
		return Done, err
	}
	d.Sel = sel
	if refused {
		return More, nil
	}
	p.pending = nil
	p.emit(d, out)
	return Done, nil
}

// Resume emits the main stream's part after the side stream had no room.
func (p *project) Resume(out Output) (Progress, error) {
	d := p.pending
	p.pending = nil
	p.emit(d, out)
	return Done, nil
}

// Abandon is Abandoner's.
func (p *project) Abandon() {
	if p.pending != nil {
		p.pending.Release()
		p.pending = nil
	}
}

// emit emits d and gives it up.
func (p *project) emit(d *batch.Batch, out Output) {
	if d.Len() == 0 {
		emitMarks(p.ctx, d, p.factory.out, out)
	} else {
		p.ctx.Pool.Account(d)
		out.Emit(d)
	}
	d.Release()
}

// values computes columns of a derived batch from those of its parent.
type values []value

type value struct {
	to   int        // column of the derived batch
	from int        // column of the parent to share, if eval is nil
	eval *expr.Eval // nil: shared
	name string
}

func (v *values) add(to int, name string, e *expr.Expr) {
	if col, ok := e.Column(); ok {
		*v = append(*v, value{to: to, from: col})
		return
	}
	*v = append(*v, value{to: to, eval: e.NewEval(), name: name + ": " + e.Source()})
}

// fill sets the columns of d, which is derived from b.
func (v values) fill(ctx *Context, b, d *batch.Batch, errs *rowErrors) {
	for i := range v {
		x := &v[i]
		if x.eval == nil {
			d.Cols[x.to] = b.Cols[x.from]
			continue
		}
		x.eval.Into(b, d.Own(x.to, b.Rows))
		errs.collect(ctx, x.eval, x.name)
	}
}
