package state

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/xxh3"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// keyBatch builds a batch of rows of mixed keys: short, of just a word, of just
// a cell, long, empty, null, zeros and NaNs of several kinds.
func keyBatch(p *batch.Pool, s *batch.Schema, n int, draw func(int) int) *batch.Batch {
	bl := batch.NewBuilder(p, s)
	texts := []string{"", "a", "ab", "abc", "abcd", "abcdefg", "abcdefgh", "abcdefghi", "abcdefgh-ijklmno", "abcdefgh-ijklmnop", "abcdefgh-ijXXmnop", "abcdefgh-and-a-rather-long-ending", "\x00", "\x00\x00"}
	doubles := []float64{0, math.Copysign(0, -1), math.NaN(), math.Float64frombits(0x7ff8000000000099), math.Inf(1), 1.5, -1.5}
	for range n {
		for i, f := range s.Fields() {
			if draw(6) == 0 {
				continue
			}
			switch f.Type {
			case batch.Boolean:
				bl.SetBool(i, draw(2) == 0)
			case batch.Bigint, batch.Timestamp:
				bl.SetInt(i, int64(draw(5)-2)*math.MaxInt64/2)
			case batch.Double:
				bl.SetDouble(i, doubles[draw(len(doubles))])
			default:
				bl.SetString(i, texts[draw(len(texts))])
			}
		}
		bl.EndRow(0)
	}
	return bl.Take()
}

// valueOf is a key part as the table must tell it apart.
func valueOf(c *batch.Column, p int) string {
	if c.IsNull(p) {
		return "null"
	}
	switch c.Type {
	case batch.Boolean:
		return fmt.Sprint(c.Bits.Get(p))
	case batch.Bigint, batch.Timestamp:
		return fmt.Sprint(c.Ints[p])
	case batch.Double:
		return fmt.Sprintf("%x", DoubleBits(c.Doubles[p]))
	}
	return fmt.Sprintf("%q", c.At(p))
}

func drawTypes(t *rapid.T) *batch.Schema {
	var f []batch.Field
	for i, typ := range rapid.SliceOfN(rapid.SampledFrom(batch.Types()), 0, 3).Draw(t, "types") {
		f = append(f, batch.Field{Name: fmt.Sprint(i), Type: typ})
	}
	return batch.MustSchema(f...)
}

// TestHashRows: the hashes of a batch that is not one's own are those that an
// exchange gives, row by row; the key without columns has the hash of no bytes.
func TestHashRows(t *testing.T) {
	if h := xxh3.Hash(nil); h != emptyHash {
		t.Fatalf("hash of nothing is %x", h)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := drawTypes(t)
		p := batch.NewPool(0, nil)
		b := keyBatch(p, s, 20, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "value") })
		keys := make([]int, s.Len())
		for i := range keys {
			keys[i] = i
		}
		positions := []int32{3, 4, 5, 9, 19}
		got, again := make([]uint64, 5), make([]uint64, 5)
		HashRows(b, keys, positions, got)
		if b.Hashes != nil {
			t.Fatal("HashRows wrote to the batch")
		}
		HashKeys(b, keys)
		HashRows(b, keys, positions, again)
		for i, r := range positions {
			if got[i] != b.Hashes[r] || again[i] != b.Hashes[r] {
				t.Fatalf("row %d of (%v): %x and %x, want %x", r, s, got[i], again[i], b.Hashes[r])
			}
		}
	})
}

// TestKeyTable compares the table with a map: ids are stable while held, equal
// for equal keys only, and give back the values; what is not held goes.
func TestKeyTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawTypes(t)
		keys := make([]int, s.Len())
		var types []batch.Type
		for i := range keys {
			keys[i] = i
			types = append(types, s.Field(i).Type)
		}
		p := batch.NewPool(0, nil)
		table := NewKeyTable(types)
		collide := len(types) > 0 && rapid.Bool().Draw(t, "collide")
		held := map[string]int32{}
		var order []string
		for range rapid.IntRange(1, 6).Draw(t, "rounds") {
			n := rapid.IntRange(1, 60).Draw(t, "rows")
			b := keyBatch(p, s, n, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "value") })
			var positions []int32
			for r := range n {
				if rapid.IntRange(0, 3).Draw(t, "take") > 0 {
					positions = append(positions, int32(r))
				}
			}
			hashes, ids := make([]uint64, len(positions)), make([]int32, len(positions))
			HashRows(b, keys, positions, hashes)
			for i := range hashes {
				if collide { // many keys of one hash
					hashes[i] = hashes[i] % 3 << 32
				}
			}
			table.Lookup(b.Cols, positions, hashes, ids)
			for i, r := range positions {
				k := ""
				for c := range keys {
					k += valueOf(b.Cols[c], int(r)) + "|"
				}
				id, known := held[k]
				if !known {
					for o, other := range held {
						if other == ids[i] {
							t.Fatalf("%s has the id of %s", k, o)
						}
					}
					held[k] = ids[i]
					order = append(order, k)
					table.Hold(ids[i])
				} else if id != ids[i] {
					t.Fatalf("%s: id %d, was %d", k, ids[i], id)
				}
				if table.Hash(ids[i]) != hashes[i] {
					t.Fatalf("%s: hash %x, want %x", k, table.Hash(ids[i]), hashes[i])
				}
			}
			if table.Len() != len(held) {
				t.Fatalf("%d keys, want %d", table.Len(), len(held))
			}
			checkGather(t, table, s, held)
			for len(order) > 0 && rapid.Bool().Draw(t, "drop") {
				table.Drop(held[order[0]])
				delete(held, order[0])
				order = order[1:]
			}
			table.sweep(nil)
		}
	})
}

