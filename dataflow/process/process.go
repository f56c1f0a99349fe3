package process

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// Function is what a user writes. One is made for each subtask, and called from
// one goroutine. It keeps nothing between calls but in its state.
//
// An error, or a panic, is that of one row, and Config.OnError says what becomes
// of it: what the call has done to state, timers and output is undone, and if it
// was given several rows it is called again for each of them alone. So a call
// must do nothing that cannot be undone.
type Function interface {
	// Process takes rows that follow each other and have one key, in their order.
	// How many come in one call depends on what has arrived, and must not matter.
	Process(c *Context, r Run) error
	// OnTimer is called for each timer of a key when its clock has reached it:
	// those of event time first, each clock's in order of time, before the mark
	// that brought the time goes on.
	OnTimer(c *Context, t Timer) error
}

// Run is a view on rows of one key. It is the callee's for the call only.
type Run struct {
	Batch *batch.Batch
	Rows  []int32 // positions
}

// Timer is one that has come due.
type Timer struct {
	Clock state.Domain
	At    dataflow.Time
}

// Config describes a keyed process operator.
type Config struct {
	Input  *batch.Schema
	Keys   []int // columns of the input that the stream was keyed by
	Output *batch.Schema
	Late   *batch.Schema // of the side stream `late`; nil: there is none

	// OnError is what becomes of a row on which the function fails. Rejected rows
	// go to the side stream `rejected`, the reason behind their columns. For a
	// timer, that is a row with the key's columns alone, and the timer's time.
	OnError operator.OnError
	// New declares the state of a subtask and returns its function.
	New func(s *state.Store) Function
}

// New makes the factory of the operator. Mistakes in the declarations are found
// here.
func New(cfg Config) (operator.Factory, error) {
	for _, k := range cfg.Keys {
		if k < 0 || k >= cfg.Input.Len() {
			return nil, fmt.Errorf("process: key column %d of %d", k, cfg.Input.Len())
		}
	}
	if len(cfg.Keys) == 0 || cfg.Output == nil || cfg.New == nil {
		return nil, errors.New("process: keys, output and function are needed")
	}
	f := &factory{cfg: cfg}
	if cfg.OnError == operator.RejectRow {
		f.rejected = rejectedSchema(cfg.Input)
	}
	s := f.store()
	cfg.New(s)
	if err := s.Open(batch.NewPool(0, nil), nil); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	return f, nil
}

type factory struct {
	cfg      Config
	rejected *batch.Schema
}

// rejectedSchema is the input's columns and the reason.
func rejectedSchema(in *batch.Schema) *batch.Schema {
	name := operator.ReasonColumn
	for n := 2; in.Index(name) >= 0; n++ {
		name = fmt.Sprintf("%s_%d", operator.ReasonColumn, n)
	}
	return batch.MustSchema(append(slices.Clone(in.Fields()), batch.Field{Name: name, Type: batch.String})...)
}

func (f *factory) store() *state.Store {
	var key []batch.Field
	for _, k := range f.cfg.Keys {
		key = append(key, f.cfg.Input.Field(k))
	}
	return state.NewStore(key)
}

func (f *factory) Output() *batch.Schema { return f.cfg.Output }

func (f *factory) Side(s operator.Side) *batch.Schema {
	if s == operator.Late {
		return f.cfg.Late
	}
	return f.rejected
}

// Backed is operator.Backed's.
func (f *factory) Backed() bool { return true }

func (f *factory) New() operator.Operator {
	o := &keyed{factory: f, store: f.store()}
	o.fn = f.cfg.New(o.store)
	return o
}

// Context is what a function has besides its state and its rows.
type Context struct {
	Out  *Emitter // the main stream
	Late *Emitter // the side stream `late`; nil if there is none

	store *state.Store
	key   int32
}

// Watermark is the event-time clock: that of the last mark.
func (c *Context) Watermark() dataflow.Time { w, _ := c.store.Clock(); return w }

