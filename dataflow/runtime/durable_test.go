package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
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
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// lanes is a source of numbers in a few named lanes, and a transactional table
// as its sink: what outlives a crash.
type lanes struct {
	input [][]int64
	live  bool // a lane never ends: its reader waits for more
	table *sensortest.Table

	mu    sync.Mutex // guards what follows
	acked map[string]int64
	reads int
}

func (*lanes) Connector() string                { return "lanes" }
func (*lanes) Schema() *batch.Schema            { return numbers }
func (*lanes) Side(operator.Side) *batch.Schema { return nil }

func (l *lanes) Source(n *graph.Node, subtask int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	cfg := &task.SourceConfig{Schema: numbers, EventAt: -1, DeviceAt: -1, Arrival: -1, Time: eventtime.Config{Strategy: eventtime.None},
		Decoder: func() (task.Decoder, error) { return digits{}, nil }}
	return cfg, func() (sensors.Reader, error) {
		r := &laneReader{l: l}
		for k := subtask; k < len(l.input); k += n.Parallelism {
			r.mine, r.at = append(r.mine, k), append(r.at, 0)
		}
		return r, nil
	}, nil, nil
}

func (l *lanes) Sink(n *graph.Node, subtask int, _ *batch.Schema) (func() (sensors.Writer, error), error) {
	return func() (sensors.Writer, error) { return l.table.Writer(subtask, n.Parallelism), nil }, nil
}

// digits decodes a payload that is a number.
type digits struct{}

func (digits) Split(int)                {}
func (digits) Header(int, []byte) error { return nil }
func (digits) Decode(_, payload []byte, bl *batch.Builder) (int, error) {
	v, err := strconv.ParseInt(string(payload), 10, 64)
	if err != nil {
		return 0, err
	}
	if bl.Full() {
		return 0, io.ErrShortBuffer
	}
	bl.SetInt(0, v)
	bl.EndRow(0)
	return 1, nil
}

type laneReader struct {
	l    *lanes
	mine []int
	at   []int
	next int
}

func (r *laneReader) Splits() int            { return len(r.mine) }
func (r *laneReader) SplitName(k int) string { return fmt.Sprintf("lane %d", r.mine[k]) }
func (r *laneReader) Close() error           { return nil }

func (r *laneReader) Read(ctx context.Context, recs *sensors.Records, most int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.l.mu.Lock()
	r.l.reads++
	r.l.mu.Unlock()
	for range r.mine {
		k := r.next
		r.next = (r.next + 1) % len(r.mine)
		all := r.l.input[r.mine[k]]
		if r.at[k] > len(all) || r.l.live && r.at[k] == len(all) {
			continue
		}
		recs.Reset(k)
		recs.First = int64(r.at[k])
		for ; recs.Len() < min(most, 7) && r.at[k] < len(all); r.at[k]++ {
			recs.Append(strconv.AppendInt(nil, all[r.at[k]], 10))
		}
		recs.Next = int64(r.at[k])
		if r.at[k] == len(all) && !r.l.live {
			recs.Done = true
			r.at[k]++
		}
		return nil
	}
	if !r.l.live {
		return io.EOF
	}
	<-ctx.Done()
	return ctx.Err()
}

func (r *laneReader) Seek(p sensors.Position) error { r.at[p.Split] = int(p.Offset); return nil }

func (r *laneReader) Ack(p sensors.Position) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	name := r.SplitName(p.Split)
	if r.l.acked == nil {
		r.l.acked = make(map[string]int64)
	}
	if p.Offset < r.l.acked[name] {
		panic(fmt.Sprintf("%s is acknowledged to %d after %d", name, p.Offset, r.l.acked[name]))
	}
	r.l.acked[name] = p.Offset
}

// crew is a job, or all the parts of one.
type crew interface {
	Trigger(dataflow.Barrier)
	Completed(dataflow.CheckpointID)
	Stop()
}

// chief takes checkpoints one after the other, as long as go on says, and the
// last one when all sources are exhausted; then it stops the job.
type chief struct {
	job    crew
	plan   Plan // the whole job
	layout layout
	goOn   func(done int) bool // called with the lock held
	then   func(c *chief)      // called when the sinks have committed a checkpoint

	mu        sync.Mutex // guards what follows
	world     *world
	missing   int
	commits   int // subtasks whose sinks have not committed the last one
	exhausted int
	final     bool
	barrier   dataflow.Barrier
	done      int // checkpoints of this life
	errs      []error
}

