package gossip

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// agent is a pool with what its listener heard.
type agent struct {
	*Pool
	end *end

	mu     sync.Mutex // guards what follows
	events []string   // of members
	doors  []string   // what was not let in
}

func (a *agent) hear(e Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.Why != "" {
		a.doors = append(a.doors, e.String())
		return
	}
	a.events = append(a.events, fmt.Sprintf("%s %s", e.Kind, e.Member.Node))
}

// heard takes what was heard since the last time.
func (a *agent) heard() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := strings.Join(a.events, ", ")
	a.events = nil
	return s
}

// status is how a sees another one; 0: not at all.
func (a *agent) status(b string) mesh.MemberStatus {
	m, _ := a.Member(mesh.NodeID(b))
	return m.Status
}

func self(node string, boot uint64) mesh.Member {
	return mesh.Member{
		Node: mesh.NodeID(node), Boot: boot, Name: "box-" + node, Site: "hall", Link: "10.0.0.9:7071", HTTP: "10.0.0.9:7070", Host: "h-" + node,
		Labels: map[string]string{"rack": node}, Slots: 4, Version: "v1", Level: 2,
	}
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

// start starts an agent that joins the others. It runs in a bubble of synctest:
// time is virtual.
func start(t *testing.T, n *network, node string, boot uint64, others ...*agent) *agent {
	t.Helper()
	return startWith(t, n, Config{Self: self(node, boot), Key: testKey, Label: "plant/hall"}, others...)
}

func startWith(t *testing.T, n *network, c Config, others ...*agent) *agent {
	t.Helper()
	a := &agent{end: n.open()}
	c.Transport, c.Events = a.end, a.hear
	for _, o := range others {
		c.Join = append(c.Join, o.end.addr)
	}
	var err error
	if a.Pool, err = Start(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// until waits, in virtual time, and returns how long it took.
func until(t *testing.T, most time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > most {
			t.Fatalf("not within %s: %s", most, what)
		}
		<-time.After(5 * time.Millisecond)
	}
	return time.Since(begin)
}

// seeds is so many, or one under -short: the race detector is slow.
func seeds(most uint64) uint64 {
	if testing.Short() {
		return 1
	}
	return most
}

// site starts n agents a, b, c, ... that know each other.
func site(t *testing.T, n *network, count int) []*agent {
	t.Helper()
	all := []*agent{start(t, n, "a", 1)}
	for i := 1; i < count; i++ {
		all = append(all, start(t, n, string(rune('a'+i)), 1, all[0]))
	}
	took := until(t, time.Minute, "all see all", func() bool {
		for _, a := range all {
			for _, b := range all {
				m, ok := a.Member(b.self.Node)
				if !ok || m.Status != mesh.Alive || !maps.Equal(m.Labels, b.self.Labels) {
					return false
				}
			}
		}
		return true
	})
	synctest.Wait()
	for _, a := range all {
		a.heard()
	}
	if took > 5*time.Second {
		t.Logf("%d agents took %s to know each other", count, took)
	}
	return all
}

func TestMembersKnowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1)
		a := start(t, n, "a", 1)
		b := start(t, n, "b", 7, a)
		until(t, 5*time.Second, "a sees b", func() bool { m, _ := a.Member("b"); return m.Labels["rack"] == "b" })
		synctest.Wait()
		if got := a.heard(); got != "joined b" && got != "joined b, changed b" {
			t.Errorf("a heard %q", got)
		}
		m, _ := a.Member("b")
		want := self("b", 7)
		want.Gossip, want.Status = b.end.addr, mesh.Alive
		if !same(m, want) || m.Status != mesh.Alive {
			t.Errorf("a sees %+v, want %+v", m, want)
		}
		if all := b.Members(); len(all) != 2 || all[0].Node != "a" || all[1].Node != "b" || all[1].Gossip != b.Addr() {
			t.Errorf("b sees %+v", all)
		}
	})
}

// TestKilled: the time until all others know that an agent was killed, in a quiet
// LAN of several sizes. Whom memberlist asks when is chance that no seed repeats:
// about one kill of a thousand takes longer than 2 s, so that the mean is judged.
func TestKilled(t *testing.T) {
	for _, size := range []int{2, 3, 5, 9} {
		var worst, sum time.Duration
		seeds := seeds(5)
		for seed := range seeds {
			synctest.Test(t, func(t *testing.T) {
				all := site(t, newNetwork(t, seed), size)
				time.Sleep(time.Duration(seed) * 37 * time.Millisecond) // at any moment of their rounds
				last := all[size-1]
				last.end.kill()
				took := until(t, 10*time.Second, "all know", func() bool {
					for _, a := range all[:size-1] {
						if a.status(string(last.self.Node)) != mesh.Failed {
							return false
						}
					}
					return true
				})
				worst, sum = max(worst, took), sum+took
				synctest.Wait()
				if got, want := all[0].heard(), "failed "+string(last.self.Node); got != want {
					t.Errorf("a heard %q, want %q", got, want)
				}
			})
		}
		t.Logf("%d agents: at most %s", size, worst)
		if mean := sum / time.Duration(seeds); mean > 2*time.Second {
			t.Errorf("%d agents: %s in the mean", size, mean)
		}
	}
}

