package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// driver is the goroutine of one subtask: it owns the task and its connectors.
type driver struct {
	job      *Job
	index    int // in the plan
	sub      *Subtask
	task     *task.Task
	in       *inbox
	reader   sensors.Reader
	columns  sensors.BatchReader
	control  control
	writers  []sensors.Writer
	backings []Backing
	pending  *batch.Schema // of the table of pending pieces
	prepared []bool        // by link: its sink was asked for what it has not committed; the first time it says all
	outlets  map[Target]Outlet
	records  sensors.Records
	reads    context.Context // of the next Read; ended by an order

	calling   dataflow.OperatorID // the connector that is being called: whose panic it would be
	finished  bool
	exhausted bool      // the source has nothing more to send
	halted    bool      // the source reads nothing behind the barrier it sent last
	dirty     bool      // rows were written since the last commit
	wrote     time.Time // when a sink that shows rows at once got the last one
	flowed    [2]bool   // Watcher was told of the first row: of such a sink, of one that commits
	commitAt  time.Time // when they must be committed, if dirty

	// Of checkpoints.
	through  dataflow.CheckpointID // up to which sinks have committed
	taken    []taken               // positions to acknowledge when their checkpoint completes
	aligning dataflow.CheckpointID
	alignAt  time.Time // when its first barrier came
	pause    time.Duration

	mu     sync.Mutex // guards status; held for a copy only
	status Status
}

func (d *driver) open() error {
	// A connector that could not be opened is not kept, whatever came with the
	// error: there is nothing to close.
	head := d.sub.Config.Links[0].ID
	switch {
	case d.sub.Reader != nil:
		r, err := d.sub.Reader()
		if err != nil {
			return fmt.Errorf("source %q: %w", head, err)
		}
		d.reader = r
	case d.sub.Columns != nil:
		c, err := d.sub.Columns(d.job.pool)
		if err != nil {
			return fmt.Errorf("source %q: %w", head, err)
		}
		d.columns = c
	}
	for i, open := range d.sub.Writers {
		if open == nil {
			continue
		}
		w, err := open()
		if err != nil {
			return fmt.Errorf("sink %q: %w", d.sub.Config.Links[i].ID, err)
		}
		d.writers[i] = w
	}
	d.backings = make([]Backing, len(d.sub.Config.Links))
	for i, open := range d.sub.Backings {
		if open == nil {
			continue
		}
		b, err := open()
		if err != nil {
			return fmt.Errorf("state of %q: %w", d.sub.Config.Links[i].ID, err)
		}
		d.backings[i], d.sub.Config.Links[i].Backing = b, b
	}
	return nil
}

// start makes the task, once its connectors are open.
func (d *driver) start() error {
	if d.sub.Config.Source != nil {
		d.sub.Config.Source.Splits = d.splits()
		d.sub.Config.Source.Names = d.splitNames()
	}
	d.sub.Config.Large = largePages()
	t, err := d.job.opt.Warm.take(d.sub)
	if t == nil && err == nil {
		t, err = task.New(d.sub.Config)
	}
	if err != nil {
		return err
	}
	d.task = t
	d.pending, d.prepared = pendingTable().Schema, make([]bool, len(d.writers))
	for _, l := range d.sub.Config.Links {
		if f := d.job.opt.GoesOn; f != nil && f(d.sub.Config.ID, l.ID) {
			t.GoesOn(l.ID)
		}
	}
	d.publish(0, 0)
	return nil
}

// splits are the numbers, in the job, of what this subtask reads: the k-th
// split of subtask i of p is i + k*p.
func (d *driver) splits() []int {
	numbers := make([]int, d.splitCount())
	for k := range numbers {
		numbers[k] = d.sub.Config.ID.Index + k*d.sub.Config.Parallelism
	}
	return numbers
}

// splitCount is how many splits the subtask reads: a source that makes columns
// has one, unless it says otherwise.
func (d *driver) splitCount() int {
	if d.reader != nil {
		return d.reader.Splits()
	}
	if s, ok := d.columns.(interface{ Splits() int }); ok {
		return s.Splits()
	}
	return 1
}

