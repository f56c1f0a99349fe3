package avro_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/store"
)

// drawRow sets a row of all types in a builder.
func drawRow(t *rapid.T, bl *batch.Builder) {
	for i, f := range bl.Schema().Fields() {
		if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
			continue
		}
		switch f.Type {
		case batch.Boolean:
			bl.SetBool(i, rapid.Bool().Draw(t, f.Name))
		case batch.Double:
			bl.SetDouble(i, rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1.5, math.NaN(), math.Inf(-1), math.MaxFloat64}).Draw(t, f.Name))
		case batch.String, batch.Bytes:
			bl.SetBytes(i, rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, f.Name))
		default:
			bl.SetInt(i, rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, -1, 63, 64, -64, -65})).Draw(t, f.Name))
		}
	}
	bl.EndRow(0)
}

// exact are all bits of a batch's rows.
func exact(b *batch.Batch) string {
	var s strings.Builder
	for k := range b.Len() {
		p := b.Position(k)
		if b.Hashes != nil {
			fmt.Fprintf(&s, "#%x ", b.Hashes[p])
		}
		if b.Kinds != nil && b.Kinds[p] == batch.Delete {
			s.WriteString("- ")
		}
		for _, c := range b.Cols {
			switch {
			case c.IsNull(p):
				s.WriteString("null ")
			case c.Type == batch.Boolean:
				fmt.Fprintf(&s, "%v ", c.Bits.Get(p))
			case c.Type == batch.Double:
				fmt.Fprintf(&s, "%x ", math.Float64bits(c.Doubles[p]))
			case c.Type.Variable():
				fmt.Fprintf(&s, "%q ", c.At(p))
			default:
				fmt.Fprintf(&s, "%d ", c.Ints[p])
			}
		}
		s.WriteByte('\n')
	}
	return s.String()
}

func readExact(t tb, p *batch.Pool, part []byte) (string, error) {
	rd, err := avro.NewReader(bytes.NewReader(part), p)
	if err != nil {
		return "", err
	}
	var s strings.Builder
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
		s.WriteString(exact(b))
		b.Release()
	}
}

// TestEveryBitComesBack: values, nulls, hashes and kinds, whatever the
// selection; and the bytes do not depend on how rows come in batches.
func TestEveryBitComesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := batch.NewPool(0, nil)
		p.PoisonReleased()
		h := avro.Header{Table: "t", Schema: allTypes(), Keyed: rapid.Bool().Draw(rt, "keyed"), Delta: rapid.Bool().Draw(rt, "delta")}
		bl := batch.NewBuilder(p, h.Schema)
		n := rapid.IntRange(0, 30).Draw(rt, "rows")
		for range n {
			drawRow(rt, bl)
		}
		b := bl.Take()
		if b == nil {
			b = p.MarksOnly(h.Schema, batch.Mark{})
		}
		for i := range b.OwnHashes(n) {
			b.Hashes[i] = rapid.Uint64().Draw(rt, "hash")
		}
		for i := range b.OwnKinds(n) {
			b.Kinds[i] = batch.Insert
			if h.Delta && rapid.Bool().Draw(rt, "removed") {
				b.Kinds[i] = batch.Delete
			}
		}
		if !h.Keyed {
			b.Hashes = nil
		}
		if rapid.Bool().Draw(rt, "selected") {
			sel := b.OwnSel(n)
			for i := range n {
				if rapid.Bool().Draw(rt, "there") {
					sel = append(sel, int32(i))
				}
			}
			b.Sel = sel
		}
		one := write(t, h, b)
		got, err := readExact(t, p, one)
		if want := exact(b); err != nil || got != want {
			rt.Fatalf("%v, got\n%s\nwant\n%s", err, got, want)
		}
		var pieces []*batch.Batch
		for k := 0; k < b.Len(); {
			end := min(b.Len(), k+rapid.IntRange(1, 9).Draw(rt, "piece"))
			d := p.DeriveAll(b)
			d.Sel = d.OwnSel(n)
			for ; k < end; k++ {
				d.Sel = append(d.Sel, int32(b.Position(k)))
			}
			pieces = append(pieces, d)
		}
		if other := write(t, h, pieces...); !bytes.Equal(one, other) {
			rt.Fatal("the bytes depend on the batches")
		}
		for _, d := range append(pieces, b) {
			d.Release()
		}
		if p.Out() != 0 {
			rt.Fatalf("%d batches out", p.Out())
		}
	})
}

