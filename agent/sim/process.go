package sim

import (
	"bytes"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/lease"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// proc is an agent's process: all that is lost when it is killed. It does what
// agent/node does: drives the worker, applies the site's log, leads.
//
//	running
//	paused  it stands still, as after SIGSTOP; what was due is done when it goes on
//	dead    it was killed: nothing of it is done any more
type proc struct {
	n       *node
	boot    uint64
	dead    bool
	paused  bool
	held    []func()
	machine *jobmanager.Machine
	journal *jobmanager.Journal // for the worker
	applied uint64
	waits   map[uint64]func(jobmanager.Result) // for commands that were proposed here, by index
	worker  *worker.Worker
	timer   int
	lease   *lease.Lease
	exec    *executor
	feeds   *feeds
	lead    *lead
	knows   mesh.NodeID // who leads, as the worker was told
	silent  dataflow.Time
	talk    *stream
	dials   int
	heard   uint64 // the term of the last message of a leader
}

// now is the process's clock: it does not go exactly as the others do.
func (p *proc) now() dataflow.Time { return 1000*sec + p.n.w.now/1000*dataflow.Time(p.n.rate) }

// real is when the process's clock is at t.
func (p *proc) real(t dataflow.Time) dataflow.Time {
	if t >= dataflow.MaxTime/2 {
		return dataflow.MaxTime
	}
	return (t - 1000*sec + dataflow.Time(p.n.rate)) / dataflow.Time(p.n.rate) * 1000
}

// live runs f now, when the process goes on, or never.
func (p *proc) live(f func()) {
	switch {
	case p.dead:
	case p.paused:
		p.held = append(p.held, f)
	default:
		f()
	}
}

// after does something later in the process.
func (p *proc) after(least dataflow.Time, f func()) {
	p.n.w.after(least+p.n.slow/4, func() { p.live(f) })
}

// post does something after what is under way.
func (p *proc) post(f func()) { p.n.w.at(p.n.w.now, func() { p.live(f) }) }

// start begins a process with what is on the node's disk.
func (n *node) start() {
	if n.p != nil {
		n.w.check.fail(0, "agent %s is started twice: two processes would share its disk", n.id)
		return
	}
	n.boots++
	p := &proc{n: n, boot: n.boots, machine: jobmanager.New(), journal: jobmanager.NewJournal(), waits: make(map[uint64]func(jobmanager.Result))}
	n.p = p
	p.lease = lease.New(p.now)
	p.exec, p.feeds = newExecutor(p), newFeeds(p)
	if n.disk.snapshot != nil {
		if err := p.machine.Restore(bytes.NewReader(n.disk.snapshot)); err != nil {
			n.w.check.fail(0, "agent %s cannot read its snapshot: %v", n.id, err)
		}
		p.applied = n.disk.snapshotAt
	}
	agent := coordinator.Agent{Node: n.id, Name: n.name, Host: string(n.id), Slots: n.slots, Level: coordinator.BaseLevel, Memory: 1 << 28}
	p.worker = worker.New(worker.Config{Agent: agent, Site: siteName, Boot: p.boot, Timing: worker.DefaultTiming()})
	n.w.trace("%s starts (boot %d, state as of %d)", n.id, p.boot, p.applied)
	p.feeds.opened()
	p.step(worker.Event{State: true})
	p.after(5*ms, p.replicate)
	p.after(5*ms, p.findLeader)
}

// kill ends a process; what was not synced is lost, or not.
func (n *node) kill() {
	p := n.p
	if p == nil {
		return
	}
	n.w.trace("FAULT %s is killed", n.id)
	n.p, p.dead = nil, true
	n.disk.crash(n.w.rng)
	p.exec.forget()
	if p.lead != nil {
		p.lead.over = true
	}
	for _, s := range n.w.streams {
		s.died(p)
	}
}

func (n *node) pause() {
	n.w.trace("FAULT %s stands still", n.id)
	n.p.paused = true
	for _, s := range n.w.streams {
		s.suspect(n.id)
	}
}

func (n *node) resume() {
	p := n.p
	if p == nil || !p.paused {
		return
	}
	n.w.trace("FAULT %s goes on", n.id)
	p.paused = false
	held := p.held
	p.held = nil
	for i, f := range held {
		if p.dead || p.paused {
			p.held = append(p.held, held[i:]...)
			return
		}
		f()
	}
}

// step gives the worker an event and does what it says.
func (p *proc) step(e worker.Event) {
	if p.dead {
		return
	}
	e.Now = p.now()
	for _, f := range append([]worker.Effect(nil), p.worker.Step(p.machine.State(), p.journal.Take(), e)...) {
		p.perform(f)
	}
	p.timer++
	timer, wake := p.timer, p.worker.Wake()
	if wake == dataflow.MaxTime {
		return
	}
	p.n.w.check.wakes(p, wake)
	p.n.w.at(max(p.real(wake), p.n.w.now+1), func() {
		p.live(func() {
			if p.timer == timer {
				p.step(worker.Event{})
			}
		})
	})
}

// tell hands the worker an event after what is under way.
func (p *proc) tell(e worker.Event) { p.post(func() { p.step(e) }) }

func (p *proc) perform(f worker.Effect) {
	switch {
	case f.Connect != nil:
		p.connect(*f.Connect)
	case f.Send != nil:
		p.say(f.Send)
	case f.Lease != nil:
		p.lease.Extend(*f.Lease)
	case f.Own != nil || f.Follow != nil || f.Seal != nil || f.Rest != nil || f.Drop != nil:
		p.feeds.do(f)
	default:
		p.exec.do(f)
	}
}

// findLeader tells the worker who leads, as far as this agent hears.
func (p *proc) findLeader() {
	defer p.after(50*ms, p.findLeader)
	l := p.n.w.raft.leader
	if l != nil && !l.over && p.n.w.linked(p.n, l.p.n) {
		p.silent = p.n.w.now
		p.learn(l.p.n.id)
		return
	}
	if p.n.w.now > p.silent+sec {
		p.learn("")
	}
}

func (p *proc) learn(leader mesh.NodeID) {
	if p.knows != leader {
		p.knows = leader
		p.step(worker.Event{Leader: &leader})
	}
}

// connect opens a stream to the leader; one that cannot be reached is given up
// after a while.
func (p *proc) connect(to mesh.NodeID) {
	w := p.n.w
	p.dials++
	dial := p.dials
	if old := p.talk; old != nil {
		p.talk = nil
		old.close(0)
	}
	p.after(3*ms, func() {
		if dial != p.dials {
			return
		}
		o := w.node(to)
		if !w.linked(p.n, o) || o.p.lead == nil || o.p.lead.over {
			wait := 30 * ms
			if !w.linked(p.n, o) {
				wait = sec
			}
			p.after(wait, func() {
				if dial == p.dials {
					p.step(worker.Event{Connected: new(false)})
				}
			})
			return
		}
		l := o.p.lead
		s := w.newStream("control", p, o.p)
		p.talk = s
		s.at(0, func(m any) { p.hear(s, m.([]byte)) }, func() { p.parted(s) })
		l.welcome(s, p)
		p.step(worker.Event{Connected: new(true)})
	})
}

func (p *proc) hear(s *stream, data []byte) {
	if p.talk != s {
		return
	}
	m, err := codec.DecodeToAgent(data)
	if err != nil {
		p.n.w.check.fail(0, "agent %s cannot read a message of the leader: %v", p.n.id, err)
		return
	}
	p.heard = m.Term
	p.step(worker.Event{Message: m})
}

func (p *proc) parted(s *stream) {
	if p.talk == s {
		p.talk = nil
		p.step(worker.Event{Connected: new(false)})
	}
}

// say sends the leader a message.
func (p *proc) say(m *coordinator.ToLeader) {
	if p.talk == nil {
		return
	}
	data, err := codec.EncodeToLeader(m)
	if err != nil {
		p.n.w.check.fail(0, "agent %s cannot encode a message: %v", p.n.id, err)
		return
	}
	p.talk.send(0, data)
}

// permit is the right to act on the world.
type permit struct{ p *proc }

func (p permit) Err() error {
	if p.p.n.w.cfg.Bugs.IgnoreLease {
		return nil
	}
	return p.p.lease.Err()
}
