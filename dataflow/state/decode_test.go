package state

import (
	"bytes"
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// TestKeysOnDisk: a key is read back as it was, and keys are ordered as their
// values are.
func TestKeysOnDisk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawTypes(t)
		pool := batch.NewPool(0, nil)
		b := keyBatch(pool, s, 2, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "draw") })
		defer b.Release()
		if b == nil {
			return
		}
		cols := make([]*batch.Column, s.Len())
		for i, f := range s.Fields() {
			cols[i] = &batch.Column{Type: f.Type}
		}
		var keys [2][]byte
		for row := range keys {
			keys[row] = appendKey(nil, b.Cols, row)
			if err := decodeKey(keys[row], cols); err != nil {
				t.Fatal(err)
			}
			for i, c := range cols {
				if got, want := valueOf(c, 0), valueOf(b.Cols[i], row); got != want {
					t.Fatalf("column %d: %s, want %s", i, got, want)
				}
			}
		}
		if got, want := bytes.Compare(keys[0], keys[1]), compareRows(b); got != want {
			t.Fatalf("keys %x and %x: %d, want %d", keys[0], keys[1], got, want)
		}
	})
}

// compareRows orders the two rows of b by value; null comes first.
func compareRows(b *batch.Batch) int {
	for _, c := range b.Cols {
		o := 0
		switch x, y := !c.IsNull(0), !c.IsNull(1); {
		case !x || !y:
			o = int(oneIf(x) - oneIf(y))
		case c.Type == batch.Boolean:
			o = int(oneIf(c.Bits.Get(0)) - oneIf(c.Bits.Get(1)))
		case c.Type == batch.Double:
			x, y := DoubleBits(c.Doubles[0]), DoubleBits(c.Doubles[1])
			switch a, b := c.Doubles[0], c.Doubles[1]; {
			case x == y:
			case a != a || b != b: // NaN behind all others
				o = int(oneIf(a != a) - oneIf(b != b))
			case a < b:
				o = -1
			default:
				o = 1
			}
		case c.Type.Variable():
			o = bytes.Compare(c.At(0), c.At(1))
		default:
			o = cmp.Compare(c.Ints[0], c.Ints[1])
		}
		if o != 0 {
			return o
		}
	}
	return 0
}

// FuzzUnit: whatever bytes come back from the disk as a key and what it has,
// they are taken or refused, never more.
func FuzzUnit(f *testing.F) {
	make := func() (*Store, *cache) {
		s := NewStore([]batch.Field{{Name: "s", Type: batch.String}, {Name: "n", Type: batch.Double}, {Name: "b", Type: batch.Boolean}})
		s.Value("v", TTL{After: 10}, batch.Field{Name: "d", Type: batch.Double}, batch.Field{Name: "t", Type: batch.String})
		s.List("l", TTL{}, batch.Field{Name: "i", Type: batch.Bigint})
		s.Map("m", batch.Field{Name: "k", Type: batch.Bytes}, TTL{}, batch.Field{Name: "b", Type: batch.Boolean})
		s.OperatorList("o", false, batch.Field{Name: "i", Type: batch.Bigint})
		if err := s.Open(batch.NewPool(0, nil), nil); err != nil {
			f.Fatal(err)
		}
		s.cache = newCache(s, nil)
		return s, s.cache
	}
	s, c := make()
	b := keyBatch(s.pool, batch.MustSchema(s.key...), 1, func(int) int { return 1 })
	s.Lookup(b.Cols, []int32{0}, []uint64{hashOf(b.Cols)}, s.oneID[:])
	key := slices.Clone(c.keyOf(s.oneID[0]))
	s.SetKey(s.oneID[0])
	(&Value{cells: s.states[0]}).SetBytes(1, []byte("text"))
	(&List{cells: s.states[1]}).Add().SetInt(0, 7)
	(&Map{cells: s.states[2]}).PutBytes([]byte("key")).SetBool(0, true)
	s.Commit()
	c.encodeUnit(s.oneID[0])
	f.Add(key, slices.Clone(c.unit))
	f.Add([]byte{1, 0, 0xff, 0, 1, 0, 0}, []byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, key, unit []byte) {
		s, c := make()
		if c.load(key, unit) != nil {
			return
		}
		id := c.find(key)
		if id < 0 {
			t.Fatal("a key that was loaded is not found")
		}
		_, _ = c.encodeUnit(id)
		again := slices.Clone(c.unit)
		s2, c2 := make()
		if err := c2.load(c.keyOf(id), again); err != nil {
			t.Fatalf("%x is written as %x, which is refused: %v", unit, again, err)
		}
		_ = s2
		if c2.encodeUnit(0); !bytes.Equal(c2.unit, again) {
			t.Fatalf("%x is written as %x, and that as %x", unit, again, c2.unit)
		}
		_ = s
	})
}
