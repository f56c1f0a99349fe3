package process

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// phase is where the operator stands in its batch.
type phase uint8

// The phases. Each mark is a round of expire, events and arrivals; what arrival
// timers set for the other clock fires in a further round.
const (
	idle     phase = iota // no batch
	fetch                 // the keys of the batch are brought into memory
	rows                  // rows up to the next mark, or the end
	expire                // state that has expired is removed
	events                // event-time timers fire
	arrivals              // arrival timers fire
	end                   // all is done but what is left to emit
)

// keyed is the operator of one subtask. See operator.Operator.
type keyed struct {
	factory *factory
	ctx     *operator.Context
	store   *state.Store
	fn      Function
	c       Context
	reject  *Emitter // nil: rows are not rejected

	b         *batch.Batch
	positions []int32
	hashes    []uint64
	ids       []int32
	keyCols   []*batch.Column
	at        int // row
	mark      int
	phase     phase
	again     bool // an arrival timer fired in this round
	asked     bool // the Backing was asked for something
	resolved  bool // ids are those of the batch's keys
}

// Open makes the builders.
func (o *keyed) Open(ctx *operator.Context) error {
	o.ctx = ctx
	o.c.store = o.store
	o.c.Out = &Emitter{bl: batch.NewBuilder(ctx.Pool, o.factory.cfg.Output)}
	if o.factory.cfg.Late != nil {
		o.c.Late = &Emitter{bl: batch.NewBuilder(ctx.Pool, o.factory.cfg.Late)}
	}
	if o.factory.rejected != nil {
		o.reject = &Emitter{bl: batch.NewBuilder(ctx.Pool, o.factory.rejected)}
	}
	o.keyCols = make([]*batch.Column, len(o.factory.cfg.Keys))
	return o.store.Open(ctx.Pool, ctx.Backing)
}

// StateTables is operator.Stateful's.
func (o *keyed) StateTables() []operator.StateTable { return o.store.StateTables() }

// Snapshot is operator.Stateful's.
func (o *keyed) Snapshot(delta bool, emit func(int, *batch.Batch) error) error {
	return o.store.Snapshot(delta, emit)
}

// Restore is operator.Stateful's.
func (o *keyed) Restore(table int, b *batch.Batch) error {
	err := o.store.Restore(table, b)
	o.count()
	return err
}

// Amends is operator.Amender's.
func (o *keyed) Amends(table int) bool { return o.store.Amends(table) }

// Amend is operator.Amender's.
func (o *keyed) Amend(table int, b *batch.Batch) error {
	err := o.store.Amend(table, b)
	o.count()
	return err
}

// Process takes a batch.
func (o *keyed) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	o.b = b.Retain()
	n := b.Len()
	o.positions = o.positions[:0]
	for k := range n {
		o.positions = append(o.positions, int32(b.Position(k)))
	}
	o.at, o.mark, o.phase = 0, 0, fetch
	for i, k := range o.factory.cfg.Keys {
		o.keyCols[i] = b.Cols[k]
	}
	o.store.Sweep()
	return o.run(out)
}

// Resume goes on.
func (o *keyed) Resume(out operator.Output) (operator.Progress, error) {
	if o.asked {
		o.asked = false
		if err := o.store.Arrived(); err != nil {
			return o.fail(err)
		}
	}
	return o.run(out)
}

func (o *keyed) run(out operator.Output) (operator.Progress, error) {
	if o.c.Late != nil {
		o.c.Late.unread = !out.Wanted(operator.Late)
	}
	if o.reject != nil {
		o.reject.unread = !out.Wanted(operator.Rejected)
	}
	for {
		if !o.flush(out) {
			return operator.More, nil
		}
		step, err := o.step()
		switch {
		case err != nil:
			return o.fail(err)
		case step == state.Wait:
			o.asked = true
			return operator.Need, nil
		case o.phase == end:
			o.cut()
			if !o.flush(out) {
				return operator.More, nil
			}
			o.finish()
			return operator.Done, nil
		}
	}
}

// step does one thing, and says whether it has to wait for the Backing.
func (o *keyed) step() (state.Step, error) {
	switch o.phase {
	case fetch:
		if !o.resolve() {
			return state.Wait, nil
		}
		o.phase = rows
	case rows:
		if o.at < o.segment() {
			return state.Got, o.nextRun()
		}
		if o.mark == len(o.b.Marks) {
			o.phase = end
			return state.Got, nil
		}
		m := o.b.Marks[o.mark]
		o.store.SetClock(m.Watermark, m.Arrival)
		o.phase = expire
	case expire:
		if step := o.store.Expire(); step != state.None {
			return step, nil
		}
		o.phase, o.again = events, false
	case events:
		return o.fire(state.EventTime, o.b.Marks[o.mark].Watermark, arrivals)
	case arrivals:
		return o.fire(state.ArrivalTime, o.b.Marks[o.mark].Arrival, rows)
	}
	return state.Got, nil
}

