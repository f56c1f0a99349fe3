package site

import (
	"bytes"

	"github.com/tidemark-mesh/tidemark/agent/sim/work"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/lease"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// agent is a process of the site. It does what agent/node does: drives the
// worker, applies the site's log, leads.
type agent struct {
	*world.Proc
	s       *Site
	machine *jobmanager.Machine
	journal *jobmanager.Journal // for the worker
	applied uint64
	idle    bool // all of the log is applied: the next entry wakes it
	worker  *worker.Worker
	timer   int
	lease   *lease.Lease
	work    *work.Agent
	lead    *Lead
	knows   mesh.NodeID // who leads, as the worker was told
	silent  dataflow.Time
	talk    *world.Stream
	dials   int
	shown   dataflow.Time // when it said how far mirrors are
	heard   uint64        // the term of the last message of a leader
}

// boot is what runs in a new process of a machine of the site.
func (s *Site) boot(proc *world.Proc) {
	p := &agent{Proc: proc, s: s, machine: jobmanager.New(), journal: jobmanager.NewJournal()}
	s.agents[proc] = p
	p.lease = lease.New(p.Now)
	p.work = work.New(work.Config{Proc: proc, Setting: s.setting, Lease: p.lease, State: p.machine.State,
		Heard: func() uint64 { return p.heard }, Tell: p.tell})
	p.Serve("control", func(st *world.Stream, from *world.Proc) { p.lead.welcome(st, from) })
	p.Killed = func() {
		delete(s.agents, proc)
		p.work.Forget()
		if p.lead != nil {
			p.lead.over = true
		}
	}
	if p.Disk.Snapshot != nil {
		if err := p.machine.Restore(bytes.NewReader(p.Disk.Snapshot)); err != nil {
			p.W.Fail(0, "agent %s cannot read its snapshot: %v", p.ID, err)
		}
		p.applied = p.Disk.SnapshotAt
	}
	self := coordinator.Agent{Node: p.ID, Name: p.Name, Host: string(p.ID), Slots: slots, Level: p.s.Level, Memory: 1 << 28}
	p.worker = worker.New(worker.Config{Agent: self, Site: s.Name, Boot: p.Number, Timing: worker.DefaultTiming()})
	p.W.Tell("%s starts (boot %d, state as of %d)", p.ID, p.Number, p.applied)
	for _, now := range p.work.Logs() {
		p.step(worker.Event{Log: &worker.LogEvent{Opened: &now}})
	}
	p.step(worker.Event{State: true})
	p.After(5*ms, p.replicate)
	p.After(5*ms, p.findLeader)
}

// step gives the worker an event and does what it says.
func (p *agent) step(e worker.Event) {
	if p.Dead {
		return
	}
	e.Now = p.Now()
	for _, f := range append([]worker.Effect(nil), p.worker.Step(p.machine.State(), p.journal.Take(), e)...) {
		if p.perform(f); p.Dead {
			return
		}
	}
	p.timer++
	timer, wake := p.timer, p.worker.Wake()
	if wake == dataflow.MaxTime {
		return
	}
	p.s.Judge.Wakes(p.ID, wake, p.Now())
	p.W.At(max(p.Real(wake), p.W.Now()+1), func() {
		p.Live(func() {
			if p.timer == timer {
				p.step(worker.Event{})
			}
		})
	})
}

// tell hands the worker an event after what is under way.
// leads tells whether it leads, as far as it knows.
func (p *agent) leads() bool { return p.lead != nil && !p.lead.over }

func (p *agent) tell(e worker.Event) { p.Post(func() { p.step(e) }) }

func (p *agent) perform(f worker.Effect) {
	switch {
	case f.Connect != nil:
		p.connect(*f.Connect)
	case f.Send != nil:
		p.say(f.Send)
	case f.Lease != nil:
		p.lease.Extend(*f.Lease)
	default:
		p.work.Do(f)
	}
}

// findLeader tells the worker who leads, as far as this agent hears.
func (p *agent) findLeader() {
	defer p.After(50*ms, p.findLeader)
	l := p.s.raft.leader
	if l != nil && !l.over && p.W.Linked(p.Node, l.p.Node) {
		p.silent = p.W.Now()
		p.learn(l.p.ID)
		return
	}
	if p.W.Now() > p.silent+sec {
		p.learn("")
	}
}

func (p *agent) learn(leader mesh.NodeID) {
	if p.knows != leader {
		p.knows = leader
		p.step(worker.Event{Leader: &leader})
	}
}

// connect opens a stream to the leader; one that cannot be reached is given up
// after a while.
func (p *agent) connect(to mesh.NodeID) {
	w := p.W
	p.dials++
	dial := p.dials
	if old := p.talk; old != nil {
		p.talk = nil
		old.Close(0)
	}
	p.After(3*ms, func() {
		if dial != p.dials {
			return
		}
		o := w.Node(to)
		if !w.Linked(p.Node, o) || !p.s.agents[o.P].leads() {
			wait := 30 * ms
			if !w.Linked(p.Node, o) {
				wait = sec
			}
			p.After(wait, func() {
				if dial == p.dials {
					p.step(worker.Event{Connected: new(false)})
				}
			})
			return
		}
		s := p.Open("control", o.P)
		p.talk = s
		s.At(0, func(m any) { p.hear(s, m.([]byte)) }, func() { p.parted(s) })
		p.step(worker.Event{Connected: new(true)})
	})
}

func (p *agent) hear(s *world.Stream, data []byte) {
	if p.talk != s {
		return
	}
	m, err := codec.DecodeToAgent(data)
	if err != nil {
		p.W.Fail(0, "agent %s cannot read a message of the leader: %v", p.ID, err)
		return
	}
	p.heard = m.Term
	p.step(worker.Event{Message: m})
}

func (p *agent) parted(s *world.Stream) {
	if p.talk == s {
		p.talk = nil
		p.step(worker.Event{Connected: new(false)})
	}
}

// say sends the leader a message.
func (p *agent) say(m *coordinator.ToLeader) {
	if p.talk == nil {
		return
	}
	if b := m.Heartbeat; b != nil && p.W.Now() >= p.shown+sec {
		p.shown = p.W.Now()
		m = &coordinator.ToLeader{Heartbeat: &coordinator.Heartbeat{Seq: b.Seq, Applied: b.Applied, Logs: p.work.Owned()}}
	}
	data, err := codec.EncodeToLeader(m)
	if err != nil {
		p.W.Fail(0, "agent %s cannot encode a message: %v", p.ID, err)
		return
	}
	p.talk.Send(0, data)
}
