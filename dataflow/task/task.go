package task

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// New builds the subtask and opens its operators.
func New(cfg Config) (*Task, error) {
	t := &Task{cfg: cfg, gate: newGate(cfg.Channels, cfg.AtLeastOnce)}
	if cfg.Channels > 0 {
		t.checkEdges()
		t.newMerge()
		t.inputs = inputsTable()
	}
	for i, lc := range cfg.Links {
		l := &link{task: t, id: lc.ID, index: i, sink: lc.Sink}
		t.links = append(t.links, l)
		if i > 0 {
			p := t.links[lc.Parent]
			p.children = append(p.children, l)
		}
		if lc.Factory == nil {
			continue
		}
		var err error
		if l.op, err = operator.NewGuard(lc.Factory, t.context(l)); err != nil {
			return nil, fmt.Errorf("open operator %q: %w", lc.ID, err)
		}
	}
	for i, o := range cfg.Outputs {
		l := t.links[o.Link]
		out := output{index: i, partition: o.Partitioner, emit: func(channel int, b *batch.Batch) {
			t.put(Effect{Kind: Send, Output: i, Channel: channel, Batch: b})
		}}
		if o.Side {
			l.sides[o.SideStream] = append(l.sides[o.SideStream], out)
		} else {
			l.outs = append(l.outs, out)
		}
	}
	if cfg.Source != nil {
		s, err := newSource(t, cfg.Source)
		if err != nil {
			return nil, fmt.Errorf("open source %q: %w", cfg.Links[0].ID, err)
		}
		t.source = s
	}
	return t, nil
}

func (t *Task) context(l *link) *operator.Context {
	return &operator.Context{
		Operator: l.id, Subtask: t.cfg.ID.Index, Parallelism: t.cfg.Parallelism, MaxParallelism: t.cfg.MaxParallelism,
		KeyGroups: dataflow.RangeOf(t.cfg.ID.Index, t.cfg.Parallelism, t.cfg.MaxParallelism),
		Pool:      t.cfg.Pool, Counters: &l.counters, Backing: t.cfg.Links[l.index].Backing, Large: t.cfg.Large,
	}
}

// Like tells whether a task of cfg would have the operators of this one, and be
// fed as it is. What the operators do only the job's text says.
func (t *Task) Like(cfg *Config) bool {
	c := &t.cfg
	if c.ID != cfg.ID || c.Parallelism != cfg.Parallelism || c.MaxParallelism != cfg.MaxParallelism || c.Channels != cfg.Channels || c.AtLeastOnce != cfg.AtLeastOnce ||
		len(c.Links) != len(cfg.Links) || len(c.Outputs) != len(cfg.Outputs) {
		return false
	}
	for i := range c.Links {
		if c.Links[i].ID != cfg.Links[i].ID || c.Links[i].Parent != cfg.Links[i].Parent {
			return false
		}
	}
	return true
}

// Tables are all tables of the task's state, in the order in which Restore takes
// them.
func (t *Task) Tables() []TableOf { return TablesOf(&t.cfg) }

// TablesOf are the tables that a task made of cfg would have.
func TablesOf(cfg *Config) []TableOf {
	var all []TableOf
	for i, l := range cfg.Links {
		var tables []operator.StateTable
		switch {
		case i > 0:
		case cfg.Source != nil:
			tables = append(tables, splitsTable())
			tables = append(tables, eventtime.StateTables()...)
			if d := cfg.Source.Dedupe; d != nil {
				tables = append(tables, dedupe.Tables(*d, cfg.Source.Schema)...)
			}
		default:
			tables = append(tables, inputsTable())
		}
		if l.Factory != nil {
			tables = append(tables, l.Factory.New().StateTables()...)
		}
		for _, tab := range tables {
			all = append(all, TableOf{Operator: l.ID, StateTable: tab})
		}
	}
	return all
}

// Restore gives an operator rows of one of its tables back, before the first
// Step; tables come in the order of Tables. Rows are those that the table's
// spread gives to this subtask. It borrows b.
func (t *Task) Restore(id dataflow.OperatorID, table string, b *batch.Batch) error {
	for _, l := range t.links {
		if l.id != id {
			continue
		}
		if table == inputsName && l.index == 0 && t.merge != nil {
			t.restoreInputs(b)
			return nil
		}
		st := t.stateful(l)
		if st == nil {
			break
		}
		for i, tab := range st.StateTables() {
			if tab.Name == table {
				if err := st.Restore(i, b); err != nil {
					return fmt.Errorf("restore table %q of operator %q: %w", table, id, err)
				}
				return nil
			}
		}
	}
	return fmt.Errorf("task %s: no state table %q of operator %q", t.cfg.ID, table, id)
}

