package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

var numbers = batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})

// counting is a source of the numbers below n that belong to a subtask, and a
// sink that keeps what it is given.
type counting struct {
	n       int64 // numbers of the whole source; -1: endless
	failAt  int64 // the reader fails here; 0: never
	full    int   // commits that find no room first
	poison  int64 // the sink panics when it sees this number; 0: never
	started chan struct{}

	mu        sync.Mutex // guards what follows
	pending   []int64
	committed []int64
	closed    int
	most      map[int]bool // that the reader was asked for
}

func (*counting) Connector() string                { return "counting" }
func (*counting) Schema() *batch.Schema            { return numbers }
func (*counting) Side(operator.Side) *batch.Schema { return nil }
func (c *counting) Splits() int                    { return 1 }

func (c *counting) Source(n *graph.Node, subtask int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	cfg := &task.SourceConfig{Schema: numbers, EventAt: -1, DeviceAt: -1, Arrival: -1, Time: eventtime.Config{Strategy: eventtime.Ingestion}}
	return cfg, nil, func(p *batch.Pool) (sensors.BatchReader, error) {
		return &numberReader{c: c, pool: p, next: int64(subtask), step: int64(n.Parallelism)}, nil
	}, nil
}

func (c *counting) Sink(*graph.Node, int, *batch.Schema) (func() (sensors.Writer, error), error) {
	return func() (sensors.Writer, error) { return &numberWriter{c}, nil }, nil
}

type numberReader struct {
	c          *counting
	pool       *batch.Pool
	next, step int64
	once       sync.Once
}

func (r *numberReader) ReadBatch(ctx context.Context, most int) (*batch.Batch, []int64, sensors.Position, error) {
	r.once.Do(func() {
		if r.c.started != nil {
			r.c.started <- struct{}{}
		}
	})
	if r.c.failAt > 0 && r.next >= r.c.failAt {
		return nil, nil, sensors.Position{}, errors.New("the cable is cut")
	}
	if ctx.Err() != nil {
		return nil, nil, sensors.Position{}, ctx.Err()
	}
	r.c.asked(most)
	bl := batch.NewBuilder(r.pool, numbers)
	for k := 0; k < most/16 && (r.c.n < 0 || r.next < r.c.n); k++ {
		bl.SetInt(0, r.next)
		bl.EndRow(0)
		r.next += r.step
	}
	b := bl.Take()
	if b == nil {
		return nil, nil, sensors.Position{}, io.EOF
	}
	return b, nil, sensors.Position{Offset: r.next}, nil
}

func (r *numberReader) Seek(sensors.Position) error { return nil }
func (r *numberReader) Close() error                { r.c.close(); return nil }

type numberWriter struct{ c *counting }

func (w *numberWriter) Write(_ context.Context, b *batch.Batch) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	for k := range b.Len() {
		v := b.Cols[0].Ints[b.Position(k)]
		if v == w.c.poison && v != 0 {
			panic("poisoned row")
		}
		w.c.pending = append(w.c.pending, v)
	}
	return nil
}

func (w *numberWriter) Commit(context.Context) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.c.full > 0 {
		w.c.full--
		return fmt.Errorf("numbers: %w", sensors.ErrFull)
	}
	w.c.committed = append(w.c.committed, w.c.pending...)
	w.c.pending = nil
	return nil
}

func (w *numberWriter) Close() error { w.c.close(); return nil }

func (c *counting) asked(most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most == nil {
		c.most = make(map[int]bool)
	}
	c.most[most] = true
}

func (c *counting) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
}

// job builds source(2) -> pass(3) -> sink(1) over c.
func job(t *testing.T, c *counting, opt Options) *Job {
	t.Helper()
	b := graph.NewBuilder("numbers", 2)
	b.Source("in", c).Exchange(graph.Rebalance).Then("pass", operator.NewPass(numbers)).Parallelism(3).Sink("out", c)
	g, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan(graph.Expand(graph.Chain(g, graph.Options{})), c)
	if err != nil {
		t.Fatal(err)
	}
	opt.Now = time.Now
	if opt.CommitInterval == 0 {
		opt.CommitInterval = time.Second
	}
	return New(plan, opt)
}

