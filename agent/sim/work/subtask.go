package work

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// depth is how many messages wait in a channel before its sender blocks.
const depth = 8

// subtask drives a task.Task: what dataflow/runtime's driver does, without a
// goroutine. It does a little whenever it is woken.
type subtask struct {
	a       *attempt
	index   int
	sub     *runtime.Subtask
	task    *task.Task
	warm    *task.Task // the same, if it was given state before the attempt came
	in      []inChannel
	turn    int
	ops     []op // what the last Step asked for and is not done yet
	again   bool // the next input is Resume
	awake   bool // a look is due
	reader  *laneReader
	file    *bounded
	records sensors.Records
	writers []sensors.Writer
	outs    map[runtime.Target]*outlet

	begun     bool
	finished  bool
	exhausted bool
	halted    bool
	trigger   *dataflow.Barrier
	complete  *dataflow.CheckpointID
	through   dataflow.CheckpointID
	stopping  bool
	prepared  bool // its sinks were asked for what they have not committed
	dirty     bool
	commitAt  dataflow.Time
	marks     map[runtime.Target]*judge.Clock // the last watermark on each channel
}

type inChannel struct {
	queue   []runtime.Message
	from    *subtask // who waits for room; nil: a remote one, or nobody
	inlet   *inlet
	blocked bool
}

// op is an effect that may have to wait.
type op struct {
	e  task.Effect
	to []runtime.Target // that a message has still to go to
	m  runtime.Message
}

func newSubtask(a *attempt, index int) *subtask {
	s := &subtask{a: a, index: index, sub: &a.plan.Subtasks[index], outs: make(map[runtime.Target]*outlet), marks: make(map[runtime.Target]*judge.Clock)}
	s.in = make([]inChannel, s.sub.Config.Channels)
	s.writers = make([]sensors.Writer, len(s.sub.Config.Links))
	return s
}

func (s *subtask) id() dataflow.SubtaskID { return s.sub.Config.ID }

func (s *subtask) splits() int {
	switch {
	case s.file != nil:
		return 1
	case s.reader == nil:
		return 0
	}
	return len(s.reader.lanes)
}

func (s *subtask) transactional() bool {
	for _, w := range s.writers {
		if _, ok := w.(sensors.Transactional); ok {
			return true
		}
	}
	return false
}

// open opens the connectors and restores the state.
func (s *subtask) open() error {
	cfg := &s.sub.Config
	cfg.Pool, cfg.Durable = s.a.pool, true
	if cfg.Source != nil {
		if s.a.sourceOf(s.sub).File != nil && cfg.ID.Index == 0 {
			s.file = &bounded{}
			cfg.Source.Splits, cfg.Source.Names = []int{0}, []string{"in.jsonl"}
		}
		if feed := s.a.feedOf(s.sub); feed != "" {
			s.reader = s.a.x.p.feeds.reader(feed, cfg.ID.Index, cfg.Parallelism)
			s.reader.sub = s
			for k, l := range s.reader.lanes {
				cfg.Source.Splits = append(cfg.Source.Splits, cfg.ID.Index+k*cfg.Parallelism)
				cfg.Source.Names = append(cfg.Source.Names, fmt.Sprintf("lane-%d", l))
			}
		}
	}
	for i, open := range s.sub.Writers {
		if open != nil {
			w, err := open()
			if err != nil {
				return err
			}
			s.writers[i] = w
		}
	}
	t := s.early()
	if s.warm = t; t == nil {
		var err error
		if t, err = task.New(*cfg); err != nil {
			return err
		}
	}
	s.task = t
	for _, l := range cfg.Links {
		if s.a.base(s.id(), l.ID) != nil {
			t.GoesOn(l.ID)
		}
	}
	return s.restore()
}

