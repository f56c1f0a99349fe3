package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors/file"
)

// attempt is one attempt's part on this agent. A goroutine of its own, run, owns
// everything but what mu guards; others hand it functions.
//
//	preparing  until Prepared is said
//	waiting    for Begin
//	running    rows flow; Stored, NotStored, Exhausted and Committed are said
//	ended      its subtasks have finished; Ended was said
//	gone       Failed or Closed was said, and exactly one of them
//
// From each state but gone it can be closed, or fail, which leads to gone.
type attempt struct {
	x      *Executor
	ref    coordinator.AttemptRef
	asked  *worker.Prepare
	serial uint64
	before <-chan struct{} // closed when the attempt before is gone; nil: there is none
	ctx    context.Context
	cancel context.CancelCauseFunc // errClosed: it is to be closed
	done   chan struct{}           // closed when it is gone

	written map[string]bool // targets of its sinks here, when all others are cut back; nil: they are not. Executor.mu guards it, nobody changes it

	mu     sync.Mutex // guards what follows
	inbox  []func()
	shut   bool          // nothing is taken any more
	signal chan struct{} // 1: the inbox may have something
	job    *runtime.Job  // for status; nil: it is not made yet
	ran    *Preparation  // how it came to run; nil: it has not
	first  dataflow.SubtaskID
	peer   mesh.NodeID // whose channel broke first

	// Of run.
	begin    *coordinator.Begin
	opened   runtime.Opened
	joined   Joined
	shares   *durable.Shares
	open     dataflow.CheckpointID // the first of which a share is in the chains since one has completed; zero: none
	pushes   sync.WaitGroup
	parsed   *parsed
	replicas int
	phases   *timeline
	early    *warming               // what is being restored before it came, until it is taken or dropped; nil: nothing
	warm     *warming               // what was restored before it came; nil: nothing
	late     time.Duration          // how long that took here
	flowed   map[bool]bool          // whether it was said that rows are in sinks, by whether these commit
	without  map[mesh.NodeID]uint64 // agents that took no copies, and of which checkpoint they did so last
}

var (
	errClosed = errors.New("the attempt was closed")
	errEnded  = errors.New("the attempt has ended")
)

func fencedBy(t dataflow.FencingToken) error {
	return fmt.Errorf("attempt %d of epoch %d has begun", t.Attempt, t.Epoch)
}

func newAttempt(x *Executor, p *worker.Prepare) *attempt {
	a := &attempt{x: x, ref: p.AttemptRef, asked: p, serial: x.serial.Add(1), done: make(chan struct{}), signal: make(chan struct{}, 1), flowed: make(map[bool]bool), without: make(map[mesh.NodeID]uint64)}
	a.ctx, a.cancel = context.WithCancelCause(context.Background())
	return a
}

// post hands f to the attempt's goroutine; false: it takes nothing any more.
func (a *attempt) post(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shut {
		return false
	}
	a.inbox = append(a.inbox, f)
	select {
	case a.signal <- struct{}{}:
	default:
	}
	return true
}

func (a *attempt) take() []func() {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.inbox
	a.inbox = nil
	return all
}

// run is the attempt's goroutine.
func (a *attempt) run() {
	err := a.live()
	a.tearDown()
	a.x.gone(a)
	close(a.done)
	if errors.Is(context.Cause(a.ctx), errClosed) {
		a.x.o.Events(worker.AttemptEvent{Closed: &a.ref})
	} else {
		a.x.o.Events(worker.AttemptEvent{Failed: a.failure(err)})
	}
	a.cancel(errEnded)
}