func checkGather(t *rapid.T, table *KeyTable, s *batch.Schema, held map[string]int32) {
	for k, id := range held {
		got := ""
		for c, f := range s.Fields() {
			col := &batch.Column{Type: f.Type}
			col.Resize(0)
			table.Gather(c, []int32{id, id}, col, 0)
			if valueOf(col, 0) != valueOf(col, 1) {
				t.Fatalf("two values of one id: %s and %s", valueOf(col, 0), valueOf(col, 1))
			}
			got += valueOf(col, 1) + "|"
		}
		if got != k {
			t.Fatalf("id %d gives %s, want %s", id, got, k)
		}
	}
}

var oneString = batch.MustSchema(batch.Field{Name: "k", Type: batch.String})

func numbered(p *batch.Pool, from, n int) *batch.Batch {
	bl := batch.NewBuilder(p, oneString)
	for i := range n {
		bl.SetString(0, fmt.Sprintf("a key of some length %d", from+i))
		bl.EndRow(0)
	}
	b := bl.Take()
	HashKeys(b, []int{0})
	return b
}

// TestKeyTableForgets: keys that come once and go leave no memory behind, and a
// table that was large becomes small again.
func TestKeyTableForgets(t *testing.T) {
	p := batch.NewPool(0, nil)
	table := NewKeyTable([]batch.Type{batch.String})
	ids, positions := make([]int32, 4000), make([]int32, 4000)
	for i := range positions {
		positions[i] = int32(i)
	}
	most := int64(0)
	for round := range 100 {
		b := numbered(p, round*4000, 4000)
		table.Lookup(b.Cols, positions, b.Hashes, ids)
		table.HoldAll(ids)
		table.Sweep()
		table.DropAll(ids)
		b.Release()
		most = max(most, table.Bytes())
		if table.Len() != 0 {
			t.Fatalf("%d keys live", table.Len())
		}
	}
	if table.Cap() > 24000 || most > 4<<20 {
		t.Errorf("400,000 keys, 4,000 at a time: %d ids, %d bytes", table.Cap(), most)
	}
	if !table.Sweep() || table.Bytes() > 64<<10 {
		t.Errorf("%d bytes for no key", table.Bytes())
	}
}

func TestKeyTableAllocatesNothing(t *testing.T) {
	p := batch.NewPool(0, nil)
	table := NewKeyTable([]batch.Type{batch.String})
	b := numbered(p, 0, 1000)
	ids, positions, hashes := make([]int32, 1000), make([]int32, 1000), make([]uint64, 1000)
	for i := range positions {
		positions[i] = int32(i)
	}
	table.Lookup(b.Cols, positions, b.Hashes, ids)
	b.Hashes = nil
	if n := testing.AllocsPerRun(100, func() {
		HashRows(b, []int{0}, positions, hashes)
		table.Lookup(b.Cols, positions, hashes, ids)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 10000, 1000000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := batch.NewPool(0, nil)
			table := NewKeyTable([]batch.Type{batch.String})
			r := rand.New(rand.NewPCG(1, 2))
			positions := make([]int32, batch.MaxRows)
			for i := range positions {
				positions[i] = int32(i)
			}
			ids := make([]int32, batch.MaxRows)
			var ring []*batch.Batch
			for range 256 {
				bl := batch.NewBuilder(p, oneString)
				for range batch.MaxRows {
					bl.SetString(0, fmt.Sprintf("sensor-%06d", r.IntN(n)))
					bl.EndRow(0)
				}
				ring = append(ring, bl.Take())
				HashKeys(ring[len(ring)-1], []int{0})
				table.Lookup(ring[len(ring)-1].Cols, positions, ring[len(ring)-1].Hashes, ids)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i*batch.MaxRows < b.N; i++ {
				table.Lookup(ring[i%256].Cols, positions, ring[i%256].Hashes, ids)
			}
		})
	}
}

// TestHashesOfEveryLength: what is written out here for speed is xxh3 all the
// same; the hash is part of the state format.
func TestHashesOfEveryLength(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "k", Type: batch.String})
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	text := make([]byte, 300)
	for i := range text {
		text[i] = byte(i*i*7 + 13)
	}
	for n := range text {
		bl.SetBytes(0, text[300-n:])
		bl.EndRow(0)
	}
	b := bl.Take()
	positions := make([]int32, b.Rows)
	for i := range positions {
		positions[i] = int32(b.Rows - 1 - i)
	}
	rows, column := make([]uint64, b.Rows), make([]uint64, b.Rows)
	HashRows(b, []int{0}, positions, rows)
	HashColumn(b.Cols[0], positions, column)
	HashKeys(b, []int{0})
	for n := range text {
		want := xxh3.Hash(text[300-n:])
		if b.Hashes[n] != want || rows[b.Rows-1-n] != want || column[b.Rows-1-n] != want {
			t.Errorf("the hash of %d bytes is not xxh3-64", n)
		}
	}
}

