package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFactsFit(t *testing.T) {
	if maxFacts != memberlist.MetaMaxSize {
		t.Errorf("the bound is %d, memberlist's %d", maxFacts, memberlist.MetaMaxSize)
	}
	for name, c := range map[string]struct {
		change func(*mesh.Member)
		want   error
	}{
		"usual":             {func(*mesh.Member) {}, nil},
		"long name":         {func(m *mesh.Member) { m.Name = strings.Repeat("x", maxWord+1) }, ErrMember},
		"long address":      {func(m *mesh.Member) { m.Link = strings.Repeat("x", maxAddress+1) }, ErrMember},
		"no boot":           {func(m *mesh.Member) { m.Boot = 0 }, ErrMember},
		"no node":           {func(m *mesh.Member) { m.Node = "" }, ErrMember},
		"many labels":       {func(m *mesh.Member) { m.Labels = many(maxLabels + 1) }, ErrMember},
		"as many labels":    {func(m *mesh.Member) { m.Labels = many(maxLabels) }, nil},
		"a long label":      {func(m *mesh.Member) { m.Labels["x"] = strings.Repeat("x", maxWord+1) }, ErrMember},
		"everything is big": {func(m *mesh.Member) { m.Link, m.HTTP, m.Name = big(maxAddress), big(maxAddress), big(maxWord) }, nil},
		"too big together": {func(m *mesh.Member) {
			m.Link, m.HTTP, m.Name, m.Host, m.Version, m.Site = big(maxAddress), big(maxAddress), big(maxWord), big(maxWord), big(maxWord), mesh.Site(big(maxWord))
		}, ErrMember},
	} {
		m := self("a", 1)
		c.change(&m)
		data, err := factsOf(m, 1, false)
		if !errors.Is(err, c.want) || len(data) > maxFacts-2 && err == nil {
			t.Errorf("%s: %d bytes, %v, want %v", name, len(data), err, c.want)
		}
		if err != nil {
			continue
		}
		f, err := readFacts(data)
		if err != nil || f.Name != m.Name || f.Change != 1 {
			t.Errorf("%s: read as %+v, %v", name, f, err)
		}
		if data, err = factsOf(m, 1, true); err != nil || len(data) > maxFacts {
			t.Errorf("%s: leaving, %d bytes, %v", name, len(data), err)
		}
	}
}

func big(n int) string { return strings.Repeat("x", n) }

func many(n int) map[string]string {
	l := make(map[string]string)
	for i := range n {
		l[fmt.Sprint(i)] = "x"
	}
	return l
}

func TestLifeName(t *testing.T) {
	for _, boot := range []uint64{1, 36, 1<<64 - 1} {
		node, b, ok := lifeOf(lifeName("n-a-b", boot))
		if node != "n-a-b" || b != boot || !ok {
			t.Errorf("%s, %d, %v", node, b, ok)
		}
	}
	for _, bad := range []string{"", "-1", "abc", "a-", "a-!"} {
		if _, _, ok := lifeOf(bad); ok {
			t.Errorf("%q is a life", bad)
		}
	}
}

// bare is a pool that nobody hears.
func bare() *Pool {
	return &Pool{
		wake: make(chan struct{}, 1), oddly: make(map[oddity]time.Time), members: make(map[mesh.NodeID]*member),
		told: make(map[mesh.NodeID]labels), self: self("self", 1), labels: &memberlist.TransmitLimitedQueue{NumNodes: func() int { return 3 }, RetransmitMult: 4},
	}
}

