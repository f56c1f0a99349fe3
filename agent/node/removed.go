package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// removed is why a node is not let in: it was taken out of the site, and its
// certificate is right until it ends. nil: it was not, as far as is known here.
func (n *Node) removed(node mesh.NodeID) (err error) {
	n.replica.view(func(st *coordinator.State) {
		if r := st.Removed[node]; r != nil {
			why := fmt.Sprintf("agent %s was taken out of site %s at %s: stop it, remove its data folder, and let it join with a token",
				r.Name, st.Site, time.UnixMicro(int64(r.At)).UTC().Format(time.RFC3339))
			if err = errors.New(why); st.Level >= coordinator.SettledLevel { // an older program does not know the code
				err = removedError(why)
			}
		}
	})
	return err
}

// removedError is why somebody is not let in who was taken out: the link says so by
// its code, too.
type removedError string

func (e removedError) Error() string { return string(e) }

// Is is for errors.Is.
func (removedError) Is(target error) bool { return target == mesh.ErrRemoved }

// allowed is identity's: it decides about who has a right certificate. Who was taken
// out has no vote, as a rule; where it has one, nobody may ever lead without it.
func (n *Node) allowed(p mesh.Peer) error {
	if p.Site != n.id.Site() || n.votes(p.Node) {
		return nil
	}
	return n.removed(p.Node)
}

// takes is link's: who was taken out and still has a vote may speak of that only.
func (n *Node) takes(p mesh.Peer, kind mesh.Kind) error {
	if p.Site != n.id.Site() || kind == mesh.Raft {
		return nil
	}
	return n.removed(p.Node)
}

// expel ends the connections of agents that were taken out meanwhile. One that
// took itself out has had its answer by then, as a rule.
func (n *Node) expel() {
	var all []mesh.NodeID
	n.replica.view(func(st *coordinator.State) {
		for node := range st.Removed {
			all = append(all, node)
		}
	})
	for _, node := range all {
		if node != n.id.Node() && !n.votes(node) {
			n.link.Expel(node, n.removed(node))
		}
	}
}

// askWhy has an agent that finds no leader heard by one that gossip sees: whoever was
// taken out while it was down is called by nobody, and hears there what became of it.
func (n *Node) askWhy(ctx context.Context) {
	if n.Leader() != "" { // whoever said so had not heard that it was let in again
		n.expelled.Store(false)
		return
	}
	for node := range n.aliveOthers() {
		within, cancel := context.WithTimeout(ctx, askAgain)
		c, err := n.openCall(within, node)
		if err == nil {
			_ = c.Close()
		}
		if errors.Is(err, mesh.ErrRemoved) {
			n.expelled.Store(true)
		}
		cancel()
		return
	}
}
