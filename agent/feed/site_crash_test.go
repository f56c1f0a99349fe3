package feed_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
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

// Agents die, links break, and epochs change at random moments while messages
// flow: all that was acknowledged is in the log of the last epoch, in order, and
// all copies are the same.
func TestAgentsDie(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { agentsDie(t, rand.New(rand.NewPCG(seed, 5))) })
		})
	}
}

func agentsDie(t *testing.T, rnd *rand.Rand) {
	nodes := []mesh.NodeID{"a", "b", "c"}
	s := newSite(t, nodes...)
	defer s.stop()
	for i := range nodes {
		for k := range i {
			s.net.Delay(nodes[i], nodes[k], time.Duration(1+rnd.IntN(20))*time.Millisecond)
		}
	}
	s.begin("a", 0, "a", "b")
	s.knows("a", "b")
	down := make(map[mesh.NodeID]string)
	sent := 0
	for range 30 {
		<-time.After(time.Duration(rnd.IntN(100)) * time.Millisecond) // virtual
		node := nodes[rnd.IntN(len(nodes))]
		switch k := rnd.IntN(10); {
		case k < 4:
			n := 1 + rnd.IntN(10)
			s.broker.publish(numbers(sent, sent+n)...)
			sent += n
		case k < 5:
			s.net.Break(nodes[rnd.IntN(2)], "c")
			s.net.Break("a", "b")
		case k < 7:
			if dir, is := down[node]; is {
				delete(down, node)
				s.start(node, dir)
				_ = s.know(node) // an owner or member of before; a promise may be in the way
			} else if len(down) == 0 {
				down[node] = s.agents[node].crash()
				delete(s.agents, node)
			}
		default:
			s.change(node, nodes, down, rnd)
		}
	}
	// At last everybody is there.
	for node, dir := range down {
		s.start(node, dir)
	}
	for last := s.epoch; s.epoch.Epoch == last.Epoch; {
		for _, node := range last.Members {
			if s.epoch.Epoch == last.Epoch {
				s.changeTo(node, nodes)
			}
		}
	}
	s.broker.publish("end")
	<-time.After(time.Minute) // virtual
	acked := s.broker.acks()
	if len(acked) == 0 || acked[len(acked)-1] != "end" || s.broker.waiting() != 0 {
		t.Fatalf("%d of %d are acknowledged, %d wait; %v", len(acked), sent+1, s.broker.waiting(), s.agents[s.epoch.Owner].events())
	}
	log := onDisk(t, s.agents[s.epoch.Owner].dir)
	at := 0
	for _, text := range acked {
		i := slices.Index(log[at:], text)
		if i < 0 {
			t.Fatalf("message %s was acknowledged and is lost", text)
		}
		at += i
	}
	for i := range sent {
		if !slices.Contains(log, strconv.Itoa(i)) {
			t.Errorf("message %d is lost", i)
		}
	}
	for _, node := range nodes {
		if !reflect.DeepEqual(groups(t, s.agents[node].dir), groups(t, s.agents[s.epoch.Owner].dir)) {
			t.Errorf("the groups of %s are others", node)
		}
	}
}

// change begins an epoch of node and some others, if node can say where.
func (s *site) change(node mesh.NodeID, nodes []mesh.NodeID, down map[mesh.NodeID]string, rnd *rand.Rand) {
	if _, is := down[node]; is || !slices.Contains(s.epoch.Members, node) {
		return
	}
	members := []mesh.NodeID{node}
	for _, n := range nodes {
		if _, is := down[n]; n != node && !is && rnd.IntN(3) > 0 {
			members = append(members, n)
		}
	}
	s.changeTo(node, members)
}

func (s *site) changeTo(owner mesh.NodeID, members []mesh.NodeID) {
	sealed, err := s.agents[owner].feeds.Seal("f", s.epoch)
	if err != nil || sealed.End < s.epoch.Start {
		return // it has not all
	}
	s.begin(owner, sealed.End, members...)
	for _, n := range members {
		if err := s.know(n); err != nil {
			s.t.Fatalf("%s in epoch %d: %v", n, s.epoch.Epoch, err)
		}
	}
}

// The owner dies behind the fsync of all copies, before the broker hears of it.
// The next owner gets the message again: it is in the log once. So it is with
// the release of QoS 2.
func TestRedeliveryToTheNextOwner(t *testing.T) {
	for _, c := range []struct {
		qos  byte
		stop step
	}{{1, step{name: "commit"}}, {2, step{name: "commit"}}, {2, step{"commit", release}}} {
		t.Run(fmt.Sprint("qos ", c.qos, c.stop.what), func(t *testing.T) {
			net := simnet.New()
			ev := newEvents()
			p := [2]*peer{newPeer(t), newPeer(t)}
			var feeds [2]*feed.Feeds
			var g [2]*gates
			names := []mesh.NodeID{"a", "b"}
			for i, name := range names {
				tr := net.New(name, "here")
				g[i] = &gates{reached: make(chan struct{}), open: make(chan struct{})}
				if i == 0 {
					g[i].at = c.stop
				}
				feeds[i] = feed.New(feed.Options{Dir: t.TempDir(), Transport: tr, Events: ev.add, Session: func(fc feed.Config, so feed.SessionOptions) (sensors.Reader, error) {
					r, err := mqtt.NewReader(mqtt.ReaderOptions{
						Connection: mqtt.Connection{Broker: fc.Broker, ClientID: fc.ClientID, Clock: so.Clock, Events: so.Events, BackoffMin: dataflow.Millisecond, BackoffMax: dataflow.Millisecond},
						Topics:     fc.Topics, QoS: c.qos, Lanes: fc.Lanes, Recall: so.Recall, TickEvery: -1,
					})
					g[i].Reader = r
					return g[i], err
				}})
				tr.Start()
				t.Cleanup(func() { _ = tr.Close() })
				t.Cleanup(func() { _ = feeds[i].Close() })
				t.Cleanup(func() {
					select {
					case <-g[i].open:
					default:
						close(g[i].open)
					}
				})
			}
			e := coordinator.LogEpoch{Epoch: 1, Owner: "a", Members: names, Starts: []int64{0}}
			if err := feeds[1].Follow("f", e, config(p[0].url(), int(c.qos))); err != nil {
				t.Fatal(err)
			}
			if err := feeds[0].Own("f", e, config(p[0].url(), int(c.qos)), nil); err != nil {
				t.Fatal(err)
			}
			conn := p[0].session(t, c.qos, false)
			conn.send(publish(5, c.qos, false, "t/a", "a"))
			if c.stop.what == release {
				conn.acks(packets.Pubrec, 5)
				conn.send(pubrel(5))
			}
			<-g[0].reached
			_ = conn.c.Close() // it is dead for the broker and for b
			net.Cut("a", "b")
			sealed, err := feeds[1].Seal("f", e)
			if err != nil {
				t.Fatal(err)
			}
			e = coordinator.LogEpoch{Epoch: 2, Owner: "b", Members: names[1:], Start: sealed.End, Starts: []int64{0, sealed.End}}
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