// TestKeyTableFar: a table too large for the caches gives ids as a small one
// does, also for keys whose bucket is full and for hashes that share a tag.
func TestKeyTableFar(t *testing.T) {
	const keys = 3 * far
	s := batch.MustSchema(batch.Field{Name: "k", Type: batch.String})
	r := rand.New(rand.NewPCG(1, 1))
	table := NewKeyTable([]batch.Type{batch.String})
	ids := make(map[string]int32)
	pool := batch.NewPool(0, nil)
	bl := batch.NewBuilder(pool, s)
	for range 40 {
		for range batch.MaxRows {
			bl.SetString(0, fmt.Sprintf("sensor-%d", r.IntN(keys)))
			bl.EndRow(0)
		}
		b := bl.Take()
		positions, hashes, got := make([]int32, b.Rows), make([]uint64, b.Rows), make([]int32, b.Rows)
		for i := range positions {
			positions[i] = int32(i)
		}
		HashRows(b, []int{0}, positions, hashes)
		for i, h := range hashes {
			hashes[i] = h &^ (0xff<<32 | 0xf) // crowded
		}
		table.Lookup(b.Cols, positions, hashes, got)
		for i, id := range got {
			k := string(b.Cols[0].At(i))
			if old, known := ids[k]; known && id != old || !known && int(id) != len(ids) {
				t.Fatalf("%s has id %d, was %d (%v) of %d", k, id, old, known, len(ids))
			}
			ids[k] = id
		}
		b.Release()
	}
	if len(ids) < keys/2 || table.Cap() != len(ids) {
		t.Errorf("%d keys, %d ids", len(ids), table.Cap())
	}
}

// TestHashesOfAColumnTravel: hashes that a batch brings for the key's column are
// taken, and those of another column are not.
func TestHashesOfAColumnTravel(t *testing.T) {
	pool := batch.NewPool(0, nil)
	s := batch.MustSchema(batch.Field{Name: "a", Type: batch.String}, batch.Field{Name: "b", Type: batch.String})
	bl := batch.NewBuilder(pool, s)
	for i := range 10 {
		bl.SetString(0, fmt.Sprint("a", i))
		bl.SetString(1, fmt.Sprint("b", i))
		bl.EndRow(0)
	}
	b := bl.Take()
	marks := []uint64{90, 91, 92, 93, 94, 95, 96, 97, 98, 99}
	b.HashedColumn, b.ColumnHashes = b.Cols[0], marks
	turned := batch.MustSchema(batch.Field{Name: "b", Type: batch.String}, batch.Field{Name: "a", Type: batch.String})
	d := pool.Derive(b, turned)
	d.Cols[0], d.Cols[1] = b.Cols[1], b.Cols[0]
	got := make([]uint64, 2)
	if HashRows(d, []int{1}, []int32{3, 7}, got); got[0] != 93 || got[1] != 97 {
		t.Errorf("hashes %v, though the column brought its own", got)
	}
	for _, keys := range [][]int{{0}, {0, 1}, {}} {
		if HashRows(d, keys, []int32{3, 7}, got); got[0] == 93 {
			t.Errorf("keys %v got the hashes of another column", keys)
		}
	}
	if HashKeys(d, []int{1}); &d.Hashes[0] != &marks[0] {
		t.Error("HashKeys computed again what the column brought")
	}
	d.Release()
	b.Release()
	if again := pool.Get(s); again.HashedColumn != nil || again.ColumnHashes != nil {
		t.Error("a batch that is used again still has hashes")
	}
}

// FindAll finds what Find finds, and changes nothing.
func TestFindAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, s := batch.NewPool(0, nil), drawTypes(t)
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
		keys := make([]int, s.Len())
		for i := range keys {
			keys[i] = i
		}
		var types []batch.Type
		for _, f := range s.Fields() {
			types = append(types, f.Type)
		}
		table := NewKeyTable(types)
		rows := func(n int) (*batch.Batch, []int32, []uint64) {
			b := keyBatch(p, s, n, draw)
			HashKeys(b, keys)
			at := make([]int32, n)
			for i := range at {
				at[i] = int32(i)
			}
			return b, at, b.Hashes
		}
		b, at, hashes := rows(20)
		table.Lookup(b.Cols, at[:draw(20)], hashes, make([]int32, 20))
		before, known := table.Cap(), false
		b, at, hashes = rows(20)
		ids := make([]int32, 20)
		any := table.FindAll(b.Cols, at, hashes, ids)
		for i, id := range ids {
			want := table.Find(b.Cols, i, hashes[i])
			if known = known || want >= 0; id != want {
				t.Fatalf("row %d: %d, want %d", i, id, want)
			}
		}
		if any != known || table.Cap() != before {
			t.Fatalf("any %t, %d keys of %d", any, table.Cap(), before)
		}
	})
}
