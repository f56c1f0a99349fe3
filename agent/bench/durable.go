package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	engine "github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/file"
)

// replay is a job's source that hands out the same batches for as long as it is
// told to. Between checkpoints it stays within one set of them.
type replay struct {
	batches []*batch.Batch
	perSet  int
	pool    *batch.Pool
	turn    atomic.Int64 // the number of the set
	rows    atomic.Int64 // handed out
	next    int          // batch within the set
	seen    int64        // the turn that next is of
	stand   chan chan struct{}
	resume  chan struct{} // it stands still until this is closed, also when a barrier wakes it meanwhile; nil: it goes
}

var _ sensors.BatchReader = (*replay)(nil)

// ReadBatch is sensors.BatchReader's.
func (r *replay) ReadBatch(ctx context.Context, _ int) (*batch.Batch, []int64, sensors.Position, error) {
	if r.resume == nil {
		select {
		case r.resume = <-r.stand:
		default:
		}
	}
	if r.resume != nil {
		select {
		case <-r.resume:
			r.resume = nil
		case <-ctx.Done():
			return nil, nil, sensors.Position{}, ctx.Err()
		}
	}
	if turn := r.turn.Load(); turn != r.seen {
		r.seen, r.next = turn, 0
	}
	sets := len(r.batches) / r.perSet
	src := r.batches[int(r.seen)%sets*r.perSet+r.next]
	if r.next++; r.next == r.perSet {
		r.next = 0
	}
	b := r.pool.DeriveAll(src)
	b.OwnMarks() // the source gives it its own
	rows := r.rows.Add(int64(src.Rows))
	return b, nil, sensors.Position{Offset: rows}, nil
}

// Seek is sensors.BatchReader's; nothing is ever restored here.
func (r *replay) Seek(sensors.Position) error { return nil }

// Close is sensors.BatchReader's.
func (r *replay) Close() error { return nil }

// endless is a job that reads a replay and ends only when it is told to. It
// stands still except while it is measured, and takes checkpoints while its
// clock goes.
type endless struct {
	replay *replay
	every  dataflow.Duration // from one checkpoint to the next
	resume chan struct{}     // closed to let the replay go on; nil: it does
	stop   context.CancelFunc
	done   chan struct{} // closed when the job has ended, with err
	err    error

	clock     *stoppable // of its checkpoints
	completed chan durable.Completed
	failed    chan string  // what went wrong with a checkpoint; the first is enough
	release   func() error // gives the state folder back
	taker     *durable.Checkpointer
}

// openEndless starts the job; it stands still. dir is for its checkpoints, so
// often.
func openEndless(j *job, in *input, perSet int, dir string, every dataflow.Duration) (*endless, error) {
	e := &endless{every: every, replay: &replay{batches: in.batches, perSet: perSet, stand: make(chan chan struct{})}, done: make(chan struct{})}
	plan, x, err := j.plan(in.schema, func(p *batch.Pool) sensors.BatchReader { e.replay.pool = p; return e.replay }, &file.Blackhole{})
	if err != nil {
		return nil, err
	}
	opt := engine.Options{CommitInterval: time.Second, Now: time.Now}
	if err := e.takeCheckpoints(dir, x, engine.New(plan, opt).Tables()); err != nil {
		return nil, err
	}
	opt.Collector = e
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	run := engine.New(plan, opt)
	var both sync.WaitGroup
	both.Go(func() {
		if err := run.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			e.err = err
		}
	})
	both.Go(func() {
		if err := e.taker.Run(ctx, run); err != nil {
			e.fail(err.Error())
		}
	})
	go func() {
		both.Wait()
		close(e.done)
	}()
	return e, e.stand()
}

// takeCheckpoints makes the job's checkpointer.
func (e *endless) takeCheckpoints(dir string, x *graph.ExecutionGraph, tables []engine.TableOf) error {
	state, err := durable.Open(dir, nil)
	if err != nil {
		return err
	}
	kept, err := state.OpenJob("bench")
	if err != nil {
		return errors.Join(err, state.Close())
	}
	e.release = func() error { kept.Close(); return state.Close() }
	token, err := kept.NextAttempt()
	if err != nil {
		return errors.Join(err, e.release())
	}
	layout := durable.LayoutOf(x, tables)
	e.clock = &stoppable{}
	e.completed, e.failed = make(chan durable.Completed, 1024), make(chan string, 1)
	e.taker = durable.NewCheckpointer(durable.CheckpointerOptions{
		Job: kept, MaxParallelism: x.Job.Stream.MaxParallelism, Tables: layout.Tables, Parallelism: layout.Parallelism,
		Config: checkpoint.Config{
			Token: token, Interval: e.every, Timeout: dataflow.Minute, Retain: 3, Subtasks: layout.Subtasks, Sources: layout.Sources,
		},
		Clock: e.clock, Events: e.fail, Completed: func(c durable.Completed) { e.completed <- c },
	})
	return nil
}

