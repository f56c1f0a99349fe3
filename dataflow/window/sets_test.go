package window

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// TestSetsAmended takes values out of sets and puts others in, before what was
// taken out is closed: the sets are what maps are, and the index names each member
// once and nothing else.
func TestSetsAmended(t *testing.T) {
	const slots, values = 2, 300
	rapid.Check(t, func(t *rapid.T) {
		d := state.NewKeyTable([]batch.Type{batch.Bigint})
		col := &batch.Column{Type: batch.Bigint, Ints: make([]int64, values)}
		rows, ids, hashes := make([]int32, values), make([]int32, values), make([]uint64, values)
		for i := range rows {
			rows[i], col.Ints[i] = int32(i), int64(i)
		}
		state.HashColumn(col, rows, hashes)
		d.Lookup([]*batch.Column{col}, rows, hashes, ids)
		a := &distinctSets{dict: d}
		a.grow(slots)
		var model [slots]map[int32]bool
		for s := range model {
			model[s] = make(map[int32]bool)
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			s := int32(rapid.IntRange(0, slots-1).Draw(t, "slot"))
			if rapid.IntRange(0, 3).Draw(t, "clear") == 0 {
				a.clear(s)
				clear(model[s])
				continue
			}
			for range rapid.IntRange(1, 4).Draw(t, "runs") { // of one kind each, as a batch has them
				first, n := rapid.IntRange(0, values-1).Draw(t, "first"), rapid.IntRange(0, 80).Draw(t, "n")
				gone := rapid.Bool().Draw(t, "gone")
				for i := range n {
					v := ids[(first+i)%values]
					if gone {
						if a.remove(s, v) != model[s][v] {
							t.Fatalf("value %d of slot %d is removed: %v", v, s, !model[s][v])
						}
						delete(model[s], v)
						continue
					}
					if a.add(s, v) == model[s][v] {
						t.Fatalf("value %d of slot %d is new: %v", v, s, model[s][v])
					}
					model[s][v] = true
				}
			}
			a.close(s)
			checkSets(t, a, model[:])
		}
	})
}

func checkSets(t *rapid.T, a *distinctSets, model []map[int32]bool) {
	named, all := make(map[int32]bool), 0
	for _, m := range a.index {
		if m != 0 && named[m] {
			t.Fatalf("the index has member %d twice", m)
		}
		named[m] = true
	}
	delete(named, 0)
	for s, want := range model {
		n := 0
		for m := a.heads[s]; m != 0; m = a.members[m-1].next {
			if !named[m] || !want[a.members[m-1].value] {
				t.Fatalf("slot %d has member %d, value %d; in the index: %v", s, m, a.members[m-1].value, named[m])
			}
			n++
		}
		if n != len(want) || a.counts[s] != int64(n) {
			t.Fatalf("slot %d has %d members and counts %d, want %d", s, n, a.counts[s], len(want))
		}
		all += n
	}
	if len(named) != all || a.used != all {
		t.Fatalf("the index has %d members and counts %d, want %d", len(named), a.used, all)
	}
}