// TestRestart: a process that starts anew, at another address, is back at once,
// whether its end was noticed or not.
func TestRestart(t *testing.T) {
	for _, noticed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 1)
			all := site(t, n, 3)
			a, b, c := all[0], all[1], all[2]
			c.end.kill()
			if noticed {
				until(t, 10*time.Second, "c failed", func() bool { return a.status("c") == mesh.Failed && b.status("c") == mesh.Failed })
			}
			c2 := start(t, n, "c", 2, a)
			until(t, 5*time.Second, "c is back", func() bool {
				x, _ := a.Member("c")
				y, _ := b.Member("c")
				return x.Boot == 2 && y.Boot == 2 && x.Gossip == c2.end.addr && x.Labels["rack"] == "c" && y.Status == mesh.Alive
			})
			time.Sleep(10 * time.Second) // its earlier life is found dead, which is nobody's business
			want := "back c"
			if noticed {
				want = "failed c, back c"
			}
			for _, x := range []*agent{a, b} {
				if got := strings.TrimSuffix(x.heard(), ", changed c"); got != want || x.status("c") != mesh.Alive {
					t.Errorf("noticed %v: heard %q, want %q", noticed, got, want)
				}
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1)
		all := site(t, n, 3)
		if err := all[2].Leave(t.Context()); err != nil {
			t.Error(err)
		}
		if err := all[2].Leave(t.Context()); err != nil {
			t.Error(err)
		}
		if err := all[2].Update(self("c", 1)); err == nil {
			t.Error("updated after it left")
		}
		until(t, 5*time.Second, "all know", func() bool { return all[0].status("c") == mesh.Left && all[1].status("c") == mesh.Left })
		if err := all[2].Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := all[0].heard(); got != "left c" || all[0].status("c") != mesh.Left {
			t.Errorf("a heard %q", got)
		}
		start(t, n, "c", 2, all[1])
		until(t, 5*time.Second, "c is back", func() bool { return all[0].status("c") == mesh.Alive })
	})
}

// Who leaves another site's agents, too, has a second for it, and is gone then: they hear
// it at once, and not when it has been silent for long.
func TestLeaveInASecond(t *testing.T) {
	for _, p := range []Profile{LAN, WAN, Loopback, LoopbackWAN} {
		for seed := range seeds(10) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, seed)
				a := startWith(t, n, Config{Self: self("a", 1), Key: testKey, Label: "plant", Profile: p})
				b := startWith(t, n, Config{Self: self("b", 1), Key: testKey, Label: "plant", Profile: p}, a)
				until(t, time.Minute, "both see both", func() bool { return a.status("b") == mesh.Alive && b.status("a") == mesh.Alive })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_ = b.Leave(ctx) // some have not heard it, as far as it knows
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				if synctest.Wait(); a.status("b") != mesh.Left {
					t.Errorf("profile %v, seed %d: it has left, and is %v", p, seed, a.status("b"))
				}
			})
		}
	}
}

func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := site(t, newNetwork(t, 1), 4)
		m := self("d", 1)
		m.Slots, m.Labels = 9, map[string]string{"rack": "x", "gpu": "yes"}
		if err := all[3].Update(m); err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			until(t, 10*time.Second, "all know", func() bool {
				x, _ := a.Member("d")
				return x.Slots == 9 && maps.Equal(x.Labels, m.Labels)
			})
		}
		// Labels too long for a packet go with the exchange of states.
		for i := range maxLabels {
			m.Labels[fmt.Sprintf("label-%d", i)] = strings.Repeat("x", maxWord)
		}
		delete(m.Labels, "rack")
		delete(m.Labels, "gpu")
		if err := all[3].Update(m); err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			until(t, 15*time.Second, "all know", func() bool { x, _ := a.Member("d"); return maps.Equal(x.Labels, m.Labels) })
		}
		m.Boot = 2
		if err := all[3].Update(m); err == nil {
			t.Error("another boot was taken")
		}
	})
}

// TestPartition: two halves take each other for failed, and find each other again
// when they can, also after memberlist has forgotten the other half.
func TestPartition(t *testing.T) {
	for _, long := range []time.Duration{5 * time.Second, 2 * time.Minute} {
		if testing.Short() && long > time.Minute {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 1)
			all := site(t, n, 4)
			half := map[string]bool{all[0].end.addr: true, all[1].end.addr: true}
			n.setLost(func(from, to string) bool { return half[from] != half[to] })
			until(t, 15*time.Second, "they fail", func() bool { return all[0].status("c") == mesh.Failed && all[3].status("a") == mesh.Failed })
			time.Sleep(long)
			if all[0].status("b") != mesh.Alive || all[2].status("d") != mesh.Alive {
				t.Error("the halves fell apart")
			}
			n.setLost(nil)
			until(t, time.Minute, "they are back", func() bool {
				for _, a := range all {
					for _, b := range all {
						if a.status(string(b.self.Node)) != mesh.Alive {
							return false
						}
					}
				}
				return true
			})
			synctest.Wait()
			if got := all[0].heard(); !strings.Contains(got, "failed c") || !strings.Contains(got, "back c") {
				t.Errorf("a heard %q", got)
			}
		})
	}
}

