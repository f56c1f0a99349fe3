package feed_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// twoSites are north, of a and b, with a feed "f", and south, of x and y, with a
// mirror of it.
type twoSites struct {
	t            testing.TB
	north, south *site
}

func newTwoSites(t testing.TB) *twoSites {
	w := &twoSites{t: t, north: newSite(t), south: newSite(t)}
	w.north.name, w.south.name = "north", "south"
	w.south.net, w.south.broker = w.north.net, w.north.broker
	w.south.source, w.north.source = []mesh.NodeID{"a", "b"}, []mesh.NodeID{"x", "y"}
	for _, n := range w.south.source {
		w.north.start(n, t.TempDir())
	}
	for _, n := range w.north.source {
		w.south.start(n, t.TempDir())
	}
	w.north.begin("a", 0, "a", "b")
	w.north.knows("a", "b")
	w.south.mirrors("north", coordinator.Reign{Epoch: 1, Site: "north"})
	w.south.begin("x", 0, "x", "y")
	w.south.knows("x", "y")
	return w
}

// mirrors has the next epoch of a site's log be a mirror; "" ends that.
func (s *site) mirrors(of mesh.Site, reign coordinator.Reign) {
	s.epoch.Reign = &reign
	if s.epoch.Mirror = nil; of != "" {
		s.epoch.Mirror = &coordinator.Mirror{Site: of, Feed: "f"}
	}
}

func (w *twoSites) stop() {
	w.north.stop()
	w.south.stop()
}

// same checks that logs have the same blocks in the same groups.
func same(t testing.TB, what string, a, b []*ingestlog.Group) {
	t.Helper()
	if len(a) != len(b) {
		t.Errorf("%s: %d groups, and %d", what, len(a), len(b))
		return
	}
	for i := range a {
		if a[i].Seq != b[i].Seq || a[i].Next != b[i].Next || !reflect.DeepEqual(a[i].Blocks, b[i].Blocks) {
			t.Errorf("%s: group %d is another", what, i)
			return
		}
	}
}

// status is what the owner of a site's log says of it.
func (s *site) status() coordinator.LogStatus {
	s.t.Helper()
	all := s.agents[s.epoch.Owner].feeds.Statuses()
	if len(all) != 1 {
		s.t.Fatalf("%d statuses", len(all))
	}
	return all[0]
}

// move gives a site's log to another owner.
func (s *site) move(owner mesh.NodeID, members ...mesh.NodeID) {
	s.t.Helper()
	end := s.seal(owner)
	s.begin(owner, end, members...)
	s.knows(members...)
}

// A mirror has the same groups, on all its members, and both ends say how far it is.
func TestMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		for i := range 10 {
			w.north.broker.publish(numbers(10*i, 10*i+10)...)
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Second)
		wants(t, w.north.broker.acks(), numbers(0, 100)...)
		want := groups(t, w.north.agents["a"].dir)
		for _, a := range w.south.agents {
			same(t, string(a.node), groups(t, a.dir), want)
			wants(t, onDisk(t, a.dir), numbers(0, 100)...)
		}
		if !reflect.DeepEqual(groups(t, w.south.agents["x"].dir), groups(t, w.south.agents["y"].dir)) {
			t.Error("the members of the mirror differ")
		}
		n, s := w.north.status(), w.south.status()
		if s.Of == nil || s.Of.Node != "a" || s.Of.End != n.End || s.End != n.End || s.Of.Payload != s.Payload || s.Of.Clock != s.Clock || s.Clock == 0 || s.Of.Why != "" || s.Broker != "" {
			t.Errorf("%+v of %+v", s, s.Of)
		}
		if len(n.Mirrors) != 1 || n.Mirrors[0].End != n.End || n.Mirrors[0].Site != "south" || n.Mirrors[0].Node != "x" || n.Mirrors[0].Let {
			t.Errorf("%+v", n.Mirrors)
		}
		// Who reads the mirror reads what the source has.
		f, err := w.south.agents["x"].feeds.OpenKeeping("f", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		wants(t, logged(t, f, "99"), numbers(0, 100)...)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What a mirror takes is packed, and it has the same in the end; one that takes
// nothing packed gets it as it is.
func TestMirrorTakesPackedGroups(t *testing.T) {
	for name, plain := range map[string]bool{"packed": false, "as it is": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				w.south.plain = plain
				w.north.broker.batch = 500
				var all []string
				for i := range 3000 {
					all = append(all, fmt.Sprintf(`{"sensor":"s-%04d","ts":%d,"data":{"temp":%d.5},"kind":"reading"}`, i%40, 1_700_000_000_000+i, 20+i%7))
				}
				for _, n := range w.north.source {
					w.north.net.Cut("a", n)
				}
				w.north.broker.publish(all...)
				time.Sleep(10 * time.Second)
				w.north.net.HealAll()
				time.Sleep(time.Minute)
				want := groups(t, w.north.agents["a"].dir)
				for _, a := range w.south.agents {
					same(t, string(a.node), groups(t, a.dir), want)
				}
				wants(t, onDisk(t, w.south.agents["y"].dir), all...)
				raw, sent := w.north.agents["a"].packs.Counts()
				if plain && raw != 0 || !plain && (raw < 200_000 || sent > raw/3) {
					t.Errorf("%d bytes in place of %d", sent, raw)
				}
				if raw, _ := w.north.agents["b"].packs.Counts(); raw != 0 {
					t.Errorf("%d bytes were packed by who sends nothing", raw)
				}
			})
		})
	}
}