// Expect tells an operator about how many rows Restore is going to give it of one
// of its tables.
func (t *Task) Expect(id dataflow.OperatorID, table string, rows int64) {
	for _, l := range t.links {
		if l.id != id || l.op == nil {
			continue
		}
		for i, tab := range l.op.StateTables() {
			if tab.Name == table {
				l.op.Expect(i, rows)
			}
		}
	}
}

// Amends tells whether a table can be restored before it is known how it ends:
// operator.Amender.
func (t *Task) Amends(id dataflow.OperatorID, table string) bool {
	_, _, ok := t.amended(id, table)
	return ok
}

// Amend gives an operator rows of a delta on what it has been given of one of its
// tables, of which Amends says that it can be. It borrows b.
func (t *Task) Amend(id dataflow.OperatorID, table string, b *batch.Batch) error {
	l, i, ok := t.amended(id, table)
	if !ok {
		return fmt.Errorf("task %s: state table %q of operator %q cannot be amended", t.cfg.ID, table, id)
	}
	if err := l.op.Amend(i, b); err != nil {
		return fmt.Errorf("amend table %q of operator %q: %w", table, id, err)
	}
	return nil
}

// amended finds a table that can be amended.
func (t *Task) amended(id dataflow.OperatorID, table string) (l *link, i int, ok bool) {
	for _, l := range t.links {
		if l.id != id || l.op == nil {
			continue
		}
		for i, tab := range l.op.StateTables() {
			if tab.Name == table && tab.Keyed && tab.Identity > 0 && l.op.Amends(i) {
				return l, i, true
			}
		}
	}
	return nil, 0, false
}

// Positions are where a restored source's reader has to go on; Split counts as
// in the reader. Splits that the state does not know are not among them: they
// are read from their beginning.
func (t *Task) Positions() []sensors.Position {
	var all []sensors.Position
	if t.source == nil {
		return nil
	}
	for i := range t.source.splits {
		if sp := &t.source.splits[i]; sp.read {
			all = append(all, sensors.Position{Split: i, Offset: sp.offset})
		}
	}
	return all
}

// stateful is what keeps the state of a link, or nil.
func (t *Task) stateful(l *link) operator.Stateful {
	if t.source != nil && l.index == 0 {
		return t.source
	}
	if l.op == nil {
		return nil // not an interface that holds a nil pointer
	}
	return l.op
}

// Step takes one input and returns the effects of it. See the package comment.
func (t *Task) Step(in Input) []Effect {
	t.effects, t.emitted = t.effects[:0], 0
	if t.saved != nil {
		t.ready()
	}
	if t.err != nil || t.done {
		panic(fmt.Sprintf("task %s: a step after its end", t.cfg.ID))
	}
	if t.suspended() && in.Kind != Resume {
		panic(fmt.Sprintf("task %s: input %d before Resume", t.cfg.ID, in.Kind))
	}
	t.take(in)
	if t.err == nil {
		t.advance()
	}
	return t.effects
}

func (t *Task) take(in Input) {
	switch in.Kind {
	case Data:
		t.data(in.Channel, in.Batch)
	case Barrier:
		t.settleGate(in.Channel, t.gate.barrier(in.Channel, in.Barrier))
	case End:
		if t.source != nil {
			t.source.finish()
			return
		}
		t.settleGate(in.Channel, t.gate.end(in.Channel))
	case Begin:
		t.begin()
	case Raw:
		t.source.take(in.Records)
	case Columns:
		t.source.columns(in)
	case Trigger:
		t.trigger(in.Barrier)
	case Stop:
		t.stopped = true
	case Resume:
		t.resume()
	default:
		panic(fmt.Sprintf("task %s: unknown input %d", t.cfg.ID, in.Kind))
	}
}

// begin says again where a restored task stands: receivers that are new know
// nothing of it, and it may have come further by what became of its inputs.
func (t *Task) begin() {
	switch {
	case t.source != nil:
		t.source.begin()
	case len(t.cfg.Edges) > 0:
		if m := t.merge.Out(); said(m) {
			b := t.cfg.Pool.MarksOnly(t.cfg.Edges[0].Schema, m)
			t.links[0].process(b)
			b.Release()
		}
	}
}

// said tells whether a mark says anything.
func said(m batch.Mark) bool {
	return m.Watermark != dataflow.MinTime || m.Arrival != dataflow.MinTime || m.Idle
}

// advance goes on as far as the effects allow and says what comes next.
func (t *Task) advance() {
	if t.source != nil {
		t.source.advance()
	}
	if t.draining != nil && t.err == nil && !t.suspended() {
		b := *t.draining
		t.draining = nil
		t.snapshot(b)
	}
	switch {
	case t.err != nil:
	case t.suspended():
		t.put(Effect{Kind: Again})
	case t.finished():
		t.done = true
		t.put(Effect{Kind: SendEnd})
		t.put(Effect{Kind: Finished})
	case t.source != nil && t.source.ended() && !t.exhausted:
		t.exhausted = true
		t.put(Effect{Kind: Exhausted})
	}
}

