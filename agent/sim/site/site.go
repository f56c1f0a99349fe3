// Package site drives the cores of one site: coordinator/worker and
// coordinator/leader as agent/node does (agent.go, office.go), over a consensus
// that is modelled (raft.go). What agents do besides is package work's.
package site

import (
	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/work"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

const (
	ms  = world.Ms
	sec = world.Sec
)

// slots of each agent.
const slots = 3

// Site is agents with one replicated state. A world may have several.
type Site struct {
	W     *world.World
	Name  mesh.Site
	Level uint32 // that its agents know
	Judge *judge.Judge
	Nodes []*world.Node // its machines, also those that are gone
	// EpochBegan is called when the first agent knows of a feed's epoch; nil: nobody
	// asks.
	EpochBegan func(*coordinator.LogEpoch)
	// Moving is what its leaders say of moves; nil: nobody asks.
	Moving func(*leader.Moving)

	raft    *raft
	setting *work.Setting
	agents  map[*world.Proc]*agent // those that run
	parses  map[string]*leader.Parsed
	mesh    *Mesh // nil: it is alone
}

// New makes a site without machines.
func New(w *world.World, name mesh.Site) *Site {
	s := &Site{W: w, Name: name, Level: coordinator.BaseLevel, agents: make(map[*world.Proc]*agent), parses: make(map[string]*leader.Parsed)}
	s.Judge = judge.New(w, s.State)
	s.setting = work.NewSetting(name, s.Judge, func() []*world.Node { return s.Nodes })
	s.raft = newRaft(s)
	return s
}

// Add adds a machine that is not started.
func (s *Site) Add(name string) *world.Node {
	n := s.W.Add(name, s.boot)
	n.Place = string(s.Name)
	s.Nodes = append(s.Nodes, n)
	return n
}

// Begin starts all machines; the first of them vote.
func (s *Site) Begin() {
	for _, n := range s.Nodes {
		n.Start()
		if len(s.raft.voters) < 5 && (len(s.Nodes)%2 == 1 || len(s.raft.voters) < 3) {
			s.raft.voters = append(s.raft.voters, n.ID)
		}
	}
	s.raft.elect()
	s.raft.watch()
}

// Replace puts another machine in the place of one whose disk is lost, also as a
// voter.
func (s *Site) Replace(n *world.Node) *world.Node {
	o := s.Add(n.Name + "b")
	for i, v := range s.raft.voters {
		if v == n.ID {
			s.raft.voters[i] = o.ID
		}
	}
	return o
}

// Elect makes another voter the leader, if one reaches a majority.
func (s *Site) Elect() { s.raft.elect() }

// Leader is who leads the greatest term, and knows of no end of it; nil: nobody.
func (s *Site) Leader() *Lead {
	if l := s.raft.leader; l != nil && !l.over {
		return l
	}
	return nil
}

// Leads are all who think that they lead, in the order of the machines.
func (s *Site) Leads() (all []*Lead) {
	for _, n := range s.Nodes {
		if p := s.agents[n.P]; p != nil && p.leads() {
			all = append(all, p.lead)
		}
	}
	return all
}

// State is that of the agent that has applied most.
func (s *Site) State() *coordinator.State {
	best := &coordinator.State{}
	for _, n := range s.Nodes {
		if p := s.agents[n.P]; p != nil && p.machine.State().Index > best.Index {
			best = p.machine.State()
		}
	}
	return best
}

// Current tells whether State is all that is in the site's log, and somebody leads it:
// with a leader may come what the one before had under way.
func (s *Site) Current() bool {
	return s.Leader() != nil && s.State().Index == uint64(len(s.raft.log))
}

// Job is the one of a name, the last that was submitted; nil: there is none.
func (s *Site) Job(name string) (last *coordinator.Job) {
	for _, j := range s.State().Jobs {
		if j.Name == name && (last == nil || j.Created > last.Created) {
			last = j
		}
	}
	return last
}
