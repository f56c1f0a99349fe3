package migration

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// The world of the exploration: two sites, their records, their leaders' machines,
// and all that is under way between them. Real rules and machines; the rest as bad
// as it can be:
//
//   - A message that was once sent may come at any time, any number of times, or
//     never: the network is the set of all that was ever sent.
//   - A command that was once proposed may be applied at any time, any number of
//     times, or never, whoever proposed it.
//   - In worlds of zombies everybody leads, for ever: for each version that the record
//     ever had, the present one too, and for none, there is one who thinks that it is
//     the present one. He hears any message, or that he has waited long, or a person,
//     and what he then says and proposes counts.
//   - An agent that has applied nothing of the move answers for its source, too.
//   - Timers fire whenever they like; time has no length. What machines remember only
//     so as not to say a thing twice they forget at once: all is said again and again.
const (
	siteA, siteB = 0, 1
	base         = dataflow.Time(1000 * dataflow.Second)
)

var siteNames = [...]mesh.Site{"a", "b"}

// moveDef is a move of job j between the two sites.
type moveDef struct {
	id    coordinator.MoveID
	from  int
	epoch uint64
}

func (m moveDef) to() int           { return 1 - m.from }
func (m moveDef) savepoint() string { return fmt.Sprintf("s%d", m.epoch) }
func (m moveDef) newest() string    { return fmt.Sprintf("c%d", m.epoch) }

// state is one state of the world. What pointers lead to is never changed.
type state struct {
	dep      [2]*coordinator.Departure // by move
	arr      [2]*coordinator.Arrival
	floor    [2]uint64 // Forgotten of a site's arrivals
	job      [2]JobFacts
	src      [2]*Source
	dst      [2]*Target
	pastDep  [2][7]*coordinator.Departure // versions of before, by phase
	pastArr  [2][5]*coordinator.Arrival
	halted   [2]bool // the job of a move has ever halted
	haveS    [2]bool // of a move: all copies of S are at the target, in truth
	haveLogs [2]bool
	resumed  [2]bool // a bug: the source runs the job in spite of its record
	forced   bool
	net      uint64    // messages, by number
	prop     [2]uint64 // commands, by site and number
	left     budget
}

// budget is what may still go wrong.
type budget struct {
	lead   [2]int8 // leader changes, by site
	cancel int8    // by a person
	ends   int8    // of the job by itself, while it moves
	force  int8
	drop   int8
}

// explorer numbers messages and commands, and knows which rule is broken.
type explorer struct {
	moves   []moveDef
	cfg     Config
	bug     string
	ghosts  map[ghost]ghostDid
	msgs    []message
	msgNo   map[string]int
	cmds    [2][]*coordinator.MoveCommand
	cmdNo   [2]map[string]int
	zombies bool
}

type message struct {
	move   int
	target *coordinator.ToTarget
	source *coordinator.ToSource
}

func newExplorer(bug string) *explorer {
	return &explorer{bug: bug, ghosts: map[ghost]ghostDid{}, cfg: Config{Rounds: 1, Keep: dataflow.Hour}, msgNo: map[string]int{}, cmdNo: [2]map[string]int{{}, {}},
		moves: []moveDef{{"m10-a", siteA, 1}, {"m20-b", siteB, 2}}}
}

func (m message) String() string {
	if m.source != nil {
		return describeToSource(m.source)
	}
	return describeToTarget(m.target)
}

type command struct{ *coordinator.MoveCommand }

func (c command) String() string { return describeCommand(c.MoveCommand) }

// jobs is Jobs for a site.
type jobs JobFacts

func (j jobs) Job(coordinator.JobID) JobFacts { return JobFacts(j) }
func (j jobs) NameFree(string, string) bool   { return !j.Here }

func (x *explorer) job() coordinator.MovingJob {
	return coordinator.MovingJob{ID: "j1", Name: "job", Feeds: []coordinator.MovingFeed{{Name: "j1.in"}}}
}

func snapshot(name string) *coordinator.Snapshot { return &coordinator.Snapshot{Name: name, Job: "j1"} }

var end = []coordinator.FeedEnd{{Feed: "j1.in", End: 7}}

