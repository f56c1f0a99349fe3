package batch_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
)

// examples are the batches of docs/BATCH_FORMAT.md, by the name after the
// fence: ```hex NAME.
func examples(t optest.TB, p *batch.Pool) map[string]*batch.Batch {
	one := func(s *batch.Schema, text string) *batch.Batch {
		return optest.MustParse(t, s, text).Batches(p, batch.MaxRows)[0]
	}
	marks := batch.MustSchema(batch.Field{Name: "temp", Type: batch.Double})
	fields := []batch.Field{{Name: "temp", Type: batch.Double}, {Name: "n", Type: batch.Bigint}}
	all := one(allTypes(), `door@1000 n=-2 d=8.5 f=true y="\x00\xff" t=7; wm 999 arrival 2000; -D @1001 s=null n=1; wm 1000 arrival 2000 idle`)
	copy(all.OwnHashes(2), []uint64{0x1122334455667788, 1})
	plain := one(batch.MustSchema(fields...), `@1000 temp=8.5 n=1; @1001 temp=-1 n=2`)
	return map[string]*batch.Batch{
		"plain": plain,
		"all":   all,
		"end":   one(marks, `end`),
	}
}

// golden reads the blocks of the document: bytes in hex, comments after #.
func golden(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("../../docs/BATCH_FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string][]byte)
	name := ""
	for _, line := range strings.Split(string(text), "\n") {
		switch rest, fence := strings.CutPrefix(line, "```"); {
		case fence && name == "":
			name, _ = strings.CutPrefix(rest, "hex ")
		case fence:
			name = ""
		case name != "":
			digits, _, _ := strings.Cut(line, "#")
			b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
			if err != nil {
				t.Fatalf("block %q: %q: %v", name, line, err)
			}
			blocks[name] = append(blocks[name], b...)
		}
	}
	return blocks
}

func TestGoldenBytesOfTheDocument(t *testing.T) {
	p := poisoned()
	blocks := golden(t)
	for name, b := range examples(t, p) {
		want, ok := blocks[name]
		if !ok {
			t.Errorf("docs/BATCH_FORMAT.md has no example %q", name)
		}
		got := batch.Encode(nil, b)
		if string(got) != string(want) {
			t.Errorf("%s: encoded as\n%s\nthe document says\n%s", name, hex.Dump(got), hex.Dump(want))
			continue
		}
		d, err := batch.Decode(p, b.Schema, want)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		mustCheck(t, d)
		if flat(d) != flat(b) {
			t.Errorf("%s: decoded as\n%s\nwant\n%s", name, flat(d), flat(b))
		}
		sameHashes(t, d.Hashes, b.Hashes)
		d.Release()
		b.Release()
		delete(blocks, name)
	}
	for name := range blocks {
		t.Errorf("docs/BATCH_FORMAT.md has an example %q that no test knows", name)
	}
	noneOut(t, p)
}

func TestWireRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := poisoned()
		b := drawBatch(t, p, allTypes())
		prefix := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "prefix")
		enc := batch.Encode(append([]byte(nil), prefix...), b)
		if string(enc[:len(prefix)]) != string(prefix) {
			t.Fatal("Encode changed what was there before")
		}
		enc = enc[len(prefix):]
		d, err := batch.Decode(p, b.Schema, enc)
		if err != nil {
			t.Fatal(err)
		}
		for i := range enc {
			enc[i] = 0xaa // the batch must not refer to it
		}
		mustCheck(t, d)
		if got, want := flat(d), flat(b); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		sameHashes(t, hashesOf(d), hashesOf(b))
		if d.Sel != nil || d.Rows != b.Len() {
			t.Fatalf("%d positions for %d rows", d.Rows, b.Len())
		}
		d.Release()
		b.Release()
		noneOut(t, p)
	})
}

