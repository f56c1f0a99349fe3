package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/join"
)

// Where an agent is that moved stays known when it is not there for a moment, and that
// is the moment at which it is written down.
func TestPeersThatAreNotThere(t *testing.T) {
	contacts := func(text string) (all []join.Contact) { // "node@address"
		for _, f := range strings.Fields(text) {
			node, at, _ := strings.Cut(f, "@")
			all = append(all, join.Contact{Node: mesh.NodeID(node), Link: at + "1", Gossip: at + "2"})
		}
		return all
	}
	for name, c := range map[string]struct{ state, gossip, before, want string }{
		"gossip knows nobody":         {"b@1 a@2", "", "", "a@2 b@1"},
		"one has moved":               {"a@1", "a@7:alive", "a@1", "a@7"},
		"and a connection was lost":   {"a@1", "a@7:suspect", "a@1", "a@7"},
		"and it failed":               {"a@1", "a@7:failed", "a@7", "a@7 a@1"},
		"and it left":                 {"a@1", "a@7:left", "", "a@7 a@1"},
		"it moved on, and told so":    {"a@9", "a@7:failed", "a@7", "a@7 a@9"},
		"a start with an old state":   {"a@1 b@2", "", "a@7", "a@1 a@7 b@2"},
		"it is there again":           {"a@1 b@2", "a@8:alive", "a@1 a@7 b@2", "a@8 b@2"},
		"one has moved often":         {"a@1", "a@5:failed", "a@4 a@3 a@2", "a@5 a@1 a@4"},
		"one is no agent any more":    {"a@1", "z@7:alive", "a@1 y@3", "a@1"},
		"nobody is known to the site": {"", "a@7:alive", "a@1", ""},
	} {
		var members []mesh.Member
		for _, f := range strings.Fields(c.gossip) {
			at, status, _ := strings.Cut(f, ":")
			m := contacts(at)[0]
			i := slices.IndexFunc([]mesh.MemberStatus{mesh.Alive, mesh.Suspect, mesh.Failed, mesh.Left}, func(s mesh.MemberStatus) bool { return fmt.Sprint(s) == status })
			members = append(members, mesh.Member{Node: m.Node, Link: m.Link, Gossip: m.Gossip, Status: []mesh.MemberStatus{mesh.Alive, mesh.Suspect, mesh.Failed, mesh.Left}[i]})
		}
		if got := peersOf(contacts(c.state), members, contacts(c.before)); !slices.Equal(got, contacts(c.want)) {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}