func (e *endless) fail(why string) {
	select {
	case e.failed <- why:
	default:
	}
}

// Taken is engine.Collector's. Once the source has taken a barrier its rows are
// of other keys.
func (e *endless) Taken(t engine.SnapshotTaken) {
	if t.Positions != nil {
		e.replay.turn.Add(1)
	}
	e.taker.Taken(t)
}

// Exhausted is engine.Collector's.
func (e *endless) Exhausted(s dataflow.SubtaskID) { e.taker.Exhausted(s) }

// Committed is engine.Collector's.
func (e *endless) Committed(s dataflow.SubtaskID, id dataflow.CheckpointID) { e.taker.Committed(s, id) }

// stand makes the source stand still.
func (e *endless) stand() error {
	e.resume = make(chan struct{})
	select {
	case e.replay.stand <- e.resume:
		return nil
	case <-e.done:
		return fmt.Errorf("the job ended: %w", e.err)
	}
}

// stretch lets the job run for some checkpoints, or without any for as many
// times as long as one is apart from the next, and says what its rows cost, writing what was taken included.
func (e *endless) stretch(ctx context.Context, checkpoints, intervals int) (w work, rows int64, taken []durable.Completed, err error) {
	from := e.replay.rows.Load()
	w, err = watch(func() error {
		close(e.resume)
		if checkpoints > 0 {
			e.clock.start()
			defer e.clock.stop()
		}
		tick := time.NewTicker(e.every.Go())
		defer tick.Stop()
		for passed := 0; len(taken) < checkpoints || passed < intervals; {
			select {
			case <-tick.C:
				if passed++; checkpoints == 0 {
					e.replay.turn.Add(1)
				}
			case c := <-e.completed:
				taken = append(taken, c)
			case why := <-e.failed:
				return errors.New(why)
			case <-e.done:
				return fmt.Errorf("the job ended: %w", e.err)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return e.stand()
	})
	if err != nil {
		return w, 0, nil, err
	}
	rows = e.replay.rows.Load() - from
	after, err := watch(func() error { return calm(ctx) })
	w.cpu += after.cpu
	return w, rows, taken, err
}

// load lets all keys come once.
func (e *endless) load(ctx context.Context, sets int) error {
	per := int64(0)
	for _, b := range e.replay.batches[:e.replay.perSet] {
		per += int64(b.Rows)
	}
	close(e.resume)
	for set := range sets {
		e.replay.turn.Store(int64(set))
		for from := e.replay.rows.Load(); e.replay.rows.Load()-from < 2*per; {
			select {
			case <-time.After(time.Millisecond):
			case <-e.done:
				return fmt.Errorf("the job ended: %w", e.err)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return e.stand()
}

// calm waits until this process has nothing to do: what was begun behind a
// job's back is done. A process that never rests is measured as it is.
func calm(ctx context.Context) error {
	const look, looks = 20 * time.Millisecond, 150
	for range looks {
		before := processorTime()
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
		if processorTime()-before < look/10 {
			return nil
		}
	}
	return nil
}

// close ends the job.
func (e *endless) close() error {
	e.stop()
	<-e.done
	return errors.Join(e.err, e.release())
}

// stoppable is a clock that stands still while others are measured.
type stoppable struct {
	mu      sync.Mutex // guards what follows
	going   bool
	passed  time.Duration // before it was started last
	started time.Time
	waiting []func() // what After was asked for while it stood
}

// Now is sensors.Clock's.
func (c *stoppable) Now() dataflow.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return dataflow.Time(epoch + c.time().Microseconds())
}

func (c *stoppable) time() time.Duration {
	if c.going {
		return c.passed + time.Since(c.started)
	}
	return c.passed
}

// After is sensors.Clock's. It may send early if the clock was stopped
// meanwhile: who waits looks at Now.
func (c *stoppable) After(d dataflow.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	start := func() { time.AfterFunc(d.Go(), func() { ch <- time.Now() }) }
	if c.going {
		start()
	} else {
		c.waiting = append(c.waiting, start)
	}
	return ch
}

func (c *stoppable) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.going, c.started = true, time.Now()
	for _, f := range c.waiting {
		f()
	}
	c.waiting = nil
}

func (c *stoppable) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed, c.going = c.time(), false
}
