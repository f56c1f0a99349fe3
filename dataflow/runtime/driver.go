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
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// driver is the goroutine of one subtask: it owns the task and its connectors.
type driver struct {
	job     *Job
	sub     *Subtask
	task    *task.Task
	in      *inbox
	reader  sensors.Reader
	columns sensors.BatchReader
	writers []sensors.Writer
	empty   []int // channels on which no row will come
	records sensors.Records

	finished bool
	dirty    bool      // rows were written since the last commit
	commitAt time.Time // when they must be committed, if dirty

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
	return nil
}

// start makes the task, once all connectors of the job are open and it is known
// which channels are empty.
func (d *driver) start() error {
	if d.sub.Config.Source != nil {
		d.sub.Config.Source.Splits = d.splits()
	}
	if len(d.empty) < d.sub.Config.Channels {
		d.sub.Config.Empty = d.empty
	}
	t, err := task.New(d.sub.Config)
	if err != nil {
		return err
	}
	d.task = t
	d.publish(0, 0)
	return nil
}

// splits are the numbers, in the job, of what this subtask reads: the k-th
// split of subtask i of p is i + k*p.
func (d *driver) splits() []int {
	n := 1
	if d.reader != nil {
		n = d.reader.Splits()
	}
	numbers := make([]int, n)
	for k := range numbers {
		numbers[k] = d.sub.Config.ID.Index + k*d.sub.Config.Parallelism
	}
	return numbers
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
	return errors.Join(errs...)
}

// run drives the subtask to its end. A panic of an operator is the subtask's
// failure, not the process's.
func (d *driver) run(ctx context.Context) (err error) {
	id := d.sub.Config.ID
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("subtask %s: panic: %v\n%s", id, p, debug.Stack())
		}
		d.task.Close()
	}()
	pprof.Do(ctx, pprof.Labels("job", d.job.plan.Job, "subtask", id.String()), func(ctx context.Context) {
		if d.reader != nil || d.columns != nil {
			err = d.runSource(ctx)
		} else {
			err = d.runInbox(ctx)
		}
	})
	if err != nil {
		return fmt.Errorf("subtask %s: %w", id, err)
	}
	d.job.event(Event{Kind: SubtaskFinished, Subtask: id})
	return nil
}

func (d *driver) runInbox(ctx context.Context) error {
	for !d.finished {
		wake, stop := d.commitTimer()
		c, m, ok, err := d.in.take(ctx, wake)
		stop()
		switch {
		case err != nil:
			return err
		case !ok:
			err = d.commit(ctx)
		case m.batch != nil:
			err = d.step(ctx, task.Input{Kind: task.Data, Channel: c, Batch: m.batch})
		case m.end:
			err = d.step(ctx, task.Input{Kind: task.End, Channel: c})
		default:
			err = d.step(ctx, task.Input{Kind: task.Barrier, Channel: c, Checkpoint: m.checkpoint})
		}
		if err != nil {
			return err
		}
		if err := d.commitIfDue(ctx); err != nil {
			return err
		}
	}
	return d.commitAll(ctx)
}

func (d *driver) runSource(ctx context.Context) error {
	// Reads end when the job is stopped; steps and writes go on.
	reads, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { d.watchStop(reads, cancel) })
	defer watch.Wait()
	defer cancel(nil)

	for !d.finished {
		in, err := d.read(reads)
		switch {
		case err == nil:
			err = d.step(ctx, in)
		case errors.Is(err, errCommitDue):
			err = d.commit(ctx)
		case errors.Is(err, io.EOF):
			err = d.step(ctx, task.Input{Kind: task.End})
		case errors.Is(err, errStopped):
			err = d.step(ctx, task.Input{Kind: task.Stop})
		}
		if err != nil {
			return err
		}
		if err := d.commitIfDue(ctx); err != nil {
			return err
		}
	}
	return d.commitAll(ctx)
}

var (
	errStopped   = errors.New("the job is stopping")
	errCommitDue = errors.New("a commit is due")
)

// watchStop ends the reads when the job is stopped. It is owned by runSource
// and ends with its context.
func (d *driver) watchStop(ctx context.Context, cancel context.CancelCauseFunc) {
	select {
	case <-d.job.stop:
		cancel(errStopped)
	case <-ctx.Done():
	}
}

// read waits for memory and then for the source. It returns the next input, or
// why there is none: errStopped, errCommitDue, io.EOF.
func (d *driver) read(ctx context.Context) (task.Input, error) {
	if err := d.waitForMemory(ctx); err != nil {
		return task.Input{}, err
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
	if d.columns != nil {
		in.Kind = task.Columns
		in.Batch, in.Arrivals, in.Position, err = d.columns.ReadBatch(ctx, d.job.opt.BatchRows)
	} else {
		in.Kind, in.Records = task.Raw, &d.records
		err = d.reader.Read(ctx, &d.records, d.job.opt.BatchRows)
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx) // an error of the source's own stays what it is
	}
	return in, err
}

// waitForMemory waits until the batches in flight are within their budget. What
// is to be committed is committed meanwhile: errCommitDue.
func (d *driver) waitForMemory(ctx context.Context) error {
	if !d.job.pool.Full() {
		return nil
	}
	wake, stop := d.commitTimer()
	defer stop()
	for d.job.pool.Full() {
		select {
		case <-d.job.room:
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
		again, err := d.perform(ctx, effects)
		d.publish(stepped.Sub(began), d.job.opt.Now().Sub(stepped))
		if err != nil {
			return err
		}
		if !again {
			return nil
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
			if e.Batch != nil {
				e.Batch.Release()
			}
			continue
		}
		switch e.Kind {
		case task.Send:
			err = d.send(ctx, d.sub.Targets[e.Output][e.Channel], message{batch: e.Batch})
		case task.SendBarrier:
			err = d.sendAll(ctx, message{checkpoint: e.Checkpoint})
		case task.SendEnd:
			err = d.sendAll(ctx, message{end: true})
		case task.Write:
			err = d.write(ctx, e)
		case task.Block, task.Unblock:
			d.in.block(e.Channel, e.Kind == task.Block)
		case task.Snapshot:
			d.snapshot(e)
		case task.Aborted:
			// Whoever takes checkpoints sees that this one never completes.
		case task.Ack:
			if d.reader != nil {
				d.reader.Ack(e.Position)
			}
		case task.Again:
			again = true
		case task.Fail:
			err = e.Err
		case task.Finished:
			d.finished = true
		}
	}
	return again, err
}

func (d *driver) send(ctx context.Context, to Target, m message) error {
	_, err := d.job.inboxes[to.Subtask].put(ctx, to.Channel, m)
	if err != nil && m.batch != nil {
		m.batch.Release()
	}
	return err
}

func (d *driver) sendAll(ctx context.Context, m message) error {
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
	err := d.whileFull(ctx, e.Link, func() error { return d.writers[e.Link].Write(ctx, e.Batch) })
	e.Batch.Release()
	if err != nil {
		return fmt.Errorf("sink %q: %w", d.sub.Config.Links[e.Link].ID, err)
	}
	if !d.dirty {
		d.dirty, d.commitAt = true, d.job.opt.Now().Add(d.job.opt.CommitInterval)
	}
	return nil
}

func (d *driver) snapshot(e *task.Effect) {
	if d.job.opt.Snapshots != nil {
		d.job.opt.Snapshots(SnapshotTaken{Subtask: d.sub.Config.ID, Barrier: dataflow.Barrier{ID: e.Checkpoint}, State: e.State})
		return
	}
	for _, s := range e.State {
		s.Batch.Release()
	}
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
