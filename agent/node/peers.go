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

// mostAddresses is how many addresses of an agent that is not there are remembered.
const mostAddresses = 3

// keepPeers writes down where the others are, when that has changed.
func (n *Node) keepPeers() error {
	var agents []join.Contact
	n.replica.view(func(st *coordinator.State) {
		for id, a := range st.Agents {
			if id != n.id.Node() && a.Link != "" {
				agents = append(agents, join.Contact{Node: id, Link: a.Link, Gossip: config.GossipOf(a.Link)})
			}
		}
	})
	before := n.kept
	if before == nil {
		before = n.contacts
	}
	all := peersOf(agents, n.gossipMembers(), before)
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

// peersOf is where agents are, by node: as gossip has it, which knows it sooner than the
// state. Of one that is not there, as far as gossip knows, nobody can say which of its
// addresses is the newest: the state may be that of a start long ago, and gossip of an
// earlier life. So those are kept that were known before, too, until it is there.
func peersOf(agents []join.Contact, members []mesh.Member, before []join.Contact) (all []join.Contact) {
	sort.Slice(agents, func(i, j int) bool { return agents[i].Node < agents[j].Node })
	for _, a := range agents {
		known := []join.Contact{a}
		if i := slices.IndexFunc(members, func(m mesh.Member) bool { return m.Node == a.Node }); i >= 0 {
			m := &members[i]
			c := join.Contact{Node: a.Node, Link: cmp.Or(m.Link, a.Link), Gossip: cmp.Or(m.Gossip, a.Gossip)}
			if m.Status == mesh.Alive || m.Status == mesh.Suspect { // of a suspect only a connection was lost
				all = append(all, c)
				continue
			}
			known = []join.Contact{c, a}
		}
		var its []join.Contact
		for _, c := range slices.Concat(known, before) {
			c.Site = "" // this one
			if c.Node == a.Node && !slices.Contains(its, c) && len(its) < mostAddresses {
				its = append(its, c)
			}
		}
		all = append(all, its...)
	}
	return all
}
