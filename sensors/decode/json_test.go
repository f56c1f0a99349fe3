package decode

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

func newDecoder(spec Spec) (*Decoder, *batch.Builder) {
	var fs []batch.Field
	for _, f := range spec.Fields {
		fs = append(fs, batch.Field{Name: f.Name, Type: f.Type})
	}
	s := batch.MustSchema(fs...)
	d, err := New(spec, s)
	if err != nil {
		panic(err)
	}
	return d, batch.NewBuilder(batch.NewPool(0, nil), s)
}

var reading = []byte(`{"sensor":"sensor-0123","ts":1750000000123,"temp":21.531,"kind":"reading","x":1}`)

func telemetry() Spec {
	return Spec{Format: JSON, Fields: []Field{
		{Name: "sensor", Type: batch.String, Topic: -1},
		{Name: "ts", Type: batch.Timestamp, Topic: -1},
		{Name: "temp", Type: batch.Double, Topic: -1},
		{Name: "kind", Type: batch.String, Topic: -1},
	}}
}

var four = []byte(`{"sensor":"sensor-001234","ts":1750000000123,"temp":21.53125,"kind":"readings-1"}`)

func BenchmarkJSON(b *testing.B) {
	b.Run("four", func(b *testing.B) { benchJSON(b, telemetry(), four) })
	b.Run("four+x", func(b *testing.B) { benchJSON(b, telemetry(), reading) })
}

func benchJSON(b *testing.B, spec Spec, payload []byte) {
	d, bl := newDecoder(spec)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := d.Decode(nil, payload, bl); err != nil {
			b.Fatal(err)
		}
		if bl.Full() {
			bl.Take().Release()
		}
	}
}

// BenchmarkQuotes is the limit beside BenchmarkJSON: each byte seen once.
func BenchmarkQuotes(b *testing.B) {
	b.SetBytes(int64(len(four)))
	n := 0
	for b.Loop() {
		n += quotes(four)
	}
	if n == 0 {
		b.Fatal("no quotes")
	}
}

func quotes(p []byte) int {
	n := 0
	for _, c := range p {
		if c == '"' {
			n++
		}
	}
	return n
}