// resolve finds the ids of the batch's keys and has them in memory.
func (o *keyed) resolve() bool {
	n := len(o.positions)
	if !o.resolved {
		o.hashes, o.ids = sized(o.hashes, n), sized(o.ids, n)
		state.HashRows(o.b, o.factory.cfg.Keys, o.positions, o.hashes)
		o.store.Lookup(o.keyCols, o.positions, o.hashes, o.ids)
		o.resolved = true
	}
	return o.store.Fetch(o.ids)
}

func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}

// segment is the row before which the next mark stands.
func (o *keyed) segment() int {
	if o.mark == len(o.b.Marks) {
		return len(o.positions)
	}
	return o.b.Rank(o.b.Marks[o.mark].Row)
}

// nextRun gives the function the next rows of one key.
func (o *keyed) nextRun() error {
	from, to := o.at, o.at+1
	for stop := o.segment(); to < stop && o.ids[to] == o.ids[from]; {
		to++
	}
	o.at = to
	r := Run{Batch: o.b, Rows: o.positions[from:to]}
	err := o.guarded(o.ids[from], r, nil)
	if err == nil || o.store.Err() != nil {
		return err
	}
	for i := from; i < to; i++ {
		if r.Rows = o.positions[i : i+1]; to-from > 1 {
			err = o.guarded(o.ids[i], r, nil)
		}
		if err == nil {
			continue
		}
		if err := o.bad(err, int(r.Rows[0]), nil); err != nil {
			return err
		}
	}
	return nil
}

// fire fires the next timer of a clock, or goes on to the next phase.
func (o *keyed) fire(clock state.Domain, until dataflow.Time, next phase) (state.Step, error) {
	id, at, step := o.store.NextTimer(clock, until)
	switch {
	case step == state.Wait:
		return step, nil
	case step == state.Got:
		o.again = o.again || clock == state.ArrivalTime
		t := Timer{Clock: clock, At: at}
		err := o.guarded(id, Run{}, &t)
		if err != nil && o.store.Err() == nil {
			o.take(id, t) // it is not tried again
			o.store.Commit()
			o.store.NoKey()
			err = o.bad(err, -1, &t)
		}
		return state.Got, err
	case clock == state.ArrivalTime && o.again:
		o.phase, o.again = events, false
	case clock == state.ArrivalTime:
		o.marks(o.b.Marks[o.mark])
		o.mark++
		o.phase = next
	default:
		o.phase = next
	}
	return state.Got, nil
}

func (o *keyed) take(id int32, t Timer) {
	o.c.key = id
	o.store.SetKey(id)
	o.store.DeleteTimer(t.Clock, t.At)
}

// guarded calls the function for rows, or for a timer, of a key. If it fails,
// nothing remains of the call.
func (o *keyed) guarded(id int32, r Run, t *Timer) (err error) {
	main, late := o.c.Out.place(), o.c.Late.place()
	done := false
	defer func() {
		if p := recover(); p != nil {
			err = operator.NewPanicError(p)
		}
		o.c.Out.bl.AbortRow()
		if o.c.Late != nil {
			o.c.Late.bl.AbortRow()
		}
		if err == nil {
			err = o.store.Err()
		}
		if done && err == nil {
			o.store.Commit()
		} else {
			o.store.Undo()
			o.c.Out.back(main)
			o.c.Late.back(late)
		}
		o.store.NoKey()
	}()
	o.c.key = id
	if t != nil {
		o.take(id, *t)
		err = o.fn.OnTimer(&o.c, *t)
	} else {
		o.store.SetKey(id)
		err = o.fn.Process(&o.c, r)
	}
	done = true
	return err
}

