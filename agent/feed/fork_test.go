package feed_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// forked has south take over where it is, while north, which it is cut off from, goes
// on for so long that nothing of before is kept there; then they meet, and north is to
// be south's mirror. It returns where the two logs part.
func (w *twoSites) forked(members ...mesh.NodeID) int64 {
	w.t.Helper()
	w.north.keep = 1
	w.north.config.Keep.Age = dataflow.Second
	w.north.broker.batch = 20_000
	w.north.start("a", w.north.agents["a"].crash())
	w.north.move("a", "a")
	if err := w.north.agents["b"].feeds.Rest("f"); err != nil {
		w.t.Fatal(err)
	}
	w.north.broker.publish(numbers(0, 10)...)
	<-time.After(10 * time.Second) // virtual
	w.cut()
	for i := range 8 {
		w.north.broker.publish(numbers(10+20_000*i, 10+20_000*(i+1))...)
		<-time.After(10 * time.Second) // virtual
	}
	w.north.move("a", members...)  // a member that comes has what is kept, and no more
	<-time.After(10 * time.Second) // virtual
	fork := w.south.seal("x")
	reign := coordinator.Reign{Epoch: 2, Site: "south", Start: fork}
	w.south.mirrors("", reign)
	w.south.begin("x", fork, "x", "y")
	w.south.knows("x", "y")
	<-time.After(time.Second) // virtual
	w.north.broker.publish(numbers(200_000, 200_010)...)
	<-time.After(10 * time.Second) // virtual
	for _, n := range members {
		if first := groups(w.t, w.north.agents[n].dir)[0].Seq; first <= fork || fork < 10 {
			w.t.Fatalf("%s begins with %d, and the logs part at %d", n, first, fork)
		}
	}
	if end := w.north.seal("a"); end <= fork {
		w.t.Fatalf("north ends at %d, and the logs part at %d", end, fork)
	}
	w.north.mirrors("south", reign)
	w.north.begin("a", fork, members...)
	for i, s := range w.north.epoch.Starts {
		w.north.epoch.Starts[i] = min(s, fork)
	}
	return fork
}

// cut ends what goes between the sites.
func (w *twoSites) cut() {
	for _, a := range w.south.source {
		for _, b := range w.north.source {
			w.north.net.Cut(a, b)
		}
	}
}

// follows begins north's next epoch, which is a mirror's, too.
func (w *twoSites) follows(owner mesh.NodeID, members []mesh.NodeID, start int64) {
	was := w.north.epoch
	w.north.epoch = logepoch.Next(&was, owner, members, start)
	w.north.epoch.Mirror, w.north.epoch.Reign = was.Mirror, was.Reign
}

// mirrored checks that north's members have what south has.
func (w *twoSites) mirrored() {
	w.t.Helper()
	want := groups(w.t, w.south.agents["x"].dir)
	for _, n := range w.north.epoch.Members {
		same(w.t, string(n), groups(w.t, w.north.agents[n].dir), want)
	}
	if s := w.north.status(); s.Of == nil || s.Of.End != s.End || s.Of.Why != "" || s.Why != "" {
		w.t.Errorf("%+v %+v", s, s.Of)
	}
}

// A log that is to be a mirror from a place on that it does not keep any more begins
// anew, and then has what its source has.
func TestAForkBeforeTheOldestEntry(t *testing.T) {
	for _, members := range [][]mesh.NodeID{{"a"}, {"a", "b"}} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				w.forked(members...)
				w.north.net.HealAll()
				w.north.knows(members...)
				time.Sleep(time.Minute)
				w.mirrored()
			})
		})
	}
}

// Its owner's process dies when the log has begun anew and has nothing yet: another
// epoch begins where the owner says that its log ends.
func TestAForkBeforeTheOldestEntryAndACrash(t *testing.T) {
	for _, members := range [][]mesh.NodeID{{"a"}, {"a", "b"}} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				fork := w.forked(members...)
				w.north.knows(members...) // the sites do not reach each other yet
				time.Sleep(10 * time.Second)
				if s := w.north.status(); s.End != 0 || s.First != 0 || len(s.Lanes) != 1 || s.Lanes[0] != (coordinator.LaneAt{}) {
					t.Fatalf("%+v", s)
				}
				w.north.start("a", w.north.agents["a"].crash())
				end := w.north.seal("a")
				ends := map[mesh.NodeID]int64{"a": end}
				nobody := func(mesh.NodeID) bool { return false }
				if end >= fork || !logepoch.Owners(&w.north.epoch, ends)["a"] && !logepoch.Again(&w.north.epoch, ends, nobody)["a"] {
					t.Fatalf("it ends at %d, and cannot own the log", end)
				}
				w.follows("a", members, end)
				w.north.net.HealAll()
				w.north.knows(members...)
				time.Sleep(time.Minute)
				w.mirrored()
			})
		})
	}
}

// The process dies in between: the log is empty, and the epoch is promised and not yet
// led. It owns the same epoch then. One that was emptied by somebody else does not.
func TestAForkBeforeTheOldestEntryAndACrashInBetween(t *testing.T) {
	for _, emptied := range []bool{false, true} {
		t.Run(fmt.Sprint("emptied ", emptied), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				w.forked("a")
				dir := w.north.agents["a"].crash()
				folder := filepath.Join(dir, "feeds", "f")
				w.north.start("a", dir)
				if emptied {
					if err := w.north.agents["a"].feeds.Drop("f"); err != nil {
						t.Fatal(err)
					}
				} else {
					log, err := ingestlog.Open(ingestlog.Options{Dir: folder})
					if err != nil {
						t.Fatal(err)
					}
					if err := log.Promise(w.north.epoch.Epoch); err != nil {
						t.Fatal(err)
					}
					if err := log.Empty(w.north.epoch.Epoch); err != nil {
						t.Fatal(err)
					}
					if err := log.Close(); err != nil {
						t.Fatal(err)
					}
				}
				logs, err := w.north.agents["a"].feeds.Logs()
				if err != nil || !emptied && (len(logs) != 1 || !logs[0].Sealed || logs[0].Epoch != w.north.epoch.Epoch || logs[0].End != 0) {
					t.Fatalf("%+v %v", logs, err)
				}
				w.north.net.HealAll()
				err = w.north.know("a")
				if (err != nil) != emptied {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if !emptied {
					w.mirrored()
				}
			})
		})
	}
}

// An heir that has nothing of the log owns it from the first entry on, with what it has
// from before on its disk.
func TestAForkBeforeTheOldestEntryOfAnHeir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		w.forked("a", "b")
		w.follows("b", []mesh.NodeID{"b", "a"}, 0)
		w.north.net.HealAll()
		w.north.knows("b", "a")
		time.Sleep(time.Minute)
		w.mirrored()
	})
}

// A mirror that began anew goes on as any does: the other member owns it, and more comes.
func TestForkedMembersStayInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoSites(t)
		defer w.stop()
		w.forked("a", "b")
		w.north.net.HealAll()
		w.north.knows("a", "b")
		time.Sleep(time.Minute)
		w.mirrored()
		w.north.move("b", "b", "a")
		w.north.broker.publish(numbers(300_000, 300_010)...)
		time.Sleep(time.Minute)
		w.mirrored()
		if got := onDisk(t, w.north.agents["a"].dir); !slices.Contains(got, "300009") || slices.Contains(got, "20000") {
			t.Errorf("%d entries", len(got))
		}
	})
}
