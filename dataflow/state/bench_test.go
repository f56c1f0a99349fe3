package state_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// million is a store with a record for each of a million keys.
func million(b *testing.B) (*state.Store, *state.Value, []int32) {
	const n = 1_000_000
	s := state.NewStore([]batch.Field{number("k")})
	v := s.Value("v", state.TTL{}, number("n"), batch.Field{Name: "sum", Type: batch.Double})
	if err := s.Open(batch.NewPool(0, nil), nil); err != nil {
		b.Fatal(err)
	}
	ids := make([]int32, n)
	c := &batch.Column{Type: batch.Bigint, Ints: make([]int64, 1)}
	for i := range ids {
		c.Ints[0] = int64(i)
		var h [1]uint64
		state.HashColumn(c, []int32{0}, h[:])
		s.Lookup([]*batch.Column{c}, []int32{0}, h[:], ids[i:i+1])
		s.SetKey(ids[i])
		v.SetInt(0, 1)
		s.Commit()
	}
	return s, v, ids
}

// BenchmarkSnapshot takes a million keys whole, and after one in a hundred has
// changed: how long a task stands still.
func BenchmarkSnapshot(b *testing.B) {
	s, v, ids := million(b)
	drop := func(int, *batch.Batch) error { return nil }
	for name, delta := range map[string]bool{"full": false, "delta": true} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				for i := 0; i < len(ids); i += 100 {
					s.SetKey(ids[i])
					v.SetInt(0, v.Int(0)+1)
					s.Commit()
				}
				b.StartTimer()
				if err := s.Snapshot(delta, drop); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkUpdate reads and writes two columns of a key's record, a run each.
func BenchmarkUpdate(b *testing.B) {
	s, v, ids := million(b)
	s.SetClock(0, dataflow.Time(1))
	b.ReportAllocs()
	k := 0
	for b.Loop() {
		k = (k + 7919) % len(ids)
		s.SetKey(ids[k])
		v.SetInt(0, v.Int(0)+1)
		v.SetDouble(1, v.Double(1)+1)
		s.Commit()
	}
}