func (c *chief) begin(b dataflow.Barrier) {
	c.world.next++
	b.ID.Counter = c.world.next
	c.barrier, c.missing, c.commits = b, len(c.plan.Subtasks), c.layout["out"]
	c.job.Trigger(b)
}

func (c *chief) Taken(s SnapshotTaken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Err != nil {
		c.errs = append(c.errs, s.Err)
		return
	}
	c.world.keep(s.Subtask.Index, s.Barrier, tablesOf(c.plan, s.Subtask), s.State, s.Whole)
	if c.missing--; c.missing == 0 {
		c.world.done, c.world.old = s.Barrier.ID, c.layout
		c.done++
		c.job.Completed(s.Barrier.ID)
	}
}

// tablesOf are the tables that a subtask keeps.
func tablesOf(p Plan, id dataflow.SubtaskID) []TableOf {
	var all []TableOf
	for i := range p.Subtasks {
		cfg := &p.Subtasks[i].Config
		if cfg.ID != id {
			continue
		}
		for _, t := range (&Job{plan: p}).Tables() {
			if slices.ContainsFunc(cfg.Links, func(l task.LinkConfig) bool { return l.ID == t.Operator }) {
				all = append(all, t)
			}
		}
	}
	return all
}

func (c *chief) Exhausted(dataflow.SubtaskID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exhausted++
	if c.exhausted == c.layout["in"] && c.missing == 0 && c.commits == 0 {
		c.final = true
		c.begin(dataflow.Barrier{})
	}
}

func (c *chief) Committed(_ dataflow.SubtaskID, id dataflow.CheckpointID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id != c.barrier.ID {
		return
	}
	if c.commits--; c.commits > 0 {
		return
	}
	if c.then != nil {
		c.then(c)
	}
	switch {
	case c.final:
		c.job.Stop()
	case c.exhausted == c.layout["in"]:
		c.final = true
		c.begin(dataflow.Barrier{})
	case c.goOn == nil || c.goOn(c.done):
		c.begin(dataflow.Barrier{})
	}
}

func number(dst []byte, b *batch.Batch, pos int) []byte {
	return strconv.AppendInt(dst, b.Cols[0].Ints[pos], 10)
}

func newLanes(n, each int) *lanes {
	l := &lanes{table: sensortest.NewTable("numbers", number)}
	for k := range n {
		var in []int64
		for i := range each {
			in = append(in, int64(k*each+i))
		}
		l.input = append(l.input, in)
	}
	return l
}

// durableJob builds in -> pass -> out over l, going on from w.
func durableJob(t testing.TB, l *lanes, w *world, lay layout, opt Options) (*Job, *chief) {
	t.Helper()
	p, c := durableParts(t, l, w, lay, opt, 1, nil)
	return p.jobs[0], c
}

// durableParts is durableJob in n parts; where says which one a subtask is in.
func durableParts(t testing.TB, l *lanes, w *world, lay layout, opt Options, n int, where func(dataflow.SubtaskID) int) (*parts, *chief) {
	t.Helper()
	plan := func() Plan {
		b := graph.NewBuilder("durable", 1).MaxParallelism(16)
		b.Source("in", l).Parallelism(lay["in"]).Exchange(graph.Rebalance).Then("pass", operator.NewPass(numbers)).Parallelism(lay["pass"]).
			Exchange(graph.Rebalance).Sink("out", l).Parallelism(lay["out"])
		g, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		p, err := NewPlan(graph.Expand(graph.Chain(g, graph.Options{})), l)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	c := &chief{layout: lay, world: w, plan: plan()}
	opt.Now, opt.CommitInterval, opt.Collector = time.Now, time.Hour, c
	if w.done != (dataflow.CheckpointID{}) {
		tables := (&Job{plan: c.plan}).Tables()
		opt.Restore = func(id dataflow.SubtaskID, to Restored) error {
			for i := range c.plan.Subtasks {
				if cfg := &c.plan.Subtasks[i].Config; cfg.ID == id {
					return w.give(cfg, tables, to.Give)
				}
			}
			return fmt.Errorf("no subtask %v", id)
		}
	}
	p := newParts(plan, opt, n, where)
	c.job = p
	return p, c
}

// start begins the first checkpoint; the others follow.
func (c *chief) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin(dataflow.Barrier{})
}

