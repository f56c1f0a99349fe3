package avro_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

const benchRows = 1 << 20

// benchState is a million rows of (string key, long, double, long).
func benchState(p *batch.Pool) (avro.Header, []*batch.Batch) {
	s := batch.MustSchema(batch.Field{Name: "sensor", Type: batch.String}, batch.Field{Name: "count", Type: batch.Bigint},
		batch.Field{Name: "sum", Type: batch.Double}, batch.Field{Name: "last", Type: batch.Bigint})
	bl := batch.NewBuilder(p, s)
	var all []*batch.Batch
	for i := range benchRows {
		bl.SetString(0, fmt.Sprintf("sensor-%06d", i))
		bl.SetInt(1, int64(i%1000))
		bl.SetDouble(2, float64(i)*1.1)
		bl.SetInt(3, 1_700_000_000_000_000+int64(i)*1000)
		bl.EndRow(0)
		if bl.Full() {
			b := bl.Take()
			for k := range b.OwnHashes(b.Rows) {
				b.Hashes[k] = uint64(i+k) * 0x9e3779b97f4a7c15
			}
			all = append(all, b)
		}
	}
	return avro.Header{Table: "t", Schema: s, Keyed: true}, all
}

func BenchmarkEncode(b *testing.B) {
	h, all := benchState(batch.NewPool(0, nil))
	encode := func(out io.Writer) {
		w := avro.NewWriter(out, h)
		for _, x := range all {
			if err := w.Append(x); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("null", func(b *testing.B) {
		var size counter
		for b.Loop() {
			size = 0
			encode(&size)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/row")
		b.ReportMetric(float64(size)/benchRows, "B/row")
	})
	b.Run("deflate", func(b *testing.B) { // what compressing the same bytes would cost
		var size counter
		for b.Loop() {
			size = 0
			z, _ := flate.NewWriter(&size, flate.BestSpeed)
			encode(z)
			z.Close()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/row")
		b.ReportMetric(float64(size)/benchRows, "B/row")
	})
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

func BenchmarkDecode(b *testing.B) {
	p := batch.NewPool(0, nil)
	h, all := benchState(p)
	part := write(b, h, all...)
	b.ResetTimer()
	for b.Loop() {
		rd, err := avro.NewReader(bytes.NewReader(part), p)
		if err != nil {
			b.Fatal(err)
		}
		for {
			x, err := rd.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			x.Release()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/row")
}

func BenchmarkMerge(b *testing.B) {
	p := batch.NewPool(0, nil)
	h, all := benchState(p)
	base := write(b, h, all...)
	h.Delta = true
	delta := write(b, h, all[:len(all)/10]...)
	h.Delta = false
	for b.Loop() {
		if _, err := avro.Merge(io.Discard, h, []io.Reader{bytes.NewReader(base), bytes.NewReader(delta)}, 1, p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/row")
}
