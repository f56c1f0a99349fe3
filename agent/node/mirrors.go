package node

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

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
// which read it, and those that have jobs which moved there while its session stayed,
// or keep these. Mirrors of a mirror here are none of them: where a job that reads it is
// kept, and where it moves, the feed with the session is asked.
//
// Where a job is kept that has moved its text here says, with what the move set while
// that is on record; a later move may have said otherwise. A site that it names and that
// never asks is waited for as far as for any other mirror, MirrorKeep; one that it does
// not name is, while it has a stream.
func (k *keptFeeds) mirroredAt(feed string) (sites []mesh.Site) {
	var readers []*coordinator.Job
	var here mesh.Site
	k.view(func(st *coordinator.State) {
		f := st.Feeds[feed]
		if here = st.Site; f != nil && f.Mirror != nil {
			return
		}
		for id, j := range st.Jobs {
			_, reads := sourceOf(st, id, feed)
			left := j.Status == coordinator.Moved && f != nil && f.Owner == ""
			if reads && left && !slices.Contains(sites, j.Owner) {
				sites = append(sites, j.Owner)
			}
			if left {
				j = withSets(st, j)
			}
			if reads && (left || !j.Status.Ended()) && mayReplicate(j) {
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
			if site := mesh.Site(strings.TrimSpace(s)); site != here && !slices.Contains(sites, site) {
				sites = append(sites, site)
			}
		}
	}
	slices.Sort(sites)
	return sites
}

// withSets is a job that has moved, with what its last move set, if that is on record.
func withSets(st *coordinator.State, j *coordinator.Job) *coordinator.Job {
	var by *coordinator.Departure
	for _, d := range st.Moves.Departures {
		if d.Job == j.ID && d.To == j.Owner && (by == nil || d.Epoch > by.Epoch) {
			by = d
		}
	}
	if by == nil {
		return j
	}
	set := *j
	set.Sets = append(slices.Clone(j.Sets), by.Sets...)
	return &set
}

// mayReplicate tells whether a job is worth reading, to know where it is kept.
func mayReplicate(j *coordinator.Job) bool {
	const key = "replicate_to"
	return bytes.Contains(j.Spec, []byte(key)) || slices.ContainsFunc(j.Sets, func(s string) bool { return strings.HasPrefix(s, key) })
}

// sayEvery is from one word about mirrors that a job waits for to the next: so much is
// a move's pause longer at most.
const sayEvery = 20 * time.Millisecond

// await notes which mirrors jobs wait for that are on their way here. k.mu is held.
func (k *keptFeeds) await(st *coordinator.State) {
	clear(k.awaited)
	for _, arr := range st.Moves.Arrivals {
		for i := range arr.Job.Feeds {
			if !arr.Phase.Decided() {
				k.awaited[arr.Job.NameAt(&arr.Job.Feeds[i], arr.From, st.Site, arr.ID)] = true
			}
		}
	}
	if len(k.awaited) > 0 {
		k.more()
	}
}

// moved: a mirror has more. It does not block.
func (k *keptFeeds) moved(feed string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.awaited[feed] {
		k.more()
	}
}

func (k *keptFeeds) more() {
	select {
	case k.came <- struct{}{}:
	default:
	}
}

// say has the leader hear how far awaited mirrors are, whenever they move, until ctx
// ends.
func (k *keptFeeds) say(ctx context.Context, beat func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.came:
			beat()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sayEvery):
		}
	}
}
