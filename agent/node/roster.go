package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// found puts into the state what init wrote down.
func (n *Node) found(ctx context.Context) error {
	if n.founding == nil || n.founded() {
		return nil
	}
	return n.founding.enter(ctx, n.agent(), func(ctx context.Context, c coordinator.Command) error {
		_, err := n.Propose(ctx, c)
		return err
	})
}

// founded tells whether all that init wrote down is in the state.
func (n *Node) founded() (yes bool) {
	n.replica.view(func(st *coordinator.State) { yes = st.Site != "" })
	return yes
}

// enter has the commands of a founding accepted, of which some may have been
// already. That the site has its name is the last, and says that all are there:
// the token is not made again when it was revoked and forgotten.
func (f *Founding) enter(ctx context.Context, me coordinator.Agent, propose func(context.Context, coordinator.Command) error) error {
	all := []coordinator.Command{{AgentJoined: &me}}
	if f.Token.ID != "" {
		all = append(all, coordinator.Command{TokenCreated: &f.Token})
	}
	for _, c := range append(all, coordinator.Command{SiteFounded: &coordinator.SiteFounded{Mesh: f.Mesh, Site: f.Site}}) {
		if err := propose(ctx, c); err != nil && !errors.Is(err, jobmanager.ErrExists) {
			return fmt.Errorf("the site could not be founded yet: %w", err)
		}
	}
	return nil
}

// keepRoster founds the site, makes the Raft group have the site's agents, and
// forgets what was said of jobs that are no more.
func (n *Node) keepRoster(ctx context.Context, o *office) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var said repeated
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n.replica.view(o.forget)
		if err := errors.Join(n.found(ctx), n.enroll(ctx)); said.due(err, n.uptime()) {
			n.tell("leader", err.Error())
		}
	}
}

// enroll makes the Raft group have the site's agents.
func (n *Node) enroll(ctx context.Context) error {
	belongs := make(map[mesh.NodeID]bool)
	n.replica.view(func(st *coordinator.State) {
		for id := range st.Agents {
			belongs[id] = true
		}
	})
	var errs []error
	out, in := enrollment(n.raft.Members(), belongs)
	for _, id := range out {
		if err := n.raft.Remove(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("agent %s left, and could not be taken out of the group yet: %w", id, err))
		}
	}
	for _, id := range in {
		if !n.placed(id) || n.parts(id) {
			continue // Raft would call for it in vain; or it is on its way out
		}
		if err := n.raft.AddNonvoter(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("agent %s could not be taken into the group yet: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// placed tells whether it is known where a node is.
func (n *Node) placed(id mesh.NodeID) bool { return len(resolver{n}.Addresses(id)) > 0 }

// enrollment is who is to be taken out of the group, and who into it, so that it
// is those who belong to the site. Of a site without agents nothing is known yet.
func enrollment(group []consensus.Member, belongs map[mesh.NodeID]bool) (out, in []mesh.NodeID) {
	if len(belongs) == 0 {
		return nil, nil
	}
	have := make(map[mesh.NodeID]bool)
	for _, m := range group {
		have[m.Node] = true
		if !belongs[m.Node] {
			out = append(out, m.Node)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(belongs)) {
		if !have[id] {
			in = append(in, id)
		}
	}
	return out, in
}

// repeated keeps what goes wrong at each try from being told at each.
type repeated struct {
	text string
	told dataflow.Time
}

// again is how often the same is told.
const again = dataflow.Time(dataflow.Minute)

// due tells whether an error is to be told: it is another one than before, or was
// told long ago. nil ends the matter.
func (r *repeated) due(err error, now dataflow.Time) bool {
	if err == nil {
		*r = repeated{}
		return false
	}
	if text := err.Error(); text != r.text || now-r.told >= again {
		*r = repeated{text, now}
		return true
	}
	return false
}
