package node

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// sourcesOf are the agents that a mirror's owner may ask for the log.
func (n *Node) sourcesOf(m coordinator.Mirror) (all []mesh.NodeID) {
	for _, a := range n.away()[m.Site] {
		all = append(all, a.Node)
	}
	slices.Sort(all)
	return all
}

// ownerOf is who owns a feed's log, as this agent knows it.
func (n *Node) ownerOf(feed string) (owner mesh.NodeID) {
	n.replica.view(func(st *coordinator.State) {
		if f := st.Feeds[feed]; f != nil {
			owner = f.Log.Owner
		}
	})
	return owner
}

// mirroredAt are the sites that are to have a feed: those that keep jobs of this site
// which read it, and those that have jobs which moved there while its session stayed.
func (k *keptFeeds) mirroredAt(feed string) (sites []mesh.Site) {
	var readers []*coordinator.Job
	k.view(func(st *coordinator.State) {
		f := st.Feeds[feed]
		for id, j := range st.Jobs {
			_, reads := sourceOf(st, id, feed)
			if reads && j.Status == coordinator.Moved && f != nil && f.Mirror == nil && f.Owner == "" && !slices.Contains(sites, j.Owner) {
				sites = append(sites, j.Owner)
			}
			if reads && !j.Status.Ended() && bytes.Contains(j.Spec, []byte("replicate_to")) {
				readers = append(readers, j)
			}
		}
	})
	for _, j := range readers {
		p, err := job.Load(j.Name, j.Spec, job.Options{Set: j.Sets, Parallelism: j.Parallelism})
		if err != nil {
			continue
		}
		for _, s := range p.ReplicateTo {
			if site := mesh.Site(strings.TrimSpace(s)); !slices.Contains(sites, site) {
				sites = append(sites, site)
			}
		}
	}
	slices.Sort(sites)
	return sites
}