// live leads from preparing to the end: it returns when the attempt is closed or
// has failed.
func (a *attempt) live() error {
	a.phases = newTimeline(a.ref)
	if a.before != nil {
		<-a.before
	}
	a.phases.ends(phaseWait)
	if err := a.prepare(); err != nil {
		return err
	}
	a.x.o.Events(worker.AttemptEvent{Prepared: a.prepared()})
	if err := a.hear(nil, func() bool { return a.begin != nil }); err != nil {
		return err
	}
	a.begins()
	if err := a.play(); err != nil {
		return err
	}
	a.x.o.Events(worker.AttemptEvent{Ended: &coordinator.AttemptEnded{AttemptRef: a.ref}})
	return a.hear(nil, func() bool { return false })
}

// begins says how it came to run.
func (a *attempt) begins() {
	a.phases.ends(phaseBegin)
	a.mu.Lock()
	a.ran = &a.phases.Preparation
	a.mu.Unlock()
	a.tell("%s", a.ran)
}

// hear does what is posted until enough says so, until closed, or until ended has
// something.
func (a *attempt) hear(ended <-chan error, enough func() bool) error {
	for {
		for _, f := range a.take() {
			f()
		}
		if enough() {
			return nil
		}
		select {
		case <-a.signal:
		case err := <-ended:
			for _, f := range a.take() { // what the job said before it ended
				f()
			}
			return err
		case <-a.ctx.Done():
			return context.Cause(a.ctx)
		}
	}
}

// play runs the job's part.
func (a *attempt) play() error {
	a.letGo()
	all := runtime.Opened{Moved: a.begin.Moved}
	for _, s := range a.begin.Subtasks {
		all.Subtasks = append(all.Subtasks, runtime.Fact{Subtask: s.Subtask, Source: s.Source, Splits: s.Splits, Transactional: s.Commits})
	}
	ended := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() {
		err := a.job.RunPart(a.ctx, all)
		if err == nil {
			err = a.flush()
		}
		ended <- err
	})
	defer running.Wait()
	err := a.hear(ended, func() bool { return false })
	if err != nil { // a Flush that waits ends; without an error others still hear that all was taken
		a.closeChannels()
	}
	if errors.Is(err, file.ErrNotReplayable) || errors.Is(err, file.ErrChanged) && a.ref.Token.Attempt == 1 {
		return final{err}
	}
	return err
}

// letGo lets go what attempts before it promised, and what it was restored from: it runs.
func (a *attempt) letGo() {
	a.x.kept.put(letGo{job: a.ref.Job, before: a.ref.Token})
	a.x.kept.put(letGo{held: a.held()})
}

// tearDown leaves nothing of it.
func (a *attempt) tearDown() {
	a.x.kept.put(letGo{held: a.held()})
	a.cancel(errEnded) // if nothing else ended it
	if a.job != nil {
		if err := a.job.Close(); err != nil {
			a.tell("closing it: %v", err)
		}
	}
	a.closeChannels()
	a.pushes.Wait()
	if a.shares != nil {
		a.shares.Quiet()
	}
	a.mu.Lock()
	a.shut = true
	rest := a.inbox
	a.inbox = nil
	a.mu.Unlock()
	for _, f := range rest {
		f()
	}
	a.pushes.Wait()
	if a.shares != nil {
		a.shares.Quiet()
		a.shares.Close()
	}
}

func (a *attempt) closeChannels() {
	if a.joined == nil {
		return
	}
	if err := a.joined.Close(); err != nil {
		a.tell("closing its channels: %v", err)
	}
}

func (a *attempt) tell(format string, args ...any) {
	a.x.o.Tell(fmt.Sprintf("job %s, attempt %d: ", a.asked.Job.Name, a.ref.Token.Attempt) + fmt.Sprintf(format, args...))
}

// failure is what is said of the attempt's end.
func (a *attempt) failure(err error) *coordinator.AttemptFailed {
	f := &coordinator.AttemptFailed{AttemptRef: a.ref, Why: err.Error(), Final: errors.As(err, new(final))}
	a.mu.Lock()
	defer a.mu.Unlock()
	f.Subtask = a.first
	var broken brokenChannels
	if errors.As(err, &broken) { // not where they broke because it failed here
		f.Peer = broken.peer
	}
	return f
}

