package node

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/join"
)

func peersFile(data string) string { return filepath.Join(data, "peers.json") }

// readPeers says where the others were: after a start the state is not known
// until a leader is reached, and for that somebody has to be.
func readPeers(data string) ([]join.Contact, error) {
	text, err := os.ReadFile(peersFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []join.Contact
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; it may be removed", peersFile(data), err)
	}
	return all, nil
}

// keepPeers writes down where the others are, when that has changed: as gossip has
// it, which knows it sooner than the state.
func (n *Node) keepPeers() error {
	var all []join.Contact
	n.replica.view(func(st *coordinator.State) {
		for id, a := range st.Agents {
			if id != n.id.Node() && a.Link != "" {
				all = append(all, join.Contact{Node: id, Link: a.Link, Gossip: config.GossipOf(a.Link)})
			}
		}
	})
	for _, m := range n.gossipMembers() {
		if i := slices.IndexFunc(all, func(c join.Contact) bool { return c.Node == m.Node }); i >= 0 && m.Status == mesh.Alive {
			all[i] = join.Contact{Node: m.Node, Link: cmp.Or(m.Link, all[i].Link), Gossip: cmp.Or(m.Gossip, all[i].Gossip)}
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Node < all[j].Node })
	if len(all) == 0 || slices.Equal(all, n.kept) {
		return nil
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = replace(peersFile(n.o.Config.DataDir), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("where the other agents are could not be written down yet: %w", err)
	}
	n.kept = all
	return nil
}