// moves of one site, as Apply wants them.
func (x *explorer) movesOf(s *state, site int) *coordinator.Moves {
	m := &coordinator.Moves{Departures: map[coordinator.MoveID]*coordinator.Departure{}, Arrivals: map[coordinator.MoveID]*coordinator.Arrival{}, Forgotten: map[mesh.Site]uint64{}}
	for k, d := range x.moves {
		if d.from == site && s.dep[k] != nil {
			m.Departures[d.id] = s.dep[k]
		}
		if d.to() == site && s.arr[k] != nil {
			m.Arrivals[d.id] = s.arr[k]
		}
	}
	m.Forgotten[siteNames[1-site]] = s.floor[site]
	return m
}

// apply applies a command at a site, and tells its leader.
func (x *explorer) apply(s *state, site int, c *coordinator.MoveCommand) {
	m := x.movesOf(s, site)
	if x.bug == "a decision can be changed" && c.Decided != nil && c.Decided.HandedOver {
		for id, d := range m.Departures {
			if d.Phase == coordinator.DepartureAborted {
				again := *d
				again.Phase = coordinator.DepartureOffered
				m.Departures[id] = &again
			}
		}
	}
	done, err := Apply(m, jobs(s.job[site]), Entry{Index: 1 << 40, At: 1, Site: siteNames[site], Level: coordinator.Level}, c)
	switch done.Order {
	case Leave, Fence:
		s.job[site] = JobFacts{Epoch: done.Epoch}
	case Arrive:
		s.job[site] = JobFacts{Epoch: done.Epoch, Here: true}
	case GoOn:
		s.job[site].Halted = ""
	}
	if x.bug != "forgotten arrivals leave nothing" {
		s.floor[site] = m.Forgotten[siteNames[1-site]]
	}
	for k, d := range x.moves {
		switch {
		case d.from == site && m.Departures[d.id] != s.dep[k]:
			s.dep[k] = m.Departures[d.id]
			if s.dep[k] != nil {
				s.pastDep[k][s.dep[k].Phase] = s.dep[k]
			}
			x.source(s, k, Event{Record: &Record{Departure: s.dep[k]}})
		case d.to() == site && m.Arrivals[d.id] != s.arr[k]:
			s.arr[k] = m.Arrivals[d.id]
			if s.arr[k] != nil {
				s.pastArr[k][s.arr[k].Phase] = s.arr[k]
			}
			if s.dst[k] == nil && s.arr[k] != nil {
				x.newTarget(s, k)
			} else {
				x.target(s, k, Event{Record: &Record{Arrival: s.arr[k]}})
			}
		case err != nil && d.from == site && aboutDeparture(c, d.id):
			x.source(s, k, Event{Rejected: err})
		case err != nil && d.to() == site && c.ArrivalBegan != nil && c.ArrivalBegan.ID == d.id && s.arr[k] == nil:
			x.target(s, k, Event{Rejected: err})
		}
	}
}

func aboutDeparture(c *coordinator.MoveCommand, id coordinator.MoveID) bool {
	return c.Halting != nil && c.Halting.ID == id || c.Offered != nil && c.Offered.ID == id || c.Decided != nil && c.Decided.ID == id
}

// source steps a source's machine, if it is there.
func (x *explorer) source(s *state, k int, e Event) {
	old := s.src[k]
	if old == nil {
		return
	}
	next := *old
	if e.Now == 0 {
		e.Now = base
	}
	effects := next.Step(e)
	next.effects = nil
	next.begun, next.heard, next.sent, next.asked, next.verdict, next.finished = base, base, base, base, 0, 0
	next.proposed, next.wanted, next.fetching, next.offered = false, false, "", false
	s.src[k] = &next
	if x.bug == "handed over before prepared was heard" && next.rec != nil && next.rec.Phase == coordinator.DepartureOffered {
		effects = append(effects, Effect{Propose: &coordinator.MoveCommand{Decided: &coordinator.MoveDecided{ID: x.moves[k].id, HandedOver: true}}})
	}
	if x.bug == "the source resumes without a decision" && next.rec != nil && next.rec.Phase == coordinator.DepartureOffered && e.Now > base {
		s.resumed[k] = true
	}
	x.effects(s, k, x.moves[k].from, effects)
	if next.over {
		s.src[k] = nil
	}
}

