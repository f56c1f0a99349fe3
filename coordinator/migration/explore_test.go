package migration

import (
	"flag"
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// kind says whose doing a step of the world is.
type kind uint8

const (
	course kind = 1 << iota // the protocol's own course
	alone                   // and the source's site does it without the other one
	evil                    // a fault, a zombie, a person: nothing good depends on it
)

type step struct {
	kind kind
	do   func(s *state)
	name string // a format
	args []any
}

// adder takes a step that may happen. Its name is made only if somebody asks.
type adder func(k kind, do func(s *state), format string, args ...any)

// steps are all that may happen next.
func (x *explorer) steps(s *state) []step {
	var list []step
	add := func(k kind, do func(s *state), format string, args ...any) {
		list = append(list, step{k, do, format, args})
	}
	for site := range siteNames {
		each(s.prop[site], func(n int) {
			c := x.cmds[site][n]
			local := course
			if d := x.active(s); d.from == site {
				local |= alone
			}
			add(local, func(s *state) { x.apply(s, site, c) }, "%s: %s", siteNames[site], command{c})
		})
	}
	each(s.net, func(n int) {
		m := x.msgs[n]
		add(course, func(s *state) { x.deliver(s, n) }, "%s hears %s", x.moves[m.move].id, m)
		add(evil, func(s *state) { x.lag(s, n) }, "%s: one who knows nothing hears %s", x.moves[m.move].id, m)
	})
	for site, job := range s.job {
		if !job.Here && job.Epoch > 0 && x.zombies {
			add(evil, func(s *state) { s.job[site] = JobFacts{} }, "%s: the job that left is forgotten", siteNames[site])
		}
	}
	for k := range x.moves {
		x.moveSteps(s, k, add)
	}
	return list
}

// active is the move that is under way.
func (x *explorer) active(s *state) moveDef {
	if s.dep[1] != nil {
		return x.moves[1]
	}
	return x.moves[0]
}

func (x *explorer) moveSteps(s *state, k int, add adder) {
	d := x.moves[k]
	if s.src[k] != nil {
		add(course|alone, func(s *state) { x.source(s, k, Event{Now: base.Add(dataflow.Second)}) }, "%s: the source says it again", d.id)
		add(course|alone, func(s *state) { x.source(s, k, Event{Now: base.Add(10 * dataflow.Hour)}) }, "%s: the source has waited long", d.id)
	}
	if t := s.dst[k]; t != nil {
		add(course, func(s *state) { x.target(s, k, Event{Now: base.Add(dataflow.Second)}) }, "%s: the target says it again", d.id)
		add(course, func(s *state) { x.target(s, k, Event{Now: base.Add(10 * dataflow.Hour)}) }, "%s: the target has waited long", d.id)
		if t.asking {
			add(course, func(s *state) { x.target(s, k, Event{Checked: &Checked{}}) }, "%s: it fits", d.id)
			add(course, func(s *state) { x.target(s, k, Event{Checked: &Checked{Why: "no"}}) }, "%s: it does not fit", d.id)
		}
	}
	if s.dep[k] != nil && s.dep[k].Phase == coordinator.DepartureHalting && s.job[d.from].Here && s.job[d.from].Halted == "" {
		add(course|alone, func(s *state) { s.job[d.from].Halted, s.halted[k] = d.savepoint(), true; x.tellHalted(s, k) }, "%s: the job halts", d.id)
	}
	if x.zombies && s.arr[k] != nil && s.arr[k].Phase == coordinator.ArrivalReceiving && x.offered(s, k) {
		if !s.haveS[k] {
			add(course, func(s *state) { s.haveS[k] = x.bug != "prepared without the savepoint" }, "%s: S is fetched", d.id)
		}
		if !s.haveLogs[k] {
			add(course, func(s *state) { s.haveLogs[k] = true }, "%s: the logs are there", d.id)
		}
	}
	if t := s.dst[k]; t != nil && t.rec != nil && t.want != nil && (t.fetched == nil || t.fetched.Snapshot.Name != t.want.Name) {
		add(course, func(s *state) { x.fetch(s, k) }, "%s: %s is fetched", d.id, t.want.Name)
	}
	if t := s.dst[k]; t != nil && t.offer != nil && !s.haveLogs[k] {
		add(course, func(s *state) {
			s.haveLogs[k] = true
			x.target(s, k, Event{Logs: &Logs{Ends: end}})
		}, "%s: the logs are there", d.id)
	}
	x.evilSteps(s, k, add)
}

// haunted adds all that zombies say and propose: for each version of a record, the
// present one too, somebody who has just come to lead, with any one message, or
// late. As what was said need not arrive it takes nothing away to add it at once.
func (x *explorer) haunted(s *state) {
	for again := true; again; {
		before := ghostDid{s.net, s.prop}
		try := func(h ghost) {
			did := x.haunt(s, h)
			s.net, s.prop[0], s.prop[1] = s.net|did.net, s.prop[0]|did.prop[0], s.prop[1]|did.prop[1]
		}
		for k := range x.moves {
			hear := func(h ghost) {
				h.move, h.n = k, late
				try(h)
				if h.n = dropWish; h.target {
					try(h)
				}
				if h.n = forceWish; h.target && s.forced {
					try(h)
				}
				each(s.net, func(n int) {
					if m := x.msgs[n]; m.move == k && (m.target != nil) == h.target {
						h.n = n
						try(h)
					}
				})
			}
			for phase, d := range s.pastDep[k] {
				if d != nil {
					hear(ghost{phase: uint8(phase), halted: s.halted[k]})
				}
			}
			for phase, a := range s.pastArr[k] {
				if a != nil || phase == 0 {
					hear(ghost{phase: uint8(phase), target: true, have: [2]bool{s.haveS[k], s.haveLogs[k]}})
				}
			}
		}
		again = before != ghostDid{s.net, s.prop}
	}
}

// offered tells whether S was ever offered to the target.
func (x *explorer) offered(s *state, k int) (was bool) {
	each(s.net, func(n int) {
		was = was || x.msgs[n].move == k && x.msgs[n].target != nil && x.msgs[n].target.Offer != nil
	})
	return was
}

func (x *explorer) fetch(s *state, k int) {
	want := s.dst[k].want
	s.haveS[k] = s.haveS[k] || want.Name == x.moves[k].savepoint()
	x.target(s, k, Event{Fetched: &Fetched{Snapshot: want, Bytes: 1, Took: 1}})
	if x.bug == "prepared without the savepoint" && s.dst[k] != nil && s.dst[k].offer != nil {
		s.haveS[k] = false
	}
}

// evilSteps are faults and people.
func (x *explorer) evilSteps(s *state, k int, add adder) {
	d := x.moves[k]
	if s.left.lead[d.from] > 0 && s.src[k] != nil && s.dep[k] != nil {
		add(evil, func(s *state) {
			s.left.lead[d.from]--
			x.newSource(s, k)
		}, "%s: another leads the source", d.id)
	}
	if s.left.lead[d.to()] > 0 && s.dst[k] != nil {
		add(evil, func(s *state) {
			s.left.lead[d.to()]--
			s.dst[k] = nil
			if s.arr[k] != nil {
				x.newTarget(s, k)
			}
		}, "%s: another leads the target", d.id)
	}
	if s.left.cancel > 0 && s.src[k] != nil && !s.src[k].rec.Phase.Decided() {
		add(evil, func(s *state) { s.left.cancel--; x.source(s, k, Event{Cancel: &Wish{Ref: 1}}) }, "%s: cancelled", d.id)
	}
	if s.left.ends > 0 && s.dep[k] != nil && s.dep[k].Phase.MayRun() && !s.dep[k].Phase.Decided() {
		add(evil, func(s *state) {
			s.left.ends--
			s.job[d.from].Here = false
			x.source(s, k, Event{Ended: "it failed"})
		}, "%s: the job ends by itself", d.id)
	}
	if t := s.dst[k]; s.left.force > 0 && t != nil && t.rec != nil && t.rec.Phase == coordinator.ArrivalPrepared {
		add(evil, func(s *state) { s.left.force--; s.forced = true; x.target(s, k, Event{Force: &Wish{Ref: 2}}) }, "%s: forced", d.id)
	}
	if a := s.arr[k]; x.zombies && s.left.force > 0 && a != nil && a.Phase == coordinator.ArrivalPrepared {
		add(evil, func(s *state) { s.left.force--; s.forced = true }, "%s: forced", d.id)
	}
	if t := s.dst[k]; s.left.drop > 0 && t != nil && t.rec != nil && t.rec.Phase == coordinator.ArrivalReceiving {
		add(evil, func(s *state) { s.left.drop--; x.target(s, k, Event{Drop: &Wish{Ref: 3}}) }, "%s: not wanted there", d.id)
	}
}

// runs tells whether a site may run the job.
func (x *explorer) runs(s *state, site int) bool {
	if !s.job[site].Here {
		return false
	}
	for k, d := range x.moves {
		if d.from == site && s.resumed[k] && s.job[site].Epoch == d.epoch {
			return true
		}
	}
	return MayRun(x.movesOf(s, site), "j1", s.job[site].Epoch) == nil
}

// judge says what is wrong with a state; "": nothing.
func (x *explorer) judge(s *state) string {
	if x.runs(s, siteA) && x.runs(s, siteB) && !s.forced {
		return "two owners"
	}
	for k, d := range x.moves {
		a := s.arr[k]
		if a != nil && (a.Phase == coordinator.ArrivalPrepared || a.Phase == coordinator.ArrivalActive) && !(s.haveS[k] && s.haveLogs[k]) {
			return fmt.Sprintf("%s is %s at the target without all of S and the logs", d.id, a.Phase)
		}
		if a != nil && a.Phase == coordinator.ArrivalActive && s.resumed[k] {
			return fmt.Sprintf("%s is active, and its source had gone on: what came after S is lost", d.id)
		}
		if a != nil && a.Phase == coordinator.ArrivalActive && !a.Forced && s.dep[k] != nil && s.dep[k].Phase != coordinator.DepartureHandedOver {
			return fmt.Sprintf("%s is active and %s", d.id, s.dep[k].Phase)
		}
		if s.job[d.from].Here && s.dep[k] != nil && s.job[d.from].Epoch == d.epoch && s.dep[k].Phase == coordinator.DepartureFenced {
			return fmt.Sprintf("%s is fenced, and the job is still its source's", d.id)
		}
	}
	return ""
}

// settled: no move is open, and one site has the job (or nobody, if it ended by
// itself).
func (x *explorer) settled(s *state, ended bool) bool {
	for k := range x.moves {
		if s.dep[k] != nil && !s.dep[k].Phase.Decided() || s.arr[k] != nil && !s.arr[k].Phase.Decided() {
			return false
		}
	}
	return ended && !x.runs(s, siteA) && !x.runs(s, siteB) || x.runs(s, siteA) != x.runs(s, siteB)
}

// graph is what was explored: of each state how it was come to, and its
// successors by the protocol's own course.
type graph struct {
	states []state
	parent []int32
	by     []string
	next   [][]edge
}

type edge struct {
	to    int32
	alone bool
}

// explore goes through all states that can be come to from some, breadth first.
// It ends at the first that judge finds fault with.
func (x *explorer) explore(from []state, most int) (*graph, string) {
	g := &graph{}
	seen := map[string]int32{}
	var buf []byte
	visit := func(s *state, parent int32, by step) int32 {
		buf = x.key(buf[:0], s)
		if n, ok := seen[string(buf)]; ok {
			return n
		}
		n := int32(len(g.states))
		seen[string(buf)] = n
		g.states, g.parent, g.by, g.next = append(g.states, *s), append(g.parent, parent), append(g.by, fmt.Sprintf(by.name, by.args...)), append(g.next, nil)
		return n
	}
	for i := range from {
		if x.zombies {
			x.haunted(&from[i])
		}
		visit(&from[i], -1, step{})
	}
	for i := int32(0); int(i) < len(g.states); i++ {
		s := g.states[i]
		if wrong := x.judge(&s); wrong != "" {
			return g, wrong + ":\n" + g.path(i)
		}
		if len(g.states) > most {
			return g, fmt.Sprintf("more than %d states", most)
		}
		for _, st := range x.steps(&s) {
			next := s
			st.do(&next)
			if x.zombies {
				x.haunted(&next)
			}
			n := visit(&next, i, st)
			if n != i && st.kind&course != 0 {
				g.next[i] = append(g.next[i], edge{n, st.kind&alone != 0})
			}
		}
	}
	return g, ""
}

// path tells how a state was come to.
func (g *graph) path(i int32) string {
	var lines []string
	for ; g.parent[i] >= 0; i = g.parent[i] {
		lines = append(lines, "    "+g.by[i])
	}
	for a, b := 0, len(lines)-1; a < b; a, b = a+1, b-1 {
		lines[a], lines[b] = lines[b], lines[a]
	}
	return strings.Join(lines, "\n")
}

// leads finds a state from which no good one can be come to; -1: there is none.
func (g *graph) leads(good func(i int32) bool, follow func(e edge) bool) int32 {
	back := make([][]int32, len(g.states))
	can := make([]bool, len(g.states))
	var queue []int32
	for i := range g.states {
		for _, e := range g.next[i] {
			if follow(e) {
				back[e.to] = append(back[e.to], int32(i))
			}
		}
		if good(int32(i)) {
			can[i], queue = true, append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, p := range back[i] {
			if !can[p] {
				can[p], queue = true, append(queue, p)
			}
		}
	}
	for i := range can {
		if !can[i] {
			return int32(i)
		}
	}
	return -1
}

// begin is the world in which move 0 has just begun.
func (x *explorer) begin(left budget) state {
	s := state{left: left}
	s.job[siteA] = JobFacts{Epoch: 1, Here: true}
	s.dep[0] = &coordinator.Departure{ID: x.moves[0].id, Job: "j1", To: "b", Epoch: 1, Phase: coordinator.DepartureCopying}
	s.pastDep[0][s.dep[0].Phase] = s.dep[0]
	x.newSource(&s, 0)
	return s
}

// check explores, and looks at what is found as a whole.
func (x *explorer) check(from []state, most int) (*graph, string) {
	g, wrong := x.explore(from, most)
	if wrong != "" || x.zombies {
		return g, wrong
	}
	start := from[0].left
	ended := func(i int32) bool { return g.states[i].left.ends < start.ends }
	if i := g.leads(func(i int32) bool { return x.settled(&g.states[i], ended(i)) }, func(edge) bool { return true }); i >= 0 {
		return g, "nobody, or both, for ever:\n" + g.path(i)
	}
	alone := func(i int32) bool {
		for k := range x.moves {
			if d := g.states[i].dep[k]; d != nil && !d.Phase.Decided() {
				return false
			}
		}
		return true
	}
	if i := g.leads(alone, func(e edge) bool { return e.alone }); i >= 0 {
		return g, "the source cannot decide without the target:\n" + g.path(i)
	}
	return g, ""
}

// What may go wrong, a world each: in all of them every message and command may be
// lost, doubled, late and out of order, and every limit may pass.
var worlds = []struct {
	name    string
	left    budget
	zombies bool // of both sites and all versions. Progress is not looked at: theirs would count
	full    bool // takes longer: with -full only
}{
	{name: "nothing"},
	{name: "another leader of the source", left: budget{lead: [2]int8{1, 0}}, full: true},
	{name: "another leader of the target", left: budget{lead: [2]int8{0, 1}}, full: true},
	{name: "cancelled", left: budget{cancel: 1}, full: true},
	{name: "the job ends", left: budget{ends: 1}, full: true},
	{name: "not wanted", left: budget{drop: 1}, full: true},
	{name: "forced", left: budget{force: 1}, full: true},
	{name: "zombies", zombies: true},
	{name: "zombies, and the job ends", left: budget{ends: 1}, zombies: true},
	{name: "zombies, forced", left: budget{ends: 1, force: 1}, zombies: true},
}

var (
	full = flag.Bool("full", false, "explore also what takes longer")
	most = flag.Int("states", 1_000_000, "give an exploration up that has more states")
)

func TestExplore(t *testing.T) {
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			if w.full && !*full {
				t.Skip("takes longer: go test -full")
			}
			x := newExplorer("")
			x.zombies = w.zombies
			g, wrong := x.check([]state{x.begin(w.left)}, *most)
			t.Logf("%d states, %d messages, %d and %d commands", len(g.states), len(x.msgs), len(x.cmds[0]), len(x.cmds[1]))
			if wrong != "" {
				t.Fatal(wrong)
			}
		})
	}
}

