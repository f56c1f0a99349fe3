package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// A sink without room tries again after firstRetry, then twice as long, up to
// lastRetry.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// commitTimer fires when the next commit is due; nil, which never fires, when
// nothing is pending.
func (d *driver) commitTimer() (c <-chan time.Time, stop func()) {
	if !d.dirty {
		return nil, func() {}
	}
	t := time.NewTimer(max(0, d.commitAt.Sub(d.job.opt.Now())))
	return t.C, func() { t.Stop() }
}

func (d *driver) commitIfDue(ctx context.Context) error {
	if !d.dirty || d.job.opt.Now().Before(d.commitAt) {
		return nil
	}
	return d.commit(ctx)
}

// commit makes what was written since the last commit visible.
func (d *driver) commit(ctx context.Context) error {
	if !d.dirty {
		return nil
	}
	return d.commitAll(ctx)
}

// commitAll commits all sinks of the subtask, also those without a new row: at
// the end an empty result is a result, with its header. While a sink has no
// room it waits here, and so holds back everything upstream. Sinks that commit
// with checkpoints are left alone.
func (d *driver) commitAll(ctx context.Context) error {
	for i, w := range d.writers {
		if w == nil || d.transactional(i) {
			continue
		}
		id := d.sub.Config.Links[i].ID
		d.calling = id
		err := d.whileFull(ctx, i, func() error { return w.Commit(ctx) })
		d.calling = ""
		if err != nil {
			return fmt.Errorf("sink %q: %w", id, err)
		}
	}
	d.dirty = false
	return nil
}

// transactional tells whether the sink of a link commits with checkpoints.
func (d *driver) transactional(link int) bool {
	if d.job.opt.Collector == nil {
		return false
	}
	_, ok := d.writers[link].(sensors.Transactional)
	return ok
}

// whileFull does a write or commit of a sink, again and again while there is no
// room; the task waits here, and that is the back-pressure. A checkpoint that
// completes meanwhile is committed, as that may make room.
func (d *driver) whileFull(ctx context.Context, link int, act func() error) error {
	ev := Event{Subtask: d.sub.Config.ID, Sink: d.sub.Config.Links[link].ID}
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := act()
		if !errors.Is(err, sensors.ErrFull) {
			if err == nil && wait != firstRetry {
				ev.Kind, ev.Err = SinkResumed, nil
				d.job.event(ev)
			}
			return err
		}
		ev.Kind, ev.Err = SinkFull, err
		d.job.event(ev)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-d.control.wake:
			t.Stop()
			if err := d.commitCompleted(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("rows not written: %w", err)
		}
	}
}

// commitCompleted commits the checkpoint that has completed, if one has: between
// any two calls of a sink, whatever the task is in the middle of.
func (d *driver) commitCompleted(ctx context.Context) error {
	id := d.control.takeCompleted()
	if id == nil {
		return nil
	}
	return d.completed(ctx, *id)
}

// completed commits the transactions up to id's and acknowledges what it holds.
func (d *driver) completed(ctx context.Context, id dataflow.CheckpointID) error {
	if !d.through.Less(id) {
		return nil
	}
	d.through = id
	any := false
	for i, w := range d.writers {
		t, ok := w.(sensors.Transactional)
		if !ok || !d.transactional(i) {
			continue
		}
		any = true
		// Another one that completes while this one waits for room is committed
		// before the next attempt, so what is asked for is the latest.
		err := d.whileFull(ctx, i, func() error {
			d.calling = d.sub.Config.Links[i].ID
			defer func() { d.calling = "" }()
			return t.CommitThrough(ctx, d.through)
		})
		if err != nil {
			return fmt.Errorf("sink %q: %w", d.sub.Config.Links[i].ID, err)
		}
	}
	if any && d.through == id {
		d.tellCommitted(id)
	}
	d.ackTaken(id)
	return nil
}

