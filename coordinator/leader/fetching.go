package leader

import (
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// What is fetched of jobs of other sites: Replica.Next. The orders are those of
// copies that are made anew (copies.go), of which there is one in the whole site
// at a time; but nobody waits for Gather, or rests: the other site keeps what is
// fetched only for a while. A repair that is due comes between two of them.
//
// The first copy of a part comes from the other site, or is merged of what is here;
// the others are made from that one: a part crosses once.

// fetchAgain is when parts that nobody could get are tried again.
const fetchAgain = 5 * dataflow.Second

// fetched is what is known of a Next.
type fetched struct {
	name  string
	uses  map[store.Digest]manifest.PartUse
	needs map[string]offsets   // of the logs, by feed as its site calls it
	blind bool                 // nobody knows what it needs: it does not count
	tried map[mesh.NodeID]bool // got nothing lately
	again dataflow.Time        // then they are asked once more
	stuck bool                 // what it was fetched from did not have it, or was not reached
}

// offsets are in a log, by lane: of the source of a job that stands furthest back, and
// of the one that is furthest ahead, as several may read one feed.
type offsets map[int]struct{ least, most int64 }

// markFetch has what is fetched of a job looked at.
func (l *Leader) markFetch(job coordinator.JobID) {
	if r := l.st.Replicas[job]; r != nil && r.Next != nil {
		l.copying.next[job], l.marks.copies = true, true
		l.mark(r.From, job)
	}
}

// markFetches: somebody may be able now to fetch what is missing; site is where
// from, empty: any.
func (l *Leader) markFetches(site mesh.Site) {
	for id, r := range l.st.Replicas {
		if site == "" || r.From == site {
			l.markFetch(id)
		}
	}
}

// fetchedOf is what is known of a replica's Next, which is there.
func (l *Leader) fetchedOf(r *coordinator.Replica) *fetched {
	f := l.copying.fetched[r.Job.ID]
	if f != nil && f.name == r.Next.Name {
		return f
	}
	f = &fetched{name: r.Next.Name, uses: make(map[store.Digest]manifest.PartUse), needs: make(map[string]offsets), tried: make(map[mesh.NodeID]bool), again: dataflow.MaxTime}
	l.copying.fetched[r.Job.ID] = f
	m, err := manifest.Decode(r.Next.Manifest)
	if err != nil {
		f.blind = true
		return f // it is fetched without knowing how large its parts are
	}
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			for _, s := range t.Shards {
				for _, u := range s.Parts {
					f.uses[u.Digest] = u
				}
			}
		}
	}
	f.needs, err = l.positions(&r.Job, &m)
	f.blind = err != nil
	return f
}

// positions are where a job's sources stand in the logs that they read.
func (l *Leader) positions(job *coordinator.MovingJob, m *manifest.Manifest) (map[string]offsets, error) {
	all := make(map[string]offsets)
	p, err := l.cfg.Parse(job.As(0))
	if err != nil {
		return all, err
	}
	for _, use := range p.Feeds {
		for _, o := range m.Operators {
			if o.ID != use.Source {
				continue
			}
			for _, at := range o.Positions {
				lane, err := strconv.Atoi(strings.TrimPrefix(at.Split, "lane-")) // as ingestlog.Reader names them
				if err != nil {
					return all, err
				}
				if all[use.Feed] == nil {
					all[use.Feed] = make(offsets)
				}
				stands, other := all[use.Feed][lane]
				if stands.most = max(stands.most, at.Offset); !other || at.Offset < stands.least {
					stands.least = at.Offset
				}
				all[use.Feed][lane] = stands
			}
		}
	}
	return all, nil
}

// fetchNext orders what is lacking of a Next; false: there is nothing to order now.
func (l *Leader) fetchNext() bool {
	c := &l.copying
	for _, id := range sorted(c.next) {
		r := l.st.Replicas[id]
		if r == nil || r.Next == nil {
			delete(c.next, id)
			delete(c.fetched, id)
			continue
		}
		f := l.fetchedOf(r)
		if l.now >= f.again {
			clear(f.tried)
			f.again = dataflow.MaxTime
		}
		o, _ := l.fetchPlan(r)
		if o == nil {
			delete(c.next, id)
			continue
		}
		c.orders++
		o.id, o.since, c.order = c.orders, l.now, o
		l.send(o.node, coordinator.ToAgent{Copy: &coordinator.Copy{Order: o.id, Index: l.st.Index, Name: r.Next.Name, Job: id, Parts: o.parts}})
		return true
	}
	return false
}

