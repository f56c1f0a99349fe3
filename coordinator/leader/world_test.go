package leader_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// wan is the link between two sites. Messages between their leaders are real, and
// so are the orders by which parts are fetched; that logs are mirrored is not.
type wan struct {
	off    bool
	lossy  bool // each third message is lost, the one after it comes twice, and late
	sent   int
	forced bool // a person has said that a site is lost: two may have a job
}

// newWorld makes two sites with two agents each.
func newWorld(make func(c *clock, name mesh.Site) *site) *clock {
	c := &clock{}
	a, b := make(c, "a"), make(c, "b")
	a.other, b.other = b, a
	for _, s := range c.sites {
		s.level = coordinator.SitesLevel
		for i := range 2 {
			s.add(mesh.NodeID(fmt.Sprintf("%s%d", s.name, i+1)), 3).start()
		}
		s.lead(mesh.NodeID(s.name + "1"))
		s.after(100*ms, s.copyOver)
		s.after(100*ms, s.tellReached)
	}
	return c
}

// toSite carries a message to the leader of the other site.
func (s *site) toSite(m *leader.ToSite) {
	w, times, late := &s.wan, 1, dataflow.Time(0)
	w.sent++
	switch {
	case w.off || s.other == nil:
		return
	case w.lossy && w.sent%3 == 0:
		return
	case w.lossy && w.sent%3 == 1:
		times, late = 2, 1700*ms
	}
	for i := range times {
		s.after(25*ms+late*dataflow.Time(i), func() {
			if o := s.other; !w.off && o.leads != nil && !o.leads.dead && !o.leads.node.frozen {
				o.leads.step(leader.Event{FromSite: &leader.FromSite{Site: s.name, ToSource: m.ToSource, ToTarget: m.ToTarget}})
			}
		})
	}
}

// askSite asks the leader of the other site what is to be kept here.
func (s *site) askSite(a *replication.Ask) {
	asked := s.leads
	s.asked++
	ref := s.asked
	s.after(25*ms, func() {
		if o := s.other; !s.wan.off && o.leads != nil && !o.leads.dead && !o.leads.node.frozen {
			o.leads.step(leader.Event{Wanted: &leader.Wanted{Ref: ref, Want: &a.Want}})
		} else if s.leads == asked && !asked.dead && !asked.node.frozen {
			asked.step(leader.Event{Offered: &leader.Offered{Site: a.Site, Err: errLost}})
		}
	})
}

// offered carries the answer.
func (s *site) offered(from mesh.Site, o *leader.Offer) {
	s.after(25*ms, func() {
		if s.wan.off || o.Offer == nil || s.leads == nil || s.leads.dead || s.leads.node.frozen {
			return // it is lost: asked again later
		}
		s.leads.step(leader.Event{Offered: &leader.Offered{Site: from, Offer: o.Offer}})
	})
}

// find is an agent of any site; nil: there is none, or no way to it.
func (s *site) find(id mesh.NodeID) *node {
	if n := s.nodes[id]; n != nil || s.other == nil || s.wan.off {
		return n
	}
	return s.other.nodes[id]
}

func (s *site) tellReached() {
	s.after(200*ms, s.tellReached)
	sites := []mesh.Site{}
	if !s.wan.off {
		sites = append(sites, s.other.name)
	}
	if s.leads != nil && !s.leads.dead && !s.leads.node.frozen {
		s.leads.step(leader.Event{Sites: &sites})
	}
}

// copyOver brings what the other site has and this one is to keep.
func (s *site) copyOver() {
	s.after(40*ms, s.copyOver)
	s.judgeOwners()
	st := s.state()
	if s.wan.off || st.Index < uint64(len(s.log)) || s.leads == nil {
		return
	}
	var ends []coordinator.FeedEnd
	for _, name := range slices.Sorted(maps.Keys(st.Feeds)) {
		f := st.Feeds[name]
		n := s.nodes[f.Log.Owner]
		if (f.Owner == s.other.name || f.Log.Mirror != nil) && n != nil && n.up && n.exec.owns[name] && n.exec.roles[name] != nil && n.exec.roles[name].Epoch.Epoch == f.Log.Epoch {
			d := n.disk[name]
			d.End = max(d.End, s.other.acked[name])
			n.disk[name] = d
		}
		ends = append(ends, coordinator.FeedEnd{Feed: name, End: s.acked[name]})
	}
	if len(ends) > 0 && !s.leads.dead && !s.leads.node.frozen {
		s.leads.step(leader.Event{Mirrored: &leader.Mirrored{Ends: ends}})
	}
}