// many is a part of n rows with strings of size bytes.
func many(t tb, p *batch.Pool, n, size, cut int) []byte {
	s := batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint}, batch.Field{Name: "s", Type: batch.String})
	var out bytes.Buffer
	w := avro.NewWriter(&out, avro.Header{Table: "t", Schema: s})
	bl := batch.NewBuilder(p, s)
	flush := func() {
		if b := bl.Take(); b != nil {
			if err := w.Append(b); err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
	}
	text := strings.Repeat("x", size)
	for i := range n {
		bl.SetInt(0, int64(i))
		bl.SetString(1, text)
		bl.EndRow(0)
		if bl.Len() == cut {
			flush()
		}
	}
	flush()
	if err := w.Close(); err != nil || w.Rows() != int64(n) {
		t.Fatalf("%d rows, %v", w.Rows(), err)
	}
	return out.Bytes()
}

// TestBlocksDoNotFollowBatches: blocks end after 4096 rows or a mebibyte.
func TestBlocksDoNotFollowBatches(t *testing.T) {
	p := batch.NewPool(0, nil)
	for _, c := range []struct{ rows, size int }{{10_000, 3}, {8192, 1}, {4096, 0}, {1, 0}, {0, 0}, {50, 100_000}, {3, 3 << 20}} {
		want := many(t, p, c.rows, c.size, 4096)
		for _, cut := range []int{1000, 4095, 7} {
			if !bytes.Equal(want, many(t, p, c.rows, c.size, cut)) {
				t.Errorf("%v: batches of %d rows make other bytes", c, cut)
			}
		}
		rd, err := avro.NewReader(iotest.HalfReader(bytes.NewReader(want)), p)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			b, err := rd.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range b.Rows {
				if b.Cols[0].Ints[i] != int64(n) || len(b.Cols[1].At(i)) != c.size {
					t.Fatalf("row %d is %d, %d bytes", n, b.Cols[0].Ints[i], len(b.Cols[1].At(i)))
				}
				n++
			}
			b.Release()
		}
		if n != c.rows {
			t.Errorf("%d rows of %d", n, c.rows)
		}
	}
	if p.Out() != 0 {
		t.Errorf("%d batches out", p.Out())
	}
}

func TestWriterRefuses(t *testing.T) {
	p := batch.NewPool(0, nil)
	s := batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})
	b := optest.MustParse(t, s, `@0 n=1; -D @0 n=2`).Batches(p, 9)[0]
	cases := map[string]struct {
		h    avro.Header
		want string
	}{
		"no hashes":           {avro.Header{Table: "t", Schema: s, Keyed: true, Delta: true}, "no hashes"},
		"removed in a whole":  {avro.Header{Table: "t", Schema: s}, "removed row"},
		"of another schema":   {avro.Header{Table: "t", Schema: allTypes()}, "the batch is"},
		"after it was closed": {avro.Header{Table: "t", Schema: s, Delta: true}, "closed"},
	}
	for name, c := range cases {
		w := avro.NewWriter(io.Discard, c.h)
		if strings.HasPrefix(name, "after") {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Append(b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	b.Sel = append(b.OwnSel(1), 0) // the removed row is not there
	if err := avro.NewWriter(io.Discard, avro.Header{Table: "t", Schema: s}).Append(b); err != nil {
		t.Errorf("a removed row that the selection leaves out: %v", err)
	}
	mine := errors.New("mine")
	w := avro.NewWriter(errWriter{mine}, avro.Header{Table: "t", Schema: s})
	if err := w.Close(); err != mine {
		t.Errorf("error %v of the writer below", err)
	}
}

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }

// TestDamage: every change of a byte and every end too early is an error or, as
// parts are verified by digest elsewhere, other rows; never a panic.
func TestDamage(t *testing.T) {
	p := batch.NewPool(0, nil)
	b := optest.MustParse(t, allTypes(), `a@0 n=-2 d=8.5 f=true y="\x00\xff" t=7; @0 s=null n=1`).Batches(p, 9)[0]
	part := write(t, avro.Header{Table: "t", Schema: allTypes()}, b)
	for n := range part {
		if n == headerLen(part) {
			continue // a part without rows ends here: its size and digest tell
		}
		if _, err := readExact(t, p, part[:n]); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("cut to %d of %d bytes: error %v", n, len(part), err)
		}
	}
	last := bytes.Clone(part)
	last[len(last)-1] ^= 1
	if _, err := readExact(t, p, last); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a block that ends with another marker: error %v", err)
	}
	refused := 0
	for i := range part {
		for _, x := range []byte{1, 0x80, 0xff} {
			spoilt := bytes.Clone(part)
			spoilt[i] ^= x
			if _, err := readExact(t, p, spoilt); err != nil {
				refused++
			}
		}
	}
	if refused < len(part) {
		t.Errorf("%d of %d damages found", refused, 3*len(part))
	}
	b.Release()
	if p.Out() != 0 {
		t.Errorf("%d batches out", p.Out())
	}
	mine := errors.New("mine")
	rd, err := avro.NewReader(io.MultiReader(bytes.NewReader(part), iotest.ErrReader(mine)), p)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := rd.Next(); err != nil || b.Rows != 2 {
		t.Fatal(err)
	}
	if _, err := rd.Next(); !errors.Is(err, mine) {
		t.Errorf("error %v, want that of the reader below: it verifies the digest", err)
	}
}

