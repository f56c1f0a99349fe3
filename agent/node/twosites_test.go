package node_test

import (
	"os"
	"testing"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// twoSites are sites of one mesh, of so many agents and of one, which see each other.
func twoSites(t *testing.T, n int) (plant []*box, depot *box) {
	t.Helper()
	plant = site(t, n)
	token := createSite(t, plant[0], "depot")
	depot = newBox(t, "d1")
	depot.site = "depot"
	depot.start(plant[n-1].Link(), token.String())
	await(t, "the new site to be founded", func() bool { return depot.Leader() == depot.Self() && depot.Health().Ready })
	see(t, depot, "plant", n)
	for _, b := range plant {
		see(t, b, "depot", 1)
	}
	return plant, depot
}

// see waits until an agent sees so many of another site.
func see(t *testing.T, b *box, site mesh.Site, n int) {
	t.Helper()
	await(t, b.name+" to see "+string(site), func() bool { return b.Seen(site) == n })
}

// Sites of one mesh see each other; when one was away, and comes back elsewhere, it finds
// the other one by what it has written down, and so does one that has forgotten that, by
// what the other one knows.
func TestSitesFindEachOther(t *testing.T) {
	plant, depot := twoSites(t, 2)
	for round := range 2 {
		depot.end()
		for _, b := range plant {
			see(t, b, "depot", 0)
		}
		if round == 0 {
			depot.bind = freePorts(t)
		} else if err := os.Remove(depot.dir + "/sites.json"); err != nil { // it is where it was: the others look for it
			t.Fatal(err)
		}
		depot.start("", "")
		see(t, depot, "plant", 2)
		for _, b := range plant {
			see(t, b, "depot", 1)
		}
	}
}
