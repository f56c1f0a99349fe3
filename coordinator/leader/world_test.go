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
	cut    map[[2]mesh.Site]bool // of three sites, these two do not reach each other
	lossy  bool                  // each third message is lost, the one after it comes twice, and late
	sent   int
	news   int  // messages about owners: they are counted for themselves
	forced bool // a person has said that a site is lost: two may have a job
	twice  bool // and another one has, too
}

// newWorld makes two sites with two agents each.
func newWorld(make func(c *clock, name mesh.Site) *site) *clock { return newWorldOf(make, "a", "b") }

// newWorldOf makes these sites. Each has one other that people mean where they name
// none.
func newWorldOf(of func(c *clock, name mesh.Site) *site, names ...mesh.Site) *clock {
	return newWorldWith(of, coordinator.Level, names...)
}

// newWorldWith: all programs are of a level.
func newWorldWith(of func(c *clock, name mesh.Site) *site, level uint32, names ...mesh.Site) *clock {
	c := &clock{}
	c.wan.cut = make(map[[2]mesh.Site]bool)
	for _, name := range names {
		of(c, name)
	}
	for i, s := range c.sites {
		s.other = c.sites[(i+1)%len(c.sites)]
		s.level = level
		for i := range 2 {
			s.add(mesh.NodeID(fmt.Sprintf("%s%d", s.name, i+1)), 3).start()
		}
		s.lead(mesh.NodeID(s.name + "1"))
		s.after(100*ms, s.copyOver)
		s.after(100*ms, s.tellReached)
	}
	return c
}

// site is one of the world's; nil: there is none of the name.
func (c *clock) site(name mesh.Site) *site {
	for _, s := range c.sites {
		if s.name == name {
			return s
		}
	}
	return nil
}

// reaches tells whether somebody of another site is reached.
func (s *site) reaches(o *site) bool {
	return o != nil && o != s && !s.wan.off && !s.wan.cut[[2]mesh.Site{s.name, o.name}] && !s.wan.cut[[2]mesh.Site{o.name, s.name}] &&
		slices.ContainsFunc(o.sorted(), func(n *node) bool { return n.up })
}

// toLeader is an event for a site's leader; it is lost if there is none.
func (s *site) toLeader(e leader.Event) {
	if s.leads != nil && !s.leads.dead && !s.leads.node.frozen {
		s.leads.step(e)
	}
}

// toSite carries a message to the leader of another site.
func (s *site) toSite(m *leader.ToSite) {
	w, times, late := &s.wan, 1, dataflow.Time(0)
	sent := &w.sent
	if m.Owner != nil {
		sent = &w.news
	}
	*sent++
	switch o := s.site(m.Site); {
	case o == nil || !s.reaches(o) || m.Owner != nil && s.losses.bug == "nobody asks":
		return
	case w.lossy && *sent%3 == 0:
		return
	case w.lossy && *sent%3 == 1:
		times, late = 2, 1700*ms
	}
	for i := range times {
		s.after(25*ms+late*dataflow.Time(i), func() {
			if o := s.site(m.Site); s.reaches(o) {
				o.toLeader(leader.Event{FromSite: &leader.FromSite{Site: s.name, ToSource: m.ToSource, ToTarget: m.ToTarget, Owner: m.Owner}})
			}
		})
	}
}

// question is one of another site, with its number.
type question struct {
	by *site
	no int64
}

// askSite asks the leader of another site what is to be kept here.
func (s *site) askSite(a *replication.Ask) {
	asked := s.leads
	s.after(25*ms, func() {
		if o := s.site(a.Site); s.reaches(o) && o.leads != nil && !o.leads.dead && !o.leads.node.frozen {
			o.asked++
			o.answers[o.asked] = question{s, a.No}
			o.leads.step(leader.Event{Wanted: &leader.Wanted{Ref: o.asked, Want: &a.Want}})
		} else if s.leads == asked && asked != nil && !asked.dead && !asked.node.frozen {
			asked.step(leader.Event{Offered: &leader.Offered{Site: a.Site, No: a.No, Err: errLost}})
		}
	})
}

// offered carries an answer of this site.
func (s *site) offered(o *leader.Offer) {
	q := s.answers[o.Ref]
	delete(s.answers, o.Ref)
	s.after(25*ms, func() {
		if q.by.reaches(s) && o.Offer != nil { // else it is lost: asked again later
			q.by.toLeader(leader.Event{Offered: &leader.Offered{Site: s.name, No: q.no, Offer: o.Offer}})
		}
	})
}

// find is an agent of any site; nil: there is none, or no way to it.
func (s *site) find(id mesh.NodeID) *node {
	for _, o := range s.sites {
		if n := o.nodes[id]; n != nil && (o == s || s.reaches(o)) {
			return n
		}
	}
	return nil
}

func (s *site) tellReached() {
	s.after(200*ms, s.tellReached)
	sites := []mesh.Site{}
	for _, o := range s.sites {
		if s.reaches(o) {
			sites = append(sites, o.name)
		}
	}
	s.toLeader(leader.Event{Sites: &sites})
}

// copyOver brings what other sites have and this one is to keep.
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
		n, from := s.nodes[f.Log.Owner], s.site(f.Owner)
		if f.Log.Mirror != nil {
			from = s.site(f.Log.Mirror.Site)
		}
		if s.reaches(from) && n != nil && n.up && n.exec.owns[name] && n.exec.roles[name] != nil && n.exec.roles[name].Epoch.Epoch == f.Log.Epoch {
			d := n.disk[name]
			d.End = max(d.End, from.acked[name])
			n.disk[name] = d
		}
		ends = append(ends, coordinator.FeedEnd{Feed: name, End: s.acked[name]})
	}
	if len(ends) > 0 {
		s.toLeader(leader.Event{Mirrored: &leader.Mirrored{Ends: ends}})
	}
}

// judgeOwners: no job is deployed at two sites, unless a person has forced it; and
// never at the same epoch, unless two persons have. What agents that have just begun
// know so far says nothing.
func (s *site) judgeOwners() {
	mine := s.state()
	for _, other := range s.sites {
		its := other.state()
		if mine.Index < uint64(len(s.log)) || its.Index < uint64(len(other.log)) {
			continue
		}
		for id, j := range mine.Jobs {
			o := its.Jobs[id]
			if other != s && j.Deployed() && o != nil && o.Deployed() && (!s.wan.forced || !s.wan.twice && j.Epoch == o.Epoch || j.Epoch == o.Epoch && !s.took(id, j.Epoch) && !other.took(id, j.Epoch)) {
				s.fail("job %s is %s at epoch %d at %s, and %s at epoch %d at %s", id, j.Status, j.Epoch, s.name, o.Status, o.Epoch, other.name)
			}
		}
	}
}

func (s *script) beginWorld() {
	names := []mesh.Site{"a", "b"}
	if len(s.args) > 0 && s.args[0] == "three" {
		names = append(names, "c")
	}
	c := newWorldOf(func(c *clock, name mesh.Site) *site {
		return newSiteOf(c, name, nil, s.t.Errorf, func(format string, args ...any) {
			fmt.Fprintf(&s.out, "%d %s: %s\n", c.now/ms, name, fmt.Sprintf(format, args...))
		})
	}, names...)
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
