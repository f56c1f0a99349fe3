package api

import (
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A copy on an agent that was removed is none.
func TestCopiesOfRemovedAgents(t *testing.T) {
	s := &coordinator.Snapshot{Copies: []coordinator.PartCopies{{Nodes: []mesh.NodeID{"a", "b"}}, {Part: [32]byte{1}, Nodes: []mesh.NodeID{"b", "gone"}}}}
	agents := map[mesh.NodeID]*coordinator.Agent{"a": {Node: "a", Name: "n1"}, "b": {Node: "b", Name: "n2"}}
	if d, _ := describeSnapshot(s, agents, false); d.Copies != 1 || !slices.Equal(d.Where, []string{"n1", "n2"}) {
		t.Errorf("%d copies, on %v", d.Copies, d.Where)
	}
}