// judgeOwners: no job is deployed at both sites.
func (s *site) judgeOwners() {
	mine, its := s.state(), s.other.state()
	for id, j := range mine.Jobs {
		if o := its.Jobs[id]; j.Deployed() && o != nil && o.Deployed() && !s.wan.forced {
			s.fail("job %s is %s at epoch %d at %s, and %s at epoch %d at %s", id, j.Status, j.Epoch, s.name, o.Status, o.Epoch, s.other.name)
		}
	}
}

func (s *script) beginWorld() {
	c := newWorld(func(c *clock, name mesh.Site) *site {
		return newSiteOf(c, name, nil, s.t.Errorf, func(format string, args ...any) {
			fmt.Fprintf(&s.out, "%d %s: %s\n", c.now/ms, name, fmt.Sprintf(format, args...))
		})
	})
	s.site = c.sites[0]
}

func (s *script) link() { s.wan.off, s.wan.lossy = s.args[0] == "off", s.args[0] == "lossy" }

func (s *script) wishMove() {
	s.site.wishMove(s.d.Cmd, s.args[0], s.number(1), len(s.args) > 2)
}

func (s *script) number(i int) int {
	n, _ := strconv.Atoi(s.args[i])
	return n
}

func (s *site) wishMove(what, name string, ref int, sure bool) {
	w, st := &leader.Migrate{Sure: sure}, s.state()
	var job *coordinator.Job
	if j := s.job(name); j != nil {
		job = j
	}
	switch what {
	case "migrate", "try":
		if job == nil {
			return
		}
		c := &coordinator.MoveBegan{Job: job.ID, Epoch: job.Epoch, To: s.other.name, Request: fmt.Sprintf("r%d", ref)}
		if what == "try" {
			w.Dry = c
		} else {
			w.Begin = c
		}
	default:
		var id coordinator.MoveID
		for _, d := range st.Moves.Departures {
			if !d.Phase.Decided() {
				id = d.ID
			}
		}
		for _, a := range st.Moves.Arrivals {
			if !a.Phase.Decided() {
				id = a.ID
			}
		}
		if what == "force" {
			w.Force, s.wan.forced = id, true
		} else {
			w.Cancel = id
		}
		if id == "" {
			return
		}
	}
	if s.leads != nil && !s.leads.dead && !s.leads.node.frozen {
		s.leads.step(leader.Event{Wish: &leader.Wish{Ref: ref, Migrate: w}})
	}
}

func (s *script) sayMoves() {
	for _, o := range s.sites {
		st := o.state()
		for _, id := range slices.Sorted(maps.Keys(st.Moves.Departures)) {
			fmt.Fprintf(&s.out, "%s: %s is %s\n", o.name, id, st.Moves.Departures[id].Phase)
		}
		for _, id := range slices.Sorted(maps.Keys(st.Moves.Arrivals)) {
			fmt.Fprintf(&s.out, "%s: %s is %s\n", o.name, id, st.Moves.Arrivals[id].Phase)
		}
		for _, id := range slices.Sorted(maps.Keys(st.Jobs)) {
			fmt.Fprintf(&s.out, "%s: job %s is %s at epoch %d\n", o.name, id, st.Jobs[id].Status, st.Jobs[id].Epoch)
		}
	}
}

// sayReplicas tells what is kept of other sites' jobs, and whether it is whole.
func (s *script) sayReplicas() {
	for _, o := range s.sites {
		st := o.state()
		for _, id := range slices.Sorted(maps.Keys(st.Replicas)) {
			r := st.Replicas[id]
			fmt.Fprintf(&s.out, "%s: job %s of %s at epoch %d, ends %v\n", o.name, id, r.From, r.Epoch, r.Ends)
			if k := r.Snapshot; k != nil {
				fmt.Fprintf(&s.out, "    complete %s %v\n", k.Name, k.Copies[0].Nodes)
			}
			if r.Next != nil {
				fmt.Fprintf(&s.out, "    fetched %s %v\n", r.Next.Name, r.Next.Copies[0].Nodes)
			}
		}
		if most := slices.Max(append(slices.Collect(maps.Values(o.crossed)), 0)); most > 0 {
			fmt.Fprintf(&s.out, "%s: %d parts came over the link, each %d times at most\n", o.name, len(o.crossed), most)
		}
		for _, name := range slices.Sorted(maps.Keys(st.Feeds)) {
			if f := st.Feeds[name]; f.Mirror != nil {
				fmt.Fprintf(&s.out, "%s: feed %s mirrors %s of %s\n", o.name, name, f.Mirror.Feed, f.Mirror.Site)
			}
		}
	}
}
