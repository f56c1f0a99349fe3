package operator

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
)

// NewFlatMap makes the operator of `flat_map:`. For each row it emits one row
// for each element of the set, or none; event time is the row's, and marks keep
// their place. One input row may make more rows than a batch holds, so it is
// resumable in the middle of a row.
func NewFlatMap(fm *expr.FlatMap, in *batch.Schema, onError OnError) (Factory, error) {
	out, err := batch.NewSchema(fm.Fields...)
	if err != nil {
		return nil, fmt.Errorf("flat_map: %w", err)
	}
	f := &flatMapFactory{fm: fm, out: out, onError: onError}
	args := make([]batch.Field, len(fm.Args))
	for i, a := range fm.Args {
		args[i] = batch.Field{Name: fmt.Sprintf("argument %d", i+1), Type: a.Type()}
	}
	f.args = batch.MustSchema(args...)
	if onError == RejectRow {
		f.rejected = rejectedSchema(in)
	}
	return f, nil
}

type flatMapFactory struct {
	fm            *expr.FlatMap
	out, rejected *batch.Schema
	args          *batch.Schema
	onError       OnError
}

func (f *flatMapFactory) Output() *batch.Schema { return f.out }

func (f *flatMapFactory) Side(s Side) *batch.Schema {
	if s == Rejected {
		return f.rejected
	}
	return nil
}

func (f *flatMapFactory) New() Operator {
	return &flatMap{factory: f, errs: rowErrors{policy: f.onError, rejected: f.rejected}}
}

// flatMap expands one batch at a time, in chunks. Between calls items is nil,
// or it holds the batch that is being expanded (and, through its parent, the
// input).
type flatMap struct {
	Stateless
	factory *flatMapFactory
	ctx     *Context
	values  values // the fields except the set
	argv    values
	errs    rowErrors

	args  *batch.Batch // the set's arguments
	items *batch.Batch // the other fields; column Set is a dummy
	row   int          // rank of the next row to expand
	mark  int          // the next mark to place
	set   cursor       // the rest of the row that is being expanded

	chunk chunk
}

// cursor stands in the set of one row.
type cursor struct {
	open     bool
	rest     []byte // Split: belongs to args
	next, to int64  // GenerateSeries
}

// chunk is what the next emitted batch is made from.
type chunk struct {
	rows  []int32      // position in items of each row
	marks []batch.Mark // Row counts rows
	parts [][]byte     // Split: the element of each row; they belong to args
	ints  []int64      // GenerateSeries: the element of each row
	bytes int          // of variable-length values
}

// chunkBytes ends a chunk early, so that a long text repeated beside each of
// its words does not fill the memory.
const chunkBytes = 1 << 20

// Open makes the evaluators.
func (f *flatMap) Open(ctx *Context) error {
	f.ctx = ctx
	fm := f.factory.fm
	for i, e := range fm.Items {
		if i != fm.Set {
			f.values.add(i, fm.Fields[i].Name, e)
		}
	}
	for i, e := range fm.Args {
		f.argv.add(i, fm.Fields[fm.Set].Name, e)
	}
	f.chunk.rows = make([]int32, 0, batch.MaxRows)
	return nil
}

// Process expands b.
func (f *flatMap) Process(b *batch.Batch, out Output) (Progress, error) {
	if b.Len() == 0 {
		emitMarks(f.ctx, b, f.factory.out, out)
		return Done, nil
	}
	f.args = f.ctx.Pool.Derive(b, f.factory.args)
	f.argv.fill(f.ctx, b, f.args, &f.errs)
	f.items = f.ctx.Pool.Derive(b, f.factory.out)
	f.items.Hashes = nil
	f.values.fill(f.ctx, b, f.items, &f.errs)
	f.dummy()
	f.row, f.mark, f.set = 0, 0, cursor{}
	if len(f.errs.list) > 0 {
		sel, refused, err := f.errs.settle(f.ctx, b, positions(b, f.items.OwnSel(b.Len())), out)
		if err != nil {
			f.finish()
			return Done, err
		}
		f.items.Sel = sel
		if refused {
			return More, nil
		}
	}
	return f.expand(out)
}

// Resume goes on where the output was full.
func (f *flatMap) Resume(out Output) (Progress, error) { return f.expand(out) }