// restore gives the task its rows, the reader its positions, the sinks what they
// had not committed.
func (s *subtask) restore() error {
	held := make(map[dataflow.OperatorID][]sensors.Pending)
	if s.a.rows != nil {
		err := s.a.restoreRows(s.id(), s.wasGiven, func(op dataflow.OperatorID, table string, b *batch.Batch) error {
			if table == pendingName {
				held[op] = appendPending(held[op], b)
				return nil
			}
			if s.a.x.p.W.Bugs.ForgetInputs && table == "task.inputs" {
				return nil
			}
			return s.task.Restore(op, table, b)
		})
		if err != nil {
			return err
		}
		for _, p := range s.task.Positions() {
			if s.file != nil {
				if !s.a.x.p.W.Bugs.RereadFile {
					s.file.next = p.Offset
				}
			} else if p.Split < len(s.reader.offset) {
				s.reader.offset[p.Split] = p.Offset
				if s.a.x.p.W.Bugs.ReplayOne {
					s.reader.offset[p.Split] = max(0, p.Offset-1)
				}
				if s.a.x.p.W.Bugs.AdoptAnew && s.a.asked.From.Job != s.a.ref.Job {
					s.reader.offset[p.Split] = 0
				}
			}
		}
	}
	for i, w := range s.writers {
		t, ok := w.(sensors.Transactional)
		if !ok {
			continue
		}
		p := held[s.sub.Config.Links[i].ID]
		sortPending(p)
		if err := t.Recover(context.Background(), p, s.owns); err != nil {
			return err
		}
	}
	return nil
}

func (s *subtask) owns(target string) bool {
	h := fnv.New64a()
	h.Write([]byte(target))
	return int(h.Sum64()%uint64(s.sub.Config.Parallelism)) == s.id().Index
}

func (s *subtask) close() {
	if s.task != nil {
		s.task.Close()
	}
	for _, w := range s.writers {
		if w != nil {
			_ = w.Close()
		}
	}
}

// wake has the subtask look what there is to do.
func (s *subtask) wake() { s.wakeIn(ms / 10) }

func (s *subtask) wakeIn(d dataflow.Time) {
	if s.awake || !s.begun || s.finished {
		return
	}
	s.awake = true
	s.a.x.p.After(d, func() {
		s.awake = false
		if !s.a.over {
			s.look()
		}
	})
}

// start lets it run.
func (s *subtask) start() {
	s.begun = true
	s.dirty, s.commitAt = false, dataflow.MaxTime
	s.tellTargets()
	if s.a.rows != nil {
		s.step(task.Input{Kind: task.Begin})
		event, _ := s.task.Watermark()
		s.a.x.p.Judge.Restored(s.a.ref, s.id(), s.sub.Config.Parallelism, s.a.asked.From, event)
	}
	s.wake()
}

// look does what there is to do, a little of it.
func (s *subtask) look() {
	for range 4 {
		if !s.flush() || s.a.over {
			return
		}
		if s.again {
			s.step(task.Input{Kind: task.Resume})
			continue
		}
		if s.finished {
			s.a.done()
			return
		}
		if !s.once() {
			return
		}
	}
	s.wake()
}

// once does one thing; false: there is nothing.
func (s *subtask) once() bool {
	if s.complete != nil {
		return s.commitCompleted()
	}
	if s.dirty && s.a.x.p.W.Now() >= s.commitAt {
		return s.commitAll()
	}
	if s.sub.Config.Source != nil {
		return s.onceSource()
	}
	for range s.in {
		c := s.turn
		s.turn = (s.turn + 1) % len(s.in)
		ch := &s.in[c]
		if ch.blocked || len(ch.queue) == 0 {
			continue
		}
		m := ch.queue[0]
		ch.queue = ch.queue[1:]
		ch.room()
		switch {
		case m.Batch != nil:
			s.step(task.Input{Kind: task.Data, Channel: c, Batch: m.Batch})
		case m.Barrier != nil:
			s.step(task.Input{Kind: task.Barrier, Channel: c, Barrier: *m.Barrier})
		default:
			s.step(task.Input{Kind: task.End, Channel: c})
		}
		return true
	}
	return false
}

