package durable

import (
	"fmt"
	"io"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// sums makes running aggregates of a key: a dozen numbers a key.
func sums(b *testing.B) *window.Factory {
	in := batch.MustSchema(batch.Field{Name: "k", Type: batch.Bigint}, batch.Field{Name: "seq", Type: batch.Bigint}, batch.Field{Name: "value", Type: batch.Double})
	arg := func(src string) *expr.Expr {
		e, err := expr.Compile(src, in)
		if err != nil {
			b.Fatal(err)
		}
		return e
	}
	v := arg("value")
	f, err := window.NewFactory(window.Spec{Form: window.Running, Input: in, Keys: []int{0}, Aggregates: []window.Aggregate{
		{Name: "seq", Func: window.Max, Arg: arg("seq")}, {Name: "n", Func: window.CountRows}, {Name: "s", Func: window.Sum, Arg: v}, {Name: "a", Func: window.Avg, Arg: v},
		{Name: "lo", Func: window.Min, Arg: v}, {Name: "hi", Func: window.Max, Arg: v}, {Name: "f", Func: window.First, Arg: v}, {Name: "d", Func: window.Stddev, Arg: v},
	}})
	if err != nil {
		b.Fatal(err)
	}
	return f
}

// BenchmarkRestore gives a subtask a million rows of state back: from one part,
// and from a part and two deltas.
func BenchmarkRestore(b *testing.B) {
	const rows = 1 << 20
	f := sums(b)
	t := f.New().StateTables()[0]
	state, err := Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer state.Close()
	part := func(from, to int, delta bool) manifest.PartUse {
		use := manifest.PartUse{Rows: int64(to - from), Delta: delta}
		use.Part, err = state.parts.Put(func(w io.Writer) error {
			aw := avro.NewWriter(w, avro.Header{Table: t.Name, Schema: t.Schema, Keyed: true, Delta: delta})
			for from < to {
				n := min(to-from, batch.MaxRows)
				x := stateRows(t.Schema, from, n)
				if err := aw.Append(x); err != nil {
					return err
				}
				x.Release()
				from += n
			}
			return aw.Close()
		})
		if err != nil {
			b.Fatal(err)
		}
		return use
	}
	whole, most := part(0, rows, false), part(0, rows*3/4, false)
	late, few := part(rows*3/4, rows, true), part(rows/2, rows/2+5000, true)
	for name, parts := range map[string][]manifest.PartUse{"whole": {whole}, "deltas": {most, late, few}} {
		b.Run(name, func(b *testing.B) { benchRestore(b, state, f, t, parts, rows) })
	}
}

func stateRows(s *batch.Schema, from, n int) *batch.Batch {
	b := batch.NewPool(0, nil).Get(s)
	b.Rows = n
	for i, c := range s.Fields() {
		col := b.Own(i, n)
		for k := range n {
			switch {
			case c.Type == batch.Double:
				col.Doubles[k] = float64((from+k)%1000) * 1.1
			case i == 0:
				col.Ints[k] = int64(from + k)
			default:
				col.Ints[k] = int64(from+k) % 100000
			}
		}
	}
	clear(b.OwnTimes(n))
	state.HashKeys(b, []int{0})
	return b
}

func benchRestore(b *testing.B, s *State, f *window.Factory, t operator.StateTable, parts []manifest.PartUse, rows int64) {
	saved := manifest.Table{Name: t.Name, Schema: avro.SchemaOf(t.Name, t.Schema, true), Keyed: true, Identity: t.Identity, Shards: []manifest.Shard{{Parts: parts}}}
	m := &manifest.Manifest{Kind: manifest.Checkpoint, Name: "c", Job: "j", ID: dataflow.CheckpointID{Counter: 1}, Mode: manifest.ExactlyOnce, MaxParallelism: 128,
		Operators: []manifest.Operator{{ID: "sums", Parallelism: 1, Tables: []manifest.Table{saved}}}}
	report := restore.Check(m, restore.Job{Name: "j", MaxParallelism: 128, Operators: []restore.Operator{{ID: "sums", Parallelism: 1, Tables: []restore.Table{{StateTable: t}}}}}, restore.Options{})
	if err := report.Err(); err != nil {
		b.Fatal(err)
	}
	id := dataflow.SubtaskID{Task: "sums"}
	l := Layout{Tables: map[dataflow.SubtaskID][]runtime.TableOf{id: {{Operator: "sums", StateTable: t}}}}
	again := s.Restore(report.Plan(), l)
	b.ReportAllocs()
	for b.Loop() {
		var c operator.Counters
		op := f.New()
		if err := op.Open(&operator.Context{Operator: "sums", Parallelism: 1, MaxParallelism: 128, Pool: batch.NewPool(0, nil), Counters: &c}); err != nil {
			b.Fatal(err)
		}
		err := again(id, runtime.Restored{
			Give:   func(_ dataflow.OperatorID, _ string, x *batch.Batch) error { return op.Restore(0, x) },
			Expect: func(_ dataflow.OperatorID, _ string, rows int64) { op.(operator.Expecter).Expect(0, rows) },
		})
		if err != nil || c.OpenWindows != rows {
			b.Fatal(fmt.Errorf("%d rows: %w", c.OpenWindows, err))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}