func TestJobDeliversEveryRowOnceAndReturnsItsMemory(t *testing.T) {
	for _, memory := range []int64{0, 1 << 20} {
		c := &counting{n: 50_000}
		j := job(t, c, Options{Memory: memory})
		if err := j.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(c.committed)
		if len(c.committed) != 50_000 || c.committed[0] != 0 || c.committed[49_999] != 49_999 || len(slices.Compact(c.committed)) != 50_000 {
			t.Errorf("memory %d: %d rows committed, want each of 50,000 once", memory, len(c.committed))
		}
		if used := j.pool.Used(); used != 0 {
			t.Errorf("memory %d: %d bytes of batches were not released", memory, used)
		}
		if c.closed != 3 {
			t.Errorf("memory %d: %d connectors closed, want 3", memory, c.closed)
		}
	}
}

func TestBatchRowsBoundsReads(t *testing.T) {
	for rows, want := range map[int]int{0: batch.MaxRows, -1: batch.MaxRows, 32: 32, batch.MaxRows + 1: batch.MaxRows} {
		c := &counting{n: 1000}
		if err := job(t, c, Options{BatchRows: rows}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(c.most) != 1 || !c.most[want] || len(c.committed) != 1000 {
			t.Errorf("BatchRows %d: reads of %v rows, %d rows in all; want reads of %d and 1000", rows, c.most, len(c.committed), want)
		}
	}
}

func TestStopDrainsWhatWasRead(t *testing.T) {
	c := &counting{n: -1, started: make(chan struct{}, 2)}
	j := job(t, c, Options{Memory: 1 << 20})
	done := make(chan error, 1)
	go func() { done <- j.Run(t.Context()) }()
	<-c.started
	j.Stop()
	j.Stop() // twice is once
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	in := int64(0)
	for _, s := range j.Status() {
		if s.Subtask.Task == "in" {
			in += s.Operators[0].In
		}
		if s.Watermark == 1<<63-1 {
			t.Errorf("%v: a stop must not look like the end of the input", s.Subtask)
		}
	}
	if int64(len(c.committed)) != in || len(c.pending) != 0 {
		t.Errorf("%d rows read, %d committed, %d pending", in, len(c.committed), len(c.pending))
	}
}

func TestCancelStopsNowWithItsCause(t *testing.T) {
	c := &counting{n: -1, started: make(chan struct{}, 2)}
	j := job(t, c, Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	<-c.started
	why := errors.New("the user is impatient")
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("Run returned %v, want the cause", err)
	}
	if used := j.pool.Out(); used != 0 {
		t.Errorf("%d batches were not released", used)
	}
}

func TestFailuresNameTheSubtaskAndEndTheJob(t *testing.T) {
	for _, c := range []struct {
		name string
		conn *counting
		want []string
	}{
		{"source", &counting{n: -1, failAt: 5000}, []string{"in/", "the cable is cut"}},
		{"panic", &counting{n: -1, poison: 777}, []string{"out/0", "poisoned row"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var events []Event
			var mu sync.Mutex
			j := job(t, c.conn, Options{Events: func(e Event) { mu.Lock(); events = append(events, e); mu.Unlock() }})
			err := j.Run(t.Context())
			for _, w := range c.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("error %v does not say %q", err, w)
				}
			}
			if len(events) == 0 || events[0].Kind != SubtaskFailed {
				t.Errorf("events %v", events)
			}
		})
	}
}

// A sink without room holds the job back, says so, and loses nothing.
func TestFullSinkWaitsAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{n: 50_000, full: 3}
		var events []string
		var mu sync.Mutex
		j := job(t, c, Options{Events: func(e Event) {
			if e.Kind != SubtaskFinished {
				mu.Lock()
				events = append(events, e.String())
				mu.Unlock()
			}
		}})
		if err := j.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(c.committed) != 50_000 {
			t.Errorf("%d rows committed", len(c.committed))
		}
		want := `sink "out" waits for room: numbers: no space left`
		if len(events) != 4 || events[0] != want || events[3] != `sink "out" goes on` {
			t.Errorf("events:\n%s", strings.Join(events, "\n"))
		}
	})
}

