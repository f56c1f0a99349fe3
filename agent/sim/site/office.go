package site

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Lead is an agent's process while it leads, or thinks so: it does what
// agent/node's office does, for one term.
type Lead struct {
	p       *agent
	term    uint64
	l       *leader.Leader
	journal *jobmanager.Journal
	over    bool // it knows that it leads no more
	pending []entry
	waiting []entry // committed, and not applied here yet
	desks   map[mesh.NodeID]*world.Stream
	boots   map[mesh.NodeID]uint64 // of whom a desk is
	timer   int
	turned  dataflow.Time // when it did something last, by its clock
	wishes  map[int]func(leader.Answer)
	wishRef int
	wants   map[int]func(*coordinator.Offer)
	reached []mesh.Site // other sites, as it was told; nil: it was not
}

func newLead(p *agent, term uint64) *Lead {
	l := &Lead{p: p, term: term, journal: jobmanager.NewJournal(), desks: make(map[mesh.NodeID]*world.Stream), boots: make(map[mesh.NodeID]uint64), wishes: make(map[int]func(leader.Answer)), wants: make(map[int]func(*coordinator.Offer))}
	l.turned = p.Now()
	l.l = leader.New(leader.Config{Term: term, Self: p.ID, Site: p.s.Name, Level: p.s.Level, Timing: leader.DefaultTiming(), Parse: p.s.parse, Lapsed: p.lapsed()})
	return l
}

// parse is leader.Parse, once for each job.
func (s *Site) parse(j *coordinator.Job) (*leader.Parsed, error) {
	key := fmt.Sprint(j.ID, j.Parallelism, j.Reads)
	if p := s.parses[key]; p != nil {
		return p, nil
	}
	p, err := leader.Parse(j)
	if err == nil {
		s.parses[key] = p
	}
	return p, err
}

func (l *Lead) start() {
	l.step(leader.Event{})
	l.confirm()
	l.gossip()
	l.reach()
}

// standstill is how long nothing is done for the process to have stood still:
// confirm does something more often.
const standstill = sec

// step gives the leader an event and does what it says; before it, that the process
// stood still, if it did.
func (l *Lead) step(e leader.Event) {
	if l.over || l.p.Dead {
		return
	}
	w := l.p.W
	if d := l.p.Now() - l.turned; d >= standstill {
		l.turned = l.p.Now()
		l.step(leader.Event{Stood: dataflow.Duration(d)})
	}
	l.turned = l.p.Now()
	e.Now, e.Wall = l.p.Now(), w.Now()
	for _, f := range append([]leader.Effect(nil), l.l.Step(l.p.machine.State(), l.journal.Take(), e)...) {
		if l.perform(f); l.p.Dead {
			return
		}
	}
	l.timer++
	timer, wake := l.timer, l.l.Wake()
	if wake == dataflow.MaxTime {
		return
	}
	w.At(max(l.p.Real(wake), w.Now()+1), func() {
		l.p.Live(func() {
			if l.timer == timer {
				l.step(leader.Event{})
			}
		})
	})
}

func (l *Lead) perform(f leader.Effect) {
	w := l.p.W
	switch {
	case f.Propose != nil:
		ref, c := f.Propose.Ref, f.Propose.Command
		l.Propose(&c, func(index uint64, r jobmanager.Result, refused error) {
			if refused != nil {
				l.step(leader.Event{Refused: &leader.Refused{Ref: ref, Err: refused}})
				return
			}
			l.step(leader.Event{Applied: &leader.Applied{Index: index, Command: &c, Err: r.Err, Ref: ref}})
		})
	case f.Send != nil:
		l.send(f.Send)
	case f.Drop != nil:
		if s := l.desks[*f.Drop]; s != nil {
			delete(l.desks, *f.Drop)
			s.Close(1)
		}
	case f.Answer != nil:
		if done := l.wishes[f.Answer.Ref]; done != nil {
			delete(l.wishes, f.Answer.Ref)
			done(*f.Answer)
		}
	case f.ToSite != nil:
		l.toSite(f.ToSite)
	case f.Ask != nil:
		l.ask(f.Ask)
	case f.Offer != nil:
		l.offered(f.Offer)
	case f.Moving != nil:
		if l.p.s.Moving != nil {
			l.p.s.Moving(f.Moving)
		}
	case f.Tell != "":
		w.Tell("%s (term %d): %s", l.p.ID, l.term, f.Tell)
	}
}

// Propose puts a command into the log, in the order of the calls. done is called
// once, unless the process dies: with a result, or why it was refused.
func (l *Lead) Propose(c *coordinator.Command, done func(index uint64, r jobmanager.Result, refused error)) {
	w := l.p.W
	c.At = w.Now()
	data := encoded(c)
	if l.over || w.Chance(200) { // the disk was full for a moment
		l.p.After(ms, func() { done(0, jobmanager.Result{}, errLost) })
		return
	}
	if m := c.Move; w.Bugs.VerdictEarly && m != nil && m.Decided != nil && m.Decided.HandedOver {
		d := l.p.machine.State().Moves.Departures[m.Decided.ID]
		l.toSite(&leader.ToSite{Site: d.To, ToTarget: &coordinator.ToTarget{Move: d.ID, Verdict: coordinator.DecisionHandedOver}})
	}
	answered := false
	e := entry{data: data, by: l, what: entryOf(c)}
	e.done = func(index uint64, r jobmanager.Result) {
		if !answered {
			answered = true
			var refused error
			if index == 0 {
				refused = errLost
			}
			done(index, r, refused)
		}
	}
	l.pending = append(l.pending, e)
	w.After(ms+l.p.Slow/2, func() { l.p.s.raft.commit(l) })
}

