package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Member is a node of the group.
type Member struct {
	Node  mesh.NodeID
	Voter bool
	// Contact is when it answered this leader last, and Last how far its log was
	// then. Zero on a node that does not lead, and for itself.
	Contact time.Time
	Last    uint64
}

// Members are the nodes of the group, as far as is known here, in the order in
// which they came.
func (n *Node) Members() []Member {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	leads := n.raft.State() == raft.Leader
	servers := f.Configuration().Servers
	members := make([]Member, 0, len(servers))
	for _, s := range servers {
		m := Member{Node: mesh.NodeID(s.ID), Voter: s.Suffrage == raft.Voter}
		if leads && m.Node != n.o.Self {
			c := n.transport.of(s.ID)
			m.Contact, m.Last = c.at, c.last
		}
		members = append(members, m)
	}
	return members
}

// Stats is for people.
type Stats struct {
	State     string // follower, candidate, leader, shutdown
	Term      uint64
	Leader    mesh.NodeID
	Last      uint64 // index in the log
	Committed uint64
	Applied   uint64 // the last command's
	Voters    int
	Nonvoters int
	Short     bool  // the disk is full
	FileBytes int64 // of the log's file, the reserve included

	Contact  time.Time     // when the leader was heard last; zero: never, or this node leads
	Changes  uint64        // how often a leader, or a new term of one, became known since Open
	Commands uint64        // that were proposed here and applied, since Open
	Waited   time.Duration // from their proposal until they were applied, all together
}

// Stats are taken one after the other: they need not fit together.
func (n *Node) Stats() Stats {
	s := Stats{Last: n.raft.LastIndex(), Committed: n.raft.CommitIndex(), Applied: n.Applied(),
		Changes: n.changes.Load(), Commands: n.commands.Load(), Waited: time.Duration(n.waited.Load())}
	s.Leader, s.Term = n.Leader()
	switch n.raft.State() {
	case raft.Leader:
		s.State = "leader"
	case raft.Candidate:
		s.State = "candidate"
	case raft.Follower:
		s.State, s.Contact = "follower", n.raft.LastContact()
	case raft.Shutdown:
		s.State = "shutdown"
	}
	for _, m := range n.Members() {
		if m.Voter {
			s.Voters++
		} else {
			s.Nonvoters++
		}
	}
	n.log.write.Lock()
	s.Short, s.FileBytes = n.log.room.short, n.log.room.allocated
	n.log.write.Unlock()
	return s
}

// Applied is the index of the last command that Machine has applied.
func (n *Node) Applied() uint64 { return n.fsm.applied.Load() }

// Self is this node.
func (n *Node) Self() mesh.NodeID { return n.o.Self }

// keepSnapshots makes a snapshot where the log has grown by bytes rather than by
// entries, which the library looks after.
func (n *Node) keepSnapshots() {
	tick := time.NewTicker(n.o.Timing.Snapshot)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		if n.log.appended.Load() >= n.o.SnapshotBytes {
			// What fails the library warns of; the next round tries again when as much is
			// there anew.
			_ = n.Snapshot(n.ctx)
		}
	}
}
