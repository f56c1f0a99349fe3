package durable

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Engine is the running job whose checkpoints are taken; none of its methods
// blocks.
type Engine interface {
	Trigger(dataflow.Barrier)
	Completed(dataflow.CheckpointID)
	Stop()
}

// CheckpointerOptions are what a Checkpointer looks after.
type CheckpointerOptions struct {
	Job            *Job
	MaxParallelism int
	AtLeastOnce    bool
	Config         checkpoint.Config
	Tables         map[dataflow.SubtaskID][]runtime.TableOf // of every subtask
	Parallelism    map[dataflow.OperatorID]int
	Base           *Base // as in SharesOptions
	Clock          sensors.Clock

	// Keep makes sure that what a manifest's positions name can be read again,
	// from before the manifest can be seen; nil: nothing has to.
	Keep func(m *manifest.Manifest) error
	// Released is told the checkpoints of the job that are kept, oldest first,
	// after some were let go.
	Released func(kept []string)
	Events   func(string) // what a person should know; must not block
	// Completed is told each checkpoint and savepoint; must not block; nil: nobody
	// listens.
	Completed func(Completed)
}

// Completed is a checkpoint that is complete.
type Completed struct {
	Job        string
	Name       string
	Savepoint  string            // a savepoint of the same state, or all that it is; empty: none
	Took       dataflow.Duration // from the barrier until it was complete
	Bytes      int64             // written for it
	Parts      int
	Pause      time.Duration // how long a subtask stood still for it, at most
	Align      time.Duration // how long a subtask waited for barriers, at most
	Checkpoint bool          // the job recovers from it, and sinks commit with it
}

// String is one line.
func (c Completed) String() string {
	what := "checkpoint " + c.Name
	if c.Savepoint != "" {
		what = "savepoint " + c.Savepoint
	}
	return fmt.Sprintf("%s of job %s: %v, %s in %d parts; longest pause %v, alignment %v",
		what, c.Job, c.Took.Go().Round(time.Millisecond), size(c.Bytes), c.Parts, c.Pause.Round(time.Microsecond), c.Align.Round(time.Microsecond))
}

// Checkpointer takes the checkpoints of one attempt of a job: it is the driver
// of a checkpoint.Coordinator. The goroutine of Run owns everything; others
// hand it their messages through post, which never blocks. What waits there is
// bounded by the barriers under way: one snapshot a subtask and barrier.
type Checkpointer struct {
	o      CheckpointerOptions
	job    *Job
	state  *State
	engine Engine
	now    func() dataflow.Time
	shares *Shares

	mu     sync.Mutex // guards inbox, closed
	inbox  []func()
	closed bool
	signal chan struct{} // 1: the inbox may have something
	jobs   chan func()   // for the one goroutine that writes manifests and deletes; full: the checkpointer waits for the disk

	// Of Run's goroutine.
	coordinator *checkpoint.Coordinator
	answers     map[int]chan<- Answer
	refs        int
	began       map[uint64]*progress
	kept        []string
	failed      error
	outcome     Outcome

	collected dataflow.Time // when parts were last collected; of the goroutine of jobs
}

// progress is what is told of a checkpoint when it is complete.
type progress struct {
	began        dataflow.Time
	pause, align time.Duration
	delta        int64 // bytes written for it
	parts        int
	savepoint    string // its name, if it is one
	unsaved      error  // why it is none, although somebody asked
}

// Outcome is what an attempt's last checkpoint was.
type Outcome struct {
	Ended      bool   // it was the job's last: nothing is left to commit
	Finished   bool   // all input was read
	Drained    bool   // the input was ended by somebody
	Checkpoint string // its name
	Savepoint  string // of the same state; empty: nobody asked for one
	Commits    bool   // sinks commit with it
}

// Answer is what became of a request for a savepoint.
type Answer struct {
	Name string
	Err  error
}

// errEnded answers who asks for a savepoint too late.
var errEnded = errors.New("the job has ended")

// NewCheckpointer makes the checkpointer of an attempt. It is runtime.Collector
// from now on; Run begins.
func NewCheckpointer(o CheckpointerOptions) *Checkpointer {
	c := &Checkpointer{
		o: o, job: o.Job, state: o.Job.state, signal: make(chan struct{}, 1), jobs: make(chan func(), 64),
		answers: make(map[int]chan<- Answer), began: make(map[uint64]*progress), kept: slices.Clone(o.Config.Kept), now: steady(o.Clock),
	}
	c.shares = NewShares(SharesOptions{State: c.state, Tables: o.Tables, Parallelism: o.Parallelism, Base: o.Base, Post: c.post, Stored: c.stored, Events: o.Events})
	return c
}

