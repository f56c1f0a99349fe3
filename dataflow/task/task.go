package task

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// New builds the subtask and opens its operators.
func New(cfg Config) (*Task, error) {
	t := &Task{cfg: cfg, gate: newGate(cfg.Channels, cfg.AtLeastOnce)}
	if cfg.Channels > 0 {
		t.merge = eventtime.NewMerge(cfg.Channels)
		for _, c := range cfg.Empty {
			t.merge.End(c)
		}
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
		l.op = lc.Factory.New()
		if err := l.op.Open(t.context(l)); err != nil {
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
		Pool:      t.cfg.Pool, Counters: &l.counters,
	}
}

// Restore gives an operator rows of one of its tables back, before the first
// Step. It borrows b.
func (t *Task) Restore(id dataflow.OperatorID, table string, b *batch.Batch) error {
	for _, l := range t.links {
		if l.id != id {
			continue
		}
		st := t.stateful(l)
		if st == nil {
			break
		}
		for i, tab := range st.StateTables() {
			if tab.Name == table {
				return st.Restore(i, b)
			}
		}
	}
	return fmt.Errorf("task %s: no state table %q of operator %q", t.cfg.ID, table, id)
}

// stateful is what keeps the state of a link, or nil.
func (t *Task) stateful(l *link) operator.Stateful {
	if t.source != nil && l.index == 0 {
		return t.source
	}
	if l.op == nil {
		return nil
	}
	return l.op
}

// Step takes one input and returns the effects of it. See the package comment.
func (t *Task) Step(in Input) []Effect {
	t.effects, t.emitted = t.effects[:0], 0
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
		t.settleGate(in.Channel, t.gate.barrier(in.Channel, in.Checkpoint))
	case End:
		if t.source != nil {
			t.source.end()
			return
		}
		t.settleGate(in.Channel, t.gate.end(in.Channel))
	case Raw:
		t.source.begin(in.Records)
	case Columns:
		t.source.columns(in)
	case Trigger:
		t.snapshot(in.Checkpoint)
	case Stop:
		t.stopped = true
	case Resume:
		t.resume()
	default:
		panic(fmt.Sprintf("task %s: unknown input %d", t.cfg.ID, in.Kind))
	}
}

// advance goes on as far as the effects allow and says what comes next.
func (t *Task) advance() {
	if t.source != nil {
		t.source.advance()
	}
	switch {
	case t.err != nil:
	case t.suspended():
		t.put(Effect{Kind: Again})
	case t.finished():
		t.done = true
		t.put(Effect{Kind: SendEnd})
		t.put(Effect{Kind: Finished})
	}
}

func (t *Task) finished() bool {
	if t.source != nil {
		return t.stopped || t.source.ended()
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
		t.put(Effect{Kind: Aborted, Checkpoint: ev.abortedID})
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

// snapshot takes the state of every link and sends the barrier on.
func (t *Task) snapshot(id dataflow.CheckpointID) {
	var rows []StateRows
	for _, l := range t.links {
		st := t.stateful(l)
		if st == nil {
			continue
		}
		tables := st.StateTables()
		if len(tables) == 0 {
			continue
		}
		err := st.Snapshot(false, func(table int, b *batch.Batch) error {
			rows = append(rows, StateRows{Operator: l.id, Table: tables[table].Name, Batch: b.Retain()})
			return nil
		})
		if err != nil {
			t.fail(fmt.Errorf("snapshot of operator %q: %w", l.id, err))
			return
		}
	}
	t.put(Effect{Kind: Snapshot, Checkpoint: id, State: rows})
	t.put(Effect{Kind: SendBarrier, Checkpoint: id})
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
