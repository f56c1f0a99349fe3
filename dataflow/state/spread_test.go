package state

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// A subtask has the keys of some key groups only, and those are told by bits of
// the same hash: its table must be as good as one with all keys.
func TestKeysOfAFewGroupsAreSpreadInTheTable(t *testing.T) {
	const most, groups = 4096, 128
	for _, parallelism := range []int{1, 2, 5, 128} {
		table := NewKeyTable([]batch.Type{batch.Bigint})
		c := &batch.Column{Type: batch.Bigint, Ints: []int64{0}}
		var hash [1]uint64
		var id [1]int32
		for table.Cap() < most {
			c.Ints[0]++
			HashColumn(c, []int32{0}, hash[:])
			if dataflow.SubtaskOf(dataflow.KeyGroupOf(hash[0], groups), parallelism, groups) == 0 {
				table.Lookup([]*batch.Column{c}, []int32{0}, hash[:], id[:])
			}
		}
		passed := 0 // entries between where the search begins and where the key is
		for at, e := range table.entries {
			if e.id > 0 {
				passed += int((uint32(at) - home(table.hashes[e.id-1], table.mask)) & table.mask)
			}
		}
		if mean := float64(passed) / most; mean > bucket/2 {
			t.Errorf("parallelism %d: a search passes over %.1f entries; about one is usual", parallelism, mean)
		}
	}
}
