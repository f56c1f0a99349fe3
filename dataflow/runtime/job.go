package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Plan is a job ready to run: the whole of it, also where this process runs only
// a part. All processes make the same plan.
type Plan struct {
	Job      string
	Subtasks []Subtask
}

// Subtask is one task of the plan with everything it touches. The runtime
// closes its connectors.
type Subtask struct {
	Config  task.Config                                    // Pool is set by the runtime
	Targets [][]Target                                     // for each output, for each of its channels
	Reader  func() (sensors.Reader, error)                 // of a source that reads payloads
	Columns func(*batch.Pool) (sensors.BatchReader, error) // of a source that makes columns
	Writers []func() (sensors.Writer, error)               // by link; nil where the link is no sink

	// Backings make the disk of operators with more state than memory: by link,
	// nil where there is none; nil: nowhere.
	Backings []func() (Backing, error)

	// Remote: another process runs it. Nothing of it is opened here; Config and
	// Targets say how it is connected.
	Remote bool
}

// Target is the receiving end of a channel.
type Target struct {
	Subtask int // in Plan.Subtasks
	Channel int
}

// Options are the surroundings of a running job.
type Options struct {
	Memory         int64            // budget in bytes for batches in flight; 0: none. Full: sources wait
	BatchRows      int              // records that one read of a source hands out at most; 0, or more than batch.MaxRows: that many
	CommitInterval time.Duration    // sinks make their rows visible this often
	Now            func() time.Time // for busy times and commit intervals
	Events         func(Event)      // must not block; nil: nobody listens
	AtLeastOnce    bool             // barriers do not block channels
	Collector      Collector        // nil: nobody takes checkpoints
	Restore        Restore          // nil: the job starts afresh
	// GoesOn tells whether what a subtask's operator is given back is on disk as its
	// own rows, so that its first snapshot may be a delta; nil: no operator's is.
	GoesOn func(dataflow.SubtaskID, dataflow.OperatorID) bool
	Warm   *Warm // tasks that have state already, which Restore leaves out; nil: there are none
	// Drained: what Restore reads was taken behind the end of a drained job's input.
	// Sources say so again and read nothing, whatever there is to read by now.
	Drained bool

	// Outlet makes the sending end of a channel from a local subtask to a remote
	// one; nil: all are local. It is called once for each of Plan.Crossing, when
	// the job begins to run, and must not block.
	Outlet func(Channel) (Outlet, error)
}

// Job is a plan that runs, or the local part of one. Run it once.
type Job struct {
	plan    Plan
	opt     Options
	pool    *batch.Pool
	room    chan struct{} // 1: the pool may have room again
	inboxes []*inbox      // by subtask of the plan; nil: it is remote
	local   []*driver     // of the subtasks that run here, in the order of the plan

	connecting, restoring time.Duration // what Opened says

	failed context.Context         // ends with what Fail says
	fail   context.CancelCauseFunc // ends it
	ended  chan struct{}           // closed when everything here has ended
	once   sync.Once               // of Close
	closed error                   // what it returns
}

// New prepares the plan. Nothing is opened and nothing runs yet.
func New(plan Plan, opt Options) *Job {
	if opt.BatchRows <= 0 || opt.BatchRows > batch.MaxRows {
		opt.BatchRows = batch.MaxRows
	}
	j := &Job{plan: plan, opt: opt}
	if w := opt.Warm; w != nil {
		j.room, j.pool = w.room, w.pool
	} else {
		j.room = make(chan struct{}, 1)
		j.pool = batch.NewPool(opt.Memory, func() { signal(j.room) })
	}
	j.failed, j.fail = context.WithCancelCause(context.Background())
	j.ended = make(chan struct{})
	j.inboxes = make([]*inbox, len(plan.Subtasks))
	for i := range plan.Subtasks {
		st := &plan.Subtasks[i]
		if st.Remote {
			continue
		}
		st.Config.Pool = j.pool
		st.Config.AtLeastOnce = opt.AtLeastOnce
		st.Config.Durable = opt.Collector != nil
		in := newInbox(st.Config.Channels)
		j.inboxes[i] = in
		j.local = append(j.local, &driver{job: j, index: i, sub: st, in: in, control: newControl(), writers: make([]sensors.Writer, len(st.Config.Links))})
	}
	return j
}