// target steps a target's machine, if it is there.
func (x *explorer) target(s *state, k int, e Event) {
	old := s.dst[k]
	if old == nil {
		return
	}
	next := *old
	if e.Now == 0 {
		e.Now = base
	}
	effects := next.Step(e)
	next.effects = nil
	next.begun, next.sent, next.asked, next.told, next.proposed, next.doubtful = base, base, base, 0, false, false
	s.dst[k] = &next
	if x.bug == "the target activates when it is prepared" && next.rec != nil && next.rec.Phase == coordinator.ArrivalPrepared {
		effects = append(effects, Effect{Propose: &coordinator.MoveCommand{ArrivalDecided: &coordinator.ArrivalDecided{ID: x.moves[k].id, Verdict: coordinator.DecisionHandedOver}}})
	}
	if x.bug == "the target drops when it is in doubt" && next.rec != nil && next.rec.Phase == coordinator.ArrivalPrepared && e.Now > base {
		effects = append(effects, Effect{Propose: &coordinator.MoveCommand{ArrivalDecided: &coordinator.ArrivalDecided{ID: x.moves[k].id, Verdict: coordinator.DecisionAborted}}})
	}
	x.effects(s, k, x.moves[k].to(), effects)
	if next.over {
		s.dst[k] = nil
	}
}

// effects puts what a machine of move k at a site wants into the world.
func (x *explorer) effects(s *state, k, site int, effects []Effect) {
	for _, e := range effects {
		switch {
		case e.Propose != nil:
			x.intern(s, site, e.Propose)
		case e.Send != nil:
			x.post(s, k, e.Send)
		}
	}
}

func (x *explorer) intern(s *state, site int, c *coordinator.MoveCommand) {
	key := describeCommand(c)
	if i := strings.Index(key, ": "); i > 0 && c.Fenced == nil {
		key = key[:i] // whatever the reason
	}
	key += fmt.Sprint(commandMove(c))
	n, ok := x.cmdNo[site][key]
	if !ok {
		n = len(x.cmds[site])
		x.cmdNo[site][key] = n
		x.cmds[site] = append(x.cmds[site], c)
	}
	s.prop[site] |= 1 << n
}

func commandMove(c *coordinator.MoveCommand) coordinator.MoveID {
	switch {
	case c.Halting != nil:
		return c.Halting.ID
	case c.Offered != nil:
		return c.Offered.ID
	case c.Decided != nil:
		return c.Decided.ID
	case c.Forgotten != nil:
		return c.Forgotten.ID
	case c.ArrivalBegan != nil:
		return c.ArrivalBegan.ID
	case c.ArrivalPrepared != nil:
		return c.ArrivalPrepared.ID
	case c.ArrivalDecided != nil:
		return c.ArrivalDecided.ID
	case c.ArrivalForgotten != nil:
		return c.ArrivalForgotten.ID
	}
	return ""
}

func (x *explorer) post(s *state, k int, m *Send) {
	key := fmt.Sprint(k)
	if m.Target != nil {
		if x.bug == "unknown is handed over" && m.Target.Verdict == coordinator.DecisionUnknown {
			m.Target.Verdict = coordinator.DecisionHandedOver
		}
		key += describeToTarget(m.Target)
	} else {
		key += describeToSource(m.Source)
		key, _, _ = strings.Cut(key, ": ") // whatever the reason
		if m.Source.Accepted != nil {
			key = fmt.Sprint(k, "accepted")
		}
	}
	n, ok := x.msgNo[key]
	if !ok {
		n = len(x.msgs)
		x.msgNo[key] = n
		x.msgs = append(x.msgs, message{k, m.Target, m.Source})
	}
	s.net |= 1 << n
}

