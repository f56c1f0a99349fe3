package consensus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Remove ends a node's membership, and returns when that is decided. Its vote goes to
// another member first, if one is well or soon is, and what is left has an odd number
// of voters, if that can be. A leader that removes itself only resigns, and the next
// one is to be asked. Leader only. ErrNotLeader, ErrUnknown: it may be undone, or done
// later; ErrClosed.
func (n *Node) Remove(ctx context.Context, node mesh.NodeID) error {
	if node == n.o.Self {
		if err := n.Resign(ctx); err != nil {
			return err
		}
		return n.notLeader()
	}
	if err := n.leads(); err != nil {
		return err
	}
	done := n.leaving.add(node)
	defer n.leaving.drop(node, done)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	case <-n.ctx.Done():
		return fmt.Errorf("%w: %w", ErrClosed, ErrUnknown)
	}
}

// ErrNoHeir: no other voter could lead in time.
var ErrNoHeir = errors.New("consensus: no other agent could take over the lead")

// Resign has another voter lead; where there is none, another member gets a vote
// first. A node that does not lead has nothing to do. ErrNoHeir, when ctx ends;
// ErrClosed.
func (n *Node) Resign(ctx context.Context) error {
	done := n.leaving.add(n.o.Self)
	defer n.leaving.drop(n.o.Self, done)
	tick := time.NewTicker(n.o.Timing.Voters / 10)
	defer tick.Stop()
	for {
		switch err := n.leads(); {
		case errors.Is(err, ErrNotLeader):
			return nil
		case err != nil:
			return err
		}
		_ = n.Transfer(ctx, "") // it is tried again
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoHeir, ctx.Err())
		}
	}
}

// heir is the voter that answers and is furthest; empty: none answers.
func (n *Node) heir() (to mesh.NodeID) {
	var last uint64
	for _, m := range n.Members() {
		if m.Voter && m.Node != n.o.Self && n.recent(time.Now(), contact{at: m.Contact}) && (to == "" || m.Last > last) {
			to, last = m.Node, m.Last
		}
	}
	return to
}

// takeOut takes out one that is leaving and has no vote any more, and tells whether
// it changed anything.
func (n *Node) takeOut(servers []raft.Server, index uint64) bool {
	for _, node := range n.leaving.all() {
		i := slices.IndexFunc(servers, func(s raft.Server) bool { return s.ID == raft.ServerID(node) })
		switch {
		case node == n.o.Self:
		case i < 0: // its end may not be decided yet
			if n.raft.Barrier(n.o.Timing.RPC).Error() == nil {
				n.leaving.answer(node, nil)
			}
		case servers[i].Suffrage != raft.Voter || n.o.Health == nil:
			err := n.raft.RemoveServer(raft.ServerID(node), index, n.o.Timing.RPC).Error()
			n.tellVote(Event{Kind: Parted, Node: node}, err)
			if err == nil {
				n.leaving.answer(node, nil)
			}
			return err == nil
		}
	}
	return false
}

// leavers are the nodes that are to leave, and who waits for it.
type leavers struct {
	news chan struct{} // 1: somebody came

	mu   sync.Mutex // guards wait
	wait map[mesh.NodeID][]chan error
}

func newLeavers() *leavers {
	return &leavers{news: make(chan struct{}, 1), wait: make(map[mesh.NodeID][]chan error)}
}

// add notes a node, until drop. The channel gives the answer.
func (l *leavers) add(node mesh.NodeID) chan error {
	done := make(chan error, 1)
	l.mu.Lock()
	l.wait[node] = append(l.wait[node], done)
	l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
	return done
}

func (l *leavers) drop(node mesh.NodeID, done chan error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait[node] = slices.DeleteFunc(l.wait[node], func(c chan error) bool { return c == done })
	if len(l.wait[node]) == 0 {
		delete(l.wait, node)
	}
}

func (l *leavers) has(node mesh.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.wait[node]) > 0
}

// all are the nodes, in order.
func (l *leavers) all() []mesh.NodeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.wait))
}

// answer tells all who wait for a node, which is none that leaves any more.
func (l *leavers) answer(node mesh.NodeID, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.wait[node] {
		c <- err
	}
	delete(l.wait, node)
}

func (l *leavers) answerAll(err error) {
	for _, node := range l.all() {
		l.answer(node, err)
	}
}