// fetchPlan is what is to be fetched next of a replica's Next; nil: nothing can be
// now. all tells whether each part has the copies that it can have, one at least.
func (l *Leader) fetchPlan(r *coordinator.Replica) (o *copyOrder, all bool) {
	want, f := l.replicas(r.Job.ID), l.fetchedOf(r)
	all = true
	for _, p := range r.Next.Copies {
		living, from := l.holdersOf(p)
		if len(living) >= want {
			continue
		}
		use := f.uses[p.Part]
		node := l.fetchTarget(r, p, &use, living)
		all = all && len(living) > 0 && node == ""
		if len(living) == 0 && l.moving.reached[r.From] {
			from = l.holdersThere(r, p.Part)
		}
		if node == "" || f.tried[node] || len(from) == 0 {
			continue
		}
		if o == nil {
			o = &copyOrder{ref: snapshotRef{r.Job.ID, r.Next.Name}, node: node, next: true}
		}
		if node == o.node && (len(o.parts) == 0 || len(o.parts) < maxCopyParts && o.bytes+use.Size <= maxCopyBytes && l.hasRoom(node, o.bytes+use.Size)) {
			o.parts, o.bytes = append(o.parts, coordinator.PartCopies{Part: p.Part, Nodes: from}), o.bytes+use.Size
		}
	}
	return o, all
}

// fetchTarget is who is to have a part; empty: nobody can. Who is on a machine that
// has none comes first, then who has what it was merged of, and those that got
// nothing lately last.
func (l *Leader) fetchTarget(r *coordinator.Replica, p coordinator.PartCopies, use *manifest.PartUse, living []mesh.NodeID) (best mesh.NodeID) {
	hosts := make(map[string]bool)
	for _, node := range living {
		if h := l.st.Agents[node].Host; h != "" {
			hosts[h] = true
		}
	}
	inputs, tried := inputsOn(r, use.From), l.copying.fetched[r.Job.ID].tried
	var most uint64
	for _, node := range sorted(l.st.Agents) {
		if slices.Contains(p.Nodes, node) || !l.usable(node) || !l.hasRoom(node, use.Size) {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(string(r.Job.ID) + "\x00" + string(node))) // it never fails
		score := h.Sum64() >> 3
		for bit, is := range []bool{inputs[node], !hosts[l.st.Agents[node].Host], !tried[node]} {
			if is {
				score |= 1 << (61 + bit)
			}
		}
		if best == "" || score > most {
			best, most = node, score
		}
	}
	return best
}

// inputsOn are the agents that have all that a part was merged of.
func inputsOn(r *coordinator.Replica, from []store.Digest) map[mesh.NodeID]bool {
	if len(from) == 0 {
		return nil
	}
	has := make(map[mesh.NodeID]map[store.Digest]bool)
	for _, s := range []*coordinator.Snapshot{r.Snapshot, r.Next} {
		if s == nil {
			continue
		}
		for _, p := range s.Copies {
			if !slices.Contains(from, p.Part) {
				continue
			}
			for _, node := range p.Nodes {
				if has[node] == nil {
					has[node] = make(map[store.Digest]bool)
				}
				has[node][p.Part] = true
			}
		}
	}
	all := make(map[mesh.NodeID]bool)
	for node, parts := range has {
		all[node] = !slices.ContainsFunc(from, func(d store.Digest) bool { return !parts[d] })
	}
	return all
}

// holdersThere are the agents of the other site that have a part of Next, as far as
// it has said.
func (l *Leader) holdersThere(r *coordinator.Replica, part store.Digest) []mesh.NodeID {
	for _, m := range l.moving.runs {
		if m.job == r.Job.ID && m.want != nil && m.want.Name == r.Next.Name {
			for _, p := range m.want.Copies {
				if p.Part == part {
					return p.Nodes
				}
			}
		}
	}
	if f := l.replicating.sites[r.From]; f != nil {
		return f.Where(r.Job.ID, r.Next.Name, part)
	}
	return nil
}

// fetchOver: an order for a Next has ended. why is empty if all of it came.
func (l *Leader) fetchOver(o *copyOrder, why string) {
	l.copying.order, l.copying.turn = nil, true
	if f := l.copying.fetched[o.ref.job]; f != nil && f.name == o.ref.name && why != "" {
		f.tried[o.node], f.again, f.stuck = true, l.now.Add(fetchAgain), true
		l.tell("parts of %s of another site could not be fetched by agent %s: %s", o.ref.name, l.name(o.node), why)
	}
	l.markFetch(o.ref.job)
	l.marks.copies = true
}

// fetchWake is when something is fetched again that could not be.
func (l *Leader) fetchWake() dataflow.Time {
	at := dataflow.MaxTime
	for id, f := range l.copying.fetched {
		if f.again <= l.now {
			f.again = dataflow.MaxTime
			clear(f.tried)
			l.markFetch(id)
		}
		at = min(at, f.again)
	}
	return at
}

// letGo: what was ordered of a job may not be any more where it came to.
func (l *Leader) letGo(job coordinator.JobID) { l.copying.void[job] = l.copying.orders }
