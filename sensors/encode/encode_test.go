package encode

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

func everything() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "id", Type: batch.String}, batch.Field{Name: "n", Type: batch.Bigint}, batch.Field{Name: "x", Type: batch.Double},
		batch.Field{Name: "ok", Type: batch.Boolean}, batch.Field{Name: "raw", Type: batch.Bytes}, batch.Field{Name: "at", Type: batch.Timestamp})
}

// row sets a row of values in the schema's order; nil is null.
func row(bl *batch.Builder, values ...any) {
	for i, v := range values {
		switch v := v.(type) {
		case string:
			bl.SetString(i, v)
		case int:
			bl.SetInt(i, int64(v))
		case int64:
			bl.SetInt(i, v)
		case float64:
			bl.SetDouble(i, v)
		case bool:
			bl.SetBool(i, v)
		case []byte:
			bl.SetBytes(i, v)
		}
	}
	bl.EndRow(0)
}

func sample() *batch.Batch {
	bl := batch.NewBuilder(batch.NewPool(0, nil), everything())
	row(bl, "a", 7, 21.5, true, []byte("hi!"), int64(1750000000123456))
	row(bl)
	row(bl, "", -1, math.NaN(), false, []byte{}, -1)
	row(bl, "é \"q\", \\ \n\t\x01\xff", int64(math.MinInt64), math.Inf(-1), nil, []byte{0}, int64(-62167219200000001))
	row(bl, " x", int64(math.MaxInt64), 1e21, nil, []byte{255, 255}, int64(253402300800000000))
	row(bl, "e", 0, 1e-7, nil, nil, 1000)
	row(bl, "-0", 0, math.Copysign(0, -1), nil, nil, -1500)
	return bl.Take()
}

func TestWhatIsWritten(t *testing.T) {
	b := sample()
	for _, c := range []struct {
		name string
		e    *Encoder
		want []string
	}{
		{"json", NewJSON(b.Schema, Options{}), []string{
			`{"id":"a","n":7,"x":21.5,"ok":true,"raw":"aGkh","at":"2025-06-15T15:06:40.123456Z"}`,
			`{"id":null,"n":null,"x":null,"ok":null,"raw":null,"at":null}`,
			`{"id":"","n":-1,"x":null,"ok":false,"raw":"","at":"1969-12-31T23:59:59.999999Z"}`,
			`{"id":"é \"q\", \\ \n\t\u0001` + "\ufffd" + `","n":-9223372036854775808,"x":null,"ok":null,"raw":"AA==","at":"-000001-12-31T23:59:59.999999Z"}`,
			`{"id":" x","n":9223372036854775807,"x":1e+21,"ok":null,"raw":"//8=","at":"+010000-01-01T00:00:00Z"}`,
			`{"id":"e","n":0,"x":1e-7,"ok":null,"raw":null,"at":"1970-01-01T00:00:00.001Z"}`,
			`{"id":"-0","n":0,"x":-0,"ok":null,"raw":null,"at":"1969-12-31T23:59:59.9985Z"}`,
		}},
		{"csv", NewCSV(b.Schema, Options{Timestamps: Milliseconds}), []string{
			"id,n,x,ok,raw,at",
			"a,7,21.5,true,aGkh,1750000000123.456",
			",,,,,",
			`"",-1,,false,"",-0.001`,
			"\"é \"\"q\"\", \\ \n\t\x01\xff\",-9223372036854775808,,,AA==,-62167219200000.001",
			`" x",9223372036854775807,1e+21,,//8=,253402300800000`,
			"e,0,1e-7,,,1",
			"-0,0,-0,,,-1.5",
		}},
		{"us", NewJSON(b.Schema, Options{Timestamps: Microseconds}), []string{
			`{"id":"a","n":7,"x":21.5,"ok":true,"raw":"aGkh","at":1750000000123456}`,
		}},
	} {
		got := string(c.e.Append(c.e.AppendHeader(nil), b))
		want := strings.Join(c.want, "\n") + "\n"
		if len(c.want) == 1 {
			got = got[:min(len(want), len(got))]
		}
		if got != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
	}
}