func TestInboxIsFairAndHoldsBlockedChannels(t *testing.T) {
	in := newInbox(2)
	put := func(c int, id uint64) {
		if !in.offer(c, Message{Barrier: &dataflow.Barrier{ID: dataflow.CheckpointID{Counter: id}}}) {
			t.Fatal("no room")
		}
	}
	for id := uint64(1); id <= 3; id++ {
		put(0, id)
		put(1, 10+id)
	}
	in.block(1, true)
	var got []uint64
	for range 3 {
		_, m, ok := in.poll()
		if !ok {
			t.Fatal("a channel that is not blocked was held back")
		}
		got = append(got, m.Barrier.ID.Counter)
	}
	if _, _, ok := in.poll(); ok {
		t.Fatal("a blocked channel was read")
	}
	in.block(1, false)
	put(0, 4)
	for range 4 {
		_, m, _ := in.poll()
		got = append(got, m.Barrier.ID.Counter)
	}
	if want := []uint64{1, 2, 3, 11, 4, 12, 13}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestFullChannelBlocksItsSenderOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newInbox(2)
		d := &driver{job: &Job{inboxes: []*inbox{in}}, control: newControl()}
		ctx, cancel := context.WithCancel(t.Context())
		for range channelDepth {
			if !in.offer(0, Message{}) {
				t.Fatal("no room in an empty channel")
			}
		}
		result := make(chan error, 1)
		go func() { result <- d.send(ctx, Target{}, Message{}) }()
		synctest.Wait()
		select {
		case <-result:
			t.Fatal("a full channel took a message")
		default:
		}
		if !in.offer(1, Message{}) {
			t.Fatal("the other channel was held up")
		}
		in.poll()
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		go func() { result <- d.send(ctx, Target{}, Message{}) }()
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Fatalf("send returned %v", err)
		}
	})
}

// A connector that fails to open may come back as a nil pointer in an interface;
// nothing of it is kept, and what was open is closed.
func TestConnectorThatDoesNotOpenIsNotKept(t *testing.T) {
	c := &counting{n: 10}
	j := job(t, c, Options{})
	for i := range j.plan.Subtasks {
		for l, open := range j.plan.Subtasks[i].Writers {
			if open != nil {
				j.plan.Subtasks[i].Writers[l] = func() (sensors.Writer, error) {
					var w *numberWriter
					return w, errors.New("the file is not empty")
				}
			}
		}
	}
	err := j.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), `sink "out": the file is not empty`) {
		t.Errorf("Run returned %v", err)
	}
	if c.closed != 2 {
		t.Errorf("%d connectors closed, want the two sources", c.closed)
	}
}

// The last commit comes also when nothing was written: an empty result is a
// result.
func TestEmptyResultIsCommitted(t *testing.T) {
	c := &counting{n: 0, full: 1}
	if err := job(t, c, Options{}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.full != 0 {
		t.Error("the sink was not committed")
	}
}

// What an effect holds that could not be performed is released.
func TestUnperformedEffectsAreReleased(t *testing.T) {
	pool := batch.NewPool(0, nil)
	one := func() *batch.Batch {
		bl := batch.NewBuilder(pool, numbers)
		bl.SetInt(0, 1)
		bl.EndRow(0)
		return bl.Take()
	}
	broken := errors.New("broken")
	d := &driver{job: &Job{}, sub: sub()}
	_, err := d.perform(t.Context(), []task.Effect{
		{Kind: task.Fail, Err: broken}, {Kind: task.Send, Batch: one()},
		{Kind: task.Snapshot, State: []task.StateRows{{Batch: one()}, {Batch: one()}}},
	})
	if !errors.Is(err, broken) || pool.Out() != 0 {
		t.Errorf("error %v, %d batches were not released", err, pool.Out())
	}
}