// Run runs a job of one process until its inputs end (nil), it is stopped (nil),
// a subtask fails (its error) or ctx ends (ctx's cause). All goroutines have
// ended when it returns.
func (j *Job) Run(ctx context.Context) error {
	all, err := j.Open(ctx)
	if err != nil {
		return err
	}
	return j.RunPart(ctx, all)
}

// Open opens the connectors of the local subtasks and gives their tasks and sinks
// their state back. What it returns, put together with that of the other parts of
// the job, RunPart takes; until then nothing moves. After an error everything is
// closed again.
func (j *Job) Open(ctx context.Context) (Opened, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(j.failed, func() { cancel(context.Cause(j.failed)) })()
	if err := j.open(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = why(ctx) // not where it met what ended the job
		}
		return Opened{}, errors.Join(err, j.Close())
	}
	return j.facts(), nil
}

// Close closes what Open opened, of a job that is not to run. It may be called
// again, and after RunPart.
func (j *Job) Close() error {
	j.once.Do(func() {
		for _, in := range j.inboxes {
			if in != nil {
				in.drop()
			}
		}
		j.closed = j.close()
		close(j.ended)
	})
	return j.closed
}

// RunPart runs the local subtasks; all are the facts of the whole job, those that
// Open returned here and elsewhere. It ends as Run does, for this part: the
// subtasks here have finished, one of them failed, Fail was called. When it
// returns, outlets hold what they were offered and have not delivered.
func (j *Job) RunPart(ctx context.Context, all Opened) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(j.failed, func() { cancel(context.Cause(j.failed)) })()
	err := j.learn(all)
	if err == nil {
		err = j.connect()
	}
	if err != nil {
		return errors.Join(err, j.Close())
	}
	var wg sync.WaitGroup
	for _, d := range j.local {
		wg.Go(func() {
			if err := d.run(ctx); err != nil && !stopped(ctx, err) {
				j.event(Event{Kind: SubtaskFailed, Subtask: d.sub.Config.ID, Err: err})
				cancel(anotherFailed{err})
			}
		})
	}
	wg.Wait()
	closed := j.Close()
	if ctx.Err() != nil {
		return why(ctx)
	}
	return closed
}

// Fail ends the job with err: a channel to another part of it broke, say. Any
// goroutine may call it, at any time; only the first error counts.
func (j *Job) Fail(err error) { j.fail(anotherFailed{err}) }

// Ended is closed when Run, RunPart or Close has ended everything of the job:
// nobody takes what an Inlet is offered then.
func (j *Job) Ended() <-chan struct{} { return j.ended }

// connect makes the outlets of the local subtasks.
func (j *Job) connect() error {
	out, _ := j.plan.Crossing()
	if len(out) > 0 && j.opt.Outlet == nil {
		return fmt.Errorf("job %q: a part of it runs elsewhere, and Options.Outlet is not set", j.plan.Job)
	}
	outlets := make(map[int]map[Target]Outlet)
	for _, c := range out {
		o, err := j.opt.Outlet(c)
		if err != nil {
			return fmt.Errorf("subtask %s: channel to %s: %w", j.plan.Subtasks[c.From].Config.ID, j.plan.Subtasks[c.To.Subtask].Config.ID, err)
		}
		if outlets[c.From] == nil {
			outlets[c.From] = make(map[Target]Outlet)
		}
		outlets[c.From][c.To] = o
	}
	for _, d := range j.local {
		d.outlets = outlets[d.index]
	}
	return nil
}

