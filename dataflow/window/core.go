package window

import (
	"math"
	"sort"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// form is what the shapes of windows differ in. The core walks over rows and
// marks and calls it; results go out through core.res.
type form interface {
	// rows takes in rows of core.pos[from:to] and returns how many, at least
	// one. The watermark does not reach core.nextWM at any mark between them.
	rows(from, to int) int
	// advance begins what the watermark core.wm, just set, makes due.
	advance()
	// next puts the next result of the last call of rows or advance into
	// core.res. False means that there is none: the form is at rest.
	next() bool

	// extra are the state columns after the key; the first identity of them tell
	// a key's slots apart.
	extra() (fields []batch.Field, identity int)
	// saveAll calls save for each table and those of its slots that are in use;
	// put writes the extra columns.
	saveAll(save func(t *table, slots []int32, put putExtra) error) error
	// load makes the slot for a row of the state, reload takes the extra columns of
	// one for a slot that was loaded, unload takes out one that was, if it was.
	load(b *batch.Batch, row int, id int32) (*table, int32)
	reload(b *batch.Batch, row int, slot int32)
	unload(id int32, own int64) error
	// slotOf is the slot of a key that has been loaded, -1 if there is none; own is
	// its first extra column.
	slotOf(id int32, own int64) (*table, int32)
	// restored is called when the clock has been restored, after the rest.
	restored()
}

// putExtra writes the extra columns of slots to cols, which have at values.
type putExtra func(cols []*batch.Column, at int, slots []int32)

// core is what all forms share: it is the operator.
//
// A batch is cut at the marks at which something is due, and only there:
// nextWM is the least watermark that fires, refuses or drops anything. What
// lies between is a segment, taken in column by column, however many marks are
// in it.
type core struct {
	spec *Spec
	form form
	out  *batch.Schema

	ctx   *operator.Context
	count *operator.Counters
	keys  *state.KeyTable
	in    *input
	emit  emitter
	res   result

	wm      int64 // the watermark so far
	arrival int64 // the arrival clock so far
	nextWM  int64

	// The batch at hand.
	b      *batch.Batch
	phase  phase
	pos    []int32 // the positions that are there
	times  []int64 // what windows go by: event time or arrival
	at     int     // rows of pos taken in
	mark   int     // marks that have taken effect
	passed int     // marks handed on
	late   []int32

	iota    []int32
	arrived []int64 // memory of times in processing time
	keyCols []*batch.Column
	hashes  []uint64
	ids     []int32
	known   span // the rows that ids belong to
	slots   []int32
	spare   []*table
	spares  int // how many emptied tables are kept for their memory
	kept
}

// span is a range of rows of core.pos.
type span struct{ from, to int }

// phase is where the walk over a batch stands.
type phase uint8

const (
	idle    phase = iota // no batch
	taking               // rows, up to the next mark at which something is due
	firing               // that mark's results
	closing              // all marks are passed on; the last batches go out
)

// Open is called once, before anything else.
func (o *core) Open(ctx *operator.Context) error {
	o.ctx, o.count = ctx, ctx.Counters
	o.emit.pool, o.emit.count = ctx.Pool, ctx.Counters
	o.keys.TellLarge(ctx.Large)
	for _, d := range o.in.dicts {
		if d != nil {
			d.TellLarge(ctx.Large)
		}
	}
	return nil
}

// Process takes in a batch. Marks go on at their place; the results that one
// makes due stand before it.
func (o *core) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	o.begin(b)
	return o.run(out)
}

// Resume goes on after a refused output.
func (o *core) Resume(out operator.Output) (operator.Progress, error) { return o.run(out) }

func (o *core) begin(b *batch.Batch) {
	o.b = b.Retain()
	o.phase, o.at, o.mark, o.passed = taking, 0, 0, 0
	o.late = o.late[:0]
	o.known = span{}
	o.pos = b.Sel
	if b.Sel == nil {
		for i := len(o.iota); i < b.Rows; i++ {
			o.iota = append(o.iota, int32(i))
		}
		o.pos = o.iota[:b.Rows]
	}
	o.times = b.Times
	if o.spec.ProcessingTime {
		o.times = o.arrivals(b)
	}
	if len(o.pos) > 0 {
		o.in.begin(b, o.count)
		o.keyCols = o.keyCols[:0]
		for _, k := range o.spec.Keys {
			o.keyCols = append(o.keyCols, b.Cols[k])
		}
	}
}

