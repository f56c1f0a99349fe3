package avro_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
)

// TestGoldenBytesOfTheDocument: bytes in hex, or text in quotes, comments
// after #.
func TestGoldenBytesOfTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/PART_FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```hex delta\n")
	block, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("the document has no example")
	}
	var want []byte
	for _, line := range strings.Split(block, "\n") {
		if s, ok := strings.CutPrefix(line, "'"); ok {
			s, _, _ = strings.Cut(s, "'")
			want = append(want, s...)
			continue
		}
		digits, _, _ := strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want = append(want, b...)
	}
	p := batch.NewPool(0, nil)
	s := batch.MustSchema(batch.Field{Name: "sensor", Type: batch.String}, batch.Field{Name: "n", Type: batch.Bigint}, batch.Field{Name: "d", Type: batch.Double},
		batch.Field{Name: "last.seen", Type: batch.Timestamp}, batch.Field{Name: "f", Type: batch.Boolean}, batch.Field{Name: "y", Type: batch.Bytes})
	b := optest.MustParse(t, s, `door@0 n=-2 d=8.5 last.seen=1000 f=true y="\x00\xff"; -D fan@0`).Batches(p, 9)[0]
	copy(b.OwnHashes(2), []uint64{300, 1<<64 - 1})
	h := avro.Header{Table: "task.keys", Schema: s, Keyed: true, Delta: true}
	got := write(t, h, b)
	if !bytes.Equal(got, want) {
		t.Errorf("encoded as\n%s\nthe document says\n%s", hex.Dump(got), hex.Dump(want))
	}
	rd, err := avro.NewReader(bytes.NewReader(want), p)
	if err != nil {
		t.Fatal(err)
	}
	if r := rd.Header(); r.Table != h.Table || !r.Schema.Equal(s) || !r.Keyed || !r.Delta {
		t.Errorf("%+v", r)
	}
	back, err := rd.Next()
	if err != nil || exact(back) != exact(b) || back.Kinds[0] != batch.Insert {
		t.Errorf("%v, decoded as\n%s\nwant\n%s", err, exact(back), exact(b))
	}
}
