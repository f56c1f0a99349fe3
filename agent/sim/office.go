package sim

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// lead is an agent's process while it leads, or thinks so: it does what
// agent/node's office does, for one term.
type lead struct {
	p       *proc
	term    uint64
	l       *leader.Leader
	journal *jobmanager.Journal
	over    bool // it knows that it leads no more
	pending []entry
	waiting []entry // committed, and not applied here yet
	desks   map[mesh.NodeID]*stream
	boots   map[mesh.NodeID]uint64 // of whom a desk is
	timer   int
	wishes  map[int]func(leader.Answer)
	wishRef int
}

func newLead(p *proc, term uint64) *lead {
	l := &lead{p: p, term: term, journal: jobmanager.NewJournal(), desks: make(map[mesh.NodeID]*stream), boots: make(map[mesh.NodeID]uint64), wishes: make(map[int]func(leader.Answer))}
	l.l = leader.New(leader.Config{Term: term, Self: p.n.id, Site: siteName, Level: coordinator.BaseLevel, Timing: leader.DefaultTiming(), Parse: p.n.w.parse})
	return l
}

// parse is leader.Parse, once for each job.
func (w *World) parse(j *coordinator.Job) (*leader.Parsed, error) {
	key := fmt.Sprintf("%s %d", j.ID, j.Parallelism)
	if p := w.parses[key]; p != nil {
		return p, nil
	}
	p, err := leader.Parse(j)
	if err == nil {
		w.parses[key] = p
	}
	return p, err
}

func (l *lead) start() {
	l.step(leader.Event{})
	l.confirm()
	l.gossip()
}

// step gives the leader an event and does what it says.
func (l *lead) step(e leader.Event) {
	if l.over || l.p.dead {
		return
	}
	w := l.p.n.w
	e.Now, e.Wall = l.p.now(), w.now
	for _, f := range append([]leader.Effect(nil), l.l.Step(l.p.machine.State(), l.journal.Take(), e)...) {
		l.perform(f)
	}
	l.timer++
	timer, wake := l.timer, l.l.Wake()
	if wake == dataflow.MaxTime {
		return
	}
	w.at(max(l.p.real(wake), w.now+1), func() {
		l.p.live(func() {
			if l.timer == timer {
				l.step(leader.Event{})
			}
		})
	})
}

func (l *lead) perform(f leader.Effect) {
	w := l.p.n.w
	switch {
	case f.Propose != nil:
		ref, c := f.Propose.Ref, f.Propose.Command
		l.propose(&c, func(index uint64, r jobmanager.Result, refused error) {
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
			s.close(1)
		}
	case f.Answer != nil:
		if done := l.wishes[f.Answer.Ref]; done != nil {
			delete(l.wishes, f.Answer.Ref)
			done(*f.Answer)
		}
	case f.Tell != "":
		w.trace("%s (term %d): %s", l.p.n.id, l.term, f.Tell)
	}
}

// propose puts a command into the log, in the order of the calls. done is called
// once, unless the process dies: with a result, or why it was refused.
func (l *lead) propose(c *coordinator.Command, done func(index uint64, r jobmanager.Result, refused error)) {
	w := l.p.n.w
	c.At = w.now
	data := encoded(c)
	if l.over || w.chance(200) { // the disk was full for a moment
		l.p.after(ms, func() { done(0, jobmanager.Result{}, errLost) })
		return
	}
	answered := false
	e := entry{data: data, by: l}
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
	w.after(ms+l.p.n.slow/2, func() { w.raft.commit(l) })
}

// applied: a command was applied here.
func (l *lead) applied(index uint64, c *coordinator.Command, e entry, own bool, r jobmanager.Result) {
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
func (l *lead) usurped() {
	if l.over {
		return
	}
	w := l.p.n.w
	var notice func()
	since := w.now
	notice = func() {
		now := w.raft.leader
		switch {
		case l.over || l.p.dead:
		case now != nil && now != l && w.linked(l.p.n, now.p.n) && w.chance(3), !w.cfg.Bugs.ConfirmAlways && !w.raft.majority(l.p) && w.now > since+stepDown:
			l.leave()
		default:
			l.p.after(40*ms, notice)
		}
	}
	l.p.after(20*ms, notice)
}

// leave ends the term here, and answers who waits.
func (l *lead) leave() {
	if l.over {
		return
	}
	l.over = true
	l.p.n.w.trace("%s leads term %d no more", l.p.n.id, l.term)
	for _, e := range append(l.pending, l.waiting...) {
		e.done(0, jobmanager.Result{})
	}
	for _, n := range l.p.n.w.nodes {
		if s := l.desks[n.id]; s != nil {
			s.close(1)
		}
	}
	for ref := 1; ref <= l.wishRef; ref++ {
		if done := l.wishes[ref]; done != nil {
			done(leader.Answer{Ref: ref, Err: errLost})
		}
	}
}

// confirm asks a majority again and again whether this is still the leader.
func (l *lead) confirm() {
	w := l.p.n.w
	if l.over {
		return
	}
	l.p.after(150*ms, l.confirm)
	asked := l.p.now()
	if !w.cfg.Bugs.ConfirmAlways && (w.raft.leader != l || !w.raft.majority(l.p)) {
		return
	}
	l.p.after(ms, func() { l.step(leader.Event{Confirmed: &asked}) })
}

// gossip hints at who is gone: soon of those that were killed, later of those
// that are silent.
func (l *lead) gossip() {
	w := l.p.n.w
	if l.over {
		return
	}
	l.p.after(500*ms, l.gossip)
	for _, n := range w.nodes {
		if boot := l.boots[n.id]; boot > 0 && !w.linked(l.p.n, n) && w.chance(2) {
			sure := n.p == nil && w.chance(2)
			l.step(leader.Event{Gone: &leader.Gone{Node: n.id, Boot: boot, Sure: sure}})
		}
	}
}

// welcome takes the stream that an agent opened.
func (l *lead) welcome(s *stream, from *proc) {
	id := from.n.id
	if old := l.desks[id]; old != nil {
		old.close(1)
	}
	l.desks[id], l.boots[id] = s, from.boot
	s.at(1, func(m any) { l.hear(s, id, m.([]byte)) }, func() {
		if l.desks[id] == s {
			delete(l.desks, id)
			l.step(leader.Event{Gone: &leader.Gone{Node: id}})
		}
	})
}

func (l *lead) hear(s *stream, from mesh.NodeID, data []byte) {
	if l.desks[from] != s {
		return
	}
	m, err := codec.DecodeToLeader(data)
	if err != nil {
		l.p.n.w.check.fail(0, "the leader cannot read a message of %s: %v", from, err)
		return
	}
	l.step(leader.Event{From: &leader.From{Node: from, Message: *m}})
}

func (l *lead) send(f *leader.Send) {
	w := l.p.n.w
	s := l.desks[f.To]
	if s == nil {
		return
	}
	data, err := codec.EncodeToAgent(&f.Message)
	if err != nil {
		w.check.fail(0, "a message to %s cannot be encoded: %v", f.To, err)
		return
	}
	s.send(1, data)
}

var errNoLeader = errors.New("there is no leader")

// wish asks for something on behalf of a person.
func (l *lead) wish(wish leader.Wish, done func(leader.Answer)) {
	if l.over {
		done(leader.Answer{Err: errNoLeader})
		return
	}
	l.wishRef++
	wish.Ref = l.wishRef
	l.wishes[wish.Ref] = done
	l.step(leader.Event{Wish: &wish})
}
