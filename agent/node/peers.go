package node

import (
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

// keepPeers writes down where the others are, when that has changed.
func (n *Node) keepPeers() {
	var all []join.Contact
	n.replica.view(func(st *coordinator.State) {
		for id, a := range st.Agents {
			if id != n.id.Node() && a.Link != "" {
				all = append(all, join.Contact{Node: id, Link: a.Link, Gossip: config.GossipOf(a.Link)})
			}
		}
	})
	for _, m := range n.gossipMembers() { // which may listen elsewhere than is usual
		if i := slices.IndexFunc(all, func(c join.Contact) bool { return c.Node == m.Node && m.Gossip != "" }); i >= 0 {
			all[i].Gossip = m.Gossip
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Node < all[j].Node })
	if len(all) == 0 || slices.Equal(all, n.kept) {
		return
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = replace(peersFile(n.o.Config.DataDir), append(text, '\n'))
	}
	if n.kept = all; err != nil {
		n.tell("agent", fmt.Sprintf("where the other agents are could not be written down: %v", err))
	}
}
