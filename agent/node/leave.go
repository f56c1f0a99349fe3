package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Remove is api.Backend's. The agent is taken out of the Raft group first, and out of
// the site when that is decided: from then on nobody lets it in, and a group that has
// it would wait for its vote in vain. A leader that ends in between leaves an agent of
// the site, which the next one takes into the group again: the removal is the second
// step.
func (n *Node) Remove(ctx context.Context, node mesh.NodeID) error {
	known := false
	n.replica.view(func(st *coordinator.State) { known = st.Agents[node] != nil })
	if known {
		defer n.part(node)()
		if err := n.inherit(ctx, node); err != nil {
			return err
		}
		if err := n.raft.Remove(ctx, node); err != nil {
			return notLeader(err)
		}
	}
	_, err := n.Propose(ctx, coordinator.Command{AgentLeft: &coordinator.AgentLeft{Node: node}})
	return err
}

// inherit gets the site's key here before the agent that has it goes.
func (n *Node) inherit(ctx context.Context, from mesh.NodeID) error {
	if n.id.CanIssue() || from == n.id.Node() {
		return nil
	}
	err := n.keepKey(ctx)
	if err == nil {
		return nil
	}
	if _, resp, no := n.call(ctx, from, pathHasKey, nil); no != nil || resp.StatusCode != http.StatusOK {
		return nil // it does not have it, or is gone
	}
	return fmt.Errorf("%w: %w", api.ErrNotLeader, err)
}

// part keeps an agent from being taken into the Raft group until the end is called.
func (n *Node) part(node mesh.NodeID) (end func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.parting[node]++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.parting[node]--; n.parting[node] == 0 {
			delete(n.parting, node)
		}
	}
}

// parts tells whether an agent is being taken out.
func (n *Node) parts(node mesh.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.parting[node] > 0
}

// Leave is api.Backend's: this agent gives up leading, is taken out of the site
// by whoever leads then, and ends: in any case, once it is out.
func (n *Node) Leave(ctx context.Context) error {
	if len(n.raft.Members()) > 1 {
		if err := n.parted(ctx); err != nil {
			return err
		}
	}
	if err := n.gossip.Load().Leave(ctx); err != nil {
		n.tell("agent", err.Error()) // it is out all the same
	}
	n.leaveWAN(ctx)
	n.fail(nil)
	return nil
}

// heirTime is how long an agent that leaves waits for another one to lead: one that
// has no vote yet must be well for a time.
const heirTime = 20 * time.Second

// parted has another agent lead, and take this one out of the site. It is tried again
// while the leader changes.
func (n *Node) parted(ctx context.Context) error {
	self := n.id.Node()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var asked mesh.NodeID // who led last: an agent that is out does not hear of others
	last := errors.New("no other agent leads")
	for {
		switch l := n.Leader(); {
		case l == self:
			limit, cancel := context.WithTimeout(ctx, heirTime)
			err := n.raft.Resign(limit)
			cancel()
			if err != nil {
				return fmt.Errorf("another agent must lead first: %w", err)
			}
		case l != "":
			asked = l
			fallthrough
		case asked != "":
			again, err := n.askOut(ctx, asked)
			if !again {
				return err
			}
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", last, context.Cause(ctx))
		}
	}
}

// askOut asks an agent to take this one out, and tells whether to ask again.
func (n *Node) askOut(ctx context.Context, of mesh.NodeID) (again bool, err error) {
	self := n.id.Node()
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://leader"+api.Path("members", string(self))+"?force=true", nil)
	if err != nil {
		return false, err
	}
	resp, err := newClient(func(ctx context.Context) (net.Conn, error) { return n.openCall(ctx, of) }).Do(r)
	// The answer came too late: it is out. Any other refusal does not say that.
	if errors.Is(err, mesh.ErrRemoved) || err != nil && n.removed(self) != nil {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusMultipleChoices || resp.StatusCode == http.StatusNotFound { // not found: it was taken out before
		return false, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxJoin))
	// Unavailable, or a bad gateway: it leads no more. Conflict: the one that it passed this on to is this agent.
	again = slices.Contains([]int{http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusConflict}, resp.StatusCode)
	return again, fmt.Errorf("the leader did not take this agent out: %s", text)
}
