package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/restart"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
)

// What a durable job does that says nothing of it.
const (
	DefaultInterval  = 10 * dataflow.Second // from one checkpoint to the next
	DefaultTimeout   = 10 * dataflow.Minute // for one
	DefaultTolerable = 3                    // checkpoints in a row that may fail
	DefaultRetained  = 3                    // checkpoints: one, and two to go back to if it is damaged
)

// durableRun runs a job attempt after attempt, each from the newest checkpoint,
// until it finishes, is stopped, or fails for good.
type durableRun struct {
	local   *Local
	around  *surroundings
	restart *restart.Machine
	seed    uint64
	from    string // the savepoint at which it is still to begin; empty: none, or it has. Of runAll's goroutine

	mu           sync.Mutex // guards what follows
	status       coordinator.Status
	then         dataflow.Then // how it was told to stop; GoOn: it was not
	stopped      chan struct{} // closed when it is told to
	checkpointer *durable.Checkpointer
	changed      chan struct{} // closed, and made anew, with every change of status or checkpointer
	outcome      Outcome
}

// Outcome is how a durable job ended.
type Outcome struct {
	Status     coordinator.Status
	Before     bool   // it had finished in an earlier run, and nothing was done
	Drained    bool   // its input was ended by a stop with drain
	Checkpoint string // the last one
	Savepoint  string // that it stopped with
	Restarts   int
}

// ErrDrained means that a job's input was ended by a stop with drain, so that
// there is nothing to go on from.
var ErrDrained = errors.New("it was stopped with drain: its input was ended, and its open windows fired")

func newDurableRun(l *Local) *durableRun {
	h := fnv.New64a()
	h.Write([]byte(l.job.Name))
	return &durableRun{local: l, around: newSurroundings(l.opt.State, l.job.Name), seed: h.Sum64(), from: l.opt.From, stopped: make(chan struct{}), changed: make(chan struct{})}
}

// become is a transition of the job's status.
func (r *durableRun) become(s coordinator.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.status.CanBecome(s) {
		panic(fmt.Sprintf("agent: job %q cannot be %s after %s", r.local.job.Name, s, r.status))
	}
	r.status = s
	r.outcome.Status = s
	r.tell()
}

// tell wakes who waits for a change; with the lock held.
func (r *durableRun) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// stopWith tells the job to stop, once.
func (r *durableRun) stopWith(then dataflow.Then) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.then == dataflow.GoOn {
		r.then = then
		close(r.stopped)
	}
}

func (r *durableRun) stopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.then != dataflow.GoOn
}

// Drain stops a durable job with a savepoint after ending its input, so that all
// windows fire. Nothing goes on from there.
func (l *Local) Drain() { l.durable.stopWith(dataflow.Drain) }

// Outcome is how a durable job ended, after Run.
func (l *Local) Outcome() Outcome {
	l.durable.mu.Lock()
	defer l.durable.mu.Unlock()
	return l.durable.outcome
}

// JobStatus is what a durable job is at.
func (l *Local) JobStatus() coordinator.Status { return l.Outcome().Status }

// ErrNotRunning means that there is no attempt to take a savepoint of, and that
// there will be none.
var ErrNotRunning = errors.New("the job does not run any more")