// deliver gives message n to a leader of its receiver.
func (x *explorer) deliver(s *state, n int) {
	m := x.msgs[n]
	d := x.moves[m.move]
	if m.source != nil {
		if s.src[m.move] != nil || s.dep[m.move] != nil {
			x.source(s, m.move, Event{FromTarget: m.source})
		} else {
			x.effects(s, m.move, d.from, Unasked(x.movesOf(s, d.from), jobs(s.job[d.from]), 1<<40, siteNames[d.to()], m.source, nil))
		}
		return
	}
	switch {
	case s.dst[m.move] != nil || s.arr[m.move] != nil:
	case m.target.Propose != nil:
		x.newTarget(s, m.move)
	default:
		x.effects(s, m.move, d.to(), Unasked(x.movesOf(s, d.to()), jobs(s.job[d.to()]), 1<<40, siteNames[d.from], nil, m.target))
		return
	}
	x.target(s, m.move, Event{FromSource: m.target})
}

// lag gives message n to an agent of its receiver that has applied nothing of the
// move, and thinks that it leads.
func (x *explorer) lag(s *state, n int) {
	m := x.msgs[n]
	d := x.moves[m.move]
	empty := &coordinator.Moves{}
	index, _, _ := d.id.Parts()
	index--
	if x.bug == "unknown is said by a state that is too old" {
		index = 1 << 40
	}
	if m.source != nil {
		x.effects(s, m.move, d.from, Unasked(empty, jobs{Epoch: d.epoch, Here: true}, index, siteNames[d.to()], m.source, nil))
		return
	}
	x.effects(s, m.move, d.to(), Unasked(empty, jobs{}, 0, siteNames[d.from], nil, m.target))
}

// newSource makes a leader's machine with the record as it is, and tells it what
// is so.
func (x *explorer) newSource(s *state, k int) {
	if !x.zombies {
		s.src[k] = NewSource(x.cfg, base, s.dep[k], x.job())
		x.tellSource(s, k)
	}
}

func (x *explorer) tellSource(s *state, k int) {
	x.source(s, k, Event{Newest: &coordinator.MoveNewest{Snapshot: snapshot(x.moves[k].newest())}})
	if s.job[x.moves[k].from].Halted != "" {
		x.tellHalted(s, k)
	}
}

func (x *explorer) tellHalted(s *state, k int) {
	x.source(s, k, Event{Held: &Held{end}})
	x.source(s, k, Event{Halted: &Halted{Savepoint: snapshot(s.job[x.moves[k].from].Halted)}})
}

func (x *explorer) newTarget(s *state, k int) {
	if !x.zombies {
		s.dst[k] = NewTarget(x.cfg, base, x.moves[k].id, s.arr[k])
		x.tellTarget(s, k)
	}
}

func (x *explorer) tellTarget(s *state, k int) {
	if s.haveLogs[k] {
		x.target(s, k, Event{Logs: &Logs{Ends: end}})
	}
	if s.haveS[k] {
		x.target(s, k, Event{Fetched: &Fetched{Snapshot: snapshot(x.moves[k].savepoint()), Bytes: 1, Took: 1}})
	}
}

// ghost is a leader who thinks that an old version of a record is the present one,
// and one thing that happens to him. n is a message, or one of those below.
type ghost struct {
	move, n int
	phase   uint8
	target  bool
	halted  bool
	have    [2]bool
}

const (
	late = -1 - iota
	dropWish
	forceWish
)

// ghostDid is what he says and proposes.
type ghostDid struct {
	net  uint64
	prop [2]uint64
}

