package node

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/gossip"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/store/disk"
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

// Agents of a site that are not seen stay known, and are those that are forgotten first.
func TestRemember(t *testing.T) {
	contacts := func(text string) (all []join.Contact) { // "node@address"
		for _, f := range strings.Fields(text) {
			node, at, _ := strings.Cut(f, "@")
			all = append(all, join.Contact{Node: mesh.NodeID(node), Link: at + "1", Gossip: at + "3"})
		}
		return all
	}
	for name, test := range map[string]struct{ kept, seen, want string }{
		"new":                           {"", "a@1 b@2", "a@1 b@2"},
		"nobody is seen":                {"a@1 b@2", "", "a@1 b@2"},
		"one vanishes":                  {"a@1 b@2 c@3", "a@1 c@3", "a@1 c@3 b@2"},
		"the next one":                  {"a@1 c@3 b@2", "c@3", "c@3 a@1 b@2"},
		"one is back":                   {"c@3 a@1 b@2", "b@2 c@3", "b@2 c@3 a@1"},
		"one has moved":                 {"a@1 b@2", "b@7", "b@7 a@1"},
		"another is where one was":      {"a@1 b@2", "z@1", "z@1 b@2"},
		"written by hand":               {"@8 @9 a@1", "a@1", "a@1 @8 @9"},
		"more than there may be":        {"a@1 b@2 c@3 d@4 e@5 f@6 g@7 h@8", "c@3 i@9", "c@3 i@9 a@1 b@2 d@4 e@5 f@6 g@7"},
		"as many as may be are seen":    {"x@1 y@2", "a@11 b@12 c@13 d@14 e@15 f@16 g@17 h@18", "a@11 b@12 c@13 d@14 e@15 f@16 g@17 h@18"},
		"one that was written twice":    {"a@1 a@2 b@3", "b@3", "b@3 a@1"},
		"what was written has too many": {"a@1 b@2 c@3 d@4 e@5 f@6 g@7 h@8 i@9", "", "a@1 b@2 c@3 d@4 e@5 f@6 g@7 h@8"},
	} {
		if got := remember(contacts(test.kept), contacts(test.seen)); !slices.Equal(got, contacts(test.want)) {
			t.Errorf("%s: %v, want %s", name, got, test.want)
		}
	}
}

// Who was there for less than this agent's upkeep takes to come by is looked for where it
// was last, also after a restart; an agent of this site is not.
func TestMetForAMoment(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Found(dir, "m", "plant", time.Now()); err != nil {
		t.Fatal(err)
	}
	id, err := identity.OpenFolder(disk.Secret, filepath.Join(dir, "identity"), time.Now).Load()
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{id: id, hub: newHub()}
	n.o.Config.DataDir = dir
	n.wan.kept = map[mesh.Site][]join.Contact{"depot": {{Node: "d", Link: "old:1", Gossip: "old:3", Site: "depot"}}}
	for _, site := range []mesh.Site{"depot", "plant"} {
		m := mesh.Member{Node: "d", Boot: 2, Site: site, Link: "new:1", Gossip: "new:3", Status: mesh.Alive}
		n.hearWAN(gossip.Event{Kind: gossip.Back, Member: m})
		m.Status = mesh.Left
		n.hearWAN(gossip.Event{Kind: gossip.Left, Member: m})
	}
	want := map[mesh.Site][]join.Contact{"depot": {{Node: "d", Link: "new:1", Gossip: "new:3", Site: "depot"}}}
	if got := n.siteContacts(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if err := n.keepSites(); err != nil {
		t.Fatal(err)
	}
	if got, err := readSites(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// Seen is how many agents of another site are seen.
func (n *Node) Seen(site mesh.Site) int { return len(n.away()[site]) }

// AskSite asks one agent of another site.
func (n *Node) AskSite(ctx context.Context, site mesh.Site, node mesh.NodeID, path string) ([]byte, error) {
	return n.askSite(ctx, site, node, path, nil)
}