// arrivals gives each position the arrival of the last mark at or before it. A
// stream without an arrival clock stands at 1970.
func (o *core) arrivals(b *batch.Batch) []int64 {
	o.arrived = sized(o.arrived, b.Rows)
	at, now := 0, clocked(o.arrival)
	for _, m := range b.Marks {
		for ; at < int(m.Row); at++ {
			o.arrived[at] = now
		}
		now = clocked(int64(m.Arrival))
	}
	for ; at < b.Rows; at++ {
		o.arrived[at] = now
	}
	return o.arrived
}

// clocked is an arrival clock, or 1970 where there is none.
func clocked(arrival int64) int64 {
	if arrival == int64(dataflow.MinTime) {
		return 0
	}
	return arrival
}

// watermark is what a mark says to this operator: in processing time, the
// arrival clock minus one microsecond, until the end of input.
func (o *core) watermark(m *batch.Mark) int64 {
	if o.spec.ProcessingTime && m.Watermark != dataflow.MaxTime {
		return plus(int64(m.Arrival), -1)
	}
	return int64(m.Watermark)
}

func (o *core) run(out operator.Output) (operator.Progress, error) {
	for {
		if !o.drain(out) {
			return operator.More, nil
		}
		switch o.phase {
		case taking, firing:
			if !o.form.next() {
				o.step()
			}
		case closing:
			if len(o.late) > 0 && !o.emitLate(out) {
				return operator.More, nil
			}
			if b := o.emit.take(); b != nil {
				out.Emit(b)
				b.Release()
			}
			o.in.end(o.b.Rows)
			o.count.KeysLive = int64(o.keys.Len())
			o.b.Release()
			o.b, o.phase = nil, idle
			return operator.Done, nil
		}
	}
}

// step goes on once the form is at rest.
func (o *core) step() {
	marks := o.b.Marks
	if o.phase == firing {
		o.passTo(o.mark)
		o.phase = taking
	}
	due := o.mark
	if n := len(marks); n > due && o.watermark(&marks[n-1]) >= o.nextWM {
		due += sort.Search(n-due, func(i int) bool { return o.watermark(&marks[due+i]) >= o.nextWM })
	} else {
		due = n
	}
	to := len(o.pos)
	if due < len(marks) {
		to = o.b.Rank(marks[due].Row)
	}
	if o.at < to {
		o.at += o.form.rows(o.at, to)
		return // their results stand among the marks before due
	}
	o.passTo(due)
	if due == len(marks) {
		o.phase = closing
		return
	}
	o.mark = due + 1
	o.wm, o.arrival = max(o.wm, o.watermark(&marks[due])), int64(marks[due].Arrival)
	o.phase, o.known = firing, span{}
	o.form.advance()
}

// passTo hands on the marks before the n-th. Those with no result between them
// become the last one.
func (o *core) passTo(n int) {
	if n <= o.passed {
		return
	}
	m := o.b.Marks[n-1]
	o.emit.mark(m)
	o.passed = n
	o.mark = max(o.mark, n)
	o.wm, o.arrival = max(o.wm, o.watermark(&m)), int64(m.Arrival)
}

// drain emits the result at hand, and whole batches of output. False means
// that the output refused.
func (o *core) drain(out operator.Output) bool {
	r := &o.res
	for {
		if o.emit.full() {
			b := o.emit.take()
			ok := out.Emit(b)
			b.Release()
			if !ok {
				return false
			}
		}
		if !r.waiting() {
			return true
		}
		n := len(r.slots) - r.next
		if r.after != nil {
			n = o.passBefore(r)
		}
		room := batch.MaxRows
		if o.emit.b != nil {
			room -= o.emit.n
		}
		o.emit.rows(r, min(n, room))
	}
}