// TestBusy: agents that answer slowly, lose packets, or stand still for a moment
// are never taken for dead.
func TestBusy(t *testing.T) {
	for name, prepare := range map[string]func(*network, []*agent){
		"slow by 80 ms each way": func(n *network, _ []*agent) {
			n.delay = func(string, string) time.Duration { return 80 * time.Millisecond }
		},
		"a fifth of the packets lost": func(n *network, _ []*agent) { n.drop = 0.2 },
		"one stands still for 0.6 s of each 2 s": func(n *network, all []*agent) {
			addr := all[1].end.addr
			begin := time.Now()
			n.delay = func(_, to string) time.Duration {
				if at := time.Since(begin) % (2 * time.Second); to == addr && at < 600*time.Millisecond {
					return 600*time.Millisecond - at
				}
				return 0
			}
			n.lost = func(from, to string) bool { return false }
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 1)
			all := site(t, n, 4)
			n.mu.Lock()
			prepare(n, all)
			n.mu.Unlock()
			time.Sleep(30 * time.Second)
			for _, a := range all {
				if got := a.heard(); got != "" {
					t.Errorf("%s: heard %q", name, got)
				}
			}
		})
	}
}

// TestSuspect: a hint is told, and taken back when the member answers.
func TestSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1)
		all := site(t, n, 3)
		all[0].Suspect("b")
		all[0].Suspect("nobody")
		until(t, 5*time.Second, "b answers", func() bool {
			return strings.Contains(all[0].heard(), "suspect b, back b") || all[0].status("b") == mesh.Alive
		})
		all[1].end.kill()
		all[0].Suspect("b")
		until(t, 5*time.Second, "b is suspect", func() bool { return all[0].status("b") == mesh.Suspect })
		until(t, 10*time.Second, "b failed", func() bool { return all[0].status("b") == mesh.Failed })
		all[0].Suspect("b")
		time.Sleep(time.Second)
		if s := all[0].status("b"); s != mesh.Failed {
			t.Errorf("a hint about a failed member made it %s", s)
		}
	})
}

// TestCopiedFolder: of two agents with one identity the one that was started less
// often is told so, both if neither was.
func TestCopiedFolder(t *testing.T) {
	for _, boots := range [][2]uint64{{1, 2}, {2, 1}, {1, 1}} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 1)
			a := start(t, n, "a", 1)
			one := start(t, n, "x", boots[0], a)
			two := start(t, n, "x", boots[1], a)
			why := mesh.ErrTwin.Error()
			until(t, time.Minute, "the one that is to know is told", func() bool {
				first, second := one.told("twin", why) > 0, two.told("twin", why) > 0
				return (first || boots[0] > boots[1]) && (second || boots[1] > boots[0])
			})
		})
	}
}

// told tells whether a was told of something at its door, and how often.
func (a *agent) told(parts ...string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.doors {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(d, p) }) {
			n++
		}
	}
	return n
}

// TestStrangers: who has another key or label is not heard, and hears nothing;
// both sides say why, and not without end.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1)
		a := start(t, n, "a", 1)
		b := startWith(t, n, Config{Self: self("b", 1), Key: []byte(strings.Repeat("x", 32)), Label: "plant/hall"}, a)
		c := startWith(t, n, Config{Self: self("c", 1), Key: testKey, Label: "plant/depot"}, a)
		start(t, n, "d", 1, a, b, c)
		time.Sleep(time.Minute)
		if all := a.Members(); len(all) != 2 || a.status("d") != mesh.Alive {
			t.Errorf("a sees %v", all)
		}
		for _, x := range []*agent{b, c} {
			if all := x.Members(); len(all) != 1 {
				t.Errorf("a stranger sees %v", all)
			}
		}
		for what, c := range map[string]struct {
			at    *agent
			parts []string
		}{
			"a of another key":   {a, []string{"refused", "another gossip key"}},
			"a of another label": {a, []string{"refused", `another mesh or site: "plant/depot"`}},
			"b that it is alone": {b, []string{"no other agent answers yet", a.end.addr}},
			"c that it is alone": {c, []string{"no other agent answers yet", a.end.addr}},
			"c of another label": {c, []string{"refused", `another mesh or site: "plant/hall"`}},
		} {
			if n := c.at.told(c.parts...); n < 1 || n > 8 {
				t.Errorf("%s was told %d times: %q", what, n, c.at.doors)
			}
		}
	})
	for _, key := range []string{"", "short", strings.Repeat("x", 16)} {
		if _, err := Start(Config{Self: self("a", 1), Key: []byte(key), Bind: "127.0.0.1:0"}); err == nil {
			t.Errorf("a key of %d bytes was taken", len(key))
		}
	}
}
