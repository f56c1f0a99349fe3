package node_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/node"
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
	t.Parallel()
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

// The agents of a site vanish one after the other, as they do where a line goes down, and
// the other site comes back elsewhere: it finds any of them, not only the one that it saw
// last.
func TestSiteIsFoundByAnyAgent(t *testing.T) {
	t.Parallel()
	plant, depot := twoSites(t, 3)
	for i := 2; i >= 0; i-- {
		plant[i].end()
		see(t, depot, "plant", i)
	}
	depot.end() // it writes down whom it sees
	depot.bind = freePorts(t)
	depot.start("", "")
	plant[1].start("", "")
	plant[2].start("", "")
	see(t, depot, "plant", 2)
}

// An agent that joins while the other site is away is told where that was, and finds it
// when it is back.
func TestJoinsWhileASiteIsAway(t *testing.T) {
	t.Parallel()
	plant, depot := twoSites(t, 1)
	await(t, "the depot to have written down where the plant is", func() bool {
		_, err := os.Stat(depot.dir + "/sites.json")
		return err == nil
	})
	plant[0].end()
	made, err := depot.client(t).CreateToken(t.Context(), api.NewToken{Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	late := newBox(t, "d2")
	late.start(depot.Link(), made.Token)
	await(t, "the new agent to take part", func() bool { return late.Health().Ready })
	depot.end() // who was there before tells it no more
	if err := os.Remove(plant[0].dir + "/sites.json"); err != nil {
		t.Fatal(err)
	}
	plant[0].start("", "")
	see(t, late, "plant", 1)
	see(t, plant[0], "depot", 1)
	depot.start("", "")
}

// Any agent asks another site, and any agent of that one has its leader answer; what is
// not for other sites they are told so, and who refuses says it too. site list has them all.
func TestSitesSpeak(t *testing.T) {
	t.Parallel()
	plant, depot := twoSites(t, 3)
	self := func(b *box, site mesh.Site, agents int) {
		t.Helper()
		await(t, b.name+" to hear from "+string(site), func() bool {
			text, err := b.CallSite(t.Context(), site, node.PathSiteSelf, nil)
			var s api.SiteSelf
			if err == nil {
				err = json.Unmarshal(text, &s)
			}
			if err != nil { // its leader is about to lead
				return false
			}
			if s.Site != string(site) || s.Mesh != "test" || s.Agents != agents || s.Leader == "" || s.Voters == 0 {
				t.Fatalf("%+v", s)
			}
			return true
		})
	}
	for _, b := range plant {
		self(b, "depot", 1)
		self(b, "plant", 3)
	}
	for _, b := range plant { // each of them, also those that do not lead
		await(t, b.name+" to answer", func() bool {
			_, err := depot.AskSite(t.Context(), "plant", b.Self(), node.PathSiteSelf)
			return err == nil
		})
	}
	for i, path := range []string{"/internal/key", "/v1/members", "/v1/sites/none"} {
		var err error
		var e *node.SiteError
		await(t, "an answer", func() bool { // a slow machine may let one wait for too long
			_, err = depot.AskSite(t.Context(), "plant", plant[0].Self(), path)
			return err == nil || errors.As(err, &e)
		})
		if e == nil || e.Status != http.StatusNotFound || !strings.Contains(e.Text, "site plant answers no POST "+path) {
			t.Errorf("%s: %v", path, err)
		}
		if said := plant[0].said(); i == 0 && !strings.Contains(said, "of site depot asked for POST "+path) { // of the others later
			t.Errorf("nothing is told of %s", path)
		}
	}
	if _, err := depot.CallSite(t.Context(), "none", node.PathSiteSelf, nil); !errors.Is(err, node.ErrSiteUnreached) {
		t.Errorf("a site that nobody knows: %v", err)
	}
	if _, err := depot.CallSite(t.Context(), "plant", node.PathSiteSelf, make([]byte, 34<<20)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("34 MiB: %v", err)
	}
	await(t, "the list of sites", func() bool {
		list, err := plant[2].client(t).Sites(t.Context(), false)
		return err == nil && len(list) == 2 && list[0].Self && list[0].Site == "plant" && list[0].Answers && list[0].Seen == 3 &&
			list[1].Site == "depot" && list[1].Answers && list[1].Leader == "d1" && list[1].Reachable && list[1].Since != "" && list[1].RoundTrip > 0
	})
	depot.end()
	await(t, "the list to say that it is away", func() bool {
		list, err := plant[1].client(t).Sites(t.Context(), false)
		return err == nil && len(list) == 2 && !list[1].Answers && !list[1].Reachable && list[1].Why != ""
	})
	depot.start("", "")
	self(plant[0], "depot", 1)
}