// back is the world in which the first move is over, with all that was ever said of
// it still under way, and the job begins to move back. kept: both sites have their
// records of the first.
func (x *explorer) back(kept bool) state {
	x.zombies = true
	g, _ := x.explore([]state{x.begin(budget{})}, *most)
	best := -1
	for i := range g.states {
		s := &g.states[i]
		over := s.dep[0] == nil && s.arr[0] == nil
		if kept {
			over = s.dep[0] != nil && s.dep[0].Phase == coordinator.DepartureHandedOver && s.arr[0] != nil && s.arr[0].Phase == coordinator.ArrivalActive
		}
		if over && s.job[siteB].Here && (best < 0 || bits.OnesCount64(s.net) > bits.OnesCount64(g.states[best].net)) {
			best = i
		}
	}
	s := g.states[best]
	s.dep[1] = &coordinator.Departure{ID: x.moves[1].id, Job: "j1", To: "a", Epoch: 2, Phase: coordinator.DepartureCopying}
	s.pastDep[1][s.dep[1].Phase] = s.dep[1]
	x.newSource(&s, 1)
	return s
}

// A job that has just come moves back at once, while the sites still hear of the
// first move.
func TestExploreBack(t *testing.T) {
	for _, kept := range []bool{true, false} {
		x := newExplorer("")
		g, wrong := x.check([]state{x.back(kept)}, *most)
		t.Logf("%d states, %d messages, %d and %d commands", len(g.states), len(x.msgs), len(x.cmds[0]), len(x.cmds[1]))
		if wrong != "" {
			t.Fatal(wrong)
		}
	}
}

