package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// caughtUp is how many entries behind the leader's a log may be.
const caughtUp = 64

// keepVoters gives votes and takes them, and takes out who is to leave, while this
// node leads. A change follows the one before at once: an even number lasts no longer
// than it must.
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
		case <-n.leaving.news:
		}
		if n.raft.State() != raft.Leader {
			b = nil
			n.leaving.answerAll(n.notLeader())
			continue
		}
		if t := n.raft.CurrentTerm(); b == nil || t != term {
			b, term = newBallot(n.o.MaxVoters, n.o.Timing.Stable, n.o.Timing.Dead), t
		}
		for n.vote(b) {
		}
	}
}

// vote makes one change, if one is due, and tells whether it did.
func (n *Node) vote(b *ballot) bool {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return false
	}
	var promote, demote mesh.NodeID
	servers := f.Configuration().Servers
	if n.o.Health != nil {
		now := time.Now()
		promote, demote = b.choose(now, n.candidates(now, servers))
	}
	var err error
	switch {
	case promote != "":
		err = n.raft.AddVoter(raft.ServerID(promote), raft.ServerAddress(promote), f.Index(), n.o.Timing.RPC).Error()
		n.tellVote(Event{Kind: Promoted, Node: promote}, err)
	case demote != "" && !n.answered(servers, demote):
		return false // next time it is known who is away
	case demote != "":
		err = n.raft.DemoteVoter(raft.ServerID(demote), f.Index(), n.o.Timing.RPC).Error()
		n.tellVote(Event{Kind: Demoted, Node: demote}, err)
	default:
		return n.takeOut(servers, f.Index())
	}
	return err == nil
}

// answered waits until most voters beside one that is to lose its vote have answered
// anew: those that count for the change and after it. They do at each heartbeat.
func (n *Node) answered(servers []raft.Server, without mesh.NodeID) bool {
	began := time.Now()
	tick := time.NewTicker(n.o.Timing.Heartbeat / 20)
	defer tick.Stop()
	for {
		voters, there := 0, 0
		for _, s := range servers {
			if s.Suffrage != raft.Voter || s.ID == raft.ServerID(without) {
				continue
			}
			voters++
			if s.ID == raft.ServerID(n.o.Self) || n.transport.of(s.ID).at.After(began) {
				there++
			}
		}
		if there > voters/2 {
			return true
		}
		select {
		case <-n.ctx.Done():
			return false
		case now := <-tick.C:
			if now.Sub(began) > 2*n.o.Timing.Heartbeat {
				return false
			}
		}
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
		c := Candidate{Node: node, Host: health[node].Host, Alive: health[node].Alive, Leaving: n.leaving.has(node),
			Voter: s.Suffrage == raft.Voter, Leader: node == n.o.Self,
			CaughtUp: contact.last+caughtUp >= last, Reached: n.recent(now, contact)}
		c.Alive = c.Alive && c.Reached // whatever gossip says
		members = append(members, c)
	}
	n.transport.keep(ids)
	return members
}

// recent tells whether a node that answered so last is reached now.
func (n *Node) recent(now time.Time, c contact) bool {
	return now.Sub(c.at) <= 2*n.o.Timing.Heartbeat
}
