package window

import (
	"testing"
	"unsafe"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// A table tells of all its columns when they have become large, and each time
// that they have moved.
func TestTableTellsOfLargeMemory(t *testing.T) {
	p := &plan{args: []argPlan{{typ: batch.Double}}}
	for _, k := range []accKind{sumDoubles, sumInts, minimum, lastValue, moments} {
		p.accs = append(p.accs, accPlan{kind: k})
	}
	told := make(map[*byte]int)
	table := newTable(p, make([]*state.KeyTable, 1))
	table.large = func(m []byte) { told[unsafe.SliceData(m)] = len(m) }
	const large = state.LargeBytes / 8
	for _, n := range []int{1000, large / 2, large, 2 * large} {
		table.keys = padded(table.keys, n, 0)
		table.grow()
		if n < large {
			if len(told) > 0 {
				t.Fatalf("%d slots, and memory is told of", n)
			}
			continue
		}
		sum, pair := table.accs[0].(*doubleSum), table.accs[1].(*intSum)
		first, v := table.accs[3].(*doubleEdge), table.accs[4].(*variance)
		for i, at := range []*byte{bytesOf(table.rows), bytesOf(sum.v), bytesOf(pair.high), bytesOf(pair.low), bytesOf(first.v), bytesOf(first.times), bytesOf(v.mean)} {
			if told[at] < 8*n {
				t.Errorf("%d slots: column %d: told of %d bytes", n, i, told[at])
			}
		}
	}
}

func bytesOf[T any](s []T) *byte { return (*byte)(unsafe.Pointer(unsafe.SliceData(s))) }