// Each rule that is broken is seen.
func TestPlantedBugs(t *testing.T) {
	for _, b := range []struct {
		bug, want string
		left      budget
		back      bool // found in a move back only
		full      bool
	}{
		{bug: "the target activates when it is prepared", want: "is active and offered"},
		{bug: "the target drops when it is in doubt", want: "nobody, or both, for ever", full: true},
		{bug: "the source resumes without a decision", want: "what came after S is lost"},
		{bug: "handed over before prepared was heard", want: "nobody, or both, for ever", full: true},
		{bug: "unknown is handed over", want: "two owners"},
		{bug: "unknown is said by a state that is too old", want: "nobody, or both, for ever", full: true},
		{bug: "a decision can be changed", want: "nobody, or both, for ever", full: true},
		{bug: "prepared without the savepoint", want: "without all of S"},
		{bug: "forgotten arrivals leave nothing", want: "two owners", back: true},
	} {
		t.Run(b.bug, func(t *testing.T) {
			if b.full && !*full {
				t.Skip("takes longer: go test -full")
			}
			x := newExplorer(b.bug)
			from := x.begin(b.left)
			if b.back {
				from = x.back(false)
			}
			g, wrong := x.check([]state{from}, *most)
			found, _, _ := strings.Cut(wrong, "\n")
			t.Logf("%d states: %s", len(g.states), found)
			if !strings.Contains(wrong, b.want) {
				t.Errorf("found %q, want %q", wrong, b.want)
			}
		})
	}
}
