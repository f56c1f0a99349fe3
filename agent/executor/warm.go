package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
)

// warming restores the state of a job that may come to run here, of one snapshot
// after the other, so that an attempt lacks only what has changed since the last.
// Nothing of it acts on the world: it opens no connector and writes no file but
// the parts that it fetches. A goroutine of its own, run, owns everything but what
// mu guards; when it has ended, who took it does.
//
//	waiting    for the next snapshot
//	restoring  one
//	over       an attempt has taken it, or it was dropped
//
// It is in Executor.warms until an attempt of the job begins: then it is that one's,
// which takes it or drops it before its preparation ends.
//
// What goes wrong in it is told, and no more: the attempt restores all.
type warming struct {
	x      *Executor
	job    *coordinator.Job // as it is to run: with its places
	ctx    context.Context
	cancel context.CancelFunc // it is dropped
	done   chan struct{}
	signal chan struct{} // 1: the next snapshot has come, or it is taken

	mu    sync.Mutex // guards what follows
	next  *coordinator.Snapshot
	taken bool // it ends with what it is restoring now

	// Of run.
	warm   *runtime.Warm // nil: it has nothing
	state  *durable.Warmed
	groups int // key groups that the job has
}

// warmUp restores what is asked for early, or has what does so already go on.
func (x *Executor) warmUp(m *worker.Warm) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return
	}
	w := x.warms[m.Job.ID]
	if w != nil && !w.fits(m.Job) {
		w.cancel()
		w = nil
	}
	if w == nil {
		w = &warming{x: x, job: m.Job, done: make(chan struct{}), signal: make(chan struct{}, 1)}
		w.ctx, w.cancel = context.WithCancel(context.Background())
		x.warms[m.Job.ID] = w
		x.warming[m.Job.ID]++
		x.running.Go(w.run)
	}
	w.mu.Lock()
	w.next = m.From
	w.mu.Unlock()
	w.wake()
}

// coolDown drops what is restored early of a job.
func (x *Executor) coolDown(id coordinator.JobID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if w := x.warms[id]; w != nil {
		w.cancel()
		delete(x.warms, id)
	}
}

// warmed: a warming of a job has ended.
func (x *Executor) warmed(id coordinator.JobID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.warming[id]--; x.warming[id] == 0 {
		delete(x.warming, id)
	}
}

// coolAll drops everything that is restored early.
func (x *Executor) coolAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, w := range x.warms {
		w.cancel()
		delete(x.warms, id)
	}
}

// fits tells whether what is restored early is of this job, as it is to run now.
func (w *warming) fits(j *coordinator.Job) bool {
	was := w.job
	return was.Name == j.Name && bytes.Equal(was.Spec, j.Spec) && slices.Equal(was.Sets, j.Sets) && was.Parallelism == j.Parallelism &&
		was.AllowNonRestored == j.AllowNonRestored && slices.Equal(was.Places, j.Places)
}

func (w *warming) wake() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (w *warming) run() {
	defer close(w.done)
	defer w.x.warmed(w.job.ID)
	w.x.awaitCut(w.job.ID)
	for {
		w.mu.Lock()
		from, taken := w.next, w.taken
		w.next = nil
		w.mu.Unlock()
		if taken || w.ctx.Err() != nil {
			return
		}
		if from != nil {
			if err := w.restore(from); err != nil && w.ctx.Err() == nil {
				w.warm, w.state = nil, nil
				w.x.o.Tell(fmt.Sprintf("job %s: it cannot be restored from %s before it comes: %v", w.job.Name, from.Name, err))
			}
			if w.x.o.Warmed != nil && w.ctx.Err() == nil {
				w.x.o.Warmed(coordinator.Warmed{Job: w.job.ID, Name: from.Name})
			}
			continue
		}
		select {
		case <-w.signal:
		case <-w.ctx.Done():
		}
	}
}

// restore gives the tasks what a snapshot has. It uses an attempt's ways to read
// the job and to get parts.
func (w *warming) restore(from *coordinator.Snapshot) error {
	began := time.Now()
	ref := coordinator.AttemptRef{Job: w.job.ID}
	a := &attempt{x: w.x, ref: ref, asked: &worker.Prepare{AttemptRef: ref, Job: w.job, From: from}, serial: w.x.serial.Add(1), ctx: w.ctx, phases: newTimeline(ref)}
	p, err := a.build()
	if err != nil {
		return err
	}
	a.parsed = p
	if w.warm == nil || w.groups != p.rows.MaxParallelism {
		if err := w.anew(a); err != nil {
			return err
		}
	}
	if len(w.warm.Tables()) == 0 {
		return nil
	}
	defer w.x.kept.put(letGo{held: a.held()})
	if err := a.fetch(); err != nil {
		return err
	}
	rows, err := w.state.Advance(w.ctx, p.rows)
	if errors.Is(err, durable.ErrOtherState) {
		if err = w.anew(a); err == nil {
			rows, err = w.state.Advance(w.ctx, p.rows)
		}
	}
	if err == nil && rows > 0 {
		w.x.o.Tell(fmt.Sprintf("job %s: %d rows of %s are restored, before it comes, in %v", w.job.Name, rows, from.Name, time.Since(began).Round(time.Millisecond)))
	}
	return err
}

// anew begins with tasks that have nothing.
func (w *warming) anew(a *attempt) (err error) {
	w.warm, w.state = nil, nil // the memory is free before more is used
	if w.warm, err = runtime.NewWarm(a.parsed.plan, a.runtimeOptions()); err == nil {
		w.state, w.groups = a.x.o.State.Warm(w.warm), a.parsed.rows.MaxParallelism
	}
	return err
}

// takeWarm ends what is restored early for the attempt, and gives the tasks what
// they lack. Where it does not fit the attempt restores all.
func (a *attempt) takeWarm() error {
	w := a.early
	a.early = nil
	if w == nil {
		return nil
	}
	w.mu.Lock()
	w.taken = true
	w.mu.Unlock()
	w.wake()
	if !w.fits(a.asked.Job) || a.parsed.rows == nil {
		w.cancel()
	}
	select {
	case <-w.done:
	case <-a.ctx.Done():
		w.cancel()
		<-w.done
		return context.Cause(a.ctx)
	}
	if w.ctx.Err() != nil || w.state == nil || w.groups != a.parsed.rows.MaxParallelism {
		w.cancel()
		return nil
	}
	w.cancel()
	began := time.Now()
	if _, err := w.state.Advance(a.ctx, a.parsed.rows); err != nil {
		a.tell("what was restored before it came is of no use: %v", err)
		return a.context()
	}
	a.warm, a.late, a.phases.Early = w, time.Since(began), true
	return nil
}

// cool drops what is restored early for the attempt, if that did not come to take
// it, and waits until nothing of it is left: nobody else knows of it.
func (a *attempt) cool() {
	if a.early == nil {
		return
	}
	a.early.cancel()
	<-a.early.done
	a.early = nil
}
