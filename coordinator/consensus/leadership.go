package consensus

import (
	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Leadership says that this node leads in a term, or does not lead any more.
type Leadership struct {
	Term   uint64
	Leader bool
}

// Leadership tells when this node begins to lead, once all that was committed
// before its term is applied here, and when it has ceased. Only the newest is
// kept for a reader that is late: a beginning in another term means that the
// term before has ended. There is one reader.
func (n *Node) Leadership() <-chan Leadership { return n.leadership }

// Leader is who leads, as far as is known here, and the term; empty: none is
// known.
func (n *Node) Leader() (mesh.NodeID, uint64) {
	_, id := n.raft.LeaderWithID()
	return mesh.NodeID(id), n.raft.CurrentTerm()
}

// Changed tells that Leader may give another answer now. There is one reader.
func (n *Node) Changed() <-chan struct{} { return n.changed }

// followLeadership makes terms of the library's yes and no.
func (n *Node) followLeadership() {
	told := Leadership{}
	for {
		var leads bool
		select {
		case <-n.ctx.Done():
			return
		case leads = <-n.raft.LeaderCh():
		}
		if told.Leader {
			told.Leader = false
			n.tellLeadership(told)
		}
		if !leads {
			continue
		}
		if term, ok := n.settle(); ok {
			told = Leadership{Term: term, Leader: true}
			n.tellLeadership(told)
		}
	}
}

// settle waits until all of earlier terms is applied, and says in which term this
// node leads then. It gives up when it does not lead.
func (n *Node) settle() (term uint64, ok bool) {
	for n.raft.State() == raft.Leader {
		term := n.raft.CurrentTerm()
		if err := n.raft.Barrier(0).Error(); err == nil && n.raft.CurrentTerm() == term {
			return term, true // the barrier was committed in this term
		} else if err != nil {
			return 0, false // another yes follows if it leads again
		}
	}
	return 0, false
}

func (n *Node) tellLeadership(l Leadership) {
	select {
	case <-n.leadership: // nobody took it
	default:
	}
	n.leadership <- l // this is the only writer
}

// followLeader tells of changes of the known leader.
func (n *Node) followLeader() {
	var last Event
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.observed:
		}
		leader, term := n.Leader()
		if e := (Event{Kind: Led, Node: leader, Term: term}); e != last {
			last = e
			if leader != "" {
				n.changes.Add(1)
			}
			n.o.Events(e)
		}
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}
}