var errCrash = errors.New("the process dies")

// A job that dies again and again, and comes back with another parallelism,
// leaves each row in its sink once.
func TestE52_RowsAreThereOnceWhateverDies(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			l, w := newLanes(5, 400), &world{chains: map[shard][]delta{}}
			for life := 0; ; life++ {
				lay := layout{"in": 1 + rng.IntN(3), "pass": 1 + rng.IntN(3), "out": 1 + rng.IntN(3)}
				n := 1 + rng.IntN(3)
				split := rng.Uint64()
				j, c := durableParts(t, l, w, lay, Options{Memory: 1 << 20, BatchRows: 1 + rng.IntN(20)}, n, func(id dataflow.SubtaskID) int { return scatter(split, id, n) })
				ctx, cancel := context.WithCancelCause(t.Context())
				if last := rng.IntN(6); life < 4 {
					c.goOn = func(done int) bool {
						if done > last {
							cancel(errCrash)
						}
						return true
					}
				}
				c.start()
				err := j.Run(ctx)
				cancel(nil)
				if err == nil {
					break
				}
				if !errors.Is(err, errCrash) {
					t.Fatal(err)
				}
				w.crash()
			}
			var got []int
			for _, r := range l.table.Rows() {
				n, _ := strconv.Atoi(r)
				got = append(got, n)
			}
			slices.Sort(got)
			if len(got) != 2000 || got[0] != 0 || got[1999] != 1999 || len(slices.Compact(got)) != 2000 {
				t.Errorf("%d rows, want each of 2000 once", len(got))
			}
			for k := range l.input {
				if name := fmt.Sprintf("lane %d", k); l.acked[name] != 400 {
					t.Errorf("%s is acknowledged to %d of 400", name, l.acked[name])
				}
			}
		})
	}
}

// until waits, in a bubble, where time is virtual, until something is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for range 1000 {
		synctest.Wait()
		if so() {
			return
		}
		<-time.After(time.Second)
	}
	t.Fatalf("never: %s", what)
}

// running is a job in a bubble that goes on until the test ends.
func running(t *testing.T, j interface{ Run(context.Context) error }) (finished func() error) {
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	return func() error {
		cancel(errCrash)
		return <-done
	}
}

func (c *chief) see(f func() bool) func() bool {
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return f()
	}
}

var single = layout{"in": 1, "pass": 1, "out": 1}

// A source that waits in Read, or for memory, takes its barrier at once.
func TestTriggerWakesSourcesThatWait(t *testing.T) {
	for k := range 6 {
		full, n := k%2 == 1, 1+k/2
		t.Run(fmt.Sprint("memory used up: ", full, " in parts: ", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLanes(1, 10)
				l.live = true
				j, c := durableParts(t, l, &world{chains: map[shard][]delta{}}, single, Options{Memory: 1 << 20}, n, apart(n))
				c.goOn = func(int) bool { return false }
				reads := func() int { l.mu.Lock(); defer l.mu.Unlock(); return l.reads }
				var held *batch.Batch
				if full {
					held = fill(j.jobs[0].pool)
				}
				finished := running(t, j)
				want := 0
				if full {
					synctest.Wait()
				} else {
					until(t, "all is read", func() bool { return reads() >= 2 })
					want = 10
				}
				c.start()
				synctest.Wait() // not a second goes by
				if !c.see(func() bool { return c.done == 1 && c.commits == 0 })() {
					t.Error("the checkpoint has not completed")
				}
				if n := len(l.table.Rows()); n != want || full && reads() > 0 {
					t.Errorf("%d rows committed after %d reads, want %d", n, reads(), want)
				}
				if full {
					held.Release()
					until(t, "it reads on", func() bool { return reads() >= 2 })
				}
				if err := finished(); !errors.Is(err, errCrash) {
					t.Error(err)
				}
			})
		})
	}
}

// fill uses up the memory of a pool.
func fill(p *batch.Pool) *batch.Batch {
	s := batch.MustSchema(batch.Field{Name: "x", Type: batch.Bytes})
	bl := batch.NewBuilder(p, s)
	bl.SetBytes(0, make([]byte, 2<<20))
	bl.EndRow(0)
	return bl.Take()
}

