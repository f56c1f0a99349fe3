package window

import (
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// result is a list of slots to be emitted, in order: what a window, a late row
// or a run of rows gave. Its slots stay as they are until next has reached
// their number.
type result struct {
	t     *table
	slots []int32
	next  int
	kind  batch.Kind

	bounds     bounds
	start, end int64   // oneWindow
	starts     []int64 // ownWindows: by index in slots
	ends       []int64
	times      []int64 // noWindow, running: event times by index in slots
	after      []int32 // position in the input that each row comes right after; nil: the marks so far are passed
}

// bounds says where a result's windows are.
type bounds uint8

const (
	oneWindow  bounds = iota // all rows have the same
	ownWindows               // each row has its own
	noWindow                 // count windows: null
	running                  // no such columns
)

func (r *result) waiting() bool { return r.next < len(r.slots) }

// emitter builds output batches, column by column.
type emitter struct {
	pool   *batch.Pool
	schema *batch.Schema
	plan   *plan
	keys   *state.KeyTable
	nkeys  int
	count  *operator.Counters

	b     *batch.Batch
	n     int
	times []int64
	kinds []batch.Kind // shorter than n: the rest is Insert
	ids   []int32
	one   [1]*batch.Column
}

func (e *emitter) begin() *batch.Batch {
	if e.b == nil {
		e.b = e.pool.Get(e.schema)
		for i := range e.schema.Len() {
			e.b.Own(i, 0)
		}
		e.n = 0
		e.kinds = e.kinds[:0]
	}
	return e.b
}

func (e *emitter) full() bool { return e.b != nil && e.n >= batch.MaxRows }

// mark passes a mark on, after the rows so far.
func (e *emitter) mark(m batch.Mark) {
	b := e.begin()
	m.Row = int32(e.n)
	b.AddMark(m)
}

// take returns the finished batch, or nil if there is neither row nor mark.
func (e *emitter) take() *batch.Batch {
	b := e.b
	if b == nil {
		return nil
	}
	b.Rows = e.n
	copy(b.OwnTimes(e.n), e.times)
	if len(e.kinds) > 0 {
		clear(b.OwnKinds(e.n)[copy(b.Kinds, e.kinds):])
	}
	e.b = nil
	e.pool.Account(b)
	return b
}

// rows appends the next n rows of r.
func (e *emitter) rows(r *result, n int) {
	b, at := e.begin(), e.n
	slots := r.slots[r.next : r.next+n]
	e.ids = sized(e.ids, n)
	for i, s := range slots {
		e.ids[i] = r.t.keys[s]
	}
	c := 0
	for ; c < e.nkeys; c++ {
		e.keys.Gather(c, e.ids, b.Cols[c], at)
	}
	e.times = extended(e.times, at, n)
	c = e.window(r, b, c, at, n, e.times[at:])
	for i := range e.plan.outs {
		e.value(&e.plan.outs[i], r.t, slots, b.Cols[c+i], at)
		if r.t.lacks != nil {
			e.lacking(&e.plan.outs[i], r.t, slots, b.Cols[c+i], at)
		}
	}
	if r.kind != batch.Insert {
		e.kinds = padded(e.kinds, at, batch.Insert)
		e.kinds = padded(e.kinds, at+n, r.kind)
	}
	e.n += n
	r.next += n
	e.count.Fired += int64(n)
}

// window writes the bounds and event times of rows at to at+n, and returns the
// column after them.
func (e *emitter) window(r *result, b *batch.Batch, c, at, n int, times []int64) int {
	switch r.bounds {
	case oneWindow:
		start, end := extended(b.Cols[c].Ints, at, n), extended(b.Cols[c+1].Ints, at, n)
		t := plus(r.end, -1)
		for i := range n {
			start[at+i], end[at+i], times[i] = r.start, r.end, t
		}
		b.Cols[c].Ints, b.Cols[c+1].Ints = start, end
	case ownWindows:
		b.Cols[c].Ints = append(b.Cols[c].Ints[:at], r.starts[r.next:r.next+n]...)
		b.Cols[c+1].Ints = append(b.Cols[c+1].Ints[:at], r.ends[r.next:r.next+n]...)
		for i, end := range r.ends[r.next : r.next+n] {
			times[i] = plus(end, -1)
		}
	case noWindow:
		for _, col := range b.Cols[c : c+2] {
			col.Ints = extended(col.Ints, at, n)
			for i := range n {
				col.Ints[at+i] = 0
				col.SetNull(at+i, batch.MaxRows)
			}
		}
		copy(times, r.times[r.next:])
	case running:
		copy(times, r.times[r.next:])
		return c
	}
	return c + 2
}

// lacking takes the values away of slots that do not know all of theirs.
func (e *emitter) lacking(o *outPlan, t *table, slots []int32, c *batch.Column, at int) {
	for i, s := range slots {
		if o.acc >= 0 && t.lacksAcc(o.acc, s) || o.arg >= 0 && t.lacks[o.arg][s] {
			c.SetNull(at+i, batch.MaxRows)
		}
	}
}

// value writes one aggregate of the slots.
func (e *emitter) value(o *outPlan, t *table, slots []int32, c *batch.Column, at int) {
	switch o.fn {
	case CountRows:
		putInts(c, at, t.rows, slots)
		return
	case CountValues:
		putInts(c, at, t.rows, slots)
		if n := t.nulls[o.arg]; len(n) > 0 {
			for i, s := range slots {
				c.Ints[at+i] -= n[s]
			}
		}
		return
	case CountDistinct:
		putInts(c, at, t.accs[o.acc].(*distinctSets).counts, slots)
		return
	case Stddev, Var:
		e.variance(o.fn, t.accs[o.acc].(*variance), slots, c, at)
		return
	case Avg:
		e.average(t.accs[o.acc], t, o.arg, slots, c, at)
	case Sum:
		e.sum(t.accs[o.acc], slots, c, at)
	case First, Last:
		switch a := t.accs[o.acc].(type) {
		case *doubleEdge:
			putDoubles(c, at, a.v, slots)
		case *intEdge:
			putFixed(c, at, a.v, slots)
		case *bytesEdge:
			a.texts.save(c, at, slots)
			return
		}
	default:
		if x, is := t.accs[o.acc].(*bytesExtreme); is {
			x.texts.save(c, at, slots)
			return
		}
		e.one[0] = c
		t.accs[o.acc].save(e.one[:], at, slots)
	}
	if len(t.nulls[o.arg]) == 0 { // every slot has a row, so every slot has a value
		return
	}
	for i, s := range slots {
		if t.present(o.arg, s) == 0 {
			c.SetNull(at+i, batch.MaxRows)
		}
	}
}

func (e *emitter) sum(a acc, slots []int32, c *batch.Column, at int) {
	if d, is := a.(*doubleSum); is {
		putDoubles(c, at, d.v, slots)
		return
	}
	sum := a.(*intSum)
	out := extended(c.Ints, at, len(slots))
	c.Ints = out
	for i, s := range slots {
		out[at+i] = int64(sum.low[s])
		if !sum.fits(s) {
			c.SetNull(at+i, batch.MaxRows)
			e.count.Overflow++
		}
	}
}

func (e *emitter) average(a acc, t *table, arg int, slots []int32, c *batch.Column, at int) {
	out := extended(c.Doubles, at, len(slots))
	c.Doubles = out
	out = out[at:]
	if d, is := a.(*doubleSum); is {
		if len(t.nulls[arg]) == 0 {
			sum, rows := d.v, t.rows
			for i, s := range slots {
				out[i] = sum[s] / float64(rows[s])
			}
			return
		}
		for i, s := range slots {
			out[i] = d.v[s] / float64(t.present(arg, s))
		}
		return
	}
	sum := a.(*intSum)
	for i, s := range slots {
		out[i] = sum.double(s) / float64(t.present(arg, s))
	}
}

func (e *emitter) variance(f Func, a *variance, slots []int32, c *batch.Column, at int) {
	out := extended(c.Doubles, at, len(slots))
	c.Doubles = out
	for i, s := range slots {
		v, ok := a.sample(s)
		if f == Stddev {
			v = math.Sqrt(v)
		}
		out[at+i] = v
		if !ok {
			c.SetNull(at+i, batch.MaxRows)
		}
	}
}
