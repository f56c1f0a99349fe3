package expr

import (
	"math/rand/v2"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// sensorBatch is a full batch as sensors make it; nulls is the share of nulls
// in each column.
func sensorBatch(nulls float64) *batch.Batch {
	s := batch.MustSchema(
		batch.Field{Name: "sensor", Type: batch.String}, batch.Field{Name: "temp", Type: batch.Double}, batch.Field{Name: "hum", Type: batch.Double},
		batch.Field{Name: "n", Type: batch.Bigint}, batch.Field{Name: "ok", Type: batch.Boolean}, batch.Field{Name: "ts", Type: batch.Timestamp},
	)
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	r := rand.New(rand.NewPCG(1, 2))
	there := func() bool { return nulls == 0 || r.Float64() >= nulls }
	for i := range batch.MaxRows {
		if there() {
			bl.SetString(0, []string{"cold-store/7", "cold-store/12", "truck-3", "Gerät 9"}[r.IntN(4)])
		}
		if there() {
			bl.SetDouble(1, r.Float64()*10)
		}
		if there() {
			bl.SetDouble(2, r.Float64()*100)
		}
		if there() {
			bl.SetInt(3, r.Int64N(1000))
		}
		if there() {
			bl.SetBool(4, r.IntN(2) == 0)
		}
		if there() {
			bl.SetInt(5, 1_769_860_800_000_000+int64(i)*1000)
		}
		bl.EndRow(dataflow.Time(i))
	}
	return bl.Take()
}

// everyOther selects every second row.
func everyOther(b *batch.Batch) *batch.Batch {
	b.Sel = b.OwnSel(b.Rows)
	for p := 0; p < b.Rows; p += 2 {
		b.Sel = append(b.Sel, int32(p))
	}
	return b
}

func compiled(tb testing.TB, src string, b *batch.Batch) *Eval {
	tb.Helper()
	e, err := Compile(src, b.Schema)
	if err != nil {
		tb.Fatal(err)
	}
	return e.NewEval()
}

func perRow(b *testing.B, rows int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}

func BenchmarkSelect(b *testing.B) {
	for _, src := range []string{
		"temp > 8.0", "temp > 0.5", "n = 7", "n <> 7", "temp between 2 and 5", "temp > 2 and hum < 50", "temp > 8 or hum < 10", "temp > hum", "sensor = 'truck-3'",
		"sensor like 'cold%'", "ok", "n in (1, 2, 3)", "not ok and temp is not null",
	} {
		for _, v := range []struct {
			name string
			b    *batch.Batch
		}{{"plain", sensorBatch(0)}, {"nulls", sensorBatch(0.1)}, {"half", everyOther(sensorBatch(0))}} {
			b.Run(src+"/"+v.name, func(b *testing.B) {
				ev := compiled(b, src, v.b)
				var dst []int32
				for b.Loop() {
					dst = ev.Select(v.b, dst[:0])
				}
				perRow(b, v.b.Len())
			})
		}
	}
}

// BenchmarkSelectByHand is the loop that temp > 8.0 competes with.
func BenchmarkSelectByHand(b *testing.B) {
	bt := sensorBatch(0)
	dst := make([]int32, 0, batch.MaxRows)
	for b.Loop() {
		dst = dst[:0]
		for i, v := range bt.Cols[1].Doubles {
			if v > 8 {
				dst = append(dst, int32(i))
			}
		}
	}
	perRow(b, bt.Rows)
}

func BenchmarkArithmetic(b *testing.B) {
	benchInto(b, "temp * 1.8 + 32", "temp + hum", "n + 1", "n * n", "n / 7", "n % 10", "round(temp, 1)", "abs(temp - 5)", "n * temp", "coalesce(temp, 0)",
		"case when temp > 8 then 1 when temp > 4 then 2 else 3 end", "date_trunc('minute', ts)", "extract(hour from ts)", "greatest(temp, hum)")
}

func BenchmarkString(b *testing.B) {
	benchInto(b, "upper(sensor)", "sensor || '/' || n", "substr(sensor, 3, 4)", "split_part(sensor, '/', 1)", "replace(sensor, '-', '_')", "length(sensor)",
		"cast(n as string)", "cast(temp as string)", "cast(cast(n as string) as bigint)", "case when ok then sensor else 'none' end", "sensor like '%store%1_'")
}

func benchInto(b *testing.B, sources ...string) {
	for _, src := range sources {
		for _, v := range []struct {
			name string
			b    *batch.Batch
		}{{"plain", sensorBatch(0)}, {"nulls", sensorBatch(0.1)}} {
			b.Run(src+"/"+v.name, func(b *testing.B) {
				ev := compiled(b, src, v.b)
				var dst batch.Column
				for b.Loop() {
					ev.Into(v.b, &dst)
				}
				perRow(b, v.b.Len())
			})
		}
	}
}