// Nothing is read behind a barrier that halts, until the job is told to go on;
// a job that is drained has ended its input, and has nothing to go on with.
func TestHaltAndDrain(t *testing.T) {
	for k := range 6 {
		then, n := []dataflow.Then{dataflow.Halt, dataflow.Drain}[k%2], 1+k/2
		t.Run(fmt.Sprint(then, " in parts: ", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLanes(2, 50)
				l.live = true
				j, c := durableParts(t, l, &world{chains: map[shard][]delta{}}, single, Options{BatchRows: 1}, n, apart(n))
				c.goOn = func(int) bool { return false }
				c.mu.Lock()
				c.begin(dataflow.Barrier{Then: then})
				c.mu.Unlock()
				finished := running(t, j)
				until(t, "the savepoint completes", c.see(func() bool { return c.done == 1 && c.commits == 0 }))
				if n := len(l.table.Rows()); n != 0 || l.reads != 0 {
					t.Errorf("%d rows and %d reads before the first barrier", n, l.reads)
				}
				j.GoOn()
				c.start()
				want := 0
				if then == dataflow.Halt {
					until(t, "it reads on", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.reads > 100 })
					want = 100
				}
				until(t, "another one completes", c.see(func() bool { return c.done == 2 && c.commits == 0 }))
				c.start()
				until(t, "and one more", c.see(func() bool { return c.done == 3 && c.commits == 0 }))
				if n := len(l.table.Rows()); n != want {
					t.Errorf("%d rows, want %d", n, want)
				}
				for _, s := range j.Status() {
					if drained := s.Watermark == dataflow.MaxTime; drained != (then == dataflow.Drain) {
						t.Errorf("%v: watermark %v", s.Subtask, s.Watermark)
					}
				}
				j.Stop()
				synctest.Wait()
				if err := finished(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A sink that has room again when what completed is committed learns of it while
// it waits with a batch.
func TestSinkThatIsFullCommitsWhatCompletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(1, 40)
		l.live = true
		j, c := durableJob(t, l, &world{chains: map[shard][]delta{}}, single, Options{BatchRows: 5})
		c.goOn = func(int) bool { return false }
		var mu sync.Mutex
		writes, room := 0, false
		l.table.Fail(func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			switch op {
			case "write":
				if writes++; writes > 3 && !room {
					return sensors.ErrFull
				}
			case "commit":
				room = true
			}
			return nil
		})
		// The barrier is taken, the sink prepares, and waits with the next batch
		// before the collector says that the checkpoint completed.
		c.mu.Lock()
		c.begin(dataflow.Barrier{})
		c.missing++ // it is completed by hand
		c.mu.Unlock()
		finished := running(t, j)
		until(t, "the sink is full", func() bool { mu.Lock(); defer mu.Unlock(); return writes > 4 })
		mu.Lock()
		room = false
		mu.Unlock()
		j.Completed(c.barrier.ID)
		synctest.Wait() // not a second goes by
		mu.Lock()
		if !room {
			t.Error("the sink did not commit while it waited")
		}
		mu.Unlock()
		until(t, "the rest is written", func() bool { mu.Lock(); defer mu.Unlock(); return writes >= 8 })
		if err := finished(); !errors.Is(err, errCrash) {
			t.Error(err)
		}
	})
}

// A sink that has no room to prepare fails the checkpoint, not the job; any other
// error fails the job.
func TestPrepareThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(1, 40)
		l.live = true
		j, c := durableJob(t, l, &world{chains: map[shard][]delta{}}, single, Options{})
		c.goOn = func(int) bool { return false }
		broken := errors.New("the disk is broken")
		var mu sync.Mutex
		answer := sensors.ErrFull
		l.table.Fail(func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == "prepare" {
				return answer
			}
			return nil
		})
		c.start()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		until(t, "the checkpoint fails", c.see(func() bool { return len(c.errs) == 1 && errors.Is(c.errs[0], sensors.ErrFull) }))
		mu.Lock()
		answer = broken
		mu.Unlock()
		c.start()
		if err := <-done; !errors.Is(err, broken) || !strings.Contains(err.Error(), `sink "out"`) {
			t.Errorf("Run returned %v", err)
		}
	})
}