// splitNames are the names of the splits, nil if they have none of their own.
func (d *driver) splitNames() []string {
	var namer sensors.SplitNamer
	var ok bool
	if d.reader != nil {
		namer, ok = d.reader.(sensors.SplitNamer)
	} else {
		namer, ok = d.columns.(sensors.SplitNamer)
	}
	if !ok {
		return nil
	}
	var names []string
	for k := range d.sub.Config.Source.Splits {
		names = append(names, namer.SplitName(k))
	}
	return names
}

func (d *driver) close() error {
	var errs []error
	if d.reader != nil {
		errs = append(errs, d.reader.Close())
	}
	if d.columns != nil {
		errs = append(errs, d.columns.Close())
	}
	for _, w := range d.writers {
		if w != nil {
			errs = append(errs, w.Close())
		}
	}
	for _, b := range d.backings {
		if b != nil {
			errs = append(errs, b.Close())
		}
	}
	return errors.Join(errs...)
}

// guarded calls f. A panic is the subtask's failure, not the process's.
func (d *driver) guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			where := ""
			if d.calling != "" {
				where = fmt.Sprintf("connector of %q: ", d.calling)
			}
			err = fmt.Errorf("subtask %s: %spanic: %v\n%s", d.sub.Config.ID, where, p, debug.Stack())
		}
	}()
	return f()
}

// run drives the subtask to its end.
func (d *driver) run(ctx context.Context) error {
	id := d.sub.Config.ID
	defer d.task.Close()
	err := d.guarded(func() (err error) {
		pprof.Do(ctx, pprof.Labels("job", d.job.plan.Job, "subtask", id.String()), func(ctx context.Context) {
			d.tellTargets()
			if d.job.opt.Restore != nil {
				if err = d.step(ctx, task.Input{Kind: task.Begin}); err != nil {
					return
				}
			}
			if d.reader != nil || d.columns != nil {
				if d.job.opt.Drained && !d.exhausted {
					if err = d.step(ctx, task.Input{Kind: task.End}); err != nil {
						return
					}
				}
				err = d.runSource(ctx)
			} else {
				err = d.runInbox(ctx)
			}
		})
		if err != nil {
			err = fmt.Errorf("subtask %s: %w", id, err)
		}
		return err
	})
	if err == nil {
		d.job.event(Event{Kind: SubtaskFinished, Subtask: id})
	}
	return err
}

func (d *driver) runInbox(ctx context.Context) error {
	for !d.finished {
		if err := d.obey(ctx); err != nil {
			return err
		}
		c, m, ok := d.in.poll()
		if !ok {
			if err := d.wait(ctx, d.in.filled); err != nil {
				return err
			}
			continue
		}
		var in task.Input
		switch {
		case m.Batch != nil:
			in = task.Input{Kind: task.Data, Channel: c, Batch: m.Batch}
		case m.Barrier != nil:
			in = task.Input{Kind: task.Barrier, Channel: c, Barrier: *m.Barrier}
			d.aligns(m.Barrier.ID)
		default:
			in = task.Input{Kind: task.End, Channel: c}
		}
		if err := d.step(ctx, in); err != nil {
			return err
		}
		if err := d.commitIfDue(ctx); err != nil {
			return err
		}
	}
	return d.last(ctx)
}

// last commits what is left when the task has finished.
func (d *driver) last(ctx context.Context) error {
	if err := d.commitCompleted(ctx); err != nil {
		return err
	}
	return d.commitAll(ctx)
}

