package runtime

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// parts is a job in several parts, as on several agents: each is a Job of its
// own with a plan of its own, and batches go from one to another as bytes.
type parts struct {
	jobs    []*Job
	carries sync.WaitGroup // one for each channel between two parts
}

// newParts makes a job of n parts. where says in which one a subtask is; nil: in
// the first.
func newParts(plan func() Plan, opt Options, n int, where func(dataflow.SubtaskID) int) *parts {
	p := &parts{}
	for i := range n {
		mine, o := plan(), opt
		if where != nil {
			mine.Keep(func(id dataflow.SubtaskID) bool { return where(id) == i })
		}
		o.Outlet = func(c Channel) (Outlet, error) {
			to := p.jobs[where(mine.Subtasks[c.To.Subtask].Config.ID)]
			in, err := to.Inlet(c.To)
			if err != nil {
				return nil, err
			}
			w := &wire{room: make(chan struct{}, 1), filled: make(chan struct{}, 1)}
			p.carries.Go(func() { w.carry(in, p.jobs[i], to) })
			return w, nil
		}
		p.jobs = append(p.jobs, New(mine, o))
	}
	return p
}

// scatter is a part for each subtask, by chance.
func scatter(seed uint64, id dataflow.SubtaskID, n int) int {
	h := fnv.New64a()
	fmt.Fprint(h, seed, id)
	return int(h.Sum64() / 7 % uint64(n))
}

func (p *parts) Trigger(b dataflow.Barrier) {
	for _, j := range p.jobs {
		j.Trigger(b)
	}
}

func (p *parts) Completed(id dataflow.CheckpointID) {
	for _, j := range p.jobs {
		j.Completed(id)
	}
}

func (p *parts) Stop() {
	for _, j := range p.jobs {
		j.Stop()
	}
}

func (p *parts) GoOn() {
	for _, j := range p.jobs {
		j.GoOn()
	}
}

func (p *parts) Status() (all []Status) {
	for _, j := range p.jobs {
		all = append(all, j.Status()...)
	}
	return all
}

// out is how many batches of all parts were not released.
func (p *parts) out() (n int) {
	for _, j := range p.jobs {
		n += j.pool.Out()
	}
	return n
}

// Run runs all parts as a site would: none before all are open, and none longer
// than one that failed.
func (p *parts) Run(ctx context.Context) error {
	var all Opened
	for i, j := range p.jobs {
		o, err := j.Open(ctx)
		if err != nil {
			for _, before := range p.jobs[:i] {
				err = errors.Join(err, before.Close())
			}
			return err
		}
		all.Subtasks = append(all.Subtasks, o.Subtasks...)
		all.Moved = all.Moved || o.Moved
	}
	slices.Reverse(all.Subtasks) // their order says nothing
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for _, j := range p.jobs {
		wg.Go(func() {
			err := j.RunPart(ctx, all)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
				for _, other := range p.jobs {
					other.Fail(fmt.Errorf("another part failed: %w", err))
				}
			}
		})
	}
	wg.Wait()
	p.carries.Wait()
	return first
}

// wire is an outlet of two messages and the way from it to the inlet.
type wire struct {
	room, filled chan struct{}

	mu    sync.Mutex // guards what follows
	queue []Message
	ended bool // what is offered is dropped
}

func (w *wire) Offer(m Message) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
		if m.Batch != nil {
			m.Batch.Release()
		}
		return true
	case len(w.queue) == 2:
		return false
	}
	w.queue = append(w.queue, m)
	signal(w.filled)
	return true
}

func (w *wire) Room() <-chan struct{} { return w.room }

func (w *wire) next() (m Message, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return m, false
	}
	m, w.queue = w.queue[0], w.queue[1:]
	signal(w.room)
	return m, true
}