// dummy puts empty values where the set's column will be, so that items can be
// gathered like any batch.
func (f *flatMap) dummy() {
	n := f.items.Rows
	c := f.items.Own(f.factory.fm.Set, n)
	for range n {
		if !c.Type.Variable() {
			return
		}
		c.AppendBytes(nil)
	}
}

func (f *flatMap) finish() {
	f.args.Release()
	f.items.Release()
	f.args, f.items = nil, nil
}

// Abandon is Abandoner's.
func (f *flatMap) Abandon() {
	for _, b := range []*batch.Batch{f.args, f.items} {
		if b != nil {
			b.Release()
		}
	}
}

// expand emits chunk after chunk until the batch is used up or the output is
// full.
func (f *flatMap) expand(out Output) (Progress, error) {
	for {
		done := f.fill()
		free := true
		if len(f.chunk.rows)+len(f.chunk.marks) > 0 {
			b := f.take()
			free = out.Emit(b)
			b.Release()
		}
		if done {
			f.finish()
			return Done, nil
		}
		if !free {
			return More, nil
		}
	}
}

// fill fills the chunk; it tells whether the batch is used up.
func (f *flatMap) fill() (done bool) {
	c := &f.chunk
	c.rows, c.marks, c.parts, c.ints, c.bytes = c.rows[:0], c.marks[:0], c.parts[:0], c.ints[:0], 0
	n := f.items.Len()
	for ; f.row < n; f.row++ {
		p := f.items.Position(f.row)
		if !f.set.open {
			f.placeMarks(int32(p))
			f.begin(p)
		}
		if !f.step(int32(p)) {
			return false
		}
	}
	f.placeMarks(int32(f.items.Rows))
	return true
}

// placeMarks puts the marks that stand before position p after the rows of the
// chunk.
func (f *flatMap) placeMarks(p int32) {
	c := &f.chunk
	for ; f.mark < len(f.items.Marks) && f.items.Marks[f.mark].Row <= p; f.mark++ {
		m := f.items.Marks[f.mark]
		m.Row = int32(len(c.rows))
		if n := len(c.marks); n > 0 && c.marks[n-1].Row == m.Row {
			c.marks[n-1] = m
			continue
		}
		c.marks = append(c.marks, m)
	}
}

// begin opens the set of the row at position p, unless it is empty.
func (f *flatMap) begin(p int) {
	args := f.args.Cols
	for _, a := range args {
		if a.IsNull(p) {
			return
		}
	}
	switch f.factory.fm.Func {
	case expr.Split:
		f.set = cursor{open: true, rest: args[0].At(p)}
	case expr.GenerateSeries:
		f.set = cursor{open: args[0].Ints[p] <= args[1].Ints[p], next: args[0].Ints[p], to: args[1].Ints[p]}
	}
}

// step adds elements of the open set to the chunk. It is false when the chunk
// is full and the set has more.
func (f *flatMap) step(p int32) bool {
	size := 0
	if f.set.open {
		size = f.rowBytes(int(p))
	}
	c := &f.chunk
	for f.set.open {
		if len(c.rows) == batch.MaxRows || c.bytes > chunkBytes {
			return false
		}
		c.bytes += size
		c.rows = append(c.rows, p)
		switch f.factory.fm.Func {
		case expr.Split:
			part, rest, more := expr.Part(f.set.rest, f.factory.fm.Sep)
			c.parts = append(c.parts, part)
			c.bytes += len(part)
			f.set.rest, f.set.open = rest, more
		case expr.GenerateSeries:
			c.ints = append(c.ints, f.set.next)
			f.set.open = f.set.next < f.set.to
			f.set.next++
		}
	}
	return true
}

// rowBytes is what one output row copies of the row at position p.
func (f *flatMap) rowBytes(p int) int {
	n := 0
	for i, c := range f.items.Cols {
		if c.Type.Variable() && i != f.factory.fm.Set {
			n += len(c.At(p))
		}
	}
	return n
}

// take makes a batch of the chunk.
func (f *flatMap) take() *batch.Batch {
	c := &f.chunk
	b := f.items.Gather(c.rows, c.marks)
	set := b.Own(f.factory.fm.Set, len(c.rows))
	switch f.factory.fm.Func {
	case expr.Split:
		for _, v := range c.parts {
			set.AppendBytes(v)
		}
	case expr.GenerateSeries:
		copy(set.Ints, c.ints)
	}
	f.ctx.Pool.Account(b)
	clear(c.parts) // they belong to a batch that will be released
	return b
}
