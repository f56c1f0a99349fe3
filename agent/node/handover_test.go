package node

import (
	"maps"
	"testing"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// An agent to which a connection was lost may be well: what another one has is handed
// over to it.
func TestASuspectIsThere(t *testing.T) {
	all := []mesh.Member{{Node: "self", Status: mesh.Alive}, {Node: "a", Status: mesh.Alive}, {Node: "b", Status: mesh.Suspect}, {Node: "c", Status: mesh.Failed}, {Node: "d", Status: mesh.Left}}
	want := map[mesh.NodeID]bool{"a": true, "b": true}
	if got := others("self", all); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
