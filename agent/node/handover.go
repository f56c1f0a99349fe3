package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Limits of an end in order. What is not handed over by then the others take
// over as after a loss.
const (
	handOverTime = 5 * time.Second // if Options do not say
	leaveTime    = time.Second     // besides, for gossip to say that it goes
)

// handOver gives what is here to the other agents, before this one ends: another
// one leads, then what runs here runs elsewhere, then gossip says that it has
// gone, so that nobody waits for it.
func (n *Node) handOver(ctx context.Context) {
	if !n.accompanied() {
		return
	}
	began := time.Now()
	limit, cancel := context.WithTimeout(ctx, cmp.Or(n.o.HandOver, handOverTime))
	defer cancel()
	if err := n.given(limit); err != nil {
		n.tell("agent", fmt.Sprintf("this agent ends; the others take over what it had, as after a loss: %v", err))
	} else {
		n.tell("agent", fmt.Sprintf("this agent ends; what it had was handed over in %v", time.Since(began).Round(time.Millisecond)))
	}
	last, stop := context.WithTimeout(ctx, leaveTime)
	defer stop()
	if err := n.gossip.Load().Leave(last); err != nil {
		n.tell("agent", err.Error())
	}
}

// given hands over leadership, tasks and feeds.
func (n *Node) given(ctx context.Context) error {
	self := n.id.Node()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var left <-chan struct{} // nil: nobody leads yet who could be told
	for {
		switch l := n.Leader(); {
		case l == self && !n.heir():
			return errors.New("no other agent has a vote")
		case l == self:
			_ = n.raft.Transfer(ctx, "") // it may fail at any time, and is tried again
		case l != "" && left == nil:
			left = n.hands.leave()
		case l == "" && n.out():
			return errors.New("it was taken out of the site")
		}
		select {
		case <-left:
			return nil
		case <-tick.C:
			if !n.accompanied() {
				return errors.New("no other agent is there any more")
			}
		case <-ctx.Done():
			return errors.New("not all could be handed over in time")
		}
	}
}

// out tells whether this agent heard that it was taken out of the site, or the Raft group
// is without it, as it was told last: it may have been taken out before it was told.
func (n *Node) out() bool {
	if n.expelled.Load() {
		return true
	}
	group := n.raft.Members()
	return len(group) > 0 && !slices.ContainsFunc(group, func(m consensus.Member) bool { return m.Node == n.id.Node() })
}

// accompanied tells whether there is another agent of the site, as gossip knows.
func (n *Node) accompanied() (yes bool) {
	alive := n.aliveOthers()
	n.replica.view(func(st *coordinator.State) {
		for id := range st.Agents {
			yes = yes || alive[id]
		}
	})
	return yes
}

// heir tells whether another voter is there.
func (n *Node) heir() bool {
	alive := n.aliveOthers()
	for _, m := range n.raft.Members() {
		if m.Voter && alive[m.Node] {
			return true
		}
	}
	return false
}

// aliveOthers are the other agents that are there, as gossip knows.
func (n *Node) aliveOthers() map[mesh.NodeID]bool { return others(n.id.Node(), n.gossipMembers()) }

// others are the members besides one that are there. Of one that is suspect only a
// connection was lost, and it is asked at once: it is gone when it has failed.
func others(self mesh.NodeID, all []mesh.Member) map[mesh.NodeID]bool {
	there := make(map[mesh.NodeID]bool)
	for _, m := range all {
		if m.Node != self && (m.Status == mesh.Alive || m.Status == mesh.Suspect) {
			there[m.Node] = true
		}
	}
	return there
}