// awaitRunning waits until an attempt runs.
func (r *durableRun) awaitRunning(ctx context.Context) (*durable.Checkpointer, error) {
	for {
		r.mu.Lock()
		c, ended, changed := r.checkpointer, r.status.Ended(), r.changed
		r.mu.Unlock()
		switch {
		case c != nil:
			return c, nil
		case ended:
			return nil, ErrNotRunning
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Savepoint takes a savepoint of a durable job that goes on running, and returns
// its name. It waits for a job that is being restored or started again.
func (l *Local) Savepoint(ctx context.Context) (string, error) {
	c, err := l.durable.awaitRunning(ctx)
	if err != nil {
		return "", err
	}
	select {
	case a := <-c.Savepoint(dataflow.GoOn):
		return a.Name, a.Err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// restartConfig is the job's strategy.
func restartConfig(r job.Restart) restart.Config {
	if !r.Given {
		return restart.Default(true)
	}
	c := restart.Config{
		Attempts: r.Attempts, Delay: r.Delay, MaxFailures: r.MaxFailures, Interval: r.Interval,
		Initial: r.Initial, Max: r.Max, Multiplier: r.Multiplier, Jitter: r.Jitter, ResetAfter: r.ResetAfter,
	}
	switch r.Strategy {
	case job.ExponentialDelay:
		c.Kind = restart.ExponentialDelay
	case job.FixedDelay:
		c.Kind = restart.FixedDelay
	case job.FailureRate:
		c.Kind = restart.FailureRate
	case job.NoRestart:
		c.Kind = restart.None
	}
	return c
}

// final is an error that another attempt would meet again.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// runAll is Run of a durable job.
func (r *durableRun) runAll(ctx context.Context) (err error) {
	l := r.local
	kept, err := l.opt.State.store.OpenJob(l.job.Name)
	if err != nil {
		r.become(coordinator.Failed)
		return err
	}
	defer kept.Close()
	defer func() { err = errors.Join(err, r.around.close()) }()
	began := time.Now()
	now := func() dataflow.Time { return dataflow.Time(time.Since(began).Microseconds()) }
	r.restart = restart.New(restartConfig(l.job.Restart), now(), r.seed)
	for first := true; ; first = false {
		err := r.attempt(ctx, kept, first)
		if err == nil {
			return nil // the attempt said how it ended
		}
		if ctx.Err() != nil {
			r.become(coordinator.Stopped)
			return err
		}
		if r.stopping() {
			r.become(coordinator.Failed)
			return fmt.Errorf("it was told to stop, and failed: %w; the next start goes on from the last checkpoint", err)
		}
		d := r.restart.Failed(now())
		if errors.As(err, new(final)) {
			d.Restart = false
		}
		if !d.Restart {
			r.become(coordinator.Failed)
			if d.Why != "" && !errors.As(err, new(final)) {
				err = fmt.Errorf("%w; no restart: %s", err, d.Why)
			}
			return err
		}
		if stopped, err := r.wait(ctx, err, dataflow.Duration(d.At-now())); stopped {
			r.become(coordinator.Stopped)
			return err
		}
		r.restart.Started(now())
	}
}

// wait tells why an attempt failed and waits for the next. It is true if there
// is to be none.
func (r *durableRun) wait(ctx context.Context, cause error, delay dataflow.Duration) (bool, error) {
	r.become(coordinator.Restarting)
	r.mu.Lock()
	r.outcome.Restarts++
	r.mu.Unlock()
	r.local.opt.Events(fmt.Sprintf("job %s failed, and is started again in %v: %v", r.local.job.Name, delay.Go().Round(time.Millisecond), cause))
	select {
	case <-r.local.opt.Clock.After(max(0, delay)):
		return false, nil
	case <-r.stopped:
		r.local.opt.Events(fmt.Sprintf("job %s is stopped; the next start goes on from the last checkpoint", r.local.job.Name))
		return true, nil
	case <-ctx.Done():
		return true, context.Cause(ctx)
	}
}

// running makes an attempt the one that Totals and Savepoint speak of.
func (r *durableRun) running(a *attempt, c *durable.Checkpointer) {
	r.mu.Lock()
	a.restarts = r.outcome.Restarts
	r.mu.Unlock()
	r.local.mu.Lock()
	r.local.present = a
	r.local.mu.Unlock()
	r.mu.Lock()
	r.checkpointer = c
	r.tell()
	r.mu.Unlock()
}

// drive runs an attempt and its checkpointer until both have ended. failed is
// false if it failed before anything ran.
func (r *durableRun) drive(ctx context.Context, a *attempt, c *durable.Checkpointer, opt runtime.Options) (ran bool, err error) {
	var subtask sync.Once
	hear := opt.Events
	opt.Events = func(e runtime.Event) {
		if e.Kind == runtime.SubtaskFailed {
			subtask.Do(func() { ran = true }) // Run returns after it
		}
		hear(e)
	}
	begun := make(chan struct{})
	opt.Restore = lastly(opt.Restore, len(a.plan.Subtasks), begun)
	a.run = runtime.New(a.plan, opt)
	r.running(a, c)
	defer func() {
		r.mu.Lock()
		r.checkpointer = nil
		r.mu.Unlock()
	}()
	jobs, cancelJob := context.WithCancelCause(ctx)
	defer cancelJob(nil)
	checks, cancelChecks := context.WithCancel(context.Background())
	var both sync.WaitGroup
	both.Go(func() {
		select { // a long restore is nobody's checkpoint's delay
		case <-begun:
		case <-checks.Done():
		}
		if err := c.Run(checks, a.run); err != nil {
			cancelJob(err)
		}
	})
	both.Go(func() { r.passStop(checks, c) })
	err = a.run.Run(jobs)
	cancelChecks()
	both.Wait()
	return ran || errors.Is(err, context.Cause(jobs)), err
}

// passStop hands a request to stop to the checkpointer of the attempt.
func (r *durableRun) passStop(ctx context.Context, c *durable.Checkpointer) {
	select {
	case <-ctx.Done():
		return
	case <-r.stopped:
	}
	r.mu.Lock()
	then := r.then
	r.mu.Unlock()
	if a := <-c.Savepoint(then); a.Err != nil {
		r.local.opt.Events(fmt.Sprintf("job %s: %v", r.local.job.Name, a.Err))
	}
}

// lastly closes begun when n subtasks have been restored; without a restore it
// is closed at once.
func lastly(f runtime.Restore, n int, begun chan struct{}) runtime.Restore {
	if f == nil {
		close(begun)
		return nil
	}
	var left atomic.Int64
	left.Store(int64(n))
	return func(id dataflow.SubtaskID, to runtime.Restored) error {
		if err := f(id, to); err != nil {
			return err
		}
		if left.Add(-1) == 0 {
			close(begun)
		}
		return nil
	}
}