// wait waits for something, an order, or the next commit, which it does.
func (d *driver) wait(ctx context.Context, something <-chan struct{}) error {
	due, stop := d.commitTimer()
	defer stop()
	select {
	case <-something:
	case <-d.control.wake:
	case <-due:
		return d.commit(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (d *driver) runSource(ctx context.Context) error {
	for !d.finished {
		if err := d.obey(ctx); err != nil {
			return err
		}
		if d.finished {
			break
		}
		if d.halted || d.exhausted {
			if err := d.wait(ctx, nil); err != nil {
				return err
			}
			continue
		}
		in, err := d.read(ctx)
		switch {
		case err == nil:
			err = d.step(ctx, in)
		case errors.Is(err, errControl):
			err = nil
		case errors.Is(err, errCommitDue):
			err = d.commit(ctx)
		case errors.Is(err, io.EOF):
			err = d.step(ctx, task.Input{Kind: task.End})
		}
		if err != nil {
			return err
		}
		if err := d.commitIfDue(ctx); err != nil {
			return err
		}
	}
	return d.last(ctx)
}

var errCommitDue = errors.New("a commit is due")

// obey does what the subtask was told since the last time.
func (d *driver) obey(ctx context.Context) error {
	o := d.control.take()
	if o.completed != nil {
		if err := d.completed(ctx, *o.completed); err != nil {
			return err
		}
	}
	if o.goOn {
		d.halted = false
	}
	if o.trigger != nil {
		d.halted = d.halted || o.trigger.Then == dataflow.Halt
		d.exhausted = d.exhausted || o.trigger.Then == dataflow.Drain
		if err := d.step(ctx, task.Input{Kind: task.Trigger, Barrier: *o.trigger}); err != nil {
			return err
		}
	}
	if o.stop && !d.finished {
		return d.step(ctx, task.Input{Kind: task.Stop})
	}
	return nil
}

// read waits for memory and then for the source. It returns the next input, or
// why there is none: errControl, errCommitDue, io.EOF.
func (d *driver) read(ctx context.Context) (task.Input, error) {
	if err := d.waitForMemory(ctx); err != nil {
		return task.Input{}, err
	}
	ctx, ok := d.readContext(ctx)
	if !ok {
		return task.Input{}, errControl
	}
	if d.dirty {
		c, cancel := context.WithDeadlineCause(ctx, d.commitAt, errCommitDue)
		defer cancel()
		ctx = c
	}
	if ctx.Err() != nil {
		return task.Input{}, context.Cause(ctx)
	}
	var in task.Input
	var err error
	d.calling = d.sub.Config.Links[0].ID
	if d.columns != nil {
		in.Kind = task.Columns
		in.Batch, in.Arrivals, in.Position, err = d.columns.ReadBatch(ctx, d.job.opt.BatchRows)
	} else {
		in.Kind, in.Records = task.Raw, &d.records
		err = d.reader.Read(ctx, &d.records, d.job.opt.BatchRows)
	}
	d.calling = ""
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx) // an error of the source's own stays what it is
	}
	return in, err
}

// readContext is the context of reads: the next order ends it, and the read
// after it gets another one. It is false if there is an order already.
func (d *driver) readContext(ctx context.Context) (context.Context, bool) {
	if d.reads != nil && d.reads.Err() == nil {
		return d.reads, !d.control.any()
	}
	reads, end := context.WithCancelCause(ctx)
	if !d.control.reading(end) {
		end(nil)
		return nil, false
	}
	d.reads = reads
	return reads, true
}

// waitForMemory waits until the batches in flight are within their budget. What
// is to be committed is committed meanwhile: errCommitDue. An order is obeyed:
// what a checkpoint holds back may be what fills the memory.
func (d *driver) waitForMemory(ctx context.Context) error {
	if !d.job.pool.Full() {
		return nil
	}
	wake, stop := d.commitTimer()
	defer stop()
	for d.job.pool.Full() {
		select {
		case <-d.job.room:
		case <-d.control.wake:
			return errControl
		case <-wake:
			return errCommitDue
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	signal(d.job.room) // another source may be waiting too; it must not wait for what this one reads
	return nil
}

// step gives the task an input and performs what comes of it, to the end.
func (d *driver) step(ctx context.Context, in task.Input) error {
	for {
		began := d.job.opt.Now()
		effects := d.task.Step(in)
		stepped := d.job.opt.Now()
		d.pause = stepped.Sub(began)
		again, err := d.perform(ctx, effects)
		d.publish(stepped.Sub(began), d.job.opt.Now().Sub(stepped))
		if err != nil {
			return err
		}
		if !again {
			return d.syncAll(ctx)
		}
		if ctx.Err() != nil { // a row may make more output than anybody will wait for
			return context.Cause(ctx)
		}
		in = task.Input{Kind: task.Resume}
	}
}

// perform does the effects in order. If one cannot be done the batches of the
// rest are released.
func (d *driver) perform(ctx context.Context, effects []task.Effect) (again bool, err error) {
	for i := range effects {
		e := &effects[i]
		if err != nil {
			release(e)
			continue
		}
		switch e.Kind {
		case task.Send:
			err = d.send(ctx, d.sub.Targets[e.Output][e.Channel], Message{Batch: e.Batch})
		case task.SendBarrier:
			err = d.sendAll(ctx, Message{Barrier: &dataflow.Barrier{ID: e.Barrier.ID, Full: e.Barrier.Full, Then: e.Barrier.Then}})
		case task.SendEnd:
			err = d.sendAll(ctx, Message{})
		case task.Write:
			err = d.write(ctx, e)
		case task.Block, task.Unblock:
			d.in.block(e.Channel, e.Kind == task.Block)
		case task.Snapshot:
			err = d.snapshot(ctx, e)
		case task.Aborted:
			// Whoever takes checkpoints sees that this one never completes.
		case task.Ack:
			d.ack(e.Position)
		case task.NeedState:
			err = d.sync(ctx, e.Link)
		case task.Again:
			again = true
		case task.Exhausted:
			d.exhausted = true
			if d.job.opt.Collector != nil {
				d.job.opt.Collector.Exhausted(d.sub.Config.ID)
			}
		case task.Fail:
			err = e.Err
		case task.Finished:
			d.finished = true
		}
	}
	return again, err
}

// release gives up what an effect holds that is not performed.
func release(e *task.Effect) {
	if e.Batch != nil {
		e.Batch.Release()
	}
	for _, s := range e.State {
		s.Batch.Release()
	}
}

// send waits for room in the channel. Nothing that it waits for waits for this
// subtask: channels lead down the graph only, and the receiver, whatever it
// waits for itself, commits what has completed on its own. This one does too.
func (d *driver) send(ctx context.Context, to Target, m Message) error {
	in := d.job.inboxes[to.Subtask]
	if in == nil {
		return d.sendOut(ctx, d.outlets[to], m)
	}
	for !in.offer(to.Channel, m) {
		var err error
		select {
		case <-in.channels[to.Channel].room:
		case <-d.control.wake:
			err = d.commitCompleted(ctx)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			if m.Batch != nil {
				m.Batch.Release()
			}
			return err
		}
	}
	return nil
}

// sendOut is send to a subtask elsewhere. A barrier that waits here while a
// checkpoint completes commits it, as in send.
func (d *driver) sendOut(ctx context.Context, o Outlet, m Message) error {
	for !o.Offer(m) {
		var err error
		select {
		case <-o.Room():
		case <-d.control.wake:
			err = d.commitCompleted(ctx)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			if m.Batch != nil {
				m.Batch.Release()
			}
			return err
		}
	}
	return nil
}

func (d *driver) sendAll(ctx context.Context, m Message) error {
	for _, targets := range d.sub.Targets {
		for _, to := range targets {
			if err := d.send(ctx, to, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *driver) write(ctx context.Context, e *task.Effect) error {
	id := d.sub.Config.Links[e.Link].ID
	err := d.whileFull(ctx, e.Link, func() error {
		d.calling = id
		defer func() { d.calling = "" }()
		return d.writers[e.Link].Write(ctx, e.Batch)
	})
	rows := e.Batch.Len() > 0
	e.Batch.Release()
	if err != nil {
		return fmt.Errorf("sink %q: %w", id, err)
	}
	if rows {
		d.flows(d.transactional(e.Link))
	}
	if !d.dirty && !d.transactional(e.Link) {
		d.dirty, d.commitAt = true, d.job.opt.Now().Add(d.job.opt.CommitInterval)
	}
	return nil
}

// publish adds to the status what a step did.
func (d *driver) publish(busy, blocked time.Duration) {
	event, arrival := d.task.Watermark()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.status
	s.Subtask = d.sub.Config.ID
	s.Operators = d.task.Counters(s.Operators[:0])
	s.Watermark, s.Arrival = event, arrival
	s.Busy += busy
	s.Blocked += blocked
	s.Finished = d.finished
}