func node(t *testing.T, m mesh.Member) *memberlist.Node {
	t.Helper()
	data, err := factsOf(m, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	return &memberlist.Node{Name: lifeName(m.Node, m.Boot), Meta: data, Addr: net.IPv4(10, 0, 0, 1), Port: 7072}
}

// TestBounded: members that come and go, and those that pretend, take no more
// than the bounds.
func TestBounded(t *testing.T) {
	p := bare()
	d := delegate{p}
	for i := range 3 * maxGone {
		n := node(t, self(fmt.Sprint("n", i), 1))
		d.NotifyJoin(n)
		d.NotifyLeave(n)
	}
	if len(p.members) != maxGone || p.members["n0"] != nil || p.members[mesh.NodeID(fmt.Sprint("n", 3*maxGone-1))] == nil {
		t.Errorf("%d that are gone are remembered, at most the newest %d", len(p.members), maxGone)
	}
	for i := range 2 * maxMembers {
		d.NotifyJoin(node(t, self(fmt.Sprint("m", i), 1)))
		p.learn(labels{Node: mesh.NodeID(fmt.Sprint("x", i)), Boot: 1, Change: 1})
	}
	if len(p.members) != maxMembers || len(p.told) > maxMembers+1 {
		t.Errorf("%d members and %d labels", len(p.members), len(p.told))
	}
	for range maxMembers * 4 {
		if _, _, more := p.next(); !more {
			break
		}
	}
	if len(p.dirty) > 0 {
		t.Error("there is always more to tell")
	}
}

// TestEarlierLives: what is said of an earlier life of a node is old news; what
// does not fit together is not believed.
func TestEarlierLives(t *testing.T) {
	p := bare()
	d := delegate{p}
	d.NotifyJoin(node(t, self("a", 5)))
	d.NotifyJoin(node(t, self("a", 4)))
	d.NotifyLeave(node(t, self("a", 4)))
	if m := p.members["a"]; m.Boot != 5 || m.Status != mesh.Alive {
		t.Errorf("an earlier life counted: boot %d, %s", m.Boot, m.Status)
	}
	liar := node(t, self("b", 1))
	liar.Name = lifeName("c", 1)
	d.NotifyJoin(liar)
	d.NotifyJoin(&memberlist.Node{Name: "x", Meta: []byte("x")})
	d.NotifyLeave(&memberlist.Node{Name: "x"})
	d.NotifyJoin(node(t, self("self", 9))) // a copy of our data folder
	if len(p.members) != 1 {
		t.Errorf("%d members", len(p.members))
	}
	if p.learn(labels{Node: "self", Boot: 9}) || !p.learn(labels{Node: "a", Boot: 5, Change: 2}) || p.learn(labels{Node: "a", Boot: 5, Change: 2}) ||
		p.learn(labels{Node: "a", Boot: 4, Change: 3}) {
		t.Error("old labels were news, or the other way round")
	}
}

// TestAtTheDoor: which of memberlist's lines are told, and how.
func TestAtTheDoor(t *testing.T) {
	p := bare()
	p.config.Self = self("self", 1)
	for line, want := range map[string]string{
		`[ERR] memberlist: discarding packet with unacceptable label "b/hall": from=10.0.0.9:7072` + "\n":       `gossip: refused at 10.0.0.9:7072: it is of another mesh or site: "b/hall"`,
		`[ERR] memberlist: discarding packet with unacceptable label "": from=10.0.0.8:7072` + "\n":             `gossip: refused at 10.0.0.8:7072: it is of another mesh or site: ""`,
		`[ERR] memberlist: discarding stream with unacceptable label "b/hall": from=10.0.0.8:1` + "\n":          `gossip: refused at 10.0.0.8:1: it is of another mesh or site: "b/hall"`,
		`[ERR] memberlist: discarding stream with unacceptable label "": from=10.0.0.8:1` + "\n":                "",
		"[ERR] memberlist: Decrypt packet failed: no key from=10.0.0.7:7072\n":                                  "gossip: refused at 10.0.0.7:7072: it has another gossip key, or none: Decrypt packet failed: no key",
		"[ERR] memberlist: Conflicting address for a-1. Mine: 10.0.0.1:1 Theirs: 10.0.0.2:2 Old state: alive\n": "",
		"[ERR] memberlist: failed to receive: read tcp 10.0.0.1:1->10.0.0.2:2: i/o timeout from=10.0.0.2:2\n":   "",
		"[WARN] memberlist: Refuting a suspect message (from: b)\n":                                             "",
		"[DEBUG] memberlist: Stream connection from=10.0.0.9:7072\n":                                            "",
		"e\n": "",
	} {
		for range 2 { // the same is told once
			if n, err := (lines{p}).Write([]byte(line)); n != len(line) || err != nil {
				t.Error(n, err)
			}
		}
		e, ok, _ := p.next()
		if ok != (want != "") || ok && e.String() != want {
			t.Errorf("%q became %v %q", line, ok, e)
		}
		if _, ok, _ := p.next(); ok {
			t.Errorf("%q is told twice", line)
		}
	}
	for i := range 3 * mostOdd {
		p.tellOdd(Event{Kind: Refused, Member: mesh.Member{Gossip: fmt.Sprintf("10.0.1.%d:1", i)}, Why: "x"})
	}
	if len(p.odd) > mostOdd || len(p.oddly) > mostOdd {
		t.Errorf("%d things are to be told, %d remembered", len(p.odd), len(p.oddly))
	}
}

// TestRoomForLabels: labels of nodes that nobody has seen do not keep out those
// of members.
func TestRoomForLabels(t *testing.T) {
	p := bare()
	for i := range 2 * maxMembers {
		p.learn(labels{Node: mesh.NodeID(fmt.Sprint("x", i)), Boot: 1, Change: 1})
	}
	for i := range maxMembers {
		delegate{p}.NotifyJoin(node(t, self(fmt.Sprint("m", i), 1)))
		if l := (labels{mesh.NodeID(fmt.Sprint("m", i)), 1, 1, map[string]string{"a": "b"}}); !p.learn(l) || p.members[l.Node].Labels["a"] != "b" {
			t.Fatalf("the labels of member %d are not taken", i)
		}
	}
	if len(p.told) > maxMembers+1 {
		t.Errorf("%d labels", len(p.told))
	}
}

func TestHappened(t *testing.T) {
	told := func(s mesh.MemberStatus, boot uint64) mesh.Member {
		return mesh.Member{Node: "a", Status: s, Boot: boot}
	}
	for _, c := range []struct {
		told, now mesh.Member
		want      Kind
	}{
		{mesh.Member{}, told(mesh.Alive, 1), Joined},
		{mesh.Member{}, told(mesh.Suspect, 1), Joined},
		{mesh.Member{}, told(mesh.Failed, 1), 0},
		{told(mesh.Alive, 1), told(mesh.Alive, 1), 0},
		{told(mesh.Alive, 1), told(mesh.Suspect, 1), Suspected},
		{told(mesh.Suspect, 1), told(mesh.Alive, 1), Back},
		{told(mesh.Suspect, 1), told(mesh.Failed, 1), Failed},
		{told(mesh.Alive, 1), told(mesh.Failed, 1), Failed},
		{told(mesh.Alive, 1), told(mesh.Left, 1), Left},
		{told(mesh.Failed, 1), told(mesh.Alive, 1), Back},
		{told(mesh.Left, 1), told(mesh.Alive, 2), Back},
		{told(mesh.Alive, 1), told(mesh.Alive, 2), Back},
		{told(mesh.Alive, 1), mesh.Member{Node: "a", Status: mesh.Alive, Boot: 1, Slots: 3}, Changed},
	} {
		k, ok := happened(c.told, c.now)
		if ok != (c.want != 0) || ok && k != c.want {
			t.Errorf("%+v to %+v: %s, %v", c.told, c.now, k, ok)
		}
	}
}

// TestSockets: the same over UDP and TCP of this machine.
func TestSockets(t *testing.T) {
	events := make(chan string, 64)
	open := func(name string, join ...string) *Pool {
		p, err := Start(Config{
			Bind: "127.0.0.1:0", Key: testKey, Label: "plant/hall", Self: self(name, 1), Join: join, Profile: Loopback,
			Events: func(e Event) {
				if e.Why == "" { // nobody need answer yet
					events <- fmt.Sprintf("%s: %s %s", name, e.Kind, e.Member.Node)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	wait := func(want ...string) {
		t.Helper()
		for len(want) > 0 {
			select {
			case e := <-events:
				want = slices.DeleteFunc(want, func(w string) bool { return w == e })
			case <-ctx.Done():
				t.Fatalf("no event %s", want)
			}
		}
	}
	a := open("a")
	b := open("b", "127.0.0.1:1", a.Addr()) // the first does not answer
	wait("a: joined b", "b: joined a")
	if m, ok := a.Member("b"); !ok || m.Gossip != b.Addr() {
		t.Errorf("b is %+v", m)
	}
	if err := b.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	wait("a: left b")
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Start(Config{Bind: a.Addr(), Key: testKey, Self: self("c", 1)}); err == nil {
		t.Error("two on one port")
	}
	for _, bad := range []string{"127.0.0.1", "127.0.0.1:x"} {
		if _, err := Start(Config{Bind: bad, Key: testKey, Self: self("c", 1)}); err == nil {
			t.Errorf("bound to %q", bad)
		}
	}
}

func FuzzMessages(f *testing.F) {
	data, err := factsOf(self("a", 1), 1, false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("\xa4\x01ana\x02\x01\x03\x01\x04\xa1aaab"))
	f.Add([]byte("\x81\xa0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := delegate{bare()}
		_, _ = readFacts(data)
		d.NotifyMsg(data)
		d.MergeRemoteState(data, false)
		if len(data) <= maxFacts {
			d.NotifyUpdate(&memberlist.Node{Name: "a-1", Meta: data, Addr: net.IPv4(10, 0, 0, 1)})
		}
		if _, err := readStates(d.LocalState(false)); err != nil {
			t.Error(err)
		}
	})
}
