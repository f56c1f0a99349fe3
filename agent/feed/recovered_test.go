package feed_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// b is off while a goes on alone, and south's mirror with it; then a is lost, and north
// recovered with what b has. A reign begins that is given, or one where the log ends; that is
// returned.
func (w *twoSites) recovered(reign coordinator.Reign) coordinator.Reign {
	w.t.Helper()
	w.puts(0, 50)
	known := w.north.epoch // all that b hears of
	w.north.move("a", "a")
	w.puts(50, 100)
	w.north.agents["a"].crash()
	delete(w.north.agents, "a")
	w.south.source = []mesh.NodeID{"b"}
	w.north.epoch = known
	end := w.north.seal("b")
	if reign == (coordinator.Reign{}) {
		reign = coordinator.Reign{Epoch: 1, Site: "north", Start: end, Life: 1}
	}
	w.north.mirrors("", reign)
	w.north.begin("b", end, "b")
	w.north.knows("b")
	return reign
}

// The mirror of a recovered site takes nothing until its site knows of that, also when the
// new log has passed the lost one. Then it is cut back, and has what its source has.
func TestMirrorOfARecoveredSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		reign := w.recovered(coordinator.Reign{})
		lost := w.south.status().End
		if lost <= reign.Start {
			t.Fatalf("the mirror has %d, and the site is recovered with %d", lost, reign.Start)
		}
		for from := 200; from < 320; from += 40 { // less than the lost one, then more
			w.puts(from, from+40)
			if s := w.south.status(); s.End != lost || !strings.Contains(s.Of.Why, "recovered") {
				t.Errorf("the source ends at %d, the mirror at %d: %q", w.north.status().End, s.End, s.Of.Why)
			}
		}
		if end := w.north.status().End; end <= lost {
			t.Fatalf("the source ends at %d, and the lost log at %d", end, lost)
		}
		w.south.mirrors("north", reign)
		w.south.seal("x")
		w.south.begin("x", reign.Start, "x", "y")
		w.south.knows("x", "y")
		<-time.After(time.Minute) // virtual
		for _, n := range w.south.epoch.Members {
			same(t, string(n), groups(t, w.south.agents[n].dir), groups(t, w.north.agents["b"].dir))
			if got := onDisk(t, w.south.agents[n].dir); slices.Contains(got, "70") || !slices.Contains(got, "220") {
				t.Errorf("%s has %v", n, got)
			}
		}
		if s := w.south.status(); s.Of.Why != "" || s.End != w.north.status().End {
			t.Errorf("%+v %+v", s, s.Of)
		}
	})
}

// The lost ones had taken the job, and the recovered site takes it again, from the same
// sequence on: the mirror of the first takes nothing of the second, but for the life alone.
func TestMirrorOfAReignThatBeganTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		reign := coordinator.Reign{Epoch: 2, Site: "north"}
		w.north.mirrors("", reign)
		w.north.move("a", "a", "b")
		w.south.mirrors("north", reign)
		w.south.seal("x")
		w.south.begin("x", 0, "x", "y")
		w.south.knows("x", "y")
		reign.Life = 1
		w.recovered(reign)
		lost := w.south.status().End
		w.puts(200, 320)
		if s := w.south.status(); lost == 0 || s.End != lost || w.north.status().End <= lost || !strings.Contains(s.Of.Why, "recovered") {
			t.Errorf("the mirror had %d, and has %d of %d: %q", lost, s.End, w.north.status().End, s.Of.Why)
		}
	})
}

// puts publishes numbers, some at a time, and waits until all have them.
func (w *twoSites) puts(from, to int) {
	for i := from; i < to; i += 10 {
		w.north.broker.publish(numbers(i, i+10)...)
		<-time.After(time.Second) // virtual
	}
	<-time.After(10 * time.Second) // virtual
}