// haunt is what a ghost does. It depends on nothing but what ghost says.
func (x *explorer) haunt(s *state, h ghost) ghostDid {
	if did, ok := x.ghosts[h]; ok {
		return did
	}
	k, e := h.move, Event{Now: base.Add(10 * dataflow.Hour)}
	switch {
	case h.n >= 0:
		e = Event{FromTarget: x.msgs[h.n].source, FromSource: x.msgs[h.n].target}
	case h.n == dropWish:
		e = Event{Drop: &Wish{}}
	case h.n == forceWish:
		e = Event{Force: &Wish{}}
	}
	g := state{job: s.job, haveS: s.haveS, haveLogs: s.haveLogs}
	if h.target {
		g.arr[k] = s.pastArr[k][h.phase]
		g.dst[k] = NewTarget(x.cfg, base, x.moves[k].id, g.arr[k])
		x.tellTarget(&g, k)
		x.target(&g, k, e)
		if g.dst[k] != nil && g.dst[k].asking {
			x.target(&g, k, Event{Checked: &Checked{}})
		}
		if t := g.dst[k]; t != nil && t.want != nil && t.want.Name == x.moves[k].newest() {
			x.target(&g, k, Event{Fetched: &Fetched{Snapshot: t.want, Bytes: 1, Took: 1}})
		}
	} else {
		g.dep[k] = s.pastDep[k][h.phase]
		g.job[x.moves[k].from].Halted = ""
		if h.halted {
			g.job[x.moves[k].from].Halted = x.moves[k].savepoint()
		}
		g.src[k] = NewSource(x.cfg, base, g.dep[k], x.job())
		x.tellSource(&g, k)
		x.source(&g, k, e)
	}
	did := ghostDid{g.net, g.prop}
	x.ghosts[h] = did
	return did
}

// key names a state: two states with one key go on alike.
func (x *explorer) key(b []byte, s *state) []byte {
	put := func(vs ...int) {
		for _, v := range vs {
			b = append(b, byte(v))
		}
	}
	flag := func(on bool) int {
		if on {
			return 1
		}
		return 0
	}
	for k := range x.moves {
		if d := s.dep[k]; d != nil {
			put(int(d.Phase))
		} else {
			put(0)
		}
		if a := s.arr[k]; a != nil {
			put(int(a.Phase), flag(a.Forced))
		} else {
			put(0, 0)
		}
		put(flag(s.haveS[k])|flag(s.haveLogs[k])<<1|flag(s.resumed[k])<<2, int(s.floor[k]), int(s.job[k].Epoch), flag(s.job[k].Here), len(s.job[k].Halted))
		b = sourceKey(b, s.src[k])
		b = targetKey(b, s.dst[k])
		past := flag(s.halted[k])
		for phase, d := range s.pastDep[k] {
			past |= flag(d != nil) << phase
		}
		for phase, a := range s.pastArr[k] {
			past |= flag(a != nil) << (phase + 7)
		}
		put(past&0xff, past>>8)
	}
	for _, set := range []uint64{s.net, s.prop[0], s.prop[1]} {
		b = binary.LittleEndian.AppendUint64(b, set)
	}
	l := s.left
	put(int(l.lead[0]), int(l.lead[1]), int(l.cancel), int(l.ends), int(l.force), int(l.drop))
	return b
}

func sourceKey(b []byte, m *Source) []byte {
	if m == nil {
		return append(b, 0xff)
	}
	done := byte(0)
	if m.done != nil {
		done = 1 + byte(m.done.Phase)
	}
	flags := bitset(m.accepted, m.refused != "", m.prepared, m.halted != nil, m.held != nil, m.ended != "", m.round.ready, m.newest != nil)
	b = append(b, byte(m.rec.Phase), flags, done, byte(len(m.cancel)))
	return append(b, m.round.got...)
}

func targetKey(b []byte, m *Target) []byte {
	if m == nil {
		return append(b, 0xfe)
	}
	phase, checked := byte(0), byte(0)
	if m.rec != nil {
		phase = byte(m.rec.Phase)
	}
	if m.checked != nil {
		checked = 1 + byte(min(1, len(m.checked.Why)))
	}
	flags := bitset(m.ask != nil, m.asking, m.refused != "", m.offer != nil, m.logs != nil)
	b = append(b, phase, checked, flags, byte(m.verdict), byte(len(m.force)), byte(len(m.drop)))
	if m.want != nil {
		b = append(b, m.want.Name...)
	}
	b = append(b, '.')
	if m.fetched != nil {
		b = append(b, m.fetched.Snapshot.Name...)
	}
	return append(b, '.')
}

func bitset(flags ...bool) (b byte) {
	for i, on := range flags {
		if on {
			b |= 1 << i
		}
	}
	return b
}

// each calls f with the numbers in a set.
func each(set uint64, f func(n int)) {
	for ; set != 0; set &= set - 1 {
		f(bits.TrailingZeros64(set))
	}
}