// why is what ended ctx: the error of the subtask that failed first, or what
// whoever ended it says.
func why(ctx context.Context) error {
	cause := context.Cause(ctx)
	var first anotherFailed
	if errors.As(cause, &first) {
		return first.err
	}
	return cause
}

// stopped tells whether err is only what ctx ended with: another subtask failed
// first, or somebody ended it.
func stopped(ctx context.Context, err error) bool {
	return errors.Is(err, errAnother) || ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
}

// errAnother marks the errors that subtasks return because another one failed
// first; only that first one is reported.
var errAnother = errors.New("another subtask failed")

type anotherFailed struct{ err error }

func (a anotherFailed) Error() string        { return "another subtask failed: " + a.err.Error() }
func (a anotherFailed) Is(target error) bool { return target == errAnother }

// open opens the connectors, and gives the tasks and sinks their state back.
func (j *Job) open(ctx context.Context) error {
	began := j.opt.Now()
	for _, d := range j.local {
		if err := d.guarded(d.open); err != nil {
			return err
		}
	}
	for _, d := range j.local {
		if err := d.guarded(d.start); err != nil {
			return err
		}
	}
	opened := j.opt.Now()
	err := j.restore(ctx)
	j.connecting, j.restoring = opened.Sub(began), j.opt.Now().Sub(opened)
	return err
}

// restore restores the local subtasks, as many at a time as can work at once.
// The first error, in their order, is returned.
func (j *Job) restore(ctx context.Context) error {
	errs := make([]error, len(j.local))
	turns := make(chan struct{}, goruntime.GOMAXPROCS(0))
	var restoring sync.WaitGroup
	for i, d := range j.local {
		turns <- struct{}{}
		restoring.Go(func() {
			errs[i] = d.guarded(func() error { return d.restore(ctx) })
			<-turns
		})
	}
	restoring.Wait()
	return cmp.Or(errs...)
}

func (j *Job) close() error {
	var errs []error
	for _, d := range j.local {
		errs = append(errs, d.guarded(d.close))
	}
	return errors.Join(errs...)
}

func (j *Job) event(e Event) {
	if j.opt.Events != nil {
		j.opt.Events(e)
	}
}

// EventKind says what happened.
type EventKind uint8

// The events of a running job.
const (
	SubtaskFailed   EventKind = iota + 1
	SubtaskFinished           // its inputs ended and its rows are committed
	SinkFull                  // a commit found no room; the sink tries again
	SinkResumed               // and now there was room
)

// Event is something that happened in a running job.
type Event struct {
	Kind    EventKind
	Subtask dataflow.SubtaskID
	Sink    dataflow.OperatorID
	Err     error
}

// String is the event in one line.
func (e Event) String() string {
	switch e.Kind {
	case SubtaskFailed:
		return fmt.Sprintf("subtask %s failed: %v", e.Subtask, e.Err)
	case SubtaskFinished:
		return fmt.Sprintf("subtask %s finished", e.Subtask)
	case SinkFull:
		return fmt.Sprintf("sink %q waits for room: %v", e.Sink, e.Err)
	case SinkResumed:
		return fmt.Sprintf("sink %q goes on", e.Sink)
	}
	return fmt.Sprintf("event %d", e.Kind)
}

// Status is what a subtask has done so far.
type Status struct {
	Subtask   dataflow.SubtaskID
	Operators []task.LinkCounters
	Watermark dataflow.Time // the subtask's event-time clock
	Arrival   dataflow.Time // its arrival clock
	Busy      time.Duration // in Step
	Blocked   time.Duration // waiting for the receivers of its output: back-pressure
	Finished  bool
}

// Status is a copy of the status of all subtasks that run here, in the order of
// the plan.
func (j *Job) Status() []Status {
	out := make([]Status, len(j.local))
	for i, d := range j.local {
		d.mu.Lock()
		out[i] = d.status
		out[i].Subtask = d.sub.Config.ID
		out[i].Operators = append([]task.LinkCounters(nil), d.status.Operators...)
		d.mu.Unlock()
	}
	return out
}