// TestDecodeRefuses: each damage has its words, and nothing is leaked.
func TestDecodeRefuses(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "s", Type: batch.String}, batch.Field{Name: "f", Type: batch.Boolean})
	p := poisoned()
	good := func() []byte {
		b := optest.MustParse(t, s, `ab@1 f=true; wm 1; c@2 f=false; wm 2`).Batches(p, 9)[0]
		defer b.Release()
		return batch.Encode(nil, b)
	}
	// 0 version, 1 flags, 2 rows, 3 marks, 4.. marks
	whole := good()
	min := uint64(1) << 63
	mark := func(row, wm uint64) []byte {
		m := binary.AppendUvarint(nil, row<<1)
		m = binary.AppendUvarint(m, wm)
		return binary.AppendUvarint(m, 0)
	}
	with := func(parts ...[]byte) []byte {
		var out []byte
		for _, x := range parts {
			out = append(out, x...)
		}
		return out
	}
	cases := []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "too short"},
		{"version", with([]byte{2}, whole[1:]), "version 2, this program reads version 1"},
		{"flags", with([]byte{1, 4}, whole[2:]), "unknown flags"},
		{"rows", []byte{1, 0, 0xff, 0x7f, 0}, "too many rows"},
		{"row count cut", []byte{1, 0, 0xff}, "bad number"},
		{"row count too long", []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "bad number"},
		{"marks", []byte{1, 0, 2, 200, 1}, "too many marks"},
		{"more marks than places", with([]byte{1, 0, 0, 2}, mark(0, 0), mark(0, 0)), "too many marks"},
		{"marks at one row", with([]byte{1, 0, 2, 2}, mark(1, 0), mark(0, 1)), "a mark out of place"},
		{"mark after the end", with([]byte{1, 0, 2, 1}, mark(3, 0)), "a mark out of place"},
		{"mark row huge", with([]byte{1, 0, 2, 1}, mark(1<<62, 0)), "a mark out of place"},
		{"mark past the end of time", with([]byte{1, 0, 2, 2}, mark(0, min), mark(1, min)), "past the end of time"},
		{"times", []byte{1, 0, 2, 0, 1, 2, 3}, "too short"},
		{"row kind", with([]byte{1, 1, 1, 0}, make([]byte, 8), []byte{4}), "unknown row kind"},
		{"columns", with([]byte{1, 0, 0, 0, 1}), "1 columns, the schema has 2"},
		{"type", with([]byte{1, 0, 0, 0, 2, 2, 1}), "column 0 is of bigint, the schema says string"},
		{"left over", with(whole, []byte{0}), "bytes left over"},
		{"bits after the last row", with(whole[:len(whole)-1], []byte{0x80}), "bits after the last row"},
	}
	for _, c := range cases {
		b, err := batch.Decode(p, s, c.data)
		if err == nil {
			b.Release()
		}
		if !errors.Is(err, batch.ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want ErrFormat with %q", c.name, err, c.want)
		}
	}
	for n := range whole {
		if b, err := batch.Decode(p, s, whole[:n]); err == nil {
			b.Release()
			t.Errorf("cut to %d of %d bytes: no error", n, len(whole))
		}
	}
	ends := []byte{2, 0, 0, 0, 3, 0, 0, 0}
	at := strings.Index(string(whole), string(ends))
	for _, bad := range [][]byte{{2, 0, 0, 0, 1, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {2, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f}} {
		data := with(whole[:at], bad, whole[at+8:])
		if b, err := batch.Decode(p, s, data); err == nil {
			b.Release()
			t.Errorf("value ends %x: no error", bad)
		}
	}
	back := []byte{1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4, 1, 0, 0, 0, 0, 0, 0, 0}
	only := batch.MustSchema(batch.Field{Name: "s", Type: batch.String})
	if _, err := batch.Decode(p, only, back); err == nil || !strings.Contains(err.Error(), "ends before it begins") {
		t.Errorf("value ends 1, 0: error %v", err)
	}
	noneOut(t, p)
}

// TestDecodeTakesNoMemoryOnTrust: a few bytes that claim much get little.
func TestDecodeTakesNoMemoryOnTrust(t *testing.T) {
	s := allTypes()
	data := append([]byte{1, 3}, binary.AppendUvarint(nil, batch.MaxRows)...)
	data = append(data, make([]byte, 64)...)
	var before, after runtime.MemStats
	p := batch.NewPool(0, nil)
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := batch.Decode(p, s, data); err == nil {
			t.Fatal("no error")
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > 4096 {
		t.Errorf("%d bytes allocated for an input of %d", n, len(data))
	}
}

func FuzzDecodeBatch(f *testing.F) {
	p := batch.NewPool(0, nil)
	for _, b := range examples(f, p) {
		f.Add(batch.Encode(nil, b))
	}
	schemas := []*batch.Schema{allTypes(),
		batch.MustSchema(batch.Field{Name: "temp", Type: batch.Double}, batch.Field{Name: "n", Type: batch.Bigint}),
		batch.MustSchema(batch.Field{Name: "temp", Type: batch.Double}), batch.MustSchema()}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range schemas {
			p := poisoned()
			b, err := batch.Decode(p, s, data)
			if err != nil {
				noneOut(t, p)
				continue
			}
			mustCheck(t, b)
			again := batch.Encode(nil, b)
			c, err := batch.Decode(p, s, again)
			if err != nil {
				t.Fatalf("what was decoded does not decode again: %v", err)
			}
			if flat(b) != flat(c) {
				t.Fatalf("got\n%s\nwant\n%s", flat(c), flat(b))
			}
			b.Release()
			c.Release()
			noneOut(t, p)
		}
	})
}

// benchBatch has 40 bytes a row: time, two doubles, a bigint, and a string of 4
// bytes with its offset.
func benchBatch(p *batch.Pool) *batch.Batch {
	s := batch.MustSchema(batch.Field{Name: "s", Type: batch.String}, batch.Field{Name: "a", Type: batch.Double},
		batch.Field{Name: "b", Type: batch.Double}, batch.Field{Name: "n", Type: batch.Bigint})
	bl := batch.NewBuilder(p, s)
	for i := range batch.MaxRows {
		bl.SetString(0, "s-01")
		bl.SetDouble(1, math.Sqrt(float64(i)))
		bl.SetDouble(2, float64(i))
		bl.SetInt(3, int64(i))
		bl.EndRow(dataflow.Time(i))
	}
	bl.Mark(batch.Mark{Watermark: 1, Arrival: 2})
	return bl.Take()
}

func perRow(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch.MaxRows, "ns/row")
}

func BenchmarkEncode40(b *testing.B) {
	p := batch.NewPool(0, nil)
	src := benchBatch(p)
	buf := batch.Encode(nil, src)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = batch.Encode(buf[:0], src)
	}
	perRow(b)
}

func BenchmarkDecode40(b *testing.B) {
	p := batch.NewPool(0, nil)
	src := benchBatch(p)
	buf := batch.Encode(nil, src)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := batch.Decode(p, src.Schema, buf)
		if err != nil {
			b.Fatal(err)
		}
		d.Release()
	}
	perRow(b)
}

func BenchmarkGather(b *testing.B) {
	p := batch.NewPool(0, nil)
	src := benchBatch(p)
	var at []int32
	for i := range batch.MaxRows {
		at = append(at, int32(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		src.Gather(at, nil).Release()
	}
	perRow(b)
}
