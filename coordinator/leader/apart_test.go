package leader

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Of more pairs than are remembered exactly the oldest go; of those that were
// parted at one time the first by name.
func TestTheOldestPairsAreForgotten(t *testing.T) {
	l := New(Config{})
	l.st = &coordinator.State{}
	node := func(i int) mesh.NodeID { return mesh.NodeID(fmt.Sprintf("n%03d", i)) }
	const more = 10
	for i := range maxApart + more {
		l.now = dataflow.Time(i / 4) // four at a time
		l.part("hub", node(i))
	}
	if len(l.apart) != maxApart {
		t.Errorf("%d pairs", len(l.apart))
	}
	l.now = 0
	l.cfg.Timing.Apart = dataflow.Hour
	for i := range maxApart + more {
		if parted, want := l.parted("hub", node(i)), i >= more; parted != want {
			t.Errorf("%s: %v", node(i), parted)
		}
	}
}
