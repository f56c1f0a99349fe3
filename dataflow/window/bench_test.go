package window

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// load is an endless input made beforehand: a cycle of batches whose times are
// shifted forward each time round.
type load struct {
	keys     int
	perMilli int // rows for each millisecond of event time
	every    int // a mark after so many rows; 0: one at the end of each batch
	spread   int64
}

var benchSchema = batch.MustSchema(
	batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "x", Type: batch.Double}, batch.Field{Name: "y", Type: batch.Double})

type nowhere struct{ rows int64 }

func (n *nowhere) Emit(b *batch.Batch) bool {
	n.rows += int64(b.Rows)
	return true
}
func (n *nowhere) EmitSide(operator.Side, *batch.Batch) bool { return true }
func (n *nowhere) Wanted(operator.Side) bool                 { return false }

func benchSpec(t testing.TB, s Spec) Spec {
	t.Helper()
	s.Input, s.Keys = benchSchema, []int{0}
	arg := func(src string) *expr.Expr {
		e, err := expr.Compile(src, benchSchema)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	s.Aggregates = []Aggregate{{Name: "a", Func: Avg, Arg: arg("x")}, {Name: "m", Func: Max, Arg: arg("y")}, {Name: "n", Func: CountRows}}
	return s
}

// feeder makes batches of the load, each with marks, the times going on.
type feeder struct {
	l     load
	pool  *batch.Pool
	ring  []*batch.Batch
	row   int64
	state uint64
}

func newFeeder(p *batch.Pool, l load, ring int) *feeder {
	f := &feeder{l: l, pool: p, state: 1}
	for range ring {
		bl := batch.NewBuilder(p, benchSchema)
		for range batch.MaxRows {
			f.state = f.state*6364136223846793005 + 1442695040888963407
			r := f.state >> 33
			bl.SetString(0, fmt.Sprintf("sensor-%06d", r%uint64(l.keys)))
			bl.SetDouble(1, float64(r%1000))
			bl.SetDouble(2, float64(r%777))
			bl.EndRow(0)
		}
		f.ring = append(f.ring, bl.Take())
	}
	return f
}

// next is batch i of the ring, its times made to follow the last one.
func (f *feeder) next(i int) *batch.Batch {
	b := f.ring[i%len(f.ring)]
	b.OwnMarks()
	times := b.OwnTimes(b.Rows)
	at := func() int64 { return f.row * 1000 / int64(f.l.perMilli) }
	for r := range times {
		times[r] = at()
		if f.l.spread > 0 {
			f.state = f.state*6364136223846793005 + 1442695040888963407
			times[r] -= int64(f.state>>33) % f.l.spread
		}
		f.row++
		if f.l.every > 0 && (r+1)%f.l.every == 0 {
			b.AddMark(batch.Mark{Row: int32(r + 1), Watermark: dataflow.Time(at() - f.l.spread)})
		}
	}
	if f.l.every == 0 {
		b.AddMark(batch.Mark{Row: int32(b.Rows), Watermark: dataflow.Time(at() - f.l.spread)})
	}
	return b
}

// bench measures the operator alone: the feeder's work is outside of the timer.
func bench(b *testing.B, s Spec, l load, warm int64) {
	op, ctx := openOp(b, benchSpec(b, s))
	f := newFeeder(ctx.Pool, l, 64)
	out := &nowhere{}
	i := 0
	step := func() {
		if p, err := op.Process(f.ring[i%len(f.ring)], out); err != nil || p != operator.Done {
			b.Fatal(p, err)
		}
		i++
	}
	for f.row < warm*int64(l.perMilli) || i < 64 {
		f.next(i)
		step()
	}
	b.ReportAllocs()
	b.ResetTimer()
	rows := 0
	for rows < b.N {
		b.StopTimer()
		n := 0
		for k := range 64 {
			f.next(i + k)
			n += batch.MaxRows
		}
		b.StartTimer()
		for range 64 {
			step()
		}
		rows += n
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rows), "ns/row")
	b.ReportMetric(float64(out.rows)/float64(i*batch.MaxRows), "out/row")
}

func BenchmarkTumbling(b *testing.B) {
	bench(b, Spec{Form: Tumbling, Size: 10 * dataflow.Second}, load{keys: 1000, perMilli: 100}, 0)
}

func BenchmarkTumbling1s(b *testing.B) {
	bench(b, Spec{Form: Tumbling, Size: dataflow.Second}, load{keys: 1000, perMilli: 100}, 0)
}

func BenchmarkSliding60(b *testing.B) {
	bench(b, Spec{Form: Sliding, Size: dataflow.Minute, Slide: dataflow.Second}, load{keys: 1000, perMilli: 100}, 61000)
}

func BenchmarkTumbling1s10k(b *testing.B) {
	bench(b, Spec{Form: Tumbling, Size: dataflow.Second}, load{keys: 10000, perMilli: 20}, 0)
}

func BenchmarkSliding600(b *testing.B) {
	bench(b, Spec{Form: Sliding, Size: 10 * dataflow.Minute, Slide: dataflow.Second}, load{keys: 10000, perMilli: 20}, 601000)
}

func BenchmarkPunctuated(b *testing.B) {
	for _, every := range []int{1, 100} {
		b.Run(fmt.Sprint(every), func(b *testing.B) {
			bench(b, Spec{Form: Tumbling, Size: 10 * dataflow.Second}, load{keys: 1000, perMilli: 100, every: every}, 0)
		})
	}
}

func BenchmarkSession(b *testing.B) {
	bench(b, Spec{Form: Session, Gap: 50 * dataflow.Millisecond}, load{keys: 1000, perMilli: 100}, 0)
}

// BenchmarkSessionShort opens a session every other row.
func BenchmarkSessionShort(b *testing.B) {
	bench(b, Spec{Form: Session, Gap: 5 * dataflow.Millisecond}, load{keys: 1000, perMilli: 100}, 0)
}

func BenchmarkDisorder(b *testing.B) {
	bench(b, Spec{Form: Tumbling, Size: dataflow.Second}, load{keys: 1000, perMilli: 100, spread: 500000}, 0)
}

func BenchmarkRunning(b *testing.B) {
	bench(b, Spec{Form: Running}, load{keys: 1000, perMilli: 100}, 0)
}

func BenchmarkKeys1M(b *testing.B) {
	bench(b, Spec{Form: Tumbling, Size: 100 * dataflow.Second}, load{keys: 1000000, perMilli: 100}, 10000)
}
