package runtime

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// quiet is a source on which nothing arrives; it says when it is read, and ends
// a read with fails if that is set.
type quiet struct {
	reads chan struct{}
	fails error
}

func (q *quiet) Splits() int { return 1 }
func (q *quiet) Read(ctx context.Context, _ *sensors.Records, _ int) error {
	q.reads <- struct{}{}
	<-ctx.Done()
	if q.fails != nil {
		return q.fails
	}
	return ctx.Err()
}
func (*quiet) Ack(sensors.Position)        {}
func (*quiet) Seek(sensors.Position) error { return nil }
func (*quiet) Close() error                { return nil }

func sub() *Subtask { return &Subtask{Config: task.Config{Links: []task.LinkConfig{{ID: "in"}}}} }

// full is a job whose memory is used up until the batch is released.
func full() (*Job, *batch.Batch) {
	j := New(Plan{}, Options{Memory: 1, Now: time.Now, CommitInterval: time.Second})
	bl := batch.NewBuilder(j.pool, numbers)
	bl.SetInt(0, 1)
	bl.EndRow(0)
	return j, bl.Take()
}

// All sources that wait for memory go on when there is some, also if the first
// of them then finds nothing to read.
func TestRoomWakesEverySourceThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, held := full()
		q := &quiet{reads: make(chan struct{}, 3)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 3)
		for range 3 {
			d := &driver{job: j, sub: sub(), reader: q}
			go func() { _, err := d.read(ctx); done <- err }()
		}
		synctest.Wait()
		if n := len(q.reads); n > 0 {
			t.Errorf("%d sources read although the memory was used up", n)
		}
		held.Release()
		synctest.Wait()
		if n := len(q.reads); n != 3 {
			t.Errorf("%d of 3 sources go on", n)
		}
		cancel()
		for range 3 {
			<-done
		}
	})
}

// Rows become visible in time while their source waits for memory.
func TestCommitIsDueWhileASourceWaitsForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, held := full()
		defer held.Release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		d := &driver{job: j, sub: sub(), reader: &quiet{}, dirty: true, commitAt: time.Now().Add(time.Second)}
		if _, err := d.read(ctx); !errors.Is(err, errCommitDue) {
			t.Errorf("read returned %v", err)
		}
	})
}

// A source that fails in the moment in which a commit is due has failed.
func TestCommitDueDoesNotHideAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("the disk is broken")
		for want, fails := range map[error]error{broken: broken, errCommitDue: nil} {
			d := &driver{job: New(Plan{}, Options{Now: time.Now}), sub: sub(), reader: &quiet{reads: make(chan struct{}, 1), fails: fails}, dirty: true, commitAt: time.Now().Add(time.Second)}
			if _, err := d.read(t.Context()); !errors.Is(err, want) {
				t.Errorf("read returned %v, want %v", err, want)
			}
		}
	})
}

// A row that makes rows without end does not keep a job from being stopped.
func TestCancelEndsAStepThatHasAlwaysMore(t *testing.T) {
	c := &counting{n: 1}
	b := graph.NewBuilder("endless", 1)
	b.Source("in", c).Then("more", endless{}).Sink("out", c)
	g, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan(graph.Expand(graph.Chain(g, graph.Options{})), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("enough")
	var events []Event
	seen := 0
	for i := range plan.Subtasks[0].Writers {
		if plan.Subtasks[0].Writers[i] != nil {
			plan.Subtasks[0].Writers[i] = func() (sensors.Writer, error) {
				return written(func() {
					if seen++; seen == 1000 {
						cancel(why)
					}
				}), nil
			}
		}
	}
	j := New(plan, Options{Now: time.Now, CommitInterval: time.Hour, Events: func(e Event) { events = append(events, e) }})
	if err := j.Run(ctx); !errors.Is(err, why) {
		t.Errorf("Run returned %v", err)
	}
	if len(events) > 0 {
		t.Errorf("a job that was stopped says %v", events)
	}
}

// endless emits its input again and again.
type endless struct{}

func (endless) Output() *batch.Schema            { return numbers }
func (endless) Side(operator.Side) *batch.Schema { return nil }
func (endless) New() operator.Operator           { return &endlessOperator{} }

type endlessOperator struct {
	operator.Stateless
	in *batch.Batch
}

func (*endlessOperator) Open(*operator.Context) error { return nil }

func (e *endlessOperator) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	e.in = b.Retain()
	return e.Resume(out)
}

func (e *endlessOperator) Resume(out operator.Output) (operator.Progress, error) {
	for out.Emit(e.in) {
	}
	return operator.More, nil
}

// written is a sink that calls a function for each batch.
type written func()

func (w written) Write(context.Context, *batch.Batch) error { w(); return nil }
func (written) Commit(context.Context) error                { return nil }
func (written) Close() error                                { return nil }