func TestOnlyRowsThatAreThere(t *testing.T) {
	b := sample()
	b.Sel = append(b.OwnSel(2), 0, 5)
	e := NewJSON(b.Schema, Options{})
	want := string(e.AppendRow(nil, b, 0)) + "\n" + string(e.AppendRow(nil, b, 5)) + "\n"
	if got := string(e.Append([]byte("before "), b)); got != "before "+want {
		t.Errorf("%s, want %s", got, want)
	}
	b.Sel = b.Sel[:0]
	if got := e.Append(nil, b); len(got) != 0 {
		t.Errorf("no rows, but %s", got)
	}
}

func TestEmptyRecordIsNoEmptyLine(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "a,b", Type: batch.Bigint})
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	row(bl)
	e := NewCSV(s, Options{})
	if got := string(e.Append(e.AppendHeader(nil), bl.Take())); got != "\"a,b\"\n\"\"\n" {
		t.Errorf("%q", got)
	}
	if got := string(appendCSVField(nil, []byte("\ufeffx"))); got != "\"\ufeffx\"" {
		t.Errorf("%q would lose its beginning to a reader that drops a byte order mark", got)
	}
}

// texts draws strings that are hard on quoting.
func texts() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.StringOfN(rapid.SampledFrom([]rune(",\"\r\n\\ \tax\ufeff\u2028é")), 0, 30, -1))
}

func instants() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64Range(math.MinInt64+1, math.MaxInt64-1), rapid.Int64Range(-1e6, 1e6), rapid.Int64Range(-70000000000000000, 260000000000000000))
}

// drawRow draws one row; nil is null.
func drawRow(t *rapid.T) []any {
	maybe := func(v any) any {
		if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
			return nil
		}
		return v
	}
	double := rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Uint64(), math.Float64frombits), rapid.Map(rapid.IntRange(-9999, 9999), func(i int) float64 { return float64(i) / 100 }))
	return []any{maybe(texts().Draw(t, "id")), maybe(rapid.Int64().Draw(t, "n")), maybe(double.Draw(t, "x")),
		maybe(rapid.Bool().Draw(t, "ok")), maybe(rapid.SliceOf(rapid.Byte()).Draw(t, "raw")), maybe(instants().Draw(t, "at"))}
}

// TestRoundTrip: what is written reads back as it was, but that a double which
// is no number is null, and that what is not UTF-8 is U+FFFD in JSON.
func TestRoundTrip(t *testing.T) {
	s := everything()
	pool := batch.NewPool(0, nil)
	rapid.Check(t, func(t *rapid.T) {
		format := rapid.SampledFrom([]decode.Format{decode.JSON, decode.CSV}).Draw(t, "format")
		times := rapid.SampledFrom([]Times{RFC3339, Milliseconds, Microseconds}).Draw(t, "times")
		bl, want := batch.NewBuilder(pool, s), batch.NewBuilder(pool, s)
		for range rapid.IntRange(1, 5).Draw(t, "rows") {
			r := drawRow(t)
			row(bl, r...)
			if x, ok := r[2].(float64); ok && x-x != 0 {
				r[2] = nil
			}
			if id, ok := r[0].(string); ok && format == decode.JSON {
				r[0] = strings.ToValidUTF8(string([]rune(id)), "")
			}
			row(want, r...)
		}
		e := NewJSON(s, Options{Timestamps: times})
		if format == decode.CSV {
			e = NewCSV(s, Options{Timestamps: times})
		}
		stream := e.Append(nil, bl.Take())
		got := decodeAll(t, s, format, times, stream)
		w := want.Take()
		if !equal(got, w) {
			t.Fatalf("%s\n does not read back as\n%s", stream, NewJSON(s, Options{}).Append(nil, w))
		}
	})
}