// carry brings messages over until the end of them, or of a part that failed:
// what is on its way when the sender has ended well still arrives.
func (w *wire) carry(in *Inlet, from, to *Job) {
	defer func() {
		w.mu.Lock()
		w.ended = true
		w.mu.Unlock()
		for m, ok := w.next(); ok; m, ok = w.next() {
			if m.Batch != nil {
				m.Batch.Release()
			}
		}
	}()
	for {
		m, ok := w.next()
		if !ok {
			select {
			case <-w.filled:
				continue
			case <-to.Ended():
				return
			case <-from.failed.Done():
				return
			}
		}
		if m.Batch != nil {
			bytes := batch.Encode(nil, m.Batch)
			m.Batch.Release()
			b, err := batch.Decode(in.Pool(), in.Schema(), bytes)
			if err != nil {
				panic(err)
			}
			m.Batch = b
		} else if b := m.Barrier; b != nil {
			m.Barrier = &dataflow.Barrier{ID: b.ID, Full: b.Full, Then: b.Then}
		}
		for !in.Offer(m) {
			select {
			case <-in.Room():
			case <-to.Ended():
			}
		}
		if m.Batch == nil && m.Barrier == nil {
			return
		}
	}
}

// apart puts each task of a chain of tasks into another of n parts.
func apart(n int) func(dataflow.SubtaskID) int {
	return func(id dataflow.SubtaskID) int {
		return slices.Index([]dataflow.TaskID{"in", "pass", "out"}, id.Task) % n
	}
}

// jobParts is job, in parts.
func jobParts(t *testing.T, c *counting, opt Options, n int, where func(dataflow.SubtaskID) int) *parts {
	t.Helper()
	opt.Now, opt.CommitInterval = time.Now, time.Second
	return newParts(func() Plan { return job(t, c, opt).plan }, opt, n, where)
}

func TestPartsDeliverEveryRowOnceAndReturnTheirMemory(t *testing.T) {
	for seed := range uint64(24) {
		n := 2 + int(seed%2)
		c := &counting{n: 20_000}
		p := jobParts(t, c, Options{Memory: int64(seed%3) << 18}, n, func(id dataflow.SubtaskID) int { return scatter(seed, id, n) })
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(c.committed)
		if len(c.committed) != 20_000 || len(slices.Compact(c.committed)) != 20_000 {
			t.Errorf("seed %d: %d rows committed, want each of 20,000 once", seed, len(c.committed))
		}
		if p.out() != 0 || c.closed != 3 {
			t.Errorf("seed %d: %d batches were not released, %d connectors closed", seed, p.out(), c.closed)
		}
		if got := len(p.Status()); got != 6 {
			t.Errorf("seed %d: the parts say the status of %d subtasks", seed, got)
		}
	}
}

func TestStopDrainsAllParts(t *testing.T) {
	for n := 2; n <= 3; n++ {
		c := &counting{n: -1, started: make(chan struct{}, 2)}
		p := jobParts(t, c, Options{Memory: 1 << 20}, n, apart(n))
		done := make(chan error, 1)
		go func() { done <- p.Run(t.Context()) }()
		<-c.started
		p.Stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		in := int64(0)
		for _, s := range p.Status() {
			if s.Subtask.Task == "in" {
				in += s.Operators[0].In
			}
		}
		if int64(len(c.committed)) != in || len(c.pending) != 0 || p.out() != 0 {
			t.Errorf("%d rows read, %d committed, %d pending, %d batches not released", in, len(c.committed), len(c.pending), p.out())
		}
	}
}