// tellCommitted tells the collector how far the sinks are.
func (d *driver) tellCommitted(id dataflow.CheckpointID) {
	r, ok := d.job.opt.Collector.(Recorder)
	if !ok {
		d.job.opt.Collector.Committed(d.sub.Config.ID, id)
		return
	}
	r.SinksCommitted(d.sub.Config.ID, id, d.commits())
}

// tellTargets tells the collector what targets the sinks begin with.
func (d *driver) tellTargets() {
	if r, ok := d.job.opt.Collector.(Recorder); ok {
		if c := d.commits(); len(c) > 0 {
			r.SinksCommitted(d.sub.Config.ID, dataflow.CheckpointID{}, c)
		}
	}
}

// commits are those of all sinks of the subtask.
func (d *driver) commits() (all []SinkCommit) {
	for i, w := range d.writers {
		if r, ok := w.(sensors.Recorder); ok {
			for _, c := range r.Commits() {
				all = append(all, SinkCommit{Operator: d.sub.Config.Links[i].ID, Commit: c})
			}
		}
	}
	return all
}

// taken is where a source stood at a barrier.
type taken struct {
	id        dataflow.CheckpointID
	positions []sensors.Position
}

// maxTaken is how many barriers a source remembers that have not completed. Of
// more the oldest are forgotten: they are acknowledged with a later one.
const maxTaken = 16

// ack notes that the task has taken everything before p. In a durable job the
// reader is told when a checkpoint that holds it has completed.
func (d *driver) ack(p sensors.Position) {
	if d.reader != nil && d.job.opt.Collector == nil {
		d.reader.Ack(p)
	}
}

// ackTaken tells the reader that what a checkpoint holds is safe.
func (d *driver) ackTaken(id dataflow.CheckpointID) {
	for len(d.taken) > 0 && !id.Less(d.taken[0].id) {
		if d.reader != nil {
			for _, p := range d.taken[0].positions {
				d.reader.Ack(p)
			}
		}
		d.taken = d.taken[1:]
	}
}

// aligns notes when the first barrier of a checkpoint came.
func (d *driver) aligns(id dataflow.CheckpointID) {
	if id != d.aligning {
		d.aligning, d.alignAt = id, d.job.opt.Now()
	}
}

// snapshot hands the task's state, and what its sinks have not committed, to the
// collector. A sink without room makes this checkpoint fail, not the job.
func (d *driver) snapshot(ctx context.Context, e *task.Effect) error {
	if d.job.opt.Collector == nil {
		release(e)
		return nil
	}
	began := d.job.opt.Now()
	s := SnapshotTaken{Subtask: d.sub.Config.ID, Barrier: e.Barrier, State: e.State, Whole: e.Whole, Positions: e.Positions, Wrote: d.wrote}
	if d.aligning == e.Barrier.ID {
		s.Align = began.Sub(d.alignAt)
	}
	if err := d.commitAll(ctx); err != nil {
		release(e)
		return err
	}
	for i, w := range d.writers {
		t, ok := w.(sensors.Transactional)
		if !ok {
			continue
		}
		var err error
		if s.State, err = d.pieces(i, t, e.Barrier, s.State); err != nil {
			release(&task.Effect{State: s.State})
			if !errors.Is(err, sensors.ErrFull) {
				return err
			}
			s = SnapshotTaken{Subtask: s.Subtask, Barrier: s.Barrier, Err: err}
			break
		}
	}
	if s.Err == nil && e.Positions != nil {
		if len(d.taken) == maxTaken {
			d.taken = d.taken[1:]
		}
		d.taken = append(d.taken, taken{id: e.Barrier.ID, positions: d.task.Positions()})
	}
	s.Pause = d.pause + d.job.opt.Now().Sub(began)
	d.job.opt.Collector.Taken(s)
	return nil
}

// flows notes that a sink has got rows.
func (d *driver) flows(commits bool) {
	kind := 0
	if commits {
		kind = 1
	} else {
		d.wrote = d.job.opt.Now()
	}
	if d.flowed[kind] {
		return
	}
	d.flowed[kind] = true
	if w, ok := d.job.opt.Collector.(Watcher); ok {
		w.Flowed(d.sub.Config.ID, commits)
	}
}