func (s *subtask) onceSource() bool {
	switch {
	case s.trigger != nil:
		b := *s.trigger
		s.trigger = nil
		s.halted = s.halted || b.Then == dataflow.Halt
		s.exhausted = s.exhausted || b.Then == dataflow.Drain
		s.step(task.Input{Kind: task.Trigger, Barrier: b})
	case s.stopping:
		s.stopping = false
		s.step(task.Input{Kind: task.Stop})
	case s.halted || s.exhausted:
		return false
	case s.file != nil:
		return s.onceFile()
	case s.reader == nil:
		s.step(task.Input{Kind: task.End})
	case s.reader.lost != "":
		s.a.fail(s.reader.lost, "")
		return false
	default:
		if !s.reader.read(&s.records, 16) {
			return false
		}
		s.step(task.Input{Kind: task.Raw, Records: &s.records})
	}
	return true
}

// step gives the task an input.
func (s *subtask) step(in task.Input) {
	s.again = false
	for _, e := range s.task.Step(in) {
		s.ops = append(s.ops, op{e: e})
		if e.Kind == task.Send {
			s.judgeSend(s.sub.Targets[e.Output][e.Channel], e.Batch)
		}
	}
	for i := range s.in {
		s.a.x.p.Judge.Bounded(s.id(), "messages in a channel", len(s.in[i].queue), depth)
	}
	s.a.x.p.Judge.Bounded(s.id(), "effects to do", len(s.ops), 256)
	s.flush()
}

func (s *subtask) judgeSend(to runtime.Target, b *batch.Batch) {
	if s.marks[to] == nil {
		s.marks[to] = &judge.Clock{}
	}
	s.a.x.p.Judge.Sends(s.a.ref, s.id(), s.marks[to], b.Marks)
}

// flush does what the last Step asked for, in order; false: something must wait.
func (s *subtask) flush() bool {
	for len(s.ops) > 0 && !s.a.over {
		if !s.perform(&s.ops[0]) {
			return false
		}
		if len(s.ops) > 0 {
			s.ops = s.ops[1:]
		}
	}
	return !s.a.over
}

func (s *subtask) perform(o *op) bool {
	switch e := &o.e; e.Kind {
	case task.Send:
		to := s.sub.Targets[e.Output][e.Channel]
		return s.send(to, runtime.Message{Batch: e.Batch})
	case task.SendBarrier, task.SendEnd:
		return s.sendAll(o)
	case task.Write:
		return s.writeRows(e)
	case task.Block, task.Unblock:
		s.in[e.Channel].blocked = e.Kind == task.Block
		s.wake()
	case task.Snapshot:
		return s.snapshot(e)
	case task.NeedState:
		s.a.fail("a task needs state on disk", "")
	case task.Again:
		s.again = true
		s.wake()
	case task.Exhausted:
		s.exhausted = true
		s.a.x.say(worker.AttemptEvent{Exhausted: &coordinator.Exhausted{AttemptRef: s.a.ref, Subtask: s.id()}})
	case task.Fail:
		s.a.fail(e.Err.Error(), "")
	case task.Finished:
		s.finished = true
		s.awake = false
		s.a.x.p.Post(func() { s.last() })
	}
	return true
}

// last commits what is left when the task has finished.
func (s *subtask) last() {
	if s.a.over || !s.begun {
		return
	}
	if s.complete != nil && !s.commitCompleted() || !s.commitAll() {
		s.a.after(100*ms, s.last)
		return
	}
	s.a.done()
}

func (s *subtask) sendAll(o *op) bool {
	if o.to == nil {
		for _, targets := range s.sub.Targets {
			o.to = append(o.to, targets...)
		}
		if o.e.Kind == task.SendBarrier {
			o.m.Barrier = &dataflow.Barrier{ID: o.e.Barrier.ID, Full: o.e.Barrier.Full, Then: o.e.Barrier.Then}
		}
	}
	for len(o.to) > 0 {
		if !s.send(o.to[0], o.m) {
			return false
		}
		o.to = o.to[1:]
	}
	return true
}