func decodeAll(t *rapid.T, s *batch.Schema, format decode.Format, times Times, stream []byte) *batch.Batch {
	spec := decode.Spec{Format: format}
	for _, f := range s.Fields() {
		unit := map[Times]decode.Unit{RFC3339: decode.RFC3339, Milliseconds: decode.Milliseconds, Microseconds: decode.Microseconds}[times]
		spec.Fields = append(spec.Fields, decode.Field{Name: f.Name, Type: f.Type, Topic: -1, Unit: unit})
		if format == decode.CSV {
			spec.Columns = append(spec.Columns, f.Name)
		}
	}
	d, err := decode.New(spec, s)
	if err != nil {
		t.Fatal(err)
	}
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	split := decode.NewSplitter(format)
	for {
		n, rec, ok := split.NextRecord(stream, true)
		if !ok {
			return bl.Take()
		}
		if format == decode.JSON && !json.Valid(rec) {
			t.Fatalf("not JSON: %s", rec)
		}
		if _, err := d.Decode(nil, rec, bl); err != nil {
			t.Fatalf("%q: %v", rec, err)
		}
		stream = stream[n:]
	}
}

func equal(a, b *batch.Batch) bool {
	if a == nil || a.Check() != nil || a.Rows != b.Rows {
		return false
	}
	for c := range a.Cols {
		for i := range a.Rows {
			x, y := a.Cols[c], b.Cols[c]
			if x.IsNull(i) != y.IsNull(i) {
				return false
			}
			if x.IsNull(i) {
				continue
			}
			same := false
			switch x.Type {
			case batch.Boolean:
				same = x.Bits.Get(i) == y.Bits.Get(i)
			case batch.Double:
				same = math.Float64bits(x.Doubles[i]) == math.Float64bits(y.Doubles[i])
			case batch.String, batch.Bytes:
				same = bytes.Equal(x.At(i), y.At(i))
			default:
				same = x.Ints[i] == y.Ints[i]
			}
			if !same {
				return false
			}
		}
	}
	return true
}

// TestValuesAreTheLibrarys: doubles as encoding/json writes them, times as
// package time does within RFC 3339's years.
func TestValuesAreTheLibrarys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Uint64(), math.Float64frombits)).Draw(t, "x")
		if x-x == 0 {
			want, err := json.Marshal(x)
			if got := appendDouble(nil, x); err != nil || string(got) != string(want) {
				t.Fatalf("%s, want %s", got, want)
			}
		}
		at := rapid.Int64Range(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()-1).Draw(t, "at")
		if got, want := string(appendInstant(nil, at)), time.UnixMicro(at).UTC().Format(time.RFC3339Nano); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		s := texts().Draw(t, "s")
		var back string
		if err := json.Unmarshal(appendJSONString(nil, []byte(s)), &back); err != nil || back != string([]rune(s)) || !utf8.ValidString(back) {
			t.Fatalf("%q: %q %v", s, back, err)
		}
	})
}

func TestNothingIsAllocated(t *testing.T) {
	b := sample()
	dst := make([]byte, 0, 1<<16)
	for _, e := range []*Encoder{NewJSON(b.Schema, Options{}), NewCSV(b.Schema, Options{Timestamps: Milliseconds})} {
		if n := testing.AllocsPerRun(100, func() { e.Append(e.AppendHeader(dst), b) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkRow(b *testing.B) {
	s := everything()
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	for i := range batch.MaxRows {
		row(bl, "sensor-"+strconv.Itoa(i%1000), i, float64(i)/100, true, nil, int64(1750000000000000+1000*int64(i)))
	}
	rows := bl.Take()
	for name, e := range map[string]*Encoder{"json": NewJSON(s, Options{}), "csv": NewCSV(s, Options{})} {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, 256)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				dst = e.AppendRow(dst[:0], rows, i%batch.MaxRows)
				i++
			}
			b.SetBytes(int64(len(dst)))
		})
	}
}
