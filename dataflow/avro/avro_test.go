package avro_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
)

func allTypes() *batch.Schema {
	return batch.MustSchema(
		batch.Field{Name: "s", Type: batch.String},
		batch.Field{Name: "n", Type: batch.Bigint},
		batch.Field{Name: "d", Type: batch.Double},
		batch.Field{Name: "f", Type: batch.Boolean},
		batch.Field{Name: "y", Type: batch.Bytes},
		batch.Field{Name: "t", Type: batch.Timestamp})
}

// tb is what helpers need of *testing.T and *rapid.T.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// write makes a part of batches.
func write(t tb, h avro.Header, batches ...*batch.Batch) []byte {
	t.Helper()
	var out bytes.Buffer
	w := avro.NewWriter(&out, h)
	for _, b := range batches {
		if err := w.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// rows are the rows of a part in the notation of optest.
func rows(t tb, rd *avro.Reader) (string, error) {
	t.Helper()
	s := optest.Stream{Schema: rd.Schema()}
	for {
		b, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return s.String(), nil
		}
		if err != nil {
			return s.String(), err
		}
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		s.Flatten(b)
		b.Release()
	}
}

func TestRoundTrip(t *testing.T) {
	p := batch.NewPool(0, nil)
	p.PoisonReleased()
	s := allTypes()
	text := `a@0 n=-2 d=8.5 f=true y="\x00\xff" t=7; @0 s=null n=1`
	b := optest.MustParse(t, s, text).Batches(p, batch.MaxRows)[0]
	copy(b.OwnHashes(2), []uint64{1 << 63, 5})
	part := write(t, avro.Header{Table: "t", Schema: s, Keyed: true}, b)
	rd, err := avro.NewReader(bytes.NewReader(part), p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := rows(t, rd)
	want := optest.MustParse(t, s, text).String()
	if err != nil || got != want {
		t.Fatalf("got %v\n%s\nwant\n%s", err, got, want)
	}
}
