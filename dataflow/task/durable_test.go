package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// slow is an operator that emits its input, and for the mark of the end five
// batches, after it has said Need once; it panics over 13.
type slow struct {
	operator.Stateless
	pool *batch.Pool
	left int
}

type slowFactory struct{ reject *batch.Schema }

func (slowFactory) Output() *batch.Schema { return numbers }
func (f slowFactory) Side(s operator.Side) *batch.Schema {
	if s == operator.Rejected {
		return f.reject
	}
	return nil
}
func (slowFactory) New() operator.Operator       { return &slow{} }
func (s *slow) Open(ctx *operator.Context) error { s.pool = ctx.Pool; return nil }
func (s *slow) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	for k := range b.Len() {
		if b.Cols[0].Ints[b.Position(k)] == 13 {
			panic("thirteen")
		}
	}
	if n := len(b.Marks); n > 0 && b.Marks[n-1].Watermark == dataflow.MaxTime {
		s.left = 5
		return operator.Need, nil
	}
	out.Emit(b)
	return operator.Done, nil
}

func (s *slow) Resume(out operator.Output) (operator.Progress, error) {
	for ; s.left > 0; s.left-- {
		m := s.pool.MarksOnly(numbers, batch.Mark{Watermark: dataflow.Time(100 - s.left)})
		out.Emit(m)
		m.Release()
		if s.left > 1 {
			s.left--
			return operator.More, nil
		}
	}
	m := s.pool.MarksOnly(numbers, batch.Mark{Watermark: dataflow.MaxTime})
	out.Emit(m)
	m.Release()
	return operator.Done, nil
}

// ints decodes payloads that are a number; it panics over "boom".
type ints struct{}

func (ints) Split(int)                {}
func (ints) Header(int, []byte) error { return nil }
func (ints) Decode(_, payload []byte, bl *batch.Builder) (int, error) {
	var v int64
	bl.SetInt(0, 0)
	if string(payload) == "boom" {
		panic("the decoder is broken")
	}
	if _, err := fmt.Sscan(string(payload), &v); err != nil {
		return 0, err
	}
	bl.SetInt(0, v)
	bl.EndRow(0)
	return 1, nil
}

var rejectedNumbers = batch.MustSchema(batch.Field{Name: "v", Type: batch.Bigint}, batch.Field{Name: "reason", Type: batch.String})