// Owners and members of either site die, links break: the mirror goes on where it
// was.
func TestMirrorThroughTrouble(t *testing.T) {
	for _, c := range []struct {
		name    string
		trouble func(w *twoSites) (after func())
	}{
		{"the owner of the source", func(w *twoSites) func() {
			w.north.start("a", w.north.agents["a"].crash())
			w.north.move("b", "b", "a")
			return func() {}
		}},
		{"the owner of the mirror", func(w *twoSites) func() {
			w.south.start("x", w.south.agents["x"].crash())
			w.south.move("y", "y", "x")
			return func() {}
		}},
		{"a member of the mirror", func(w *twoSites) func() {
			dir := w.south.agents["y"].crash()
			return func() {
				w.south.start("y", dir)
				w.south.knows("y")
			}
		}},
		{"the link", func(w *twoSites) func() {
			for _, n := range w.south.source {
				w.north.net.Cut(n, "x")
			}
			return w.north.net.HealAll
		}},
		{"both", func(w *twoSites) func() {
			w.north.start("a", w.north.agents["a"].crash())
			w.south.start("x", w.south.agents["x"].crash())
			w.north.move("b", "b", "a")
			w.south.move("y", "y", "x")
			return func() {}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				w.north.broker.publish(numbers(0, 50)...)
				time.Sleep(10 * time.Millisecond)
				after := c.trouble(w)
				time.Sleep(10 * time.Second)
				after()
				w.north.broker.publish(numbers(50, 100)...)
				time.Sleep(time.Minute)
				w.check(100)
			})
		})
	}
}

// check: all was acknowledged, and is everywhere.
func (w *twoSites) check(n int) {
	w.t.Helper()
	if got := w.north.broker.acks(); !reflect.DeepEqual(got, numbers(0, n)) {
		w.t.Errorf("%d are acknowledged, and not in order: %v", len(got), got)
	}
	owner := w.north.agents[w.north.epoch.Owner]
	want := groups(w.t, owner.dir)
	for _, a := range w.south.agents {
		same(w.t, string(a.node), groups(w.t, a.dir), want)
	}
	seen := make(map[string]bool)
	for _, m := range onDisk(w.t, owner.dir) {
		seen[m] = true
	}
	if len(seen) != n {
		w.t.Errorf("%d of %d messages are in the log", len(seen), n)
	}
}

// The stream breaks again and again, at whatever it carries then.
func TestMirrorsStreamBreaks(t *testing.T) {
	for at := range 12 {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				w.north.net.Delay("a", "x", 20*time.Millisecond)
				for i := range 10 {
					w.north.broker.publish(numbers(10*i, 10*i+10)...)
					time.Sleep(time.Duration(5*at) * time.Millisecond)
					w.north.net.Break("a", "x")
				}
				time.Sleep(time.Minute)
				w.check(100)
			})
		})
	}
}

// The mirror's disk is full, or one of its members away: its source goes on, and
// later the mirror catches up.
func TestASlowMirrorHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		w.north.broker.publish(numbers(0, 10)...)
		time.Sleep(time.Second)
		dir := w.south.agents["y"].crash()
		began := time.Now()
		for i := 1; i < 10; i++ {
			w.north.broker.publish(numbers(10*i, 10*i+10)...)
			for w.north.broker.waiting() > 0 {
				time.Sleep(time.Millisecond)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the source took %v for what its mirror does not take", took)
		}
		time.Sleep(time.Minute)
		if s := w.south.status(); !strings.Contains(s.Why, "member y") || s.Of.End < 100 {
			t.Errorf("%+v %+v", s, s.Of)
		}
		if n := w.north.status(); n.Mirrors[0].End >= n.End {
			t.Errorf("%+v", n)
		}
		w.south.start("y", dir)
		w.south.knows("y")
		time.Sleep(time.Minute)
		w.check(100)
	})
}

// A member is asked, and names the owner; who knows nothing says so; who knows of
// another time with the feed gives nothing.
func TestWhoIsAsked(t *testing.T) {
	for name, reign := range map[string]*coordinator.Reign{"it was never elsewhere": nil, "it knows its lineage": {Epoch: 1, Site: "north"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				w.north.epoch.Reign = reign
				w.north.move("a", "a", "b")
				w.south.agents["x"].stop()
				w.south.source = []mesh.NodeID{"b", "a"}
				w.south.start("x", t.TempDir())
				w.south.mirrors("north", coordinator.Reign{Epoch: 2, Site: "north", Start: 5})
				w.south.move("y", "y", "x")
				w.north.broker.publish(numbers(0, 10)...)
				time.Sleep(time.Minute)
				if s := w.south.status(); s.End != 0 || !strings.Contains(s.Of.Why, "it gives nothing") && !strings.Contains(s.Of.Why, "owns the log there") {
					t.Errorf("%+v %+v", s, s.Of)
				}
				w.south.mirrors("north", coordinator.Reign{Epoch: 1, Site: "north"})
				w.south.move("y", "y", "x")
				time.Sleep(time.Minute)
				w.check(10)
			})
		})
	}
}