// headerLen is where the first block begins: the sync marker is also the end.
func headerLen(part []byte) int { return bytes.Index(part, part[len(part)-16:]) + 16 }

func TestRows(t *testing.T) {
	p := batch.NewPool(0, nil)
	s := batch.MustSchema(batch.Field{Name: "a b", Type: batch.String}, batch.Field{Name: "t", Type: batch.Timestamp})
	for _, c := range []struct {
		h          avro.Header
		rows, want string
	}{
		{avro.Header{Table: "t", Schema: s, Delta: true}, `x@0 t=1000; -D y@0`, `{"a b":"x","t":"1970-01-01T00:00:00.001Z"}
{"row_kind":"delete","a b":"y","t":null}
`},
		{avro.Header{Table: "t", Schema: batch.MustSchema(), Delta: true}, `@0; -D @0`, "{}\n{\"row_kind\":\"delete\"}\n"},
	} {
		part := write(t, c.h, optest.MustParse(t, c.h.Schema, c.rows).Batches(p, 9)...)
		rd, err := avro.NewReader(bytes.NewReader(part), p)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if n, err := avro.Rows(&out, rd); err != nil || n != 2 || out.String() != c.want {
			t.Errorf("%d rows, %v:\n%s\nwant\n%s", n, err, out.String(), c.want)
		}
	}
}

func FuzzReader(f *testing.F) {
	p := batch.NewPool(0, nil)
	s := allTypes()
	b := optest.MustParse(f, s, `a@0 n=-2 d=8.5 f=true y="\x00\xff" t=7; -D @0 s=null n=1`).Batches(p, 9)[0]
	b.OwnHashes(2)
	reader := avro.SchemaOf("t", s, true)
	f.Add(write(f, avro.Header{Table: "t", Schema: s, Keyed: true, Delta: true}, b))
	f.Add(many(f, p, 5, 2, 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := batch.NewPool(0, nil)
		for _, resolve := range []bool{false, true} {
			rd, err := avro.NewReader(bytes.NewReader(data), p)
			if err != nil {
				return
			}
			if resolve && rd.ResolveTo(reader, nil) != nil {
				return
			}
			for {
				b, err := rd.Next()
				if err != nil {
					break
				}
				if err := b.Check(); err != nil {
					t.Fatal(err)
				}
				if b.Rows == 0 {
					t.Fatal("a batch without rows")
				}
				b.Release()
			}
			if p.Out() != 0 {
				t.Fatalf("%d batches out", p.Out())
			}
		}
	})
}

// TestLengthsAreNotTrusted: what a part claims takes no memory before its bytes
// are there.
func TestLengthsAreNotTrusted(t *testing.T) {
	p := batch.NewPool(0, nil)
	part := many(t, p, 5, 2, 3)
	head := bytes.Clone(part[:headerLen(part)])
	huge := []byte{0x80, 0x80, 0x80, 0x80, 0x02} // 2^28
	for name, spoilt := range map[string][]byte{
		"a block of 256 MiB":        append(append(bytes.Clone(head), 2), huge...),
		"2^28 rows in few bytes":    append(append(bytes.Clone(head), huge...), 8, 0, 0, 0, 0),
		"a header of 2^28 entries":  append([]byte("Obj\x01"), huge...),
		"a header of a huge string": append(append([]byte("Obj\x01"), 2), huge...),
		"a huge string in a row":    append(append(bytes.Clone(head), 2, 16, 2, 2, 2), huge...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readExact(t, p, spoilt)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%s: took %d bytes", name, n)
		}
	}
}