// A part that fails says what failed; the others say that it did, and have
// released everything.
func TestPartsFailTogether(t *testing.T) {
	for name, v := range map[string]struct {
		conn *counting
		want []string
	}{
		"source": {&counting{n: -1, failAt: 5000}, []string{"in/", "the cable is cut"}},
		"panic":  {&counting{n: -1, poison: 777}, []string{"out/0", "poisoned row"}},
	} {
		for n := 2; n <= 3; n++ {
			var mu sync.Mutex
			var events []Event
			p := jobParts(t, v.conn, Options{Events: func(e Event) { mu.Lock(); defer mu.Unlock(); events = append(events, e) }}, n, apart(n))
			err := p.Run(t.Context())
			for _, w := range v.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%s: error %v does not say %q", name, err, w)
				}
			}
			for _, e := range events { // whoever was only ended did not fail
				if e.Kind != SubtaskFailed || !strings.Contains(e.Err.Error(), v.want[1]) {
					t.Errorf("%s: event %v", name, e)
				}
			}
			if name != "panic" && p.out() != 0 { // the batch at hand is lost with a panic
				t.Errorf("%s: %d batches were not released", name, p.out())
			}
		}
	}
}

// Fail ends a job whatever it is at, and only the first error counts.
func TestFailEndsAJobInAnyPhase(t *testing.T) {
	broke, later := errors.New("the stream broke"), errors.New("another one broke too")
	before := job(t, &counting{n: -1}, Options{})
	before.Fail(broke)
	before.Fail(later)
	if _, err := before.Open(t.Context()); err != nil && !errors.Is(err, broke) {
		t.Errorf("Open returned %v", err)
	}
	opened := job(t, &counting{n: -1}, Options{})
	all, err := opened.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opened.Fail(broke)
	if err := opened.RunPart(t.Context(), all); err != broke {
		t.Errorf("RunPart returned %v", err)
	}
	c := &counting{n: -1, started: make(chan struct{}, 2)}
	runs := job(t, c, Options{})
	done := make(chan error, 1)
	go func() { done <- runs.Run(t.Context()) }()
	<-c.started
	runs.Fail(broke)
	runs.Fail(later)
	if err := <-done; err != broke {
		t.Errorf("Run returned %v", err)
	}
	<-runs.Ended()
	if runs.pool.Out() != 0 {
		t.Errorf("%d batches were not released", runs.pool.Out())
	}
	runs.Fail(later)
}

// A part that was opened and is not to run closes what it has; what comes for it
// later is dropped.
func TestPartThatIsNotToRun(t *testing.T) {
	c := &counting{n: 10}
	p := jobParts(t, c, Options{}, 2, apart(2))
	if _, err := p.jobs[0].Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	in, err := p.jobs[0].Inlet(Target{Subtask: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.jobs[0].Close(), p.jobs[0].Close()); err != nil || c.closed != 3 {
		t.Errorf("%v, %d connectors closed", err, c.closed)
	}
	bl := batch.NewBuilder(in.Pool(), numbers)
	for range 2 * channelDepth {
		bl.SetInt(0, 1)
		bl.EndRow(0)
		if !in.Offer(Message{Batch: bl.Take()}) {
			t.Fatal("a job that has ended has no room")
		}
	}
	if p.jobs[0].pool.Out() != 0 {
		t.Errorf("%d batches were not released", p.jobs[0].pool.Out())
	}
}

// Who carries channels sees the same ones from both ends, and no others.
func TestCrossing(t *testing.T) {
	p := jobParts(t, &counting{}, Options{}, 2, apart(2))
	out, in := p.jobs[0].plan.Crossing()
	back, forth := p.jobs[1].plan.Crossing()
	if len(out) != 6 || !slices.Equal(out, forth) || len(in) != 3 || !slices.Equal(in, back) {
		t.Errorf("out %v, in %v; at the other part in %v, out %v", out, in, forth, back)
	}
	if out[0].Schema == nil {
		t.Error("a channel without a schema")
	}
	for _, to := range []Target{{Subtask: 2}, {Subtask: 5, Channel: 3}, {Subtask: 99}} {
		if _, err := p.jobs[0].Inlet(to); err == nil {
			t.Errorf("there is an inlet for %v", to)
		}
	}
	j := p.jobs[0]
	all, err := j.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := j.RunPart(t.Context(), all); err == nil || !strings.Contains(err.Error(), "nothing is known of subtask pass/0") {
		t.Errorf("without the facts of the other part: %v", err)
	}
}
