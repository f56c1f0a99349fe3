package logepoch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A log of a and b goes over to a and c.
func TestHeirs(t *testing.T) {
	first := coordinator.LogEpoch{Epoch: 2, Owner: "a", Members: []mesh.NodeID{"a", "b"}, Start: 40, Starts: []int64{0, 40}}
	e := Next(&first, "a", []mesh.NodeID{"a", "c"}, 50)
	if want := []coordinator.Heir{{Node: "b", From: 40}}; !slices.Equal(e.Heirs, want) || e.Epoch != 3 || !slices.Equal(e.Starts, []int64{0, 40, 50}) {
		t.Fatalf("%+v", e)
	}
	for _, c := range []struct {
		name string
		ends map[mesh.NodeID]int64
		want string
	}{
		{"the owner", map[mesh.NodeID]int64{"a": 50}, "a"},
		{"a member in step", map[mesh.NodeID]int64{"c": 50}, "c"},
		{"one that is not", map[mesh.NodeID]int64{"c": 49}, ""},
		{"the heir alone cannot know what was acknowledged", map[mesh.NodeID]int64{"b": 45}, ""},
		{"with a member that has nothing of the epoch", map[mesh.NodeID]int64{"b": 45, "c": 10}, "b"},
		{"with one that has", map[mesh.NodeID]int64{"b": 45, "c": 51}, "c"},
		{"an heir that was not in step itself", map[mesh.NodeID]int64{"b": 39, "c": 10}, ""},
	} {
		var got []string
		for name, ok := range Owners(&e, c.ends) {
			if ok {
				got = append(got, string(name))
				if why := Refuse(&e, name, c.ends[name]); why != "" {
					t.Errorf("%s: %s", c.name, why)
				}
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q own it", c.name, s)
		}
	}
	for _, refused := range []struct {
		owner mesh.NodeID
		start int64
	}{{"a", 49}, {"b", 39}, {"b", 51}, {"d", 50}} {
		if Refuse(&e, refused.owner, refused.start) == "" {
			t.Errorf("%+v is not refused", refused)
		}
	}
	// What a has beyond the heir's end goes, and who stays an heir needs no more than that.
	e = Next(&e, "b", []mesh.NodeID{"b", "d"}, 45)
	if cut := Keeps(&e, Copy{Epoch: 2, End: 50}); cut != 45 || !slices.Equal(e.Starts, []int64{0, 40, 45, 45}) {
		t.Errorf("cut at %d, %+v", cut, e)
	}
	if want := []coordinator.Heir{{Node: "a", From: 45}, {Node: "c", From: 45}}; !slices.Equal(e.Heirs, want) {
		t.Errorf("%+v", e.Heirs)
	}
	// Nothing came: those of before may still be what saves it. Then something did.
	if n := Next(&e, "b", []mesh.NodeID{"b", "a"}, 45); len(n.Heirs) != 3 {
		t.Errorf("%+v", n.Heirs)
	}
	if n := Next(&e, "b", []mesh.NodeID{"b", "a"}, 46); !slices.Equal(n.Heirs, []coordinator.Heir{{Node: "d", From: 45}}) {
		t.Errorf("%+v", n.Heirs)
	}
}

func TestJoin(t *testing.T) {
	// Epochs 1 to 5 started at 0, 100, 200, 200, 300.
	e := &coordinator.LogEpoch{Epoch: 5, Start: 300, Starts: []int64{0, 100, 200, 200, 300}}
	late := &coordinator.LogEpoch{Epoch: 5, Start: 300, Starts: []int64{200, 300}, Forgotten: 3}
	id := [16]byte{1}
	owner := Copy{ID: id, Epoch: 5, First: 50, End: 400}
	for _, c := range []struct {
		name   string
		e      *coordinator.LogEpoch
		member Copy
		want   Plan
	}{
		{"it has everything", e, Copy{ID: id, Epoch: 5, First: 50, End: 400}, Plan{From: 400}},
		{"it lacks some", e, Copy{ID: id, Epoch: 5, First: 50, End: 350}, Plan{From: 350}},
		{"it has what the owner lost", e, Copy{ID: id, Epoch: 5, First: 50, End: 410}, Plan{Cut: true, From: 400}},
		{"an older epoch, not behind its end", e, Copy{ID: id, Epoch: 2, First: 50, End: 200}, Plan{From: 200}},
		{"an older epoch, behind its end", e, Copy{ID: id, Epoch: 2, First: 50, End: 250}, Plan{Cut: true, From: 200}},
		{"an older epoch, behind the end of a later one", e, Copy{ID: id, Epoch: 3, First: 50, End: 450}, Plan{Cut: true, From: 200}},
		{"the last epoch before", e, Copy{ID: id, Epoch: 4, First: 50, End: 301}, Plan{Cut: true, From: 300}},
		{"what it has is not kept any more", e, Copy{ID: id, Epoch: 1, First: 0, End: 40}, Plan{Anew: true, From: 50}},
		{"it has not where it must be cut", e, Copy{ID: id, Epoch: 1, First: 120, End: 400}, Plan{Anew: true, From: 50}},
		{"it is empty", e, Copy{}, Plan{Anew: true, From: 50}},
		{"another log", e, Copy{ID: [16]byte{2}, Epoch: 5, First: 50, End: 400}, Plan{Anew: true, From: 50}},
		{"an epoch that is forgotten", late, Copy{ID: id, Epoch: 2, First: 50, End: 100}, Plan{Anew: true, From: 50}},
		{"one whose next is known", late, Copy{ID: id, Epoch: 3, First: 50, End: 300}, Plan{Cut: true, From: 200}},
	} {
		if got := Join(c.e, owner, c.member); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name string
		c    Copy
		want Plan
	}{
		{"of the epoch", Copy{ID: id, Epoch: 5, First: 50, End: 410}, Plan{From: 410}},
		{"a tail of its own", Copy{ID: id, Epoch: 2, First: 50, End: 250}, Plan{Cut: true, From: 200}},
		{"it was away for long", Copy{ID: id, Epoch: 2, First: 50, End: 150}, Plan{From: 150}},
		{"nothing", Copy{}, Plan{}},
		{"nothing of it belongs", Copy{ID: id, Epoch: 1, First: 120, End: 400}, Plan{Anew: true}},
	} {
		if got := End(e, c.c); got != c.want {
			t.Errorf("end, %s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// A copy of a feed that had the name before is no copy, however much of it could be
// cut off: it would be taken for one that has nothing yet of this log.
func TestACopyOfAnotherFeed(t *testing.T) {
	id := [16]byte{1}
	made := func(epoch uint64) *coordinator.LogEpoch {
		e := Next(&coordinator.LogEpoch{Epoch: epoch - 1, Forgotten: epoch - 1}, "a", []mesh.NodeID{"a", "b"}, 0)
		return &e
	}
	first := made(90)
	next := Next(first, "b", []mesh.NodeID{"a", "b"}, 7)
	for _, e := range []*coordinator.LogEpoch{first, &next} {
		for _, c := range []Copy{{ID: id, Epoch: 21, First: 0, End: 300, Promised: 22}, {ID: id, Epoch: 89, First: 120, End: 300, Promised: 90}} {
			if got := End(e, c); got != (Plan{Anew: true}) {
				t.Errorf("epoch %d: %+v: %+v", e.Epoch, c, got)
			}
		}
		if got := End(e, Copy{ID: id, Epoch: 90, End: 5, Promised: 90}); got != (Plan{From: 5}) {
			t.Errorf("epoch %d: its own: %+v", e.Epoch, got)
		}
	}
}

// An owner has what was acknowledged before its epoch. A mirror's may lack it, if it
// is the copy that the epoch was begun with.
func TestOwns(t *testing.T) {
	of := &coordinator.Mirror{Site: "north", Feed: "f"}
	for _, c := range []struct {
		name   string
		start  int64
		mirror *coordinator.Mirror
		c      Copy
		want   Plan
		lacks  bool
	}{
		{"all", 300, nil, Copy{Epoch: 4, First: 50, End: 300, Promised: 5}, Plan{From: 300}, false},
		{"more", 300, nil, Copy{Epoch: 4, First: 50, End: 350, Promised: 5}, Plan{Cut: true, From: 300}, false},
		{"less", 300, nil, Copy{Epoch: 3, First: 50, End: 299, Promised: 5}, Plan{From: 200}, true},
		{"nothing of it belongs", 300, nil, Copy{Epoch: 4, First: 301, End: 350, Promised: 5}, Plan{Anew: true}, true},
		{"and nothing has to", 0, nil, Copy{Epoch: 4, First: 301, End: 350, Promised: 5}, Plan{Anew: true}, false},
		{"a mirror", 300, of, Copy{Epoch: 4, First: 50, End: 350, Promised: 5}, Plan{Cut: true, From: 300}, false},
		{"of which nothing belongs", 300, of, Copy{Epoch: 4, First: 301, End: 350, Promised: 5}, Plan{Anew: true}, false},
		{"that has begun anew", 300, of, Copy{Promised: 5}, Plan{}, false},
		{"that has not caught up", 300, of, Copy{Epoch: 5, First: 10, End: 20, Promised: 5}, Plan{From: 20}, false},
		{"that somebody emptied", 300, of, Copy{}, Plan{}, true},
	} {
		e := &coordinator.LogEpoch{Epoch: 5, Start: c.start, Starts: []int64{0, 100, 200, 200, c.start}, Mirror: c.mirror}
		for i := range e.Starts {
			e.Starts[i] = min(e.Starts[i], c.start)
		}
		got, err := Owns(e, c.c)
		if !c.lacks && got != c.want || errors.Is(err, ErrLacking) != c.lacks || !c.lacks && err != nil {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
	}
}

// A mirror that began anew goes on with what it has.
func TestAgain(t *testing.T) {
	e := coordinator.LogEpoch{Epoch: 3, Owner: "a", Members: []mesh.NodeID{"a", "b"}, Start: 500, Starts: []int64{0, 40, 500}, Mirror: &coordinator.Mirror{Site: "north", Feed: "f"}}
	here := e
	here.Mirror = nil
	heir := e
	heir.Heirs = []coordinator.Heir{{Node: "z", From: 500}}
	far := e // copies of before, of which the mirror had more than its source
	far.Heirs = []coordinator.Heir{{Node: "y", From: 300}, {Node: "z", From: 300}}
	members, both := func(n mesh.NodeID) bool { return n < "y" }, func(n mesh.NodeID) bool { return n != "z" }
	nobody, b := func(mesh.NodeID) bool { return false }, func(n mesh.NodeID) bool { return n == "b" }
	a := func(n mesh.NodeID) bool { return n == "a" }
	for _, c := range []struct {
		name string
		e    *coordinator.LogEpoch
		ends map[mesh.NodeID]int64
		left func(mesh.NodeID) bool
		want string
	}{
		{"the owner knows", &e, map[mesh.NodeID]int64{"a": 0}, nobody, "a"},
		{"a member with it", &e, map[mesh.NodeID]int64{"a": 20, "b": 10}, nobody, "a b"},
		{"one that has all goes before", &e, map[mesh.NodeID]int64{"a": 20, "b": 500}, nobody, ""},
		{"a member alone does not know", &e, map[mesh.NodeID]int64{"b": 10}, nobody, ""},
		{"but where the owner has left", &e, map[mesh.NodeID]int64{"b": 10}, a, "b"},
		{"an heir is away", &heir, map[mesh.NodeID]int64{"b": 0}, a, ""},
		{"an heir is there, and has less", &heir, map[mesh.NodeID]int64{"b": 0, "z": 20}, a, "b"},
		{"the owner knows better than an heir", &heir, map[mesh.NodeID]int64{"a": 0}, nobody, "a"},
		{"another one has left", &e, map[mesh.NodeID]int64{"a": 0}, b, "a"},
		{"all members have left", &far, map[mesh.NodeID]int64{"y": 500, "z": 20}, members, "y z"},
		{"and an heir is away", &far, map[mesh.NodeID]int64{"y": 500}, members, ""},
		{"and has left, too", &far, map[mesh.NodeID]int64{"y": 500, "z": 20}, both, "z"},
		{"an owner that left knows nothing of heirs", &far, map[mesh.NodeID]int64{"a": 20, "y": 500}, members, ""},
		{"one that has all has left", &e, map[mesh.NodeID]int64{"a": 500, "b": 20}, a, "b"},
		{"nobody has promised", &e, map[mesh.NodeID]int64{}, nobody, ""},
		{"it has a session", &here, map[mesh.NodeID]int64{"a": 0, "b": 0}, nobody, ""},
	} {
		var got []string
		all := Again(c.e, c.ends, c.left)
		for m := range all {
			if all[m] {
				got = append(got, string(m))
				old := Fewer(c.e, c.ends[m], c.left)
				if why := Refuse(&old, m, c.ends[m]); why != "" {
					t.Errorf("%s: %s", c.name, why)
				}
			}
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q own it", c.name, s)
		}
	}
	if old := Fewer(&far, 20, nobody); Refuse(&old, "z", 20) == "" || far.Heirs[0].From != 300 {
		t.Errorf("members are there: %+v", old)
	}
	// What a copy of before has behind the new start goes.
	n := Next(&e, "a", e.Members, 20)
	if got := Keeps(&n, Copy{Epoch: 2, End: 900}); got != 20 || !slices.Equal(n.Starts, []int64{0, 20, 20, 20}) {
		t.Errorf("%d, %+v", got, n)
	}
}

// A mirror that nobody of the site has begins with nothing on any agent, and copies of
// before are none of it.
func TestAnew(t *testing.T) {
	of := &coordinator.Mirror{Site: "north", Feed: "f"}
	gone := func(all ...mesh.NodeID) func(mesh.NodeID) bool {
		return func(n mesh.NodeID) bool { return slices.Contains(all, n) }
	}
	e := coordinator.LogEpoch{Epoch: 3, Owner: "a", Members: []mesh.NodeID{"a", "b"}, Start: 500, Starts: []int64{0, 40, 500}, Mirror: of}
	heir, here, never := e, e, coordinator.LogEpoch{Mirror: of}
	heir.Heirs = []coordinator.Heir{{Node: "z", From: 40}}
	here.Mirror = nil
	for _, c := range []struct {
		name string
		e    *coordinator.LogEpoch
		left func(mesh.NodeID) bool
		want bool
	}{
		{"all have left", &e, gone("a", "b"), true},
		{"a member is there", &e, gone("a"), false},
		{"an heir is there", &heir, gone("a", "b"), false},
		{"and has left, too", &heir, gone("a", "b", "z"), true},
		{"it has a session", &here, gone("a", "b"), false},
		{"it was never begun", &never, gone(), false},
	} {
		if got := Anew(c.e, c.left); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
	n := Next(&e, "c", []mesh.NodeID{"c", "d"}, 0)
	if n.Mirror = of; !slices.Equal(n.Starts, []int64{0, 0, 0, 0}) {
		t.Errorf("%+v", n)
	}
	for _, c := range []Copy{{}, {Epoch: 2, End: 450, Promised: 2}, {Epoch: 3, First: 300, End: 900, Promised: 4}} {
		if p, err := Owns(&n, c); err != nil || p.From != 0 || p.Anew != (c.First > 0) {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
	}
}

// entry is one of a log in the model: who appended it, in which epoch and life.
type entry struct {
	epoch  uint64
	serial int
}

// node is an agent with its log, in the model. Groups are single entries.
type node struct {
	log      []entry
	promised uint64
	placed   uint64 // the epoch to whose chain it was cut
	up       bool
	lost     bool                 // its disk, for good
	joined   map[mesh.NodeID]bool // of an owner: members that are up to date in this life
}

func (n *node) copy() Copy {
	c := Copy{End: int64(len(n.log))}
	if len(n.log) > 0 {
		c.Epoch = n.log[len(n.log)-1].epoch
	}
	return c
}

// group is the world.
type group struct {
	t     *testing.T
	rnd   *rand.Rand
	nodes map[mesh.NodeID]*node
	names []mesh.NodeID
	epoch coordinator.LogEpoch
	acked []entry
	next  int // serial
	lost  int // disks: one at most, so that no copy more may be lost than there are
	heirs int // that own an epoch
	calm  bool
}

// What was acknowledged stays, and all logs agree, whatever happens in whatever
// order: owners and members die at every step, come back, and epochs change.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	changes, acked, heirs, lost := 0, 0, 0, 0
	for seed := range uint64(600) {
		g := &group{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), nodes: make(map[mesh.NodeID]*node), names: []mesh.NodeID{"a", "b", "c", "d"}}
		for _, name := range g.names {
			g.nodes[name] = &node{up: true}
		}
		g.epoch = coordinator.LogEpoch{Epoch: 1, Owner: "a", Members: []mesh.NodeID{"a", "b"}, Starts: []int64{0}}
		g.own()
		for range 300 {
			g.step()
			g.check(fmt.Sprintf("seed %d", seed))
			if t.Failed() {
				return
			}
		}
		lost += g.lost
		g.last(fmt.Sprintf("seed %d", seed))
		heirs += g.heirs
		changes += int(g.epoch.Epoch)
		acked += len(g.acked)
	}
	if changes < 1000 || acked < 1000 || heirs < 20 || lost < 100 {
		t.Errorf("only %d epochs, %d of them heirs', %d acknowledged, %d disks lost", changes, heirs, acked, lost)
	}
	t.Logf("%d epochs, %d of them heirs', %d acknowledged, %d disks lost", changes, heirs, acked, lost)
}

// own begins the life of an owner.
func (g *group) own() {
	o := g.nodes[g.epoch.Owner]
	o.joined = nil
	if !o.up || o.promised > g.epoch.Epoch {
		return
	}
	plan, err := Owns(&g.epoch, o.copy())
	if err != nil {
		g.t.Fatal(err)
	}
	o.log, o.promised, o.placed, o.joined = o.log[:plan.From], g.epoch.Epoch, g.epoch.Epoch, make(map[mesh.NodeID]bool)
}

func (g *group) step() {
	name := g.names[g.rnd.IntN(len(g.names))]
	n := g.nodes[name]
	switch k := g.rnd.IntN(60); {
	case n.lost:
	case k == 0 && g.lost == 0 && g.rnd.IntN(10) == 0 && len(g.epoch.Members) > 1:
		g.lost++
		n.up, n.lost, n.log, n.joined = false, true, nil, nil
		for _, o := range g.nodes {
			delete(o.joined, name)
		}
	case k < 4:
		if n.up = !n.up; !n.up {
			n.joined = nil
			for _, o := range g.nodes {
				delete(o.joined, name)
			}
		} else if name == g.epoch.Owner {
			g.own()
		}
	case k < 8:
		g.change(name)
	case k == 8 && n.promised <= g.epoch.Epoch && slices.Contains(g.epoch.Members, name):
		// An older program promised first, and cut its copy later: it takes nothing of
		// the epoch any more, and nobody knows where it ends.
		n.promised, n.joined = g.epoch.Epoch+1, nil
	case k < 31:
		g.join(name)
	default:
		g.append()
	}
}

// join brings a member up to date, or some of the way.
func (g *group) join(name mesh.NodeID) {
	o, n := g.nodes[g.epoch.Owner], g.nodes[name]
	if o == n || !n.up || o.joined == nil || n.promised > g.epoch.Epoch || !slices.Contains(g.epoch.Members, name) {
		return
	}
	n.promised, n.placed = g.epoch.Epoch, g.epoch.Epoch
	n.log = n.log[:Keeps(&g.epoch, n.copy())]
	p := Join(&g.epoch, o.copy(), n.copy())
	if p.Anew {
		n.log = nil
	}
	n.log = slices.Clone(n.log[:p.From])
	for _, e := range o.log[p.From:] {
		if g.rnd.IntN(10) == 0 {
			return // the stream broke
		}
		n.log = append(n.log, e)
	}
	o.joined[name] = true
}

// append is a commit of the owner, of which any part may not happen.
func (g *group) append() {
	o := g.nodes[g.epoch.Owner]
	if o.joined == nil || o.promised != g.epoch.Epoch {
		return
	}
	for _, m := range g.epoch.Members {
		if m != g.epoch.Owner && !o.joined[m] {
			return
		}
	}
	g.next++
	e := entry{g.epoch.Epoch, g.next}
	all := true
	for _, m := range g.epoch.Members {
		n := g.nodes[m]
		if g.rnd.IntN(8) == 0 || !n.up || n.promised != g.epoch.Epoch {
			all = false // it did not get there before somebody died
			continue
		}
		n.log = append(slices.Clone(n.log), e)
	}
	if all {
		g.acked = append(g.acked, e)
		return
	}
	// A member that missed it joins again; an owner that missed it has died.
	for _, m := range g.epoch.Members {
		if len(g.nodes[m].log) < len(o.log) {
			delete(o.joined, m)
		}
	}
	if n := len(o.log); n == 0 || o.log[n-1] != e {
		o.joined, o.up = nil, false
	}
}

// seal asks holders to promise the next epoch, and says where the copies end of
// those that have.
func (g *group) seal(asked func(*node) bool) map[mesh.NodeID]int64 {
	ends := make(map[mesh.NodeID]int64)
	for _, name := range g.names {
		n := g.nodes[name]
		heir := slices.ContainsFunc(g.epoch.Heirs, func(h coordinator.Heir) bool { return h.Node == name })
		if !n.up || !asked(n) || !heir && !slices.Contains(g.epoch.Members, name) {
			continue
		}
		n.joined = nil
		n.log = n.log[:End(&g.epoch, n.copy()).From] // whether it ever heard of the epoch or not
		if !g.calm && g.rnd.IntN(20) == 0 {
			n.up = false // it died, or its disk failed, before it had promised
			continue
		}
		n.promised, n.placed = g.epoch.Epoch+1, g.epoch.Epoch
		ends[name] = int64(len(n.log))
	}
	return ends
}

// change begins the next epoch with one that was sealed, and may own it.
func (g *group) change(first mesh.NodeID) {
	ends := g.seal(func(n *node) bool { return n == g.nodes[first] || g.rnd.IntN(2) == 0 })
	if g.rnd.IntN(4) == 0 {
		return // the leader died before it could say so
	}
	owners := Owners(&g.epoch, ends)
	for _, name := range g.rnd.Perm(len(g.names)) {
		if owners[g.names[name]] {
			g.begin(g.names[name], ends)
			return
		}
	}
}

func (g *group) begin(name mesh.NodeID, ends map[mesh.NodeID]int64) {
	if o := g.nodes[g.epoch.Owner]; o != nil {
		o.joined = nil // at the latest a member tells it
	}
	members := []mesh.NodeID{name}
	for _, m := range g.names {
		if m != name && g.rnd.IntN(2) == 0 && !g.nodes[m].lost {
			members = append(members, m)
		}
	}
	if len(members) == 1 && g.lost == 0 { // with a single copy a disk may not be lost
		for _, m := range g.names {
			if m != name {
				members = append(members, m)
				break
			}
		}
	}
	if why := Refuse(&g.epoch, name, ends[name]); why != "" {
		g.t.Error(why)
	}
	if !slices.Contains(g.epoch.Members, name) || ends[name] < g.epoch.Start {
		g.heirs++
	}
	g.epoch = Next(&g.epoch, name, members, ends[name])
	g.own()
}

// last: whatever happened, with all but the disk that was lost somebody owns the
// next epoch.
func (g *group) last(what string) {
	for _, n := range g.nodes {
		n.up = !n.lost
	}
	g.calm = true
	ends := g.seal(func(*node) bool { return true })
	for name, ok := range Owners(&g.epoch, ends) {
		if ok {
			g.begin(name, ends)
			g.check(what)
			return
		}
	}
	g.t.Errorf("%s: of %+v nobody owns the next epoch: %v", what, g.epoch, ends)
}

// check: the owner of the epoch, and every member that is up to date, has all
// that was acknowledged.
func (g *group) check(what string) {
	o := g.nodes[g.epoch.Owner]
	has := func(name mesh.NodeID, n *node) {
		if end := min(Keeps(&g.epoch, n.copy()), int64(len(n.log))); end < int64(len(g.acked)) && slices.Contains(g.epoch.Members, name) && n.promised == g.epoch.Epoch && (n == o && n.joined != nil || o.joined[name]) {
			g.t.Errorf("%s: %s has %d of %d entries in epoch %d", what, name, end, len(g.acked), g.epoch.Epoch)
		}
	}
	for _, name := range g.names {
		has(name, g.nodes[name])
	}
	if o.joined == nil {
		return
	}
	at := 0
	for _, e := range g.acked {
		i := slices.Index(o.log[at:], e)
		if i < 0 {
			g.t.Errorf("%s: %+v was acknowledged and is not in the log of %s", what, e, g.epoch.Owner)
			return
		}
		at += i + 1
	}
	for name := range o.joined {
		n := g.nodes[name]
		if k := min(len(n.log), len(o.log)); !slices.Equal(n.log[:k], o.log[:k]) {
			g.t.Errorf("%s: the logs of %s and %s differ", what, name, g.epoch.Owner)
		}
	}
}
