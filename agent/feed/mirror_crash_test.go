package feed_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// The owner dies behind the fsync of all copies, before the broker hears of it,
// and a mirror at another site gets the session: what the broker sends again is in
// the log once, and the release of QoS 2 too.
func TestRedeliveryToAnotherSite(t *testing.T) {
	for _, c := range []struct {
		qos  byte
		stop step
	}{{1, step{name: "commit"}}, {2, step{name: "commit"}}, {2, step{"commit", release}}} {
		t.Run(fmt.Sprint("qos ", c.qos, c.stop.what), func(t *testing.T) {
			net := simnet.New()
			ev := newEvents()
			p := [2]*peer{newPeer(t), newPeer(t)}
			var feeds [2]*feed.Feeds
			g := &gates{reached: make(chan struct{}), open: make(chan struct{}), at: c.stop}
			names := []mesh.NodeID{"a", "x"}
			for i, name := range names {
				tr := net.New(name, []mesh.Site{"north", "south"}[i])
				feeds[i] = feed.New(feed.Options{
					Dir: t.TempDir(), Transport: tr, Events: ev.add, Sources: func(coordinator.Mirror) []mesh.NodeID { return names[:1] },
					Session: func(fc feed.Config, so feed.SessionOptions) (sensors.Reader, error) {
						r, err := mqtt.NewReader(mqtt.ReaderOptions{
							Connection: mqtt.Connection{Broker: fc.Broker, ClientID: fc.ClientID, Clock: so.Clock, Events: so.Events, BackoffMin: dataflow.Millisecond, BackoffMax: dataflow.Millisecond},
							Topics:     fc.Topics, QoS: c.qos, Lanes: fc.Lanes, Recall: so.Recall, TickEvery: -1,
						})
						if i > 0 {
							return r, err
						}
						g.Reader = r
						return g, err
					}})
				tr.Start()
				t.Cleanup(func() { _ = tr.Close() })
				t.Cleanup(func() { _ = feeds[i].Close() })
			}
			t.Cleanup(func() { close(g.open) })
			reign := coordinator.Reign{Epoch: 1, Site: "north"}
			e := coordinator.LogEpoch{Epoch: 1, Owner: "x", Members: names[1:], Starts: []int64{0}, Reign: &reign, Mirror: &coordinator.Mirror{Site: "north", Feed: "f"}}
			if err := feeds[1].Own("f", e, config(p[1].url(), int(c.qos)), nil); err != nil {
				t.Fatal(err)
			}
			north := coordinator.LogEpoch{Epoch: 4, Owner: "a", Members: names[:1], Starts: []int64{0, 0, 0, 0}}
			if err := feeds[0].Own("f", north, config(p[0].url(), int(c.qos)), nil); err != nil {
				t.Fatal(err)
			}
			conn := p[0].session(t, c.qos, false)
			conn.send(publish(5, c.qos, false, "t/a", "a"))
			if c.stop.what == release {
				conn.acks(packets.Pubrec, 5)
				conn.send(pubrel(5))
			}
			<-g.reached
			ctx := timeout(t)
			for feeds[1].Statuses()[0].End < feeds[0].Statuses()[0].End {
				select {
				case <-ctx.Done():
					t.Fatalf("the mirror does not come: %+v", feeds[1].Statuses()[0].Of)
				case <-time.After(time.Millisecond):
				}
			}
			_ = conn.c.Close()
			net.Cut("a", "x")
			sealed, err := feeds[1].Seal("f", e)
			if err != nil {
				t.Fatal(err)
			}
			reign = coordinator.Reign{Epoch: 2, Site: "south", Start: sealed.End}
			e = coordinator.LogEpoch{Epoch: 2, Owner: "x", Members: names[1:], Start: sealed.End, Starts: []int64{0, sealed.End}, Reign: &reign}
			if err := feeds[1].Own("f", e, config(p[1].url(), int(c.qos)), nil); err != nil {
				t.Fatal(err)
			}
			l := &life{t: t, qos: c.qos, peer: p[1]}
			l.c = p[1].session(t, c.qos, true)
			if c.stop.what == release {
				l.c.send(pubrel(5))
				l.c.acks(packets.Pubcomp, 5)
			} else {
				l.c.send(publish(5, c.qos, true, "t/a", "a"))
				l.take(5)
			}
			l.c.send(publish(5, c.qos, false, "t/a", "a")) // the id is used again
			l.take(5)
			if l.feed, err = feeds[1].OpenKeeping("f", nil, nil); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.feed.Close() }()
			wants(t, l.end(), "a", "a")
		})
	}
}