// bad deals with a row, or a timer, on which the function failed. Such are
// rare: here memory is allocated for them.
func (o *keyed) bad(err error, row int, t *Timer) error {
	where := "of a timer at " + fmt.Sprint(timeOf(t))
	if row >= 0 {
		where = "at " + dataflow.Time(o.b.Times[row]).String()
	}
	var panicked *operator.PanicError
	reason := err.Error()
	if errors.As(err, &panicked) {
		reason = "panic: " + panicked.Value
	}
	switch {
	case o.reject != nil:
	case panicked != nil:
		if panicked.Row = where + ", key (" + o.describeKey() + ")"; row >= 0 {
			panicked.At = &o.b.Times[row]
		}
		return panicked
	default:
		return fmt.Errorf("row %s, key (%s): %w; `on_error: reject` would send such rows to the step's side stream `rejected`", where, o.describeKey(), err)
	}
	o.ctx.Counters.Rejected++
	if o.ctx.Counters.FirstRejected == "" {
		o.ctx.Counters.FirstRejected = reason
	}
	in := o.factory.cfg.Input.Len()
	if row >= 0 {
		for i, c := range o.b.Cols {
			o.reject.Set(i, c, row)
		}
		o.reject.SetString(in, reason)
		o.reject.EndRow(dataflow.Time(o.b.Times[row]))
		return nil
	}
	for i, c := range o.c.Key() {
		o.reject.Set(o.factory.cfg.Keys[i], c, 0)
	}
	o.reject.SetString(in, where+": "+reason)
	o.reject.EndRow(t.At)
	return nil
}

func timeOf(t *Timer) dataflow.Time {
	if t == nil {
		return dataflow.MinTime
	}
	return t.At
}

func (o *keyed) describeKey() string {
	var s strings.Builder
	for i, c := range o.c.Key() {
		if i > 0 {
			s.WriteString(", ")
		}
		s.WriteString(o.factory.cfg.Input.Field(o.factory.cfg.Keys[i]).Name)
		s.WriteByte('=')
		switch {
		case c.IsNull(0):
			s.WriteString("null")
		case c.Type == batch.Boolean:
			fmt.Fprint(&s, c.Bits.Get(0))
		case c.Type == batch.Double:
			fmt.Fprint(&s, c.Doubles[0])
		case c.Type.Variable():
			fmt.Fprintf(&s, "%.40q", c.At(0))
		default:
			fmt.Fprint(&s, c.Ints[0])
		}
	}
	return s.String()
}

// marks passes a mark on, to side streams among their rows only.
func (o *keyed) marks(m batch.Mark) {
	o.c.Out.bl.Mark(m)
	for _, e := range []*Emitter{o.c.Late, o.reject} {
		if e != nil && !e.unread {
			e.bl.Mark(m)
		}
	}
}

// cut ends the batches under way.
func (o *keyed) cut() {
	o.c.Out.cut()
	for _, e := range []*Emitter{o.c.Late, o.reject} {
		switch {
		case e == nil:
		case e.rows:
			e.cut()
		default:
			if b := e.bl.Take(); b != nil { // marks alone: the task sends those itself
				b.Release()
			}
		}
	}
}

// flush emits batches that are finished; false: the output is full, and there
// may be more.
func (o *keyed) flush(out operator.Output) bool {
	if e := o.reject; e != nil {
		for len(e.done) > 0 {
			if !emitFirst(e, func(b *batch.Batch) bool { return out.EmitSide(operator.Rejected, b) }) {
				return false
			}
		}
	}
	if e := o.c.Late; e != nil {
		for len(e.done) > 0 {
			if !emitFirst(e, func(b *batch.Batch) bool { return out.EmitSide(operator.Late, b) }) {
				return false
			}
		}
	}
	for e := o.c.Out; len(e.done) > 0; {
		if !emitFirst(e, out.Emit) {
			return false
		}
	}
	return true
}

func emitFirst(e *Emitter, emit func(*batch.Batch) bool) bool {
	b := e.done[0]
	e.done = e.done[:copy(e.done, e.done[1:])]
	free := emit(b)
	b.Release()
	return free
}

// finish ends the batch.
func (o *keyed) finish() {
	o.store.Unpin(o.ids[:len(o.positions)])
	o.b.Release()
	o.b, o.phase, o.resolved = nil, idle, false
	o.count()
}

func (o *keyed) count() {
	o.ctx.Counters.KeysLive = o.store.KeysLive()
	o.ctx.Counters.StateBytes = o.store.Bytes()
}

// fail gives up what is held: the job fails.
func (o *keyed) fail(err error) (operator.Progress, error) {
	o.b.Release()
	o.b = nil
	for _, e := range []*Emitter{o.c.Out, o.c.Late, o.reject} {
		if e == nil {
			continue
		}
		e.cut()
		for _, b := range e.done {
			b.Release()
		}
		e.done = nil
	}
	return operator.Done, err
}
