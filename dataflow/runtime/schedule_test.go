package runtime

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

// A whole job, two sources with several splits each into a union, a keyed window
// and a sink, runs without goroutines under a schedule that is drawn: which
// subtask goes next, how many records a read hands out, when checkpoints begin,
// when one is given up for a newer one, when the process crashes and with which
// parallelism it comes back. What its sink has committed in the end must be what
// an uninterrupted run makes.

// life is the job between two crashes.
type life struct {
	*world
	layout layout
	pool   *batch.Pool
	plan   Plan
	tasks  []*task.Task
	nodes  []*node

	trigger   *dataflow.Barrier
	missing   int // subtasks that have not taken it
	exhausted int
	full      bool // no checkpoint of this life has completed: the next one has to be full
	final     bool
}

// node is one subtask of a life.
type node struct {
	names   []string // of the splits it reads
	at      []int    // its place in each
	queue   [][]Message
	blocked []bool
	resume  bool
	over    bool                     // the source has read everything
	seen    *dataflow.Barrier        // taken last
	written []string                 // by its sink since the last barrier
	pending []transaction            // of its sink
	sent    map[Target]dataflow.Time // the watermark of each of its channels
	clock   map[dataflow.CheckpointID]dataflow.Time
	atMark  map[dataflow.CheckpointID]map[Target]dataflow.Time
}

type transaction struct {
	id   dataflow.CheckpointID
	rows []string
}

var readings = batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "t", Type: batch.Timestamp}, batch.Field{Name: "v", Type: batch.Bigint})

// ends makes the sources and sinks of the plan; nothing of it is opened.
type ends struct{}

func (ends) Connector() string                { return "test" }
func (ends) Schema() *batch.Schema            { return readings }
func (ends) Side(operator.Side) *batch.Schema { return nil }

func (ends) Source(*graph.Node, int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	spec := decode.Spec{Format: decode.CSV, Header: true}
	for i, f := range readings.Fields() {
		spec.Fields = append(spec.Fields, decode.Field{Name: f.Name, Type: f.Type, Path: []string{readings.Field(i).Name}, Topic: -1})
	}
	return &task.SourceConfig{
		Schema: readings, Decoder: func() (task.Decoder, error) { return decode.New(spec, readings) }, Header: true, NoRoom: decode.ErrNoRoom,
		Time: eventtime.Config{Strategy: eventtime.Bounded, Bound: 5 * dataflow.Millisecond}, EventAt: 1, DeviceAt: -1, Arrival: -1,
	}, nil, nil, nil
}

func (ends) Sink(*graph.Node, int, *batch.Schema) (func() (sensors.Writer, error), error) {
	return nil, nil
}

func schedulePlan(t *rapid.T, l layout, chained bool) Plan {
	return schedulePlanOf(t, ends{}, l, chained)
}

// connected makes sources and sinks, and is their connector.
type connected interface {
	Connectors
	Connector() string
	Schema() *batch.Schema
	Side(operator.Side) *batch.Schema
}