// passBefore hands on the marks that stand before the next row of r, and tells
// how many rows come before the mark after that.
func (o *core) passBefore(r *result) int {
	marks, at := o.b.Marks, r.after[r.next]
	n := o.passed
	for n < len(marks) && marks[n].Row <= at {
		n++
	}
	o.passTo(n)
	k := r.next + 1
	for k < len(r.slots) && (n == len(marks) || r.after[k] < marks[n].Row) {
		k++
	}
	return k - r.next
}

// wmAt is the watermark at a position of the batch.
func (o *core) wmAt(p int32) int64 {
	marks := o.b.Marks[o.passed:]
	n := sort.Search(len(marks), func(i int) bool { return marks[i].Row > p })
	if n == 0 {
		return o.wm
	}
	return max(o.wm, o.watermark(&marks[n-1]))
}

// emitLate sends the batch's late rows to the side stream, as a selection of
// the input.
func (o *core) emitLate(out operator.Output) bool {
	defer func() { o.late = o.late[:0] }()
	o.count.Late += int64(len(o.late))
	if !out.Wanted(operator.Late) {
		return true
	}
	b := o.ctx.Pool.DeriveAll(o.b)
	b.Sel = append(b.OwnSel(len(o.late)), o.late...) // among the marks that they came among
	ok := out.EmitSide(operator.Late, b)
	b.Release()
	return ok
}

// lookup puts the key ids of rows into core.ids.
func (o *core) lookup(pos []int32) []int32 {
	n := len(pos)
	o.hashes, o.ids = sized(o.hashes, n), sized(o.ids, n)
	state.HashRows(o.b, o.spec.Keys, pos, o.hashes)
	o.keys.Lookup(o.keyCols, pos, o.hashes, o.ids)
	return o.ids
}

// idsOf is lookup for rows of pos of which the first ones may be asked for
// again, until something fires.
func (o *core) idsOf(from, to int) []int32 {
	if o.known.from > from || o.known.to < to {
		o.lookup(o.pos[from:to])
		o.known = span{from, to}
	}
	return o.ids[from-o.known.from : to-o.known.from]
}

// stateTable returns an empty table that is part of the state; a holding one
// holds its slots' keys by itself. sumTable returns one of neither kind.
func (o *core) stateTable(holding bool) *table {
	t := o.sumTable()
	t.state, t.held = true, holding
	return t
}

func (o *core) sumTable() *table {
	var t *table
	if n := len(o.spare); n > 0 {
		t = o.spare[n-1]
		o.spare = o.spare[:n-1]
	} else {
		t = newTable(o.in.plan, o.in.dicts)
	}
	t.held, t.state = false, false
	if o.ctx != nil {
		t.large = o.ctx.Large
	}
	return t
}

func (o *core) recycle(t *table) {
	t.reset(o.keys)
	if len(o.spare) < o.spares {
		o.spare = append(o.spare, t)
	}
}

// sweep forgets keys that nothing holds. No key id or value id that is not
// held may be in use.
func (o *core) sweep() {
	o.keys.Sweep()
	for _, d := range o.in.dicts {
		if d != nil {
			d.Sweep()
		}
	}
}

// baseBytes is the memory of what all forms have.
func (o *core) baseBytes() int64 {
	n := o.keys.Bytes()
	for _, t := range o.spare {
		n += t.bytes()
	}
	for _, d := range o.in.dicts {
		if d != nil {
			n += d.Bytes()
		}
	}
	return n
}

func newCore(s *Spec, p *plan, out *batch.Schema) *core {
	var types []batch.Type
	for _, k := range s.Keys {
		types = append(types, s.Input.Field(k).Type)
	}
	o := &core{spec: s, out: out, in: newInput(p), keys: state.NewKeyTable(types)}
	o.wm, o.arrival, o.nextWM = math.MinInt64, math.MinInt64, math.MinInt64
	o.before = math.MinInt64
	o.spares = 8
	o.emit = emitter{schema: out, plan: p, keys: o.keys, nkeys: len(s.Keys)}
	return o
}
