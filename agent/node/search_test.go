package node

import (
	"context"
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Sites that are lost are looked for at all their addresses, at longer and longer
// pauses, for ever; one that was found is looked for at once when it is lost again.
func TestSearch(t *testing.T) {
	var s search
	lost := map[mesh.Site][]string{"depot": {"a", "b", "c"}, "yard": {"x"}}
	var now, last dataflow.Time
	count := make(map[string]int)
	for range 3600 {
		now = now.Add(dataflow.Duration(dataflow.Second))
		for _, at := range s.due(now, lost) {
			count[at]++
			if at == "x" {
				if pause := now - last; count["x"] > 1 && dataflow.Duration(pause) > mostSeek {
					t.Errorf("nobody looked for %v", dataflow.Duration(pause))
				}
				last = now
			}
		}
	}
	for at, n := range count {
		if n < 70 || n > 130 {
			t.Errorf("%s was tried %d times in an hour", at, n)
		}
	}
	if len(count) != 4 {
		t.Errorf("only these were tried: %v", count)
	}
	if got := s.due(now, map[mesh.Site][]string{"yard": {"x"}}); len(got) != 0 && last != now {
		t.Errorf("%v", got)
	}
	if got := fmt.Sprint(s.due(now, map[mesh.Site][]string{"depot": {"a"}})); got != "[a]" {
		t.Errorf("a site that is lost again: %s", got)
	}
	if got := s.due(now.Add(mostSeek), map[mesh.Site][]string{"none": nil}); len(got) != 0 {
		t.Errorf("a site without an address: %v", got)
	}
}

// Seen is how many agents of another site are seen.
func (n *Node) Seen(site mesh.Site) int { return len(n.away()[site]) }

// AskSite asks one agent of another site.
func (n *Node) AskSite(ctx context.Context, site mesh.Site, node mesh.NodeID, path string) ([]byte, error) {
	return n.askSite(ctx, site, node, path, nil)
}