// A mirror becomes the feed: it has the session, and nothing is lost. The one
// before becomes its mirror, without what it had alone.
func TestAMirrorBecomesTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		w.north.broker.publish(numbers(0, 50)...)
		time.Sleep(10 * time.Second)
		// North is cut off: it goes on for a while, and then south has the session.
		for _, a := range w.south.source {
			for _, b := range w.north.source {
				w.north.net.Cut(a, b)
			}
		}
		w.north.broker.publish(numbers(50, 60)...)
		time.Sleep(10 * time.Second)
		fork := w.south.seal("x")
		reign := coordinator.Reign{Epoch: 2, Site: "south", Start: fork}
		w.south.mirrors("", reign)
		w.south.begin("x", fork, "x", "y")
		w.south.knows("x", "y")
		time.Sleep(time.Second)
		w.north.broker.publish(numbers(60, 100)...)
		time.Sleep(10 * time.Second)
		wants(t, onDisk(t, w.south.agents["y"].dir), slices.Concat(numbers(0, 50), numbers(60, 100))...)
		wants(t, w.north.broker.acks(), numbers(0, 100)...)

		w.north.net.HealAll()
		time.Sleep(10 * time.Second)
		if end := w.north.seal("b"); end <= fork {
			t.Fatalf("north ends at %d, and south went on from %d", end, fork)
		}
		w.north.mirrors("south", reign)
		w.north.begin("b", fork, "b", "a")
		for i, s := range w.north.epoch.Starts {
			w.north.epoch.Starts[i] = min(s, fork)
		}
		w.north.knows("a", "b")
		time.Sleep(time.Minute)
		want := groups(t, w.south.agents["x"].dir)
		for _, a := range w.north.agents {
			same(t, string(a.node), groups(t, a.dir), want)
		}
		if s := w.north.status(); s.Of == nil || s.Of.End != s.End || s.Of.Why != "" {
			t.Errorf("%+v %+v", s, s.Of)
		}
	})
}

// While a member of the source is away the mirror gets nothing of what is not on
// its disk.
func TestAMirrorHasWhatIsReplicated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		w.north.broker.publish(numbers(0, 10)...)
		time.Sleep(time.Second)
		w.north.net.Cut("a", "x")
		w.north.broker.publish(numbers(10, 15)...)
		time.Sleep(10 * time.Second)
		dir := w.north.agents["b"].crash()
		w.north.broker.publish(numbers(15, 20)...)
		time.Sleep(time.Second)
		w.north.net.HealAll()
		time.Sleep(time.Minute)
		wants(t, onDisk(t, w.south.agents["x"].dir), numbers(0, 15)...)
		if a := onDisk(t, w.north.agents["a"].dir); len(a) <= 15 {
			t.Errorf("the source has %d, so that nothing is shown", len(a))
		}
		w.north.start("b", dir)
		w.north.knows("b")
		time.Sleep(time.Minute)
		w.check(20)
	})
}

// A mirror is called otherwise after a while, at a site that is to have one: the log
// waits for the one that asks, and not for the name of before.
func TestAMirrorOfAnotherName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		f, err := w.north.agents["a"].feeds.OpenKeeping("f", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.MirroredAt([]mesh.Site{"south"})
		defer func() { _ = f.Close() }()
		w.north.broker.publish(numbers(0, 10)...)
		time.Sleep(10 * time.Second)
		for _, a := range w.south.agents {
			if err := a.feeds.Rest("f"); err != nil {
				t.Fatal(err)
			}
		}
		other := w.south.epoch
		other.Members, other.Epoch, other.Starts = []mesh.NodeID{"x"}, 1, []int64{0}
		if err := w.south.agents["x"].feeds.Own("g", other, w.south.config, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // both may be wanted, and one away for a moment
		if n := w.north.status(); len(n.Mirrors) != 2 || n.Mirrors[0].Feed != "f" || n.Mirrors[1].Feed != "g" || n.Mirrors[1].End != n.End {
			t.Errorf("%+v", n.Mirrors)
		}
		time.Sleep(5 * time.Minute)
		f.MirroredAt([]mesh.Site{"south"})
		if n := w.north.status(); len(n.Mirrors) != 1 || n.Mirrors[0].Feed != "g" {
			t.Errorf("%+v", n.Mirrors)
		}
		// Nobody speaks: what is expected is waited for, however long that takes.
		w.north.net.Cut("a", "x")
		w.north.net.Cut("b", "x")
		time.Sleep(time.Hour)
		if n := w.north.status(); len(n.Mirrors) != 1 || n.Mirrors[0].Feed != "g" || n.Mirrors[0].Node != "" {
			t.Errorf("%+v", n.Mirrors)
		}
	})
}