// steady is a clock that begins with the wall's time and then only goes on: a
// wall that is set back must not hold up checkpoints.
func steady(clock sensors.Clock) func() dataflow.Time {
	if _, real := clock.(sensors.Wall); !real {
		return clock.Now
	}
	began := time.Now()
	base := clock.Now()
	return func() dataflow.Time { return base.Add(dataflow.Duration(time.Since(began).Microseconds())) }
}

// post hands f to Run's goroutine. After Run has ended it is dropped; false.
func (c *Checkpointer) post(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.inbox = append(c.inbox, f)
	select {
	case c.signal <- struct{}{}:
	default:
	}
	return true
}

var _ runtime.Collector = (*Checkpointer)(nil)

// Taken is runtime.Collector's.
func (c *Checkpointer) Taken(t runtime.SnapshotTaken) {
	if !c.post(func() { c.shares.Take(t) }) {
		for _, r := range t.State {
			r.Batch.Release()
		}
	}
}

// Exhausted is runtime.Collector's.
func (c *Checkpointer) Exhausted(s dataflow.SubtaskID) {
	c.post(func() { c.step(checkpoint.Event{Kind: checkpoint.Exhausted, Subtask: s}) })
}

// Committed is runtime.Collector's.
func (c *Checkpointer) Committed(s dataflow.SubtaskID, id dataflow.CheckpointID) {
	c.post(func() { c.step(checkpoint.Event{Kind: checkpoint.Committed, Subtask: s, ID: id}) })
}

// Savepoint asks for a savepoint; with then other than GoOn the job stops with
// it. The channel gets one answer.
func (c *Checkpointer) Savepoint(then dataflow.Then) <-chan Answer {
	ch := make(chan Answer, 1)
	ok := c.post(func() {
		c.refs++
		c.answers[c.refs] = ch
		c.step(checkpoint.Event{Kind: checkpoint.Requested, Request: checkpoint.Request{Ref: c.refs, Then: then}})
	})
	if !ok {
		ch <- Answer{Err: errEnded}
	}
	return ch
}

// Run takes checkpoints until the coordinator says that the attempt must fail
// (its error), or ctx ends (nil). All its goroutines have ended then, and the
// parts that no manifest names are given back.
func (c *Checkpointer) Run(ctx context.Context, engine Engine) error {
	c.engine = engine
	c.o.Config.Start = c.now()
	c.coordinator = checkpoint.New(c.o.Config)
	var janitor sync.WaitGroup
	janitor.Go(func() {
		for f := range c.jobs {
			f()
		}
	})
	for c.failed == nil && ctx.Err() == nil {
		var wake <-chan time.Time
		if at := c.coordinator.Wake(); at != dataflow.MaxTime {
			wake = c.o.Clock.After(max(0, dataflow.Duration(at-max(at.Add(-dataflow.Day), c.now()))))
		}
		select {
		case <-ctx.Done():
		case <-wake:
			c.step(checkpoint.Event{Kind: checkpoint.Tick})
		case <-c.signal:
			for _, f := range c.take() {
				f()
			}
		}
	}
	c.close()
	close(c.jobs)
	janitor.Wait()
	c.shares.Close()
	return c.failed
}

// Outcome is for after Run.
func (c *Checkpointer) Outcome() Outcome { return c.outcome }

func (c *Checkpointer) take() []func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.inbox
	c.inbox = nil
	return all
}

// close ends what is under way. Shares that are being stored are waited for.
func (c *Checkpointer) close() {
	c.shares.Quiet()
	c.mu.Lock()
	c.closed = true
	rest := c.inbox
	c.inbox = nil
	c.mu.Unlock()
	c.coordinator = nil // what is left of the inbox is heard, and nothing comes of it
	for _, f := range rest {
		f()
	}
	c.shares.Quiet()
	for _, ch := range c.answers {
		ch <- Answer{Err: errEnded}
	}
	clear(c.answers)
}

// step gives the coordinator an event and does what it says.
func (c *Checkpointer) step(e checkpoint.Event) {
	if c.coordinator == nil {
		return
	}
	e.Now = c.now()
	for _, f := range slices.Clone(c.coordinator.Step(e)) {
		c.perform(f)
	}
}

