package logepoch

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

func TestCommon(t *testing.T) {
	reigns := func(all ...coordinator.Reign) []coordinator.Reign { return all }
	a, b := coordinator.Reign{Epoch: 1, Site: "a"}, coordinator.Reign{Epoch: 2, Site: "b", Start: 400}
	for _, c := range []struct {
		name string
		x, y []coordinator.Reign
		want int64
	}{
		{"the same", reigns(a, b), reigns(a, b), math.MaxInt64},
		{"one went on", reigns(a), reigns(a, b), 400},
		{"it came back with less", reigns(a), reigns(a, b, coordinator.Reign{Epoch: 3, Site: "a", Start: 300}), 300},
		{"it came back with more", reigns(a), reigns(a, b, coordinator.Reign{Epoch: 3, Site: "a", Start: 700}), 400},
		{"the last two", reigns(a, b), reigns(a, b, coordinator.Reign{Epoch: 3, Site: "a", Start: 700}), 700},
		{"who did not know of b has more of a than b began with", reigns(a, b), reigns(a, coordinator.Reign{Epoch: 3, Site: "c", Start: 500}), 400},
		{"and less", reigns(a, b), reigns(a, coordinator.Reign{Epoch: 3, Site: "c", Start: 350}), 350},
		{"both at the same epoch", reigns(a, b), reigns(a, coordinator.Reign{Epoch: 2, Site: "c", Start: 500}), 400},
		{"the first are forgotten", reigns(a, b), reigns(b), math.MaxInt64},
		{"nothing in common", reigns(a), reigns(b), 0},
		{"nothing is known", nil, reigns(a), 0},
	} {
		if got := Common(c.x, c.y); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		if got := Common(c.y, c.x); got != c.want {
			t.Errorf("%s, the other way round: %d, want %d", c.name, got, c.want)
		}
	}
}

// place is a site with its copy of a feed's log, in the model.
type place struct {
	log     []int // numbers that are never used twice
	lineage []coordinator.Reign
}

func (p *place) newest() coordinator.Reign { return p.lineage[len(p.lineage)-1] }

// Sites copy each other, take the feed over with more or less of its log, with or
// without knowing of others who did: who becomes another's mirror keeps what both
// have, and nothing else.
func TestLineages(t *testing.T) {
	forks, cuts := 0, 0
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		names := []mesh.Site{"a", "b", "c", "d"}
		sites := make(map[mesh.Site]*place)
		for _, n := range names {
			sites[n] = &place{lineage: []coordinator.Reign{{Epoch: 1, Site: "a"}}}
		}
		next := 0
		for range 60 {
			name := names[rnd.IntN(len(names))]
			p, o := sites[name], sites[names[rnd.IntN(len(names))]]
			switch k := rnd.IntN(10); {
			case k < 4 && p.newest().Site == name: // whoever thinks that it has the session
				for range rnd.IntN(4) {
					next++
					p.log = append(slices.Clone(p.log), next)
				}
			case k == 4: // it takes over, whether others did or not
				p.lineage = append(slices.Clone(p.lineage), coordinator.Reign{Epoch: p.newest().Epoch + 1, Site: name, Start: int64(len(p.log))})
			case p != o && o.newest().Epoch >= p.newest().Epoch && (o.newest().Epoch > p.newest().Epoch || o.newest() == p.newest()):
				same := 0
				for same < min(len(p.log), len(o.log)) && p.log[same] == o.log[same] {
					same++
				}
				at := Common(p.lineage, o.lineage)
				if got := min(at, int64(len(p.log)), int64(len(o.log))); got != int64(same) {
					t.Fatalf("seed %d: %v %v and %v %v are the same up to %d, not %d", seed, p.lineage, p.log, o.lineage, o.log, same, at)
				}
				if n := int64(len(p.log)); at < n {
					forks++
					cuts += int(n - at)
					p.log = p.log[:at]
				}
				p.lineage = slices.Clone(o.lineage)
				if from := len(p.log); from < len(o.log) {
					p.log = slices.Clone(o.log[:from+rnd.IntN(len(o.log)-from+1)])
				}
			}
		}
	}
	if forks < 1000 || cuts < 1000 {
		t.Errorf("only %d forks, with %d entries cut", forks, cuts)
	}
}

// A log that is cut at a fork goes on with whoever has all before it.
func TestForked(t *testing.T) {
	e := coordinator.LogEpoch{Epoch: 3, Owner: "a", Members: []mesh.NodeID{"a", "b"}, Start: 500, Starts: []int64{0, 300, 500}, Heirs: []coordinator.Heir{{Node: "c", From: 450}}}
	f := Forked(&e, 400)
	if f.Start != 400 || !slices.Equal(f.Starts, []int64{0, 300, 400}) || f.Heirs[0].From != 400 || e.Heirs[0].From != 450 || e.Starts[2] != 500 {
		t.Errorf("%+v of %+v", f, e)
	}
	if why := Refuse(&f, "b", 400); why != "" {
		t.Error(why)
	}
	if Refuse(&f, "b", 399) == "" {
		t.Error("less than there must be is not refused")
	}
	n := Next(&f, "b", []mesh.NodeID{"b", "a"}, 400)
	for _, c := range []Copy{{Epoch: 3, End: 520}, {Epoch: 2, End: 480}} {
		if got := Keeps(&n, c); got != 400 {
			t.Errorf("of %+v %d belong to the log", c, got)
		}
	}
}

// A log that was held when it went to another site, and is to be a mirror, is one where all
// its members have left: what was in it that site has.
func TestOf(t *testing.T) {
	of := &coordinator.Mirror{Site: "north", Feed: "f"}
	had := coordinator.Reign{Epoch: 2, Site: "south"}
	away := func() *coordinator.Feed {
		return &coordinator.Feed{Owner: "north", Mirror: of, Lineage: []coordinator.Reign{had, {Epoch: 3, Site: "north", Start: 40}}, Log: coordinator.LogEpoch{Epoch: 3, Owner: "a", Members: []mesh.NodeID{"a"}, Held: true, Reign: &had}}
	}
	for name, c := range map[string]struct {
		change func(f *coordinator.Feed)
		left   bool
		want   bool
	}{
		"it went on there":                {func(*coordinator.Feed) {}, true, true},
		"a member is there":               {func(*coordinator.Feed) {}, false, false},
		"it had a session to the last":    {func(f *coordinator.Feed) { f.Log.Held = false }, true, false},
		"it is nobody else's":             {func(f *coordinator.Feed) { f.Owner = "" }, true, false},
		"it is to have a session":         {func(f *coordinator.Feed) { f.Mirror = nil }, true, false},
		"the newest reign is this site's": {func(f *coordinator.Feed) { f.Lineage[1].Site = "south" }, true, false},
		"nobody had it later":             {func(f *coordinator.Feed) { f.Log.Reign = &coordinator.Reign{Epoch: 3, Site: "south"} }, true, false},
		"it was a mirror":                 {func(f *coordinator.Feed) { f.Log.Held, f.Log.Mirror = false, of }, false, true},
		"its first reign has a number":    {func(f *coordinator.Feed) { f.Log.Reign, f.Made = nil, 3 }, true, false},
	} {
		f := away()
		c.change(f)
		if e := Of(f, "south", func(mesh.NodeID) bool { return c.left }); (e.Mirror != nil) != c.want {
			t.Errorf("%s: a copy of %v", name, e.Mirror)
		}
	}
}
