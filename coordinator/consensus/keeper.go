package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// caughtUp is how many entries behind the leader's a log may be.
const caughtUp = 64

// keepVoters gives votes and takes them, while this node leads.
func (n *Node) keepVoters() {
	tick := time.NewTicker(n.o.Timing.Voters)
	defer tick.Stop()
	var b *ballot
	var term uint64
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		if n.o.Health == nil || n.raft.State() != raft.Leader {
			b = nil
			continue
		}
		if t := n.raft.CurrentTerm(); b == nil || t != term {
			b, term = newBallot(n.o.MaxVoters, n.o.Timing.Stable, n.o.Timing.Dead), t
		}
		n.vote(b)
	}
}

// vote makes one change, if one is due.
func (n *Node) vote(b *ballot) {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return
	}
	now := time.Now()
	promote, demote := b.choose(now, n.candidates(now, f.Configuration().Servers))
	var err error
	switch {
	case promote != "":
		err = n.raft.AddVoter(raft.ServerID(promote), raft.ServerAddress(promote), f.Index(), n.o.Timing.RPC).Error()
		n.tellVote(Event{Kind: Promoted, Node: promote}, err)
	case demote != "":
		err = n.raft.DemoteVoter(raft.ServerID(demote), f.Index(), n.o.Timing.RPC).Error()
		n.tellVote(Event{Kind: Demoted, Node: demote}, err)
	}
}

func (n *Node) tellVote(e Event, err error) {
	if err != nil {
		e = Event{Kind: Refused, Node: e.Node, Err: err}
	}
	n.o.Events(e)
}

// candidates are the members, with what gossip and the library know of them.
func (n *Node) candidates(now time.Time, servers []raft.Server) []Candidate {
	health := make(map[mesh.NodeID]Candidate)
	for _, c := range n.o.Health() {
		health[c.Node] = c
	}
	last := n.raft.LastIndex()
	ids := make(map[raft.ServerID]bool, len(servers))
	members := make([]Candidate, 0, len(servers))
	for _, s := range servers {
		ids[s.ID] = true
		node := mesh.NodeID(s.ID)
		contact := n.transport.of(s.ID)
		c := Candidate{Node: node, Host: health[node].Host, Alive: health[node].Alive, Leaving: health[node].Leaving,
			Voter: s.Suffrage == raft.Voter, Leader: node == n.o.Self,
			CaughtUp: contact.last+caughtUp >= last}
		if now.Sub(contact.at) > 2*n.o.Timing.Heartbeat {
			c.Alive = false // the library does not reach it, whatever gossip says
		}
		members = append(members, c)
	}
	n.transport.keep(ids)
	return members
}