// send puts a message into a channel, if there is room.
func (s *subtask) send(to runtime.Target, m runtime.Message) bool {
	if r := s.a.at[to.Subtask]; r != nil {
		ch := &r.in[to.Channel]
		if len(ch.queue) >= depth && !s.a.x.p.W.Bugs.Unbounded {
			ch.from = s
			return false
		}
		ch.queue = append(ch.queue, m)
		r.wake()
		return true
	}
	return s.outs[to].offer(m)
}

// room: a message was taken.
func (c *inChannel) room() {
	if c.inlet != nil {
		c.inlet.taken()
	}
	if f := c.from; f != nil {
		c.from = nil
		f.wake()
	}
}

var errNoRoom = sensors.ErrFull

// held tells whether an error of a sink passes: it has no room now.
func held(err error) bool { return errors.Is(err, errNoRoom) }

func (s *subtask) writeRows(e *task.Effect) bool {
	w := s.writers[e.Link]
	err := w.Write(context.Background(), e.Batch)
	switch {
	case held(err):
		s.wakeIn(100 * ms)
		return false
	case err != nil:
		s.a.fail("sink: "+err.Error(), "")
		return false
	}
	if _, ok := w.(sensors.Transactional); !ok && !s.dirty {
		s.dirty, s.commitAt = true, s.a.x.p.W.Now()+sec
		s.a.after(sec, s.wake)
	}
	e.Batch.Release()
	return true
}

// commitAll commits the sinks that do not commit with checkpoints; false: they
// have to wait.
func (s *subtask) commitAll() bool {
	for _, w := range s.writers {
		if w == nil {
			continue
		}
		if _, ok := w.(sensors.Transactional); ok {
			continue
		}
		if err := w.Commit(context.Background()); err != nil {
			if held(err) || errors.Is(err, sensors.ErrNotPermitted) {
				s.wakeIn(100 * ms)
				return false
			}
			s.a.fail("sink: "+err.Error(), "")
			return false
		}
	}
	s.dirty, s.commitAt = false, dataflow.MaxTime
	return true
}

// commitCompleted commits the checkpoint that has completed.
func (s *subtask) commitCompleted() bool {
	id := *s.complete
	if !s.through.Less(id) {
		s.complete = nil
		return true
	}
	any := false
	for _, w := range s.writers {
		t, ok := w.(sensors.Transactional)
		if !ok {
			continue
		}
		any = true
		if sensors.Permitted(permit{s.a.x.p}) == nil {
			s.a.x.p.Judge.Commits(s.a.x.p.ID, s.a.ref, id)
		}
		if err := t.CommitThrough(context.Background(), id); err != nil {
			if held(err) {
				s.wakeIn(100 * ms)
				return false
			}
			s.a.fail("sink: "+err.Error(), "")
			return false
		}
	}
	s.complete, s.through = nil, id
	if any {
		s.tellCommitted(id)
	}
	return true
}

func (s *subtask) tellCommitted(id dataflow.CheckpointID) {
	c := &coordinator.Committed{AttemptRef: s.a.ref, Subtask: s.id(), ID: id}
	for i, w := range s.writers {
		if r, ok := w.(sensors.Recorder); ok {
			for _, k := range r.Commits() {
				c.Commits = append(c.Commits, coordinator.SinkCommit{Operator: s.sub.Config.Links[i].ID, Node: cmp.Or(mesh.NodeID(k.Node), s.a.x.p.ID), Target: k.Target, Through: k.Through, Length: k.Length})
			}
		}
	}
	s.a.x.say(worker.AttemptEvent{Committed: c})
}

// tellTargets tells what targets the sinks begin with.
func (s *subtask) tellTargets() {
	if s.transactional() {
		s.tellCommitted(dataflow.CheckpointID{})
	}
}
