package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Plan is a job ready to run in one process.
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
}

// Job is a plan that runs. Run it once.
type Job struct {
	plan    Plan
	opt     Options
	pool    *batch.Pool
	room    chan struct{} // 1: the pool may have room again
	inboxes []*inbox
	drivers []*driver
}

// New prepares the plan. Nothing is opened and nothing runs yet.
func New(plan Plan, opt Options) *Job {
	if opt.BatchRows <= 0 || opt.BatchRows > batch.MaxRows {
		opt.BatchRows = batch.MaxRows
	}
	j := &Job{plan: plan, opt: opt, room: make(chan struct{}, 1)}
	j.pool = batch.NewPool(opt.Memory, func() { signal(j.room) })
	for i := range plan.Subtasks {
		st := &plan.Subtasks[i]
		st.Config.Pool = j.pool
		st.Config.AtLeastOnce = opt.AtLeastOnce
		st.Config.Durable = opt.Collector != nil
		in := newInbox(st.Config.Channels)
		j.inboxes = append(j.inboxes, in)
		j.drivers = append(j.drivers, &driver{job: j, sub: st, in: in, control: newControl(), writers: make([]sensors.Writer, len(st.Config.Links))})
	}
	return j
}

// Run runs the job until its inputs end (nil), it is stopped (nil), a subtask
// fails (its error) or ctx ends (ctx's cause). All goroutines have ended when
// it returns.
func (j *Job) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := j.open(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = context.Cause(ctx) // not where it met what ended the job
		}
		return errors.Join(err, j.close())
	}
	var wg sync.WaitGroup
	for _, d := range j.drivers {
		wg.Go(func() {
			if err := d.run(ctx); err != nil && !stopped(ctx, err) {
				j.event(Event{Kind: SubtaskFailed, Subtask: d.sub.Config.ID, Err: err})
				cancel(anotherFailed{err})
			}
		})
	}
	wg.Wait()
	for _, in := range j.inboxes {
		in.drop()
	}
	closed := j.close()
	if cause := context.Cause(ctx); cause != nil {
		var first anotherFailed
		if errors.As(cause, &first) {
			return first.err
		}
		return cause
	}
	return closed
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

// open opens all connectors, and gives the tasks and sinks their state back.
func (j *Job) open(ctx context.Context) error {
	for _, d := range j.drivers {
		if err := d.guarded(d.open); err != nil {
			return err
		}
	}
	j.findEmpty()
	j.findAlone()
	for _, d := range j.drivers {
		if err := d.guarded(d.start); err != nil {
			return err
		}
	}
	moved := false
	for _, d := range j.drivers {
		if err := d.guarded(func() error { return d.restore(ctx) }); err != nil {
			return err
		}
		moved = moved || d.task.Moved()
	}
	if moved {
		for _, d := range j.drivers {
			d.task.SplitsMoved()
		}
	}
	return nil
}

// findAlone tells each source subtask that reads anything whether its stream
// meets another one's.
func (j *Job) findAlone() {
	from := make([]int, len(j.drivers)) // the source subtask whose stream comes here, plus one
	alone := make([]bool, len(j.drivers))
	var visit func(i, source int, seen []bool)
	visit = func(i, source int, seen []bool) {
		if seen[i] {
			return
		}
		seen[i] = true
		if from[i] != 0 && from[i] != source+1 {
			alone[from[i]-1], alone[source] = false, false
		}
		from[i] = source + 1
		for _, targets := range j.drivers[i].sub.Targets {
			for _, to := range targets {
				visit(to.Subtask, source, seen)
			}
		}
	}
	for i, d := range j.drivers {
		if d.sub.Config.Source != nil && len(d.splits()) > 0 {
			alone[i] = true
			visit(i, i, make([]bool, len(j.drivers)))
		}
	}
	for i, d := range j.drivers {
		if d.sub.Config.Source != nil {
			d.sub.Config.Source.Alone = alone[i]
		}
	}
}

// findEmpty tells each task which of its channels will never bring a row: a
// source with fewer splits than subtasks has some with nothing to read. If
// their watermark counted until their end has come through, which rows are late
// would depend on how quickly that happens. A task all of whose channels are
// empty sends nothing itself, so it needs no telling, but its receivers do.
func (j *Job) findEmpty() {
	var empty []*driver
	for _, d := range j.drivers {
		if d.sub.Config.Source != nil && d.splitCount() == 0 {
			empty = append(empty, d)
		}
	}
	for len(empty) > 0 {
		d := empty[0]
		empty = empty[1:]
		for _, targets := range d.sub.Targets {
			for _, to := range targets {
				r := j.drivers[to.Subtask]
				r.empty = append(r.empty, to.Channel)
				if len(r.empty) == r.sub.Config.Channels {
					empty = append(empty, r)
				}
			}
		}
	}
}

func (j *Job) close() error {
	var errs []error
	for _, d := range j.drivers {
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

// Status is a copy of all subtasks' status, in the order of the plan.
func (j *Job) Status() []Status {
	out := make([]Status, len(j.drivers))
	for i, d := range j.drivers {
		d.mu.Lock()
		out[i] = d.status
		out[i].Subtask = d.sub.Config.ID
		out[i].Operators = append([]task.LinkCounters(nil), d.status.Operators...)
		d.mu.Unlock()
	}
	return out
}