// Arrival is the arrival clock; MinTime as long as there is none.
func (c *Context) Arrival() dataflow.Time { _, a := c.store.Clock(); return a }

// Key is the current key: a column of one row for each of its columns. It holds
// for the call.
func (c *Context) Key() []*batch.Column { return c.store.KeyColumns(c.key) }

// SetTimer sets a timer of the current key; one for the same time and clock is
// the same timer. One whose time is past fires at the next mark.
func (c *Context) SetTimer(clock state.Domain, at dataflow.Time) { c.store.SetTimer(clock, at) }

// DeleteTimer deletes a timer of the current key, if there is one.
func (c *Context) DeleteTimer(clock state.Domain, at dataflow.Time) { c.store.DeleteTimer(clock, at) }

// Timers is how many timers of a clock the current key has.
func (c *Context) Timers(clock state.Domain) int { return c.store.Timers(clock) }

// Emitter takes rows for one stream, built value by value. Columns that are not
// set are null. What one call emits is kept until it ends.
type Emitter struct {
	bl     *batch.Builder
	done   []*batch.Batch
	rows   bool // the builder has rows, not marks alone
	unread bool // nobody reads this side stream
}

// SetInt sets a bigint or timestamp column of the row.
func (e *Emitter) SetInt(col int, v int64) { e.bl.SetInt(col, v) }

// SetDouble sets a double column of the row.
func (e *Emitter) SetDouble(col int, v float64) { e.bl.SetDouble(col, v) }

// SetBool sets a boolean column of the row.
func (e *Emitter) SetBool(col int, v bool) { e.bl.SetBool(col, v) }

// SetBytes sets a string or bytes column of the row to a copy of v.
func (e *Emitter) SetBytes(col int, v []byte) { e.bl.SetBytes(col, v) }

// SetString sets a string or bytes column of the row.
func (e *Emitter) SetString(col int, v string) { e.bl.SetString(col, v) }

// Set sets a column of the row to a value of another column of its type.
func (e *Emitter) Set(col int, from *batch.Column, row int) {
	switch {
	case from.IsNull(row):
		e.bl.SetNull(col)
	case from.Type == batch.Boolean:
		e.bl.SetBool(col, from.Bits.Get(row))
	case from.Type == batch.Double:
		e.bl.SetDouble(col, from.Doubles[row])
	case from.Type.Variable():
		e.bl.SetBytes(col, from.At(row))
	default:
		e.bl.SetInt(col, from.Ints[row])
	}
}

// Row is the row under way, for what sets a column of a builder's row. Rows are
// ended with EndRow of the Emitter.
func (e *Emitter) Row() *batch.Builder { return e.bl }

// EndRow finishes the row with its event time.
func (e *Emitter) EndRow(t dataflow.Time) {
	if e.unread {
		e.bl.AbortRow()
		return
	}
	e.bl.EndRow(t)
	e.rows = true
	if e.bl.Full() {
		e.cut()
	}
}

// cut ends the batch under way.
func (e *Emitter) cut() {
	if b := e.bl.Take(); b != nil {
		e.done = append(e.done, b)
	}
	e.rows = false
}

// place is where an Emitter stood.
type place struct {
	done, len int
	rows      bool
}

func (e *Emitter) place() place {
	if e == nil {
		return place{}
	}
	return place{done: len(e.done), len: e.bl.Len(), rows: e.rows}
}

// back forgets the rows since p.
func (e *Emitter) back(p place) {
	if e == nil {
		return
	}
	if len(e.done) == p.done {
		e.bl.Truncate(p.len)
		e.rows = p.rows
		return
	}
	e.bl.Truncate(0)
	e.rows = false
	for _, b := range e.done[p.done+1:] {
		b.Release()
	}
	e.done = e.done[:p.done+1]
	b := e.done[p.done]
	if p.len == 0 && len(b.Marks) == 0 {
		b.Release()
		e.done = e.done[:p.done]
		return
	}
	sel := b.OwnSel(p.len)
	for i := range p.len {
		sel = append(sel, int32(i))
	}
	b.Sel = sel
}
