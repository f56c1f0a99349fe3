package task

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// delivery is a message as a broker delivers it, perhaps once more.
type delivery struct{ value, arrival int64 }

// lettered makes a row of a number; payload "x" is none.
type lettered struct{}

func (lettered) Decode(_, payload []byte, bl *batch.Builder) (int, error) {
	var v int64
	if _, err := fmt.Sscan(string(payload), &v); err != nil {
		return 0, err
	}
	bl.SetInt(0, v)
	bl.EndRow(0)
	return 1, nil
}
func (lettered) Split(int)                {}
func (lettered) Header(int, []byte) error { return nil }

func uniqueTask(t interface{ Fatal(...any) }) *Task {
	task, err := New(Config{
		ID: dataflow.SubtaskID{Task: "in"}, Parallelism: 1, MaxParallelism: 128, Pool: batch.NewPool(0, nil),
		Source: &SourceConfig{
			Schema: numbers, Time: eventtime.Config{Strategy: eventtime.Ingestion}, EventAt: -1, DeviceAt: -1, Arrival: -1, Splits: []int{0},
			Decoder: func() (Decoder, error) { return lettered{}, nil },
			Dedupe:  &dedupe.Config{By: []int{0}, Within: 50, Entries: 1000},
		},
		Links:   []LinkConfig{{ID: "in", Parent: -1}},
		Outputs: []OutputConfig{{Link: 0, Partitioner: whole{}, Channels: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// run gives a task the deliveries, at most n together, and appends the rows
// that come out, with their times.
func run(task *Task, log []delivery, n int, out []delivery) []delivery {
	for len(log) > 0 {
		k := min(n, len(log))
		r := &sensors.Records{}
		r.Reset(0)
		for _, d := range log[:k] {
			payload := fmt.Append(nil, d.value)
			if d.value < 0 {
				payload = []byte("x")
			}
			r.AppendMessage([]byte("t"), payload, d.arrival)
		}
		log = log[k:]
		for _, e := range task.Step(Input{Kind: Raw, Records: r}) {
			if e.Kind != Send {
				continue
			}
			b := e.Batch
			for i := range b.Len() {
				p := b.Position(i)
				out = append(out, delivery{b.Cols[0].Ints[p], b.Times[p]})
			}
			b.Release()
		}
	}
	return out
}

// Redeliveries of a log: the rows that go on are those of an oracle, whatever
// the batches, and also when the task is restored in the middle.
func TestDedupeOfRedeliveries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log, want []delivery
		arrival := int64(1_000_000)
		first := make(map[int64]int64)
		duplicates, garbage := int64(0), int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "messages") {
			arrival += int64(rapid.IntRange(0, 20).Draw(t, "pause"))
			v := int64(rapid.IntRange(-1, 9).Draw(t, "value"))
			log = append(log, delivery{v, arrival})
			switch at, seen := first[v]; {
			case v < 0:
				garbage++
			case seen && arrival < at+50:
				duplicates++
			default:
				first[v] = arrival
				want = append(want, delivery{v, arrival})
			}
		}
		n, cut := rapid.IntRange(1, 20).Draw(t, "batch"), rapid.IntRange(0, len(log)).Draw(t, "cut")
		task := uniqueTask(t)
		got := run(task, log[:cut], n, nil)
		counts := task.Counters(nil)[0]
		restored := uniqueTask(t)
		tables := task.source.StateTables()
		err := task.source.Snapshot(false, func(table int, b *batch.Batch) error {
			return restored.Restore("in", tables[table].Name, b)
		})
		if err != nil {
			t.Fatal(err)
		}
		got = run(restored, log[cut:], n, got)
		if !slices.Equal(got, want) {
			t.Fatalf("log %v\ngives %v\nwant  %v", log, got, want)
		}
		more := restored.Counters(nil)[0]
		if c := counts.In + more.In; c != int64(len(log)) {
			t.Fatalf("%d rows in, want %d", c, len(log))
		}
		if c := counts.Duplicates + more.Duplicates; c != duplicates {
			t.Fatalf("%d duplicates, want %d", c, duplicates)
		}
		if c := counts.Rejected + more.Rejected; c != garbage {
			t.Fatalf("%d rejected, want %d", c, garbage)
		}
	})
}

// Duplicates move the arrival clock: a source that gets nothing else is not
// dead.
func TestDuplicatesMoveTheClock(t *testing.T) {
	task := uniqueTask(t)
	run(task, []delivery{{1, 100}, {2, 101}, {1, 120}}, 3, nil)
	if _, at := task.Watermark(); at != 120 {
		t.Errorf("the arrival clock is at %d, want 120", at)
	}
	run(task, []delivery{{1, 130}}, 1, nil)
	if _, at := task.Watermark(); at != 130 {
		t.Errorf("the arrival clock is at %d, want 130", at)
	}
}

// Who asks for a task's tables before there is one is told of all of them.
func TestTablesOfSources(t *testing.T) {
	task := uniqueTask(t)
	tables, told := task.source.StateTables(), task.Tables()
	if len(tables) != 4 || len(told) != len(tables) {
		t.Fatalf("the source has %d tables, and is said to have %d", len(tables), len(told))
	}
	for i := range tables {
		if tables[i].Name != told[i].Name || !tables[i].Schema.Equal(told[i].Schema) || tables[i].Identity != told[i].Identity || tables[i].Spread != told[i].Spread {
			t.Errorf("table %d is %+v, and is said to be %+v", i, tables[i], told[i].StateTable)
		}
	}
}
