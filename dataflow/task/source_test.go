package task

import (
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

// whole sends everything to channel 0.
type whole struct{}

func (whole) Split(b *batch.Batch, emit func(int, *batch.Batch)) { emit(0, b.Retain()) }

// csvSource is a source of CSV with a header whose rows and rejected payloads
// leave by outputs 0 and 1.
func csvSource(t *testing.T) *Task {
	t.Helper()
	rejected := batch.MustSchema(batch.Field{Name: "payload", Type: batch.Bytes}, batch.Field{Name: "topic", Type: batch.String}, batch.Field{Name: "reason", Type: batch.String})
	spec := decode.Spec{Format: decode.CSV, Header: true, Fields: []decode.Field{{Name: "v", Type: batch.Bigint, Path: []string{"v"}, Topic: -1}}}
	task, err := New(Config{
		ID: dataflow.SubtaskID{Task: "in"}, Parallelism: 1, MaxParallelism: 128, Pool: batch.NewPool(0, nil),
		Source: &SourceConfig{
			Schema: numbers, Rejected: rejected, Decoder: func() (Decoder, error) { return decode.New(spec, numbers) }, Header: true, NoRoom: decode.ErrNoRoom,
			Time: eventtime.Config{Strategy: eventtime.Ingestion}, EventAt: -1, DeviceAt: -1, Arrival: -1, Splits: []int{0, 1},
		},
		Links:   []LinkConfig{{ID: "in", Parent: -1}},
		Outputs: []OutputConfig{{Partitioner: whole{}, Channels: 1}, {Side: true, SideStream: operator.Rejected, Partitioner: whole{}, Channels: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// records are payloads of a split; those at the indexes are cut at the limit.
func records(split int, tooLong []int32, payloads ...string) *sensors.Records {
	r := new(sensors.Records)
	r.Reset(split)
	for _, p := range payloads {
		r.Append([]byte(p))
	}
	r.TooLong = tooLong
	return r
}

// A header over the limit is no header: half of one would name the wrong
// columns. Records over the limit behind it are still told apart.
func TestRecordsOverTheLimitAreRejectedHeadersToo(t *testing.T) {
	task := csvSource(t)
	var values []int64
	var reasons []string
	step := func(r *sensors.Records) {
		for _, e := range task.Step(Input{Kind: Raw, Records: r}) {
			if e.Kind != Send {
				continue
			}
			for i := range e.Batch.Rows {
				if e.Output == 0 {
					values = append(values, e.Batch.Cols[0].Ints[i])
				} else {
					reasons = append(reasons, string(e.Batch.Cols[rejectedReason].At(i)))
				}
			}
			e.Batch.Release()
		}
	}
	step(records(0, []int32{0, 2}, "v", "1", "2", "3"))
	step(records(1, []int32{2}, "v", "4", "5", "6"))
	if want := []int64{4, 6}; !slices.Equal(values, want) {
		t.Errorf("rows %v, want %v", values, want)
	}
	long, none := errTooLong.Error(), "no header"
	if len(reasons) != 5 || reasons[0] != long || reasons[2] != long || reasons[4] != long || reasons[1] != reasons[3] || reasons[1] == long {
		t.Errorf("reasons %q, want %q and %q in turn", reasons, long, none)
	}
	if c := task.Counters(nil)[0]; c.In != 7 || c.Rejected != 5 || c.Out != 2 {
		t.Errorf("%d in, %d rejected, %d out; want 7, 5, 2", c.In, c.Rejected, c.Out)
	}
}

// A reader that begins behind the header hands the header out first. A restored
// source knows it: it is no row, and is not rejected once more, whatever it was.
func TestARestoredSourceGetsItsHeaderAgain(t *testing.T) {
	for _, tooLong := range [][]int32{nil, {0}} {
		old := csvSource(t)
		first := records(0, tooLong, "v", "1")
		first.Next = 4
		play(t, old, Input{Kind: Raw, Records: first})
		before := old.Counters(nil)[0]

		restored := csvSource(t)
		for _, r := range saved(t, old) {
			if err := restored.Restore(r.Operator, r.Table, r.Batch); err != nil {
				t.Fatal(err)
			}
		}
		header, second := records(0, tooLong, "v"), records(0, nil, "2", "3")
		header.Next, second.First, second.Next = 4, 4, 8
		play(t, restored, Input{Kind: Begin}, Input{Kind: Raw, Records: header}, Input{Kind: Raw, Records: second})
		after := restored.Counters(nil)[0]
		if tooLong == nil && (before.Out != 1 || after.Out != 2 || after.Rejected != 0) {
			t.Errorf("%d rows before, then %d and %d rejected; want 1, 2, 0", before.Out, after.Out, after.Rejected)
		}
		if tooLong != nil && (before.Rejected != 2 || after.Rejected != 2 || after.Out != 0) {
			t.Errorf("a header too long: %d rejected before, %d after, %d rows; want 2, 2, 0", before.Rejected, after.Rejected, after.Out)
		}
	}
}

// What the expressions of a punctuation could not calculate is counted, like
// everywhere.
func TestFaultsInMarkersAreCounted(t *testing.T) {
	when, err := expr.CompileBool("10 / v = 5", numbers)
	if err != nil {
		t.Fatal(err)
	}
	at, err := expr.Compile("from_millis(v * 9223372036854775807)", numbers)
	if err != nil {
		t.Fatal(err)
	}
	pool := batch.NewPool(0, nil)
	task, err := New(Config{
		ID: dataflow.SubtaskID{Task: "in"}, Parallelism: 1, MaxParallelism: 128, Pool: pool,
		Source: &SourceConfig{
			Schema: numbers, Time: eventtime.Config{Strategy: eventtime.Punctuated}, EventAt: -1, DeviceAt: -1, Arrival: -1,
			When: when, At: at, Splits: []int{0},
		},
		Links: []LinkConfig{{ID: "in", Parent: -1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bl := batch.NewBuilder(pool, numbers)
	for _, v := range []int64{0, 1, 2, 0} {
		bl.SetInt(0, v)
		bl.EndRow(0)
	}
	task.Step(Input{Kind: Columns, Batch: bl.Take()})
	if c := task.Counters(nil)[0]; c.DivByZero != 2 || c.Overflow != 2 {
		t.Errorf("%d divisions by zero, %d overflows; want 2, 2", c.DivByZero, c.Overflow)
	}
}

// A step ends, also when a row makes rows without end and nobody reads them.
func TestStepEndsWhoeverReads(t *testing.T) {
	fm, err := expr.CompileFlatMap("generate_series(1, 9000000000000000000) as v", numbers)
	if err != nil {
		t.Fatal(err)
	}
	f, err := operator.NewFlatMap(fm, numbers, operator.RejectRow)
	if err != nil {
		t.Fatal(err)
	}
	pool := batch.NewPool(0, nil)
	task, err := New(Config{
		ID: dataflow.SubtaskID{Task: "in"}, Parallelism: 1, MaxParallelism: 128, Pool: pool,
		Source: &SourceConfig{Schema: numbers, Time: eventtime.Config{Strategy: eventtime.Ingestion}, EventAt: -1, DeviceAt: -1, Arrival: -1, Splits: []int{0}},
		Links:  []LinkConfig{{ID: "in", Parent: -1}, {ID: "endless", Factory: f, Parent: 0}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bl := batch.NewBuilder(pool, numbers)
	bl.SetInt(0, 1)
	bl.EndRow(0)
	in := Input{Kind: Columns, Batch: bl.Take()}
	for range 3 {
		effects := task.Step(in)
		if n := len(effects); n == 0 || effects[n-1].Kind != Again {
			t.Fatalf("effects %v, want Again at the end", effects)
		}
		in = Input{Kind: Resume}
	}
}