// trigger puts a barrier into the stream; to drain, behind the mark of the end.
func (t *Task) trigger(b dataflow.Barrier) {
	if b.Then != dataflow.Drain {
		t.snapshot(b)
		return
	}
	t.exhausted = true // whoever drains a job knows it
	t.source.finish()
	t.draining = &b
}

func (t *Task) finished() bool {
	if t.source != nil {
		return t.stopped || t.source.ended() && !t.cfg.Durable
	}
	return t.gate.open == 0
}

// data passes a batch of a channel through the merge into the chain.
func (t *Task) data(channel int, b *batch.Batch) {
	if t.gate.isBlocked(channel) {
		panic(fmt.Sprintf("task %s: data on channel %d, which is blocked", t.cfg.ID, channel))
	}
	m := t.merge.Rewrite(channel, b, t.cfg.Pool)
	b.Release()
	if m.Len() > 0 || len(m.Marks) > 0 {
		t.links[0].process(m)
	}
	m.Release()
}

func (t *Task) settleGate(channel int, ev gateEvent) {
	if ev.aborted {
		t.put(Effect{Kind: Aborted, Barrier: ev.gaveUp})
	}
	if ev.complete {
		t.snapshot(t.gate.current)
	}
	if ev.blocked {
		t.put(Effect{Kind: Block, Channel: channel})
	}
	for _, c := range ev.unblock {
		t.put(Effect{Kind: Unblock, Channel: c})
	}
}

// GoesOn says, before the first Step, that the rows which an operator was given
// back are on disk as its own: its first snapshot may be a delta on them. The first
// one of any other operator is whole, whatever the barrier says.
func (t *Task) GoesOn(id dataflow.OperatorID) {
	for _, l := range t.links {
		l.based = l.based || l.id == id
	}
}

// snapshot takes the state of every link and sends the barrier on.
func (t *Task) snapshot(barrier dataflow.Barrier) {
	e := Effect{Kind: Snapshot, Barrier: barrier}
	keep := func(id dataflow.OperatorID, table string, b *batch.Batch) {
		e.State = append(e.State, StateRows{Operator: id, Table: table, Batch: b.Retain()})
	}
	for _, l := range t.links {
		if !barrier.Full && !l.based {
			e.Whole = append(e.Whole, l.id)
		}
		if err := t.snapshotLink(l, !barrier.Full && l.based, keep); err != nil {
			for _, s := range e.State {
				s.Batch.Release()
			}
			t.fail(fmt.Errorf("snapshot of operator %q: %w", l.id, err))
			return
		}
		l.based = true
	}
	if t.source != nil {
		e.Positions = t.source.positions()
	}
	t.put(e)
	t.put(Effect{Kind: SendBarrier, Barrier: barrier})
}

func (t *Task) snapshotLink(l *link, delta bool, keep func(dataflow.OperatorID, string, *batch.Batch)) error {
	if l.index == 0 && t.merge != nil {
		if err := t.saveInputs(func(b *batch.Batch) error { keep(l.id, inputsName, b); return nil }); err != nil {
			return err
		}
	}
	st := t.stateful(l)
	if st == nil {
		return nil
	}
	tables := st.StateTables()
	if len(tables) == 0 {
		return nil
	}
	return st.Snapshot(delta, func(table int, b *batch.Batch) error {
		keep(l.id, tables[table].Name, b)
		return nil
	})
}

// full tells whether the step has done enough.
func (t *Task) full() bool { return len(t.effects) >= maxEffects || t.emitted >= maxEmits }

func (t *Task) put(e Effect) { t.effects = append(t.effects, e) }

func (t *Task) fail(err error) {
	if t.err == nil {
		t.err = err
		t.put(Effect{Kind: Fail, Err: err})
	}
}

// Close ends the task early. Batches that suspended operators hold are left to
// the garbage collector; the pool goes with the job.
func (t *Task) Close() { t.done = true }

// LinkCounters is a copy of one operator's counters.
type LinkCounters struct {
	Operator dataflow.OperatorID
	operator.Counters
}

// Counters appends a copy of the counters of all links to dst.
func (t *Task) Counters(dst []LinkCounters) []LinkCounters {
	for _, l := range t.links {
		dst = append(dst, LinkCounters{Operator: l.id, Counters: l.counters})
	}
	return dst
}

// Watermark is what the chain was last told: the task's event-time clock, and
// the arrival clock.
func (t *Task) Watermark() (event, arrival dataflow.Time) {
	if t.source != nil {
		return t.source.clock()
	}
	m := t.merge.Out()
	return m.Watermark, m.Arrival
}
