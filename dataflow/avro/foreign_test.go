package avro_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// foreign is a part that another implementation has written.
func foreign(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := goavro.NewOCFWriter(goavro.OCFConfig{W: &out, Schema: record(f("i", `"int"`), f("g", `"float"`), f("n", `["long","null"]`))})
	if err != nil {
		t.Fatal(err)
	}
	err = w.Append([]map[string]any{
		{"i": -3, "g": 0.5, "n": goavro.Union("long", 9)},
		{"i": 4, "g": 2.0, "n": nil}})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestAnotherImplementationReadsParts writes parts of all types and compares
// every value that github.com/linkedin/goavro finds in them.
func TestAnotherImplementationReadsParts(t *testing.T) {
	const n = 10_000 // several blocks
	p := batch.NewPool(0, nil)
	s := allTypes()
	h := avro.Header{Table: "task.x", Schema: s, Keyed: true, Delta: true}
	var all []*batch.Batch
	bl := batch.NewBuilder(p, s)
	hash := func(i int) uint64 { return uint64(i) * 0x9e3779b97f4a7c15 }
	for i := range n {
		if i%7 != 0 {
			bl.SetString(0, fmt.Sprint("sensor ", i))
		}
		if i%5 != 0 {
			bl.SetInt(1, int64(i)*-0x123456789abcde)
		}
		if i%11 != 0 {
			bl.SetDouble(2, math.Sqrt(float64(i)))
		}
		bl.SetBool(3, i%2 == 0)
		bl.SetBytes(4, []byte{byte(i), 0, 0xff})
		bl.SetInt(5, int64(i)*1_000_003-5_000_000_000)
		bl.EndRow(0)
		if i%3 == 0 {
			bl.Kind(batch.Delete)
		}
		if bl.Full() || i == n-1 {
			b := bl.Take()
			for k := range b.OwnHashes(b.Rows) {
				b.Hashes[k] = hash(i + 1 - b.Rows + k)
			}
			all = append(all, b)
		}
	}
	part := write(t, h, all...)
	r, err := goavro.NewOCFReader(bytes.NewReader(part))
	if err != nil {
		t.Fatal(err)
	}
	orNull := func(null bool, branch string, v any) any {
		if null {
			return nil
		}
		return map[string]any{branch: v}
	}
	for i := range n {
		if !r.Scan() {
			t.Fatalf("%d rows: %v", i, r.Err())
		}
		v, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		row := v.(map[string]any)
		kind := int32(0)
		if i%3 == 0 {
			kind = 1
		}
		want := map[string]any{
			"key_hash": int64(hash(i)), "row_kind": kind,
			"s": orNull(i%7 == 0, "string", fmt.Sprint("sensor ", i)),
			"n": orNull(i%5 == 0, "long", int64(i)*-0x123456789abcde),
			"d": orNull(i%11 == 0, "double", math.Sqrt(float64(i))),
			"f": orNull(false, "boolean", i%2 == 0),
			"y": orNull(false, "bytes", []byte{byte(i), 0, 0xff}),
			"t": orNull(false, "long.timestamp-micros", time.UnixMicro(int64(i)*1_000_003-5_000_000_000).UTC()),
		}
		if got := fmt.Sprint(row); got != fmt.Sprint(want) {
			t.Fatalf("row %d is\n%s\nwant\n%v", i, got, want)
		}
	}
	if r.Scan() || r.Err() != nil {
		t.Errorf("more rows, or %v", r.Err())
	}
}