// applied: a command was applied here.
func (l *Lead) applied(index uint64, c *coordinator.Command, e entry, own bool, r jobmanager.Result) {
	if l.over {
		return
	}
	if !own {
		l.step(leader.Event{Applied: &leader.Applied{Index: index, Command: c, Err: r.Err}})
		return
	}
	if len(l.waiting) > 0 {
		l.waiting = l.waiting[1:]
	}
	e.done(index, r)
}

// usurped: there is another leader. It notices when it hears of that, or when it
// has heard of no majority for a while.
func (l *Lead) usurped() {
	if l.over {
		return
	}
	w := l.p.W
	var notice func()
	since := w.Now()
	notice = func() {
		now := l.p.s.raft.leader
		switch {
		case l.over || l.p.Dead:
		case now != nil && now != l && w.Linked(l.p.Node, now.p.Node) && w.Chance(3), !w.Bugs.ConfirmAlways && !l.p.s.raft.majority(l.p) && w.Now() > since+stepDown:
			l.leave()
		default:
			l.p.After(40*ms, notice)
		}
	}
	l.p.After(20*ms, notice)
}

// leave ends the term here, and answers who waits.
func (l *Lead) leave() {
	if l.over {
		return
	}
	l.over = true
	l.p.W.Tell("%s leads term %d no more", l.p.ID, l.term)
	for _, e := range append(l.pending, l.waiting...) {
		e.done(0, jobmanager.Result{})
	}
	for _, n := range l.p.s.Nodes {
		if s := l.desks[n.ID]; s != nil {
			s.Close(1)
		}
	}
	for ref := 1; ref <= l.wishRef; ref++ {
		if done := l.wishes[ref]; done != nil {
			done(leader.Answer{Ref: ref, Err: errLost})
		}
	}
}

// confirm asks a majority again and again whether this is still the leader.
func (l *Lead) confirm() {
	w := l.p.W
	if l.over {
		return
	}
	l.p.After(150*ms, l.confirm)
	asked := l.p.Now()
	if !w.Bugs.ConfirmAlways && (l.p.s.raft.leader != l || !l.p.s.raft.majority(l.p)) {
		l.step(leader.Event{})
		return
	}
	l.p.After(ms, func() { l.step(leader.Event{Confirmed: &asked}) })
}

// gossip hints at who is gone: soon of those that were killed, later of those
// that are silent.
func (l *Lead) gossip() {
	w := l.p.W
	if l.over {
		return
	}
	l.p.After(500*ms, l.gossip)
	for _, n := range l.p.s.Nodes {
		if boot := l.boots[n.ID]; boot > 0 && !w.Linked(l.p.Node, n) && w.Chance(2) {
			sure := n.P == nil && w.Chance(2)
			l.step(leader.Event{Gone: &leader.Gone{Node: n.ID, Boot: boot, Sure: sure}})
		}
	}
}

// welcome takes the stream that an agent opened.
func (l *Lead) welcome(s *world.Stream, from *world.Proc) {
	id := from.ID
	if old := l.desks[id]; old != nil {
		old.Close(1)
	}
	l.desks[id], l.boots[id] = s, from.Number
	s.At(1, func(m any) { l.hear(s, id, m.([]byte)) }, func() {
		if l.desks[id] == s {
			delete(l.desks, id)
			l.step(leader.Event{Gone: &leader.Gone{Node: id}})
		}
	})
}

func (l *Lead) hear(s *world.Stream, from mesh.NodeID, data []byte) {
	if l.desks[from] != s {
		return
	}
	m, err := codec.DecodeToLeader(data)
	if err != nil {
		l.p.W.Fail(0, "the leader cannot read a message of %s: %v", from, err)
		return
	}
	l.step(leader.Event{From: &leader.From{Node: from, Message: *m}})
}

func (l *Lead) send(f *leader.Send) {
	w := l.p.W
	s := l.desks[f.To]
	if s == nil {
		return
	}
	data, err := codec.EncodeToAgent(&f.Message)
	if err != nil {
		w.Fail(0, "a message to %s cannot be encoded: %v", f.To, err)
		return
	}
	s.Send(1, data)
}

var errNoLeader = errors.New("there is no leader")

// Wish asks for something on behalf of a person.
func (l *Lead) Wish(wish leader.Wish, done func(leader.Answer)) {
	if l.over {
		done(leader.Answer{Err: errNoLeader})
		return
	}
	l.wishRef++
	wish.Ref = l.wishRef
	l.wishes[wish.Ref] = done
	l.step(leader.Event{Wish: &wish})
}

// Node is the machine of the leader.
func (l *Lead) Node() *world.Node { return l.p.Node }

// After does something later in the leader's process.
func (l *Lead) After(least dataflow.Time, f func()) { l.p.After(least, f) }

// Reached tells whether it leads indeed: a majority hears it.
func (l *Lead) Reached() bool { return l.p.s.raft.leader == l && l.p.s.raft.majority(l.p) }

// Read gives the state with all that is committed now. A leader that no majority
// hears never answers.
func (l *Lead) Read(answer func(*coordinator.State)) {
	if !l.Reached() {
		return
	}
	until := uint64(len(l.p.s.raft.log))
	var look func()
	look = func() {
		switch {
		case l.over:
		case l.p.applied < until:
			l.After(5*ms, look)
		default:
			answer(l.p.machine.State())
		}
	}
	l.After(ms, look)
}

// State is that of the leader's agent.
func (l *Lead) State() *coordinator.State { return l.p.machine.State() }