// brokenChannels is the failure of an attempt whose channels to a peer broke.
type brokenChannels struct {
	peer mesh.NodeID
	error
}

func (b brokenChannels) Unwrap() error { return b.error }

// flush waits until others have taken what was sent.
func (a *attempt) flush() error {
	err := a.joined.Flush()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && a.peer != "" {
		return brokenChannels{a.peer, err}
	}
	return err
}

// lost is Channels.Join's.
func (a *attempt) lost(peer mesh.NodeID, err error) {
	a.mu.Lock()
	if a.peer == "" {
		a.peer = peer
	}
	j := a.job
	a.mu.Unlock()
	if j != nil {
		j.Fail(brokenChannels{peer, fmt.Errorf("the channels to agent %s: %w", peer, err)})
	}
}

// heard is runtime.Options.Events.
func (a *attempt) heard(e runtime.Event) {
	switch e.Kind {
	case runtime.SubtaskFailed:
		a.mu.Lock()
		if a.first == (dataflow.SubtaskID{}) {
			a.first = e.Subtask
		}
		a.mu.Unlock()
	case runtime.SubtaskFinished:
	default:
		a.tell("%s", e)
	}
}

func (a *attempt) trigger(b dataflow.Barrier) {
	if a.begin != nil {
		a.job.Trigger(b)
	}
}

func (a *attempt) complete(id dataflow.CheckpointID) {
	if a.begin == nil {
		return
	}
	a.job.Completed(id)
	a.open = dataflow.CheckpointID{}
	a.shares.Merge()
	if a.shares.TooLong() {
		a.tooLong()
	}
}

// grows: a share of a checkpoint is in the chains. They are kept short also where the
// checkpoint before has not completed, as nobody says here why not.
func (a *attempt) grows(id dataflow.CheckpointID) {
	if a.open == (dataflow.CheckpointID{}) {
		a.open = id
	}
	if a.open != id && a.shares.MergeOpen() {
		a.tooLong()
	}
}

// tooLong asks for whole snapshots.
func (a *attempt) tooLong() {
	a.notStored(dataflow.SubtaskID{}, dataflow.CheckpointID{Token: a.ref.Token}, checkpoint.Subsumed, true, errors.New("merging parts fails, or cannot keep up"))
}

func (a *attempt) finish() {
	if a.begin != nil {
		a.job.Stop()
	}
}

// prepared is what is said when everything is open.
func (a *attempt) prepared() *coordinator.Prepared {
	p := &coordinator.Prepared{AttemptRef: a.ref, Moved: a.opened.Moved}
	for _, f := range a.opened.Subtasks {
		p.Subtasks = append(p.Subtasks, coordinator.PreparedSubtask{Subtask: f.Subtask, Source: f.Source, Splits: f.Splits, Commits: f.Transactional})
	}
	return p
}

// status is what the attempt's subtasks have done.
func (a *attempt) status() (all []coordinator.SubtaskStatus) {
	a.mu.Lock()
	j := a.job
	a.mu.Unlock()
	if j == nil {
		return nil
	}
	for _, s := range j.Status() {
		st := coordinator.SubtaskStatus{
			AttemptRef: a.ref, Subtask: s.Subtask, Watermark: s.Watermark, Arrival: s.Arrival,
			Busy: dataflow.Duration(s.Busy.Microseconds()), Blocked: dataflow.Duration(s.Blocked.Microseconds()),
		}
		for _, o := range s.Operators {
			st.Operators = append(st.Operators, coordinator.OperatorCounters{
				Operator: o.Operator, In: o.In, Out: o.Out, Late: o.Late, NoWindow: o.NoWindow, Rejected: o.Rejected, Markers: o.Markers, Filtered: o.Filtered,
				Duplicates: o.Duplicates, Forgotten: o.Forgotten, DivByZero: o.DivByZero, Overflow: o.Overflow, First: o.FirstRejected,
			})
		}
		all = append(all, st)
	}
	return all
}