func (c *Checkpointer) perform(f checkpoint.Effect) {
	switch f.Kind {
	case checkpoint.Trigger:
		c.began[f.Barrier.ID.Counter] = &progress{began: c.now()}
		c.engine.Trigger(f.Barrier)
	case checkpoint.Write:
		c.write(f.ID, f.What)
	case checkpoint.Complete:
		c.engine.Completed(f.ID)
		c.completed(f.ID)
	case checkpoint.Abort:
		delete(c.began, f.ID.Counter)
		line := fmt.Sprintf("checkpoint %s of job %s failed: %s: %v", checkpoint.Name(f.ID), c.job.name, f.Failure.Words(), f.Err)
		if f.Failure == checkpoint.Expired {
			line += fmt.Sprintf("; checkpoint.tolerable_failures lets %d fail one after the other", c.o.Config.Tolerable)
		}
		c.o.Events(line)
	case checkpoint.Release:
		c.release(f.Name)
	case checkpoint.Answer:
		a := Answer{Err: f.Err}
		if p := c.began[f.ID.Counter]; f.Err == nil && p != nil {
			a.Name, a.Err = p.savepoint, p.unsaved
			if !c.outcome.Commits {
				c.tell(f.ID, false)
			}
			delete(c.began, f.ID.Counter)
		}
		c.answers[f.Ref] <- a
		delete(c.answers, f.Ref)
	case checkpoint.Fail:
		c.failed = f.Err
	case checkpoint.Stop:
		c.outcome.Ended = true
		c.engine.Stop()
	}
}

// completed: sinks commit with id.
func (c *Checkpointer) completed(id dataflow.CheckpointID) {
	c.kept = append(c.kept, checkpoint.Name(id))
	c.tell(id, true)
	if p := c.began[id.Counter]; p.savepoint == "" && p.unsaved == nil {
		delete(c.began, id.Counter)
	}
	c.shares.Merge()
	if c.shares.TooLong() {
		c.step(checkpoint.Event{Kind: checkpoint.Failed, Failure: checkpoint.Subsumed, Lost: true})
	}
}

// tell says what a checkpoint took.
func (c *Checkpointer) tell(id dataflow.CheckpointID, commits bool) {
	p := c.began[id.Counter]
	if c.o.Completed != nil {
		c.o.Completed(Completed{
			Job: c.job.name, Name: checkpoint.Name(id), Savepoint: p.savepoint, Took: dataflow.Duration(c.now() - p.began), Bytes: p.delta, Parts: p.parts,
			Pause: p.pause, Align: p.align, Checkpoint: commits,
		})
	}
}

func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for ; v >= unit && i < 3; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGT"[i])
}

// release deletes a checkpoint that is not kept any more, and then the parts
// that only it named.
func (c *Checkpointer) release(name string) {
	if i := slices.Index(c.kept, name); i >= 0 {
		c.kept = slices.Delete(c.kept, i, i+1)
	}
	kept := slices.Clone(c.kept)
	c.jobs <- func() {
		if err := c.job.drop(name); err != nil {
			c.o.Events(fmt.Sprintf("checkpoint %s of job %s is not needed any more and could not be deleted; the next start tries again: %v", name, c.job.name, err))
		}
		if c.o.Released != nil {
			c.o.Released(kept)
		}
		c.collect()
	}
}

// collectEvery is how often parts that nobody needs are looked for, at most.
const collectEvery = 5 * dataflow.Second

// collect is called by the goroutine of jobs.
func (c *Checkpointer) collect() {
	now := c.now()
	if now < c.collected.Add(collectEvery) {
		return
	}
	c.collected = now
	if _, err := c.state.Collect(); err != nil {
		c.o.Events(fmt.Sprintf("job %s: parts that are not needed any more stay where they are: %v", c.job.name, err))
	}
}

// stored: a subtask's share is on disk, or lost.
func (c *Checkpointer) stored(s Stored) {
	e := checkpoint.Event{Kind: checkpoint.Stored, ID: s.Barrier.ID, Subtask: s.Subtask}
	if s.Err != nil {
		e.Kind, e.Failure, e.Lost, e.Err = checkpoint.Failed, s.Failure, true, s.Err
	} else if p := c.began[s.Barrier.ID.Counter]; p != nil {
		p.pause, p.align = max(p.pause, s.Pause), max(p.align, s.Align)
		p.delta, p.parts = p.delta+s.Bytes, p.parts+s.Parts
	}
	c.step(e)
}