func slowSource(t *testing.T, durable bool, reject *batch.Schema) *Task {
	t.Helper()
	rejected := batch.MustSchema(batch.Field{Name: "payload", Type: batch.Bytes}, batch.Field{Name: "topic", Type: batch.String}, batch.Field{Name: "reason", Type: batch.String})
	outputs := []OutputConfig{{Link: 1, Partitioner: whole{}, Channels: 1}, {Link: 0, Side: true, SideStream: operator.Rejected, Partitioner: whole{}, Channels: 1}}
	if reject != nil {
		outputs = append(outputs, OutputConfig{Link: 1, Side: true, SideStream: operator.Rejected, Partitioner: whole{}, Channels: 1})
	}
	task, err := New(Config{
		ID: dataflow.SubtaskID{Task: "in"}, Parallelism: 1, MaxParallelism: 16, Pool: batch.NewPool(0, nil), Durable: durable,
		Source: &SourceConfig{
			Schema: numbers, Rejected: rejected, Decoder: func() (Decoder, error) { return ints{}, nil },
			EventAt: -1, DeviceAt: -1, Arrival: -1, Time: eventtime.Config{Strategy: eventtime.None}, Splits: []int{0, 1}, Names: []string{"north", "south"},
		},
		Links:   []LinkConfig{{ID: "in", Parent: -1}, {ID: "slow", Factory: slowFactory{reject}, Parent: 0}},
		Outputs: outputs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// play gives the task inputs, and Resume as often as it asks, and tells the
// effects: what is sent as values and marks.
func play(t *testing.T, task *Task, inputs ...Input) string {
	t.Helper()
	var log []string
	for _, in := range inputs {
		for again := true; again; in = (Input{Kind: Resume}) {
			again = false
			for _, e := range task.Step(in) {
				s := e.Kind.String()
				switch e.Kind {
				case Send:
					s = fmt.Sprint(e.Output, ":")
					for i := range e.Batch.Rows {
						if e.Batch.Schema == numbers {
							s += fmt.Sprint(" ", e.Batch.Cols[0].Ints[i])
						} else {
							s += " " + string(e.Batch.Cols[len(e.Batch.Cols)-1].At(i))
						}
					}
					for _, m := range e.Batch.Marks {
						s += fmt.Sprint(" ", m.Watermark)
					}
					e.Batch.Release()
				case Snapshot:
					for _, r := range e.State {
						s += " " + r.Table
						r.Batch.Release()
					}
					for _, p := range e.Positions {
						s += fmt.Sprintf(" %s@%d", p.Split, p.Offset)
						if p.Ended {
							s += "!"
						}
					}
				case Again:
					again = true
				case Ack:
					continue
				}
				log = append(log, s)
			}
		}
	}
	return strings.Join(log, "; ")
}

func raw(split int, next int64, done bool, payloads ...string) Input {
	r := records(split, nil, payloads...)
	r.Next, r.Done = next, done
	return Input{Kind: Raw, Records: r}
}

const (
	end = "need state; again; 0: 1970-01-01T00:00:00.000095Z; 0: 1970-01-01T00:00:00.000096Z; 0: 1970-01-01T00:00:00.000097Z; " +
		"0: 1970-01-01T00:00:00.000098Z; 0: 1970-01-01T00:00:00.000099Z; 0: +inf"
	taken = "snapshot task.splits splits"
)

// A durable source that has read everything says so behind the mark of the end
// and all that it fires, and goes on taking barriers until it is stopped.
func TestExhaustedComesWhenEverythingIsOut(t *testing.T) {
	for _, durable := range []bool{true, false} {
		task := slowSource(t, durable, nil)
		got := play(t, task, raw(0, 7, true, "1"), raw(1, 2, true, "2"))
		want := "0: 1; 0: 2; " + end
		if durable {
			want += "; exhausted"
		} else {
			want += "; end; finished"
		}
		if got = side(got); got != want {
			t.Errorf("durable %v:\n%s\nwant\n%s", durable, got, want)
		}
		if !durable {
			continue
		}
		got = play(t, task, Input{Kind: End}, Input{Kind: Trigger, Barrier: barrier(1)}, Input{Kind: Stop})
		if want := taken + " north@7! south@2!; barrier; end; finished"; side(got) != want {
			t.Errorf("behind the end:\n%s\nwant\n%s", side(got), want)
		}
	}
}

// side leaves out what goes to side streams.
func side(log string) string {
	parts := slices.DeleteFunc(strings.Split(log, "; "), func(s string) bool { return strings.HasPrefix(s, "1:") || strings.HasPrefix(s, "2:") })
	return strings.Join(parts, "; ")
}

// Drain: the mark of the end first, with all that it fires; then the barrier, and
// nothing behind it.
func TestE65_DrainEndsTheInputBeforeTheBarrier(t *testing.T) {
	task := slowSource(t, true, nil)
	b := barrier(3)
	b.Then = dataflow.Drain
	got := side(play(t, task, raw(0, 7, false, "1"), Input{Kind: Trigger, Barrier: b}, Input{Kind: Trigger, Barrier: barrier(4)}))
	want := "0: 1; " + end + "; " + taken + " north@7!; barrier; " + taken + " north@7!; barrier"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	task = slowSource(t, true, nil)
	b.Then = dataflow.Halt
	got = side(play(t, task, raw(0, 7, false, "1"), Input{Kind: Trigger, Barrier: b}, Input{Kind: Stop}))
	if want := "0: 1; " + taken + " north@7; barrier; end; finished"; got != want {
		t.Errorf("without drain: %s\nwant\n%s", got, want)
	}
}

// A payload over which the decoder panics is rejected, and those beside it are
// not; a row over which a step panics is rejected there, or fails the job with
// the payload that it came from.
func TestPoisonedPayloads(t *testing.T) {
	task := slowSource(t, true, rejectedNumbers)
	got := play(t, task, raw(0, 5, false, "1", "boom", "2", "13", "3"))
	if want := "1: panic: the decoder is broken; 2: panic: thirteen; 0: 1; 0: 2; 0: 3"; sorted(got) != sorted(want) {
		t.Errorf("%s\nwant, in some order,\n%s", got, want)
	}
	if c := task.Counters(nil); c[0].Rejected != 1 || c[1].Rejected != 1 || c[0].In != 5 || c[1].In != 4 {
		t.Errorf("counters %+v", c)
	}
	task = slowSource(t, true, nil)
	effects := task.Step(raw(0, 5, false, "1", "13", "3"))
	last := effects[len(effects)-1]
	for _, want := range []string{`operator "slow"`, "panic: thirteen", "v=13", `payload "13"`, "durable_test.go"} {
		if last.Kind != Fail || !strings.Contains(last.Err.Error(), want) {
			t.Errorf("%v %v: want %q", last.Kind, last.Err, want)
		}
	}
}

func sorted(log string) string {
	parts := strings.Split(log, "; ")
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// saved is what a task's snapshot holds.
func saved(t *testing.T, task *Task) (rows []StateRows) {
	t.Helper()
	for _, e := range task.Step(Input{Kind: Trigger, Barrier: dataflow.Barrier{ID: dataflow.CheckpointID{Counter: 9}, Full: true}}) {
		if e.Kind == Snapshot {
			rows = e.State
		}
	}
	return rows
}

// What a drain has ended is ended also when it is restored, and nothing of it is
// read: also where only the tables of time say so, as programs before this one wrote.
func TestADrainedSplitStaysEnded(t *testing.T) {
	for _, before := range []bool{false, true} {
		old := slowSource(t, true, nil)
		b := barrier(3)
		b.Then = dataflow.Drain
		play(t, old, raw(0, 7, false, "1"), Input{Kind: Trigger, Barrier: b})
		restored := slowSource(t, true, nil)
		for _, r := range saved(t, old) {
			if r.Table == splitsName {
				ended := r.Batch.Cols[splitEnded].Bits
				if !ended.Get(0) || !ended.Get(1) {
					t.Error("the splits are not saved as ended")
				}
				if before {
					clear(ended)
				}
			}
			if err := restored.Restore(r.Operator, r.Table, r.Batch); err != nil {
				t.Fatal(err)
			}
		}
		if got := play(t, restored, Input{Kind: Begin}); !strings.HasSuffix(got, "exhausted") {
			t.Errorf("before %t: %s", before, got)
		}
		if got := side(play(t, restored, raw(0, 8, false, "2"))); got != "" {
			t.Errorf("before %t: a split that has ended was read on: %s", before, got)
		}
	}
}

// Splits are found again by name: their positions, that they are deaf, that they
// have ended; one that is new begins at its beginning.
func TestSplitsAreFoundAgainByName(t *testing.T) {
	old := slowSource(t, true, nil)
	play(t, old, raw(0, 7, false, "1"), raw(1, 4, true, "2"))
	rows := saved(t, old)
	restored := slowSource(t, true, nil)
	restored.source.splits[0].name, restored.source.splits[1].name = "south", "west"
	for _, r := range rows {
		if err := restored.Restore(r.Operator, r.Table, r.Batch); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := restored.Positions(), []sensors.Position{{Split: 0, Offset: 4}}; !slices.Equal(got, want) {
		t.Errorf("positions %v, want %v", got, want)
	}
	if !restored.Moved() {
		t.Error("another subtask's split is read, and nobody is told")
	}
	if got := side(play(t, restored, Input{Kind: Begin}, raw(0, 5, true, "9"), raw(1, 1, true, "3"))); !strings.HasPrefix(got, "0: 3; need state") || !strings.HasSuffix(got, "exhausted") {
		t.Errorf("a split that had ended was read on, or the other was not: %s", got)
	}
	if err := restored.Restore("in", "nothing", rows[0].Batch); err == nil {
		t.Error("a table that is not there was restored")
	}
}

// A merge goes on where it stood; at another parallelism from the least of what
// its channels descend from; an input that is new starts at MIN.
func TestInputsAreRestored(t *testing.T) {
	mark := func(w dataflow.Time) batch.Mark { return batch.Mark{Watermark: w, Arrival: dataflow.MinTime} }
	task := func(index, p int, edges ...Edge) *Task {
		n := 0
		for i := range edges {
			edges[i].Schema = numbers
			n += edges[i].Channels
		}
		t2, err := New(Config{ID: dataflow.SubtaskID{Task: "sum", Index: index}, Parallelism: p, MaxParallelism: 16, Pool: batch.NewPool(0, nil), Channels: n, Edges: edges,
			Links: []LinkConfig{{ID: "sum", Factory: operator.NewPass(numbers), Parent: -1}}})
		if err != nil {
			t.Fatal(err)
		}
		return t2
	}
	a, b := Edge{Stream: "a", Channels: 2, Of: 2}, Edge{Stream: "b", Channels: 1, Of: 1}
	var rows []StateRows
	for index, marks := range [][]dataflow.Time{{10, 20, 30}, {12, 18, 40}} {
		old := task(index, 2, a, b)
		for c, w := range marks {
			old.Step(Input{Kind: Data, Channel: c, Batch: old.cfg.Pool.MarksOnly(numbers, mark(w))})
		}
		for c := range marks {
			for _, e := range old.Step(Input{Kind: Barrier, Channel: c, Barrier: barrier(1)}) {
				rows = append(rows, e.State...)
			}
		}
	}
	for name, c := range map[string]struct {
		task *Task
		in   []dataflow.Time
		out  dataflow.Time
	}{
		"as it was":                  {task(0, 2, a, b), []dataflow.Time{10, 20, 30}, 10},
		"the other":                  {task(1, 2, a, b), []dataflow.Time{12, 18, 40}, 12},
		"its own parallelism":        {task(2, 3, a, b), []dataflow.Time{10, 18, 30}, 10},
		"the upstream's parallelism": {task(0, 2, Edge{Stream: "a", Channels: 3, Of: 3}, b), []dataflow.Time{10, 10, 10, 30}, 10},
		"order of inputs":            {task(1, 2, b, a), []dataflow.Time{40, 12, 18}, 12},
		"an input that is new":       {task(0, 2, b, Edge{Stream: "c", Channels: 1, Of: 1}), []dataflow.Time{30, dataflow.MinTime}, 10},
	} {
		for _, r := range rows {
			if err := c.task.Restore(r.Operator, r.Table, r.Batch); err != nil {
				t.Fatal(err)
			}
		}
		c.task.Step(Input{Kind: Begin})
		var in []dataflow.Time
		for i := range c.in {
			in = append(in, c.task.merge.Input(i).Watermark)
		}
		if out, _ := c.task.Watermark(); !slices.Equal(in, c.in) || out != c.out {
			t.Errorf("%s: inputs at %d, out %d; want %d, %d", name, in, out, c.in, c.out)
		}
	}
}

// twice emits its input two times, and says More between them if it must.
type twice struct {
	operator.Stateless
	in *batch.Batch
}

func (*twice) Open(*operator.Context) error { return nil }
func (o *twice) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	if o.in = b.Retain(); !out.Emit(b) {
		return operator.More, nil
	}
	return o.Resume(out)
}

func (o *twice) Resume(out operator.Output) (operator.Progress, error) {
	out.Emit(o.in)
	o.in.Release()
	return operator.Done, nil
}

// needy needs its state for each batch.
type needy struct{ twice }

func (o *needy) Process(b *batch.Batch, _ operator.Output) (operator.Progress, error) {
	o.in = b.Retain()
	return operator.Need, nil
}

type made func() operator.Operator

func (made) Output() *batch.Schema            { return numbers }
func (made) Side(operator.Side) *batch.Schema { return nil }
func (f made) New() operator.Operator         { return f() }

// Nothing is emitted into an operator that waits for its state, and what waits
// behind it comes when the state is there.
func TestChainsWaitForState(t *testing.T) {
	need := made(func() operator.Operator { return &needy{} })
	task, err := New(Config{
		ID: dataflow.SubtaskID{Task: "in"}, Parallelism: 1, MaxParallelism: 16, Pool: batch.NewPool(0, nil), Channels: 1,
		Links: []LinkConfig{
			{ID: "twice", Factory: made(func() operator.Operator { return &twice{} }), Parent: -1},
			{ID: "one", Factory: need, Parent: 0}, {ID: "two", Factory: need, Parent: 1},
		},
		Outputs: []OutputConfig{{Link: 2, Partitioner: whole{}, Channels: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bl := batch.NewBuilder(task.cfg.Pool, numbers)
	bl.SetInt(0, 7)
	bl.EndRow(0)
	got := play(t, task, Input{Kind: Data, Batch: bl.Take()})
	if want := strings.Repeat("need state; again; need state; again; 0: 7; ", 2); got+"; " != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if n := task.cfg.Pool.Out(); n != 0 {
		t.Errorf("%d batches were not released", n)
	}
}
