package executor_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Copies are spread: over all members, over hosts first, and a member that goes
// moves only what it had.
func TestRank(t *testing.T) {
	var members []mesh.Member
	for i := range 6 {
		members = append(members, mesh.Member{Node: mesh.NodeID(fmt.Sprint("n", i)), Site: "home", Host: fmt.Sprint("h", i/2), Status: mesh.Alive})
	}
	members = append(members, mesh.Member{Node: "far", Site: "other", Host: "x", Status: mesh.Alive}, mesh.Member{Node: "ill", Site: "home", Host: "y", Status: mesh.Suspect})
	got := make(map[mesh.NodeID]int)
	for k := range 1000 {
		key := fmt.Sprint("key", k)
		all := executor.Rank(key, "n0", members, nil)
		if len(all) != 5 || all[4] != "n1" && slices.Index(all, "n1") < 2 {
			t.Fatalf("%v: all of the site that live, those on other hosts first", all)
		}
		if a, b := all[0][1]-'0', all[1][1]-'0'; a/2 == b/2 {
			t.Fatalf("%v: the first two are on one host", all)
		}
		got[all[0]]++
		without := slices.DeleteFunc(slices.Clone(members), func(m mesh.Member) bool { return m.Node == all[0] })
		if next := executor.Rank(key, "n0", without, nil); all[0] != "n2" && next[0] != all[1] && next[0][1]/2 != all[0][1]/2 {
			t.Fatalf("%v became %v", all, next)
		}
	}
	for n, c := range got {
		if c < 150 {
			t.Errorf("%s is the first of %d in 1000", n, c)
		}
	}
	if len(got) != 4 {
		t.Errorf("%v", got)
	}
}

// Who could run what the copies are of comes first, but another host still comes
// before the same one.
func TestRankSuits(t *testing.T) {
	member := func(node mesh.NodeID, host, zone string) mesh.Member {
		return mesh.Member{Node: node, Host: host, Site: "home", Status: mesh.Alive, Labels: map[string]string{"zone": zone}}
	}
	members := []mesh.Member{member("n0", "a", "x"), member("n1", "a", "x"), member("n2", "b", "y"), member("n3", "b", "x"), member("n4", "c", "y")}
	for k := range 50 {
		got := executor.Rank(fmt.Sprint(k), "n0", members, func(m *mesh.Member) bool { return m.Labels["zone"] == "x" })
		if !slices.Equal(got, []mesh.NodeID{"n3", "n4", "n1", "n2"}) {
			t.Fatalf("%v", got)
		}
	}
}