// A mirror that was cut off for longer than its source keeps begins anew, on all
// its members, and says so; and a source keeps what a mirror lacks that it was
// told of.
func TestTheSourceKeepsOrNot(t *testing.T) {
	for _, keep := range []int64{1, 1 << 40} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				w.north.keep = keep
				w.north.config.Keep.Age = dataflow.Second
				w.north.broker.batch = 20_000
				w.north.start("a", w.north.agents["a"].crash())
				w.north.move("a", "a", "b")
				time.Sleep(10 * time.Second)
				w.north.broker.publish(numbers(0, 10)...)
				time.Sleep(10 * time.Second)
				if f, err := w.north.agents["a"].feeds.OpenKeeping("f", nil, nil); err != nil {
					t.Fatal(err)
				} else {
					f.MirroredAt([]mesh.Site{"south"})
					if err := f.Close(); err != nil {
						t.Error(err)
					}
				}
				for _, n := range w.south.source {
					w.north.net.Cut(n, "x")
				}
				time.Sleep(time.Minute)
				for i := range 8 {
					w.north.broker.publish(numbers(10+20_000*i, 10+20_000*(i+1))...)
					time.Sleep(10 * time.Second)
				}
				w.north.net.HealAll()
				time.Sleep(time.Minute)
				want := groups(t, w.north.agents["a"].dir)
				n, s := w.north.status(), w.south.status()
				if n.End != s.End || (s.Of.Lost > 0) == (keep > 1) || (want[0].Seq <= 10) != (keep > 1) {
					t.Errorf("%+v %+v of %+v, which begins at %d", s, s.Of, n, want[0].Seq)
				}
				for _, a := range w.south.agents {
					got := groups(t, a.dir)
					if keep == 1 && got[0].Seq < want[0].Seq {
						got = got[len(got)-len(want):]
					}
					same(t, string(a.node), got[len(got)-min(len(got), len(want)):], want[len(want)-min(len(got), len(want)):])
				}
			})
		})
	}
}

// A mirror begins anew behind what is pinned in it: who stood before that holds nothing
// any more, then and when pins are set later. Who stands behind it, or has nothing yet
// that he could be restored from, does.
func TestAMirrorThatBeginsAnewLetsGo(t *testing.T) {
	place := func(at int64) map[int]int64 { return map[int]int64{0: at} }
	for name, c := range map[string]struct {
		needs feed.Need
		again bool // it is said again when the mirror has begun anew
		holds bool
	}{
		"nobody":                     {},
		"a savepoint":                {needs: feed.Need{From: []map[int]int64{place(5)}}},
		"a savepoint, again":         {needs: feed.Need{From: []map[int]int64{place(5)}}, again: true},
		"a job without a checkpoint": {needs: feed.Need{All: true}, holds: true},
		"the same, again":            {needs: feed.Need{All: true}, again: true, holds: true},
		"a replica that lost":        {needs: feed.Need{From: []map[int]int64{place(5)}, All: true}, holds: true},
		"a checkpoint that is left":  {needs: feed.Need{From: []map[int]int64{place(5), place(200_000)}}, holds: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoSites(t)
				defer w.stop()
				w.north.keep = 1
				w.north.broker.batch = 20_000
				w.north.config.Keep.Age, w.south.config.Keep.Age = dataflow.Second, dataflow.Second
				w.north.start("a", w.north.agents["a"].crash())
				w.north.move("a", "a", "b")
				w.south.move("x", "x", "y")
				time.Sleep(10 * time.Second)
				n := 0
				publish := func(rounds, size int) {
					for range rounds {
						w.north.broker.publish(numbers(n, n+size)...)
						n += size
						time.Sleep(10 * time.Second)
					}
				}
				publish(1, 10)
				f, err := w.south.agents["x"].feeds.OpenKeeping("f", nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = f.Close() }()
				set := func() {
					if err := f.SetPins(map[string]feed.Need{"who": c.needs}, func(string) bool { return false }); err != nil {
						t.Fatal(err)
					}
				}
				set()
				for _, n := range w.south.source {
					w.north.net.Cut(n, "x")
				}
				time.Sleep(time.Minute)
				publish(8, 20_000)
				w.north.net.HealAll()
				time.Sleep(time.Minute)
				s := w.south.status()
				if s.Of.Lost == 0 {
					t.Fatalf("it did not begin anew: %+v %+v", s, s.Of)
				}
				if c.again {
					set()
				}
				publish(8, 20_000)
				if now := w.south.status(); now.Of.End != now.End || c.holds && now.First > max(s.First, 200_000) || !c.holds && now.First <= 200_000 {
					t.Errorf("it began at %d, and begins at %d, of %d", s.First, now.First, now.End)
				}
			})
		})
	}
}