func schedulePlanOf(t *rapid.T, c connected, l layout, chained bool) Plan {
	v, err := expr.Compile("v", readings)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := window.NewFactory(window.Spec{Form: window.Tumbling, Size: 10 * dataflow.Millisecond, Keys: []int{0}, Input: readings, Aggregates: []window.Aggregate{
		{Name: "sum", Func: window.Sum, Arg: v}, {Name: "n", Func: window.CountRows},
	}})
	if err != nil {
		t.Fatal(err)
	}
	b := graph.NewBuilder("schedule", 1).MaxParallelism(16)
	one := b.Source("a", c).Parallelism(l["a"])
	two := b.Source("b", c).Parallelism(l["b"])
	b.Union("u", operator.NewPass(readings), one, two.Exchange(graph.Rebalance)).Parallelism(l["u"]).
		KeyBy("k").Then("w", sum).Parallelism(l["w"]).Sink("out", c).Parallelism(l["out"])
	g, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPlan(graph.Expand(graph.Chain(g, graph.Options{NoChaining: !chained})), c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start makes the job, with the state of the last checkpoint that completed.
func (w *world) start(l layout, chained, atLeastOnce bool, shuffle int) *life {
	f := &life{world: w, layout: l, pool: batch.NewPool(0, nil), plan: schedulePlan(w.t, l, chained), full: true}
	for i := range f.plan.Subtasks {
		st := &f.plan.Subtasks[i]
		cfg := &st.Config
		cfg.Pool, cfg.Durable, cfg.AtLeastOnce = f.pool, true, atLeastOnce
		n := &node{queue: make([][]Message, cfg.Channels), blocked: make([]bool, cfg.Channels), sent: map[Target]dataflow.Time{}, atMark: map[dataflow.CheckpointID]map[Target]dataflow.Time{}, clock: map[dataflow.CheckpointID]dataflow.Time{}}
		if cfg.Source != nil {
			n.names = splitsOf(w.input[cfg.Links[0].ID], shuffle, cfg.ID.Index, cfg.Parallelism)
			n.at = make([]int, len(n.names))
			for k := range n.names {
				cfg.Source.Splits = append(cfg.Source.Splits, cfg.ID.Index+k*cfg.Parallelism)
			}
			cfg.Source.Names = n.names
			if len(n.names) == 0 {
				for _, targets := range st.Targets {
					for _, to := range targets {
						r := &f.plan.Subtasks[to.Subtask].Config
						r.Empty = append(r.Empty, to.Channel)
					}
				}
			}
		}
		for _, targets := range st.Targets {
			for _, to := range targets {
				n.sent[to] = dataflow.MinTime
			}
		}
		f.nodes = append(f.nodes, n)
	}
	for i := range f.plan.Subtasks {
		t, err := task.New(f.plan.Subtasks[i].Config)
		if err != nil {
			w.t.Fatal(err)
		}
		f.tasks = append(f.tasks, t)
		f.restore(i)
	}
	f.goOn()
	return f
}

// splitsOf deals the splits of a source out in an order that is another one in
// each life, so that their numbers change.
func splitsOf(splits map[string][]string, shuffle int, i, p int) (mine []string) {
	var names []string
	for name := range splits {
		names = append(names, name)
	}
	sort.Strings(names)
	for k := range names {
		j := (shuffle * k) % (k + 1)
		names[k], names[j] = names[j], names[k]
	}
	for k := i; k < len(names); k += p {
		mine = append(mine, names[k])
	}
	return mine
}

// restore gives subtask i its rows of the last completed checkpoint.
func (f *life) restore(i int) {
	if f.done == (dataflow.CheckpointID{}) {
		return
	}
	cfg := &f.plan.Subtasks[i].Config
	if err := f.give(cfg, f.tasks[i].Tables(), f.tasks[i].Restore); err != nil {
		f.t.Fatal(err)
	}
	for _, p := range f.tasks[i].Positions() {
		f.nodes[i].at[p.Split] = int(p.Offset)
	}
}

// goOn does what a job does when all of its tasks are restored.
func (f *life) goOn() {
	if f.done == (dataflow.CheckpointID{}) {
		return
	}
	if slices.ContainsFunc(f.tasks, (*task.Task).Moved) {
		for _, t := range f.tasks {
			t.SplitsMoved()
		}
	}
	for i, t := range f.tasks {
		f.step(i, task.Input{Kind: task.Begin})
		id := f.plan.Subtasks[i].Config.ID
		got, _ := t.Watermark()
		if least, ok := f.clocks[id.Task]; ok && got < least {
			f.t.Fatalf("%v goes on from watermark %d, the least in the checkpoint was %d", id, got, least)
		}
	}
}

// step gives a task an input and performs what comes of it, up to Again.
func (f *life) step(i int, in task.Input) {
	n, st := f.nodes[i], &f.plan.Subtasks[i]
	n.resume = false
	for _, e := range f.tasks[i].Step(in) {
		switch e.Kind {
		case task.Send:
			to := st.Targets[e.Output][e.Channel]
			for _, m := range e.Batch.Marks {
				if m.Watermark < n.sent[to] {
					f.t.Fatalf("%v to %v: watermark %d after %d", st.Config.ID, f.plan.Subtasks[to.Subtask].Config.ID, m.Watermark, n.sent[to])
				}
				n.sent[to] = m.Watermark
				f.notBack(i, to, m.Watermark)
			}
			f.deliver(to, Message{Batch: e.Batch})
		case task.SendBarrier:
			for _, targets := range st.Targets {
				for _, to := range targets {
					f.deliver(to, Message{Barrier: &e.Barrier})
				}
			}
		case task.Write:
			for k := range e.Batch.Len() {
				n.written = append(n.written, text(e.Batch, e.Batch.Position(k)))
			}
			e.Batch.Release()
		case task.Block, task.Unblock:
			n.blocked[e.Channel] = e.Kind == task.Block
		case task.Snapshot:
			f.taken(i, e)
		case task.Again:
			n.resume = true
		case task.Exhausted:
			f.exhausted++
		case task.Fail:
			f.t.Fatal(e.Err)
		case task.SendEnd, task.Finished:
			f.t.Fatalf("%v ended", st.Config.ID)
		}
	}
}

// notBack: no watermark is behind what the channels that this one descends from
// had at the checkpoint.
func (f *life) notBack(i int, to Target, mark dataflow.Time) {
	from, dest := f.plan.Subtasks[i].Config.ID, f.plan.Subtasks[to.Subtask].Config.ID
	least, any := dataflow.MaxTime, false
	for c, w := range f.marks {
		if c.from.Task == from.Task && c.to.Task == dest.Task {
			least, any = min(least, w), true
		}
	}
	if any && mark < least {
		f.t.Fatalf("%v to %v: watermark %d, and %d was in the checkpoint", from, dest, mark, least)
	}
}

func (f *life) deliver(to Target, m Message) {
	n := f.nodes[to.Subtask]
	n.queue[to.Channel] = append(n.queue[to.Channel], m)
}

func text(b *batch.Batch, i int) string {
	var s bytes.Buffer
	for _, c := range b.Cols {
		if c.Type.Variable() {
			fmt.Fprintf(&s, "%s ", c.At(i))
		} else {
			fmt.Fprintf(&s, "%d ", c.Ints[i])
		}
	}
	return s.String()
}

// taken keeps a subtask's share of a checkpoint, which completes with the last.
func (f *life) taken(i int, e task.Effect) {
	n, id := f.nodes[i], f.plan.Subtasks[i].Config.ID
	f.keep(id.Index, e.Barrier, f.tasks[i].Tables(), e.State, e.Whole)
	n.pending, n.written = append(n.pending, transaction{e.Barrier.ID, n.written}), nil
	n.clock[e.Barrier.ID], _ = f.tasks[i].Watermark()
	n.atMark[e.Barrier.ID] = map[Target]dataflow.Time{}
	for to, m := range n.sent {
		n.atMark[e.Barrier.ID][to] = m
	}
	b := e.Barrier
	n.seen = &b
	if f.trigger == nil || b.ID != f.trigger.ID {
		return
	}
	if f.missing--; f.missing == 0 {
		f.complete(b.ID)
	}
}

func (f *life) complete(id dataflow.CheckpointID) {
	f.done, f.trigger, f.full, f.old = id, nil, false, f.layout
	f.marks, f.clocks = map[channelName]dataflow.Time{}, map[dataflow.TaskID]dataflow.Time{}
	for i, n := range f.nodes {
		at := f.plan.Subtasks[i].Config.ID.Task
		if c, ok := f.clocks[at]; !ok || n.clock[id] < c {
			f.clocks[at] = n.clock[id]
		}
		for to, m := range n.atMark[id] {
			f.marks[channelName{f.plan.Subtasks[i].Config.ID, f.plan.Subtasks[to.Subtask].Config.ID}] = m
		}
		n.pending = slices.DeleteFunc(n.pending, func(t transaction) bool {
			if id.Less(t.id) {
				return false
			}
			f.rows = append(f.rows, t.rows...)
			return true
		})
	}
}

// begin begins a checkpoint; one that is under way is given up.
func (f *life) begin(full bool) {
	f.next++
	f.trigger = &dataflow.Barrier{ID: dataflow.CheckpointID{Counter: f.next}, Full: full || f.full}
	f.missing = len(f.nodes)
}

// act is one thing that can happen next.
type act func()

// acts are all of them.
func (f *life) acts() (all []act) {
	for i, n := range f.nodes {
		if n.resume {
			all = append(all, func() { f.step(i, task.Input{Kind: task.Resume}) })
			continue
		}
		if f.plan.Subtasks[i].Config.Source != nil {
			if f.trigger != nil && (n.seen == nil || n.seen.ID.Less(f.trigger.ID)) {
				all = append(all, func() { f.step(i, task.Input{Kind: task.Trigger, Barrier: *f.trigger}) })
			}
			if !n.over {
				all = append(all, func() { f.read(i) })
			}
			continue
		}
		for c, q := range n.queue {
			if len(q) > 0 && !n.blocked[c] {
				all = append(all, func() { f.receive(i, c) })
			}
		}
	}
	return all
}

func (f *life) receive(i, c int) {
	n := f.nodes[i]
	m := n.queue[c][0]
	n.queue[c] = n.queue[c][1:]
	if m.Batch != nil {
		f.step(i, task.Input{Kind: task.Data, Channel: c, Batch: m.Batch})
	} else {
		f.step(i, task.Input{Kind: task.Barrier, Channel: c, Barrier: *m.Barrier})
	}
}

// read hands out records of one split, or its end.
func (f *life) read(i int) {
	n := f.nodes[i]
	var open []int
	for k, name := range n.names {
		if n.at[k] <= len(f.splitOf(i, name)) {
			open = append(open, k)
		}
	}
	if len(open) == 0 {
		n.over = true
		f.step(i, task.Input{Kind: task.End})
		return
	}
	k := open[f.rng.IntN(len(open))]
	all := f.splitOf(i, n.names[k])
	r := new(sensors.Records)
	r.Reset(k)
	to := min(len(all), n.at[k]+1+f.rng.IntN(4))
	for _, rec := range all[n.at[k]:to] {
		r.Append([]byte(rec))
	}
	r.First, r.Next = int64(n.at[k]), int64(to)
	n.at[k] = to
	if to == len(all) {
		r.Done = true
		n.at[k]++ // it is not read again in this life
	}
	f.step(i, task.Input{Kind: task.Raw, Records: r})
}

func (f *life) splitOf(i int, name string) []string {
	return f.input[f.plan.Subtasks[i].Config.Links[0].ID][name]
}

// run drives the life to its end (true) or a crash; without lives left there is
// none.
func (f *life) run(lives int) bool {
	sources := f.layout["a"] + f.layout["b"]
	for steps := 0; ; steps++ {
		if steps > 100_000 {
			f.t.Fatal("the job does not come to its end")
		}
		if f.final && f.trigger == nil {
			f.nothingLost()
			return true
		}
		all := f.acts()
		if len(all) == 0 {
			if f.trigger != nil {
				f.t.Fatalf("stuck with checkpoint %d, %d subtasks have not taken it", f.trigger.ID.Counter, f.missing)
			}
			if f.exhausted != sources {
				f.t.Fatalf("%d of %d sources are exhausted and nothing is left to do", f.exhausted, sources)
			}
			f.final = true
			f.begin(false)
			continue
		}
		switch dice := f.rng.IntN(100); {
		case dice < 6 && f.trigger == nil:
			f.begin(dice == 0)
			continue
		case dice == 6 && f.trigger != nil && !f.final:
			f.begin(false) // the one under way timed out
			continue
		case dice >= 98 && lives > 0:
			return false
		}
		all[f.rng.IntN(len(all))]()
	}
}

// nothingLost: no row was late or refused, else this test proves nothing.
func (f *life) nothingLost() {
	for _, t := range f.tasks {
		for _, c := range t.Counters(nil) {
			if c.Rejected+c.Late+c.NoWindow > 0 {
				f.t.Fatalf("%q: %d rejected (%s), %d late, %d in no window", c.Operator, c.Rejected, c.FirstRejected, c.Late, c.NoWindow)
			}
		}
	}
}

func drawLayout(rng *rand.Rand) layout {
	l := layout{}
	for _, op := range []dataflow.OperatorID{"a", "b", "u", "w", "out"} {
		l[op] = 1 + rng.IntN(3)
	}
	return l
}

// drawInput makes splits of records whose times are out of order within the
// bound: no row is ever late, so the result does not depend on the schedule. The
// columns of each split are others.
func drawInput(rng *rand.Rand) map[dataflow.OperatorID]map[string][]string {
	in := map[dataflow.OperatorID]map[string][]string{}
	for _, op := range []dataflow.OperatorID{"a", "b"} {
		in[op] = map[string][]string{}
		for s := range 1 + rng.IntN(4) {
			clock := 100 + rng.IntN(30)
			lines := []string{[]string{"k,t,v", "v,t,k", "t,x,k,v"}[s%3]}
			for range rng.IntN(13) {
				clock += rng.IntN(10)
				key, v, at := 'p'+rune(rng.IntN(5)), 1+rng.IntN(9), clock-rng.IntN(6)
				switch s % 3 {
				case 0:
					lines = append(lines, fmt.Sprintf("%c,%d,%d", key, at, v))
				case 1:
					lines = append(lines, fmt.Sprintf("%d,%d,%c", v, at, key))
				default:
					lines = append(lines, fmt.Sprintf("%d,,%c,%d", at, key, v))
				}
			}
			in[op][fmt.Sprintf("split %d", s)] = lines
		}
	}
	return in
}

func TestRestoredJobsMakeTheRowsOfAnUninterruptedOne(t *testing.T) {
	const once = 0x115c // a source with another parallelism whose splits kept their numbers
	first := true
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		if first {
			seed, first = once, false
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		in := drawInput(rng)
		one := &world{t: t, rng: rng, input: in, chains: map[shard][]delta{}}
		one.start(layout{"a": 1, "b": 1, "u": 1, "w": 1, "out": 1}, true, false, 0).run(0)
		w := &world{t: t, rng: rng, input: in, chains: map[shard][]delta{}}
		for lives := 4; ; lives-- {
			l := w.old
			if l == nil || rng.IntN(2) == 0 {
				l = drawLayout(rng)
			}
			f := w.start(l, rng.IntN(2) == 0, false, rng.IntN(3))
			if f.run(lives) {
				break
			}
			f.crash()
		}
		sort.Strings(one.rows)
		sort.Strings(w.rows)
		if !slices.Equal(w.rows, one.rows) {
			t.Fatalf("rows %q\nwant %q", w.rows, one.rows)
		}
	})
}