// A mirror has no room, for what is pinned there, or on its disk. It asks again, though
// seldom, and hears when its source has let go of what it lacks: then it begins anew, and
// what was pinned holds nothing. Where the source keeps it, it goes on when there is room.
func TestAMirrorWithoutRoomAsksAgain(t *testing.T) {
	for _, disk := range []bool{false, true} {
		for _, keep := range []int64{1, 1 << 40} {
			t.Run(fmt.Sprint(disk, keep), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newTwoSites(t)
					defer w.stop()
					w.north.keep = keep
					w.north.broker.batch = 2000
					w.north.config.Keep.Age = dataflow.Second
					w.north.start("a", w.north.agents["a"].crash())
					w.north.move("a", "a", "b")
					var full atomic.Bool
					var told atomic.Int64
					w.south.events = func(e feed.Event) {
						if e.Kind == feed.Full {
							told.Add(1)
						}
					}
					w.south.full = func() bool { return disk && full.Load() }
					if !disk {
						w.south.config.Keep.Cap = 4 << 20
					}
					w.south.start("x", w.south.agents["x"].crash())
					w.south.move("x", "x", "y")
					w.north.broker.publish(numbers(0, 10)...)
					time.Sleep(10 * time.Second)
					x, err := w.south.agents["x"].feeds.OpenKeeping("f", nil, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = x.Close() }()
					a, err := w.north.agents["a"].feeds.OpenKeeping("f", nil, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = a.Close() }()
					a.MirroredAt([]mesh.Site{"south"})
					pin := func(needs map[string]feed.Need) {
						if err := x.SetPins(needs, func(string) bool { return false }); err != nil {
							t.Fatal(err)
						}
					}
					pin(map[string]feed.Need{"replica j": {From: []map[int]int64{{0: 5}}}})
					full.Store(true)
					for i := range 8 {
						var some []string
						for n := range 20_000 {
							some = append(some, fmt.Sprintf("%060d", 20_000*i+n))
						}
						w.north.broker.publish(some...)
						time.Sleep(10 * time.Second)
					}
					told.Store(0) // how often some of it had room depends on how it was cut into commits
					time.Sleep(10 * time.Minute)
					if keep > 1 || disk {
						if s := w.south.status(); s.End >= w.north.status().End || !strings.Contains(s.Why, "no room") {
							t.Errorf("%+v %+v", s, s.Of)
						}
						if n := told.Load(); n > 30 {
							t.Errorf("it says so %d times in ten minutes", n)
						}
						pin(nil)
						full.Store(false)
						time.Sleep(2 * time.Minute)
					}
					n, s := w.north.status(), w.south.status()
					if s.End != n.End || s.Why != "" || (s.Of.Lost > 0) != (keep == 1) {
						t.Errorf("%+v %+v of %+v", s, s.Of, n)
					}
					want := groups(t, w.north.agents["a"].dir)
					for _, a := range w.south.agents {
						got := groups(t, a.dir)
						most := min(len(want), len(got))
						same(t, string(a.node), got[len(got)-most:], want[len(want)-most:])
					}
				})
			})
		}
	}
}

// Agents of both sites die and come back, links are cut, in any order: at the end
// the mirror has everything.
func TestTwoSitesAgentsDie(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, rnd := newTwoSites(t), rand.New(rand.NewPCG(seed, 3))
				defer w.stop()
				n := 0
				for range 15 {
					k := rnd.IntN(30)
					w.north.broker.publish(numbers(n, n+k)...)
					n += k
					time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
					s := []*site{w.north, w.south}[rnd.IntN(2)]
					nodes := []mesh.NodeID{s.epoch.Members[0], s.epoch.Members[1]}
					switch rnd.IntN(4) {
					case 0: // the owner dies, and the other one is next
						s.start(nodes[0], s.agents[nodes[0]].crash())
						s.move(nodes[1], nodes[1], nodes[0])
					case 1:
						s.start(nodes[1], s.agents[nodes[1]].crash())
						s.knows(nodes[1])
					case 2:
						w.north.net.Cut("a", "x")
						w.north.net.Cut("b", "x")
					default:
						w.north.net.HealAll()
					}
				}
				w.north.net.HealAll()
				time.Sleep(time.Minute)
				w.check(n)
				if s := w.south.status(); s.Of.Why != "" || s.Of.End != s.End || strings.Contains(s.Why, "member") {
					t.Errorf("%+v %+v", s, s.Of)
				}
			})
		})
	}
}
