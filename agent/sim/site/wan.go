package site

import (
	"errors"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Mesh is several sites that know of each other, as agent/node's moves.go and
// replicate.go have it: what leaders say to each other goes as bytes to any agent
// of the other site, and from there to who leads it, as that one knows.
type Mesh struct {
	Sites []*Site
	// Step is called before something is done that a fault may come before, and after:
	// a message leaves for another site, an entry of a move or of what is kept is in a
	// site's log. what is the same in each run that does the same.
	Step func(at mesh.Site, what string, after bool)
}

// Join makes the sites know of each other.
func Join(sites ...*Site) *Mesh {
	m := &Mesh{Sites: sites, Step: func(mesh.Site, string, bool) {}}
	for _, s := range sites {
		s.mesh = m
		s.setting.Sources = s.sourcesOf
	}
	return m
}

// Site is the one of a name; nil: there is none.
func (m *Mesh) Site(name mesh.Site) *Site {
	for _, s := range m.Sites {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// sourcesOf are the agents of a site that are seen from here.
func (s *Site) sourcesOf(name mesh.Site, from *world.Node) (all []*world.Node) {
	o := s.mesh.Site(name)
	if o == nil {
		return nil
	}
	for _, n := range o.Nodes {
		if s.W.Linked(from, n) {
			all = append(all, n)
		}
	}
	return all
}

// reach tells the leader when other sites come and go.
func (l *Lead) reach() {
	if l.over || l.p.s.mesh == nil {
		return
	}
	l.p.After(200*ms, l.reach)
	sites := []mesh.Site{}
	for _, o := range l.p.s.mesh.Sites {
		if o != l.p.s && len(l.p.s.sourcesOf(o.Name, l.p.Node)) > 0 {
			sites = append(sites, o.Name)
		}
	}
	if l.reached == nil || len(sites) != len(l.reached) {
		l.reached = sites
		l.step(leader.Event{Sites: &sites})
	}
}

// entered runs f at a site's leader, on behalf of an agent there that is reached:
// false if there is none who leads.
func (s *Site) entered(from *world.Node, f func(l *Lead)) bool {
	var entries []*agent
	for _, n := range s.Nodes {
		if p := s.agents[n.P]; p != nil && !p.Paused && s.W.Hears(from.ID, n.ID) {
			entries = append(entries, p)
		}
	}
	if len(entries) == 0 {
		return false
	}
	entry := entries[s.W.Rand.IntN(len(entries))]
	var known []*Lead
	for _, l := range s.Leads() { // it may know one that leads no more
		if l.p == entry || s.W.Linked(entry.Node, l.p.Node) {
			known = append(known, l)
		}
	}
	if len(known) == 0 {
		return false
	}
	l := known[s.W.Rand.IntN(len(known))]
	l.p.Live(func() { f(l) })
	return true
}

// toSite carries what a leader says to that of another site; it may be lost.
func (l *Lead) toSite(m *leader.ToSite) {
	s, o := l.p.s, l.p.s.mesh.Site(m.Site)
	if p := m.ToSource; s.W.Bugs.DecideAlone && p != nil && p.Prepared != nil {
		l.p.Post(func() {
			l.step(leader.Event{FromSite: &leader.FromSite{Site: m.Site, ToTarget: &coordinator.ToTarget{Move: p.Move, Verdict: coordinator.DecisionHandedOver}}})
		})
	}
	what, data, err := letter(m)
	if err != nil {
		s.W.Fail(0, "a message to site %s cannot be encoded: %v", m.Site, err)
		return
	}
	s.mesh.Step(s.Name, what, false)
	if l.p.Dead || o == nil || s.W.Bugs.DeafToOwners && m.Owner != nil {
		return
	}
	s.W.Wan.Letter(l.p.Proc, string(m.Site), func() {
		got := opened(m, data)
		if got == nil {
			s.W.Fail(0, "what site %s says cannot be read", s.Name)
			return
		}
		got.Site = s.Name
		o.entered(l.p.Node, func(to *Lead) { to.step(leader.Event{FromSite: got}) })
	})
	s.mesh.Step(s.Name, what, true)
}

// letter is a message as bytes, and what it says for people.
func letter(m *leader.ToSite) (what string, data []byte, err error) {
	switch {
	case m.Owner != nil:
		data, err = codec.EncodeOwner(m.Owner)
		return "says who has a job", data, err
	case m.ToTarget != nil:
		data, err = codec.EncodeToTarget(m.ToTarget)
	default:
		data, err = codec.EncodeToSource(m.ToSource)
	}
	return "says " + Said(m), data, err
}

// Said names what a message of a move says.
func Said(m *leader.ToSite) string {
	t, s := m.ToTarget, m.ToSource
	switch {
	case t != nil && t.Propose != nil:
		return "Propose"
	case t != nil && t.Newest != nil:
		return "Newest"
	case t != nil && t.Offer != nil:
		return "Offer"
	case t != nil:
		return "Verdict"
	case s.Accepted != nil:
		return "Accepted"
	case s.Refused != nil:
		return "Refused"
	case s.Got != nil:
		return "Got"
	case s.Prepared != nil:
		return "Prepared"
	}
	return "Done"
}

func opened(m *leader.ToSite, data []byte) *leader.FromSite {
	var got leader.FromSite
	var err error
	switch {
	case m.Owner != nil:
		got.Owner, err = codec.DecodeOwner(data)
	case m.ToTarget != nil:
		got.ToTarget, err = codec.DecodeToTarget(data)
	default:
		got.ToSource, err = codec.DecodeToSource(data)
	}
	if err != nil {
		return nil
	}
	return &got
}

var errAway = errors.New("the site is not reached, or nobody leads it")

// ask asks another site's leader what is to be kept here. It is answered with an
// event, whatever comes.
func (l *Lead) ask(a *replication.Ask) {
	s, o, over := l.p.s, l.p.s.mesh.Site(a.Site), false
	end := func(e leader.Offered) {
		l.p.Live(func() {
			if !over {
				over, e.Site, e.No = true, a.Site, a.No
				l.step(leader.Event{Offered: &e})
			}
		})
	}
	data, err := codec.EncodeWant(&a.Want)
	if err != nil || o == nil {
		s.W.Fail(0, "site %s cannot be asked: %v", a.Site, err)
		return
	}
	s.mesh.Step(s.Name, "asks what is to be kept", false)
	s.W.After(3*sec, func() { end(leader.Offered{Err: errAway}) })
	s.W.After(s.W.Wan.Delay, func() {
		want, err := codec.DecodeWant(data)
		if err != nil {
			s.W.Fail(0, "a question of site %s cannot be read: %v", s.Name, err)
			return
		}
		if o.entered(l.p.Node, func(to *Lead) { to.wanted(l, want, end) }) {
			return
		}
		s.W.After(s.W.Wan.Delay, func() { end(leader.Offered{Err: errAway}) })
	})
	s.mesh.Step(s.Name, "asks what is to be kept", true)
}

// wanted has this leader answer another site's.
func (l *Lead) wanted(from *Lead, want *coordinator.Want, done func(leader.Offered)) {
	if l.over {
		return
	}
	l.wishRef++
	l.wants[l.wishRef] = func(f *coordinator.Offer) {
		if f == nil {
			return // it is about to lead
		}
		data, err := codec.EncodeOffer(f)
		if err != nil {
			l.p.W.Fail(0, "an offer cannot be encoded: %v", err)
			return
		}
		l.p.s.mesh.Step(l.p.s.Name, "offers what is to be kept", false)
		l.p.W.After(l.p.W.Wan.Delay, func() {
			if !l.p.W.Hears(l.p.ID, from.p.ID) {
				return
			}
			offer, err := codec.DecodeOffer(data)
			if err != nil {
				l.p.W.Fail(0, "an offer cannot be read: %v", err)
				return
			}
			done(leader.Offered{Offer: offer})
		})
		l.p.s.mesh.Step(l.p.s.Name, "offers what is to be kept", true)
	}
	l.step(leader.Event{Wanted: &leader.Wanted{Ref: l.wishRef, Want: want}})
}

// offered answers who asked.
func (l *Lead) offered(f *leader.Offer) {
	if answer := l.wants[f.Ref]; answer != nil {
		delete(l.wants, f.Ref)
		answer(f.Offer)
	}
}

// lapsed tells whether the agent had no lease for long, as far as its process knows.
func (p *agent) lapsed() bool {
	until := p.lease.Until()
	return !p.W.Bugs.NeverIsolated && (until == dataflow.MinTime || p.Now() > until.Add(leader.DefaultTiming().Lapse))
}

// step tells of an entry, before it is in the log, and when the first agent has
// applied it.
func (s *Site) step(what string, after bool) {
	if what != "" && s.mesh != nil {
		s.mesh.Step(s.Name, what, after)
	}
}

// entryOf names an entry that is about a move, or what is kept; empty: it is not.
func entryOf(c *coordinator.Command) string {
	m := c.Move
	switch {
	case c.ReplicaOffered != nil:
		return "enters ReplicaOffered"
	case c.ReplicaNext != nil:
		return "enters ReplicaNext"
	case c.ReplicaAdvanced != nil:
		return "enters ReplicaAdvanced"
	case c.ReplicaDropped != nil:
		return "enters ReplicaDropped"
	case c.JobFailedOver != nil:
		return "enters JobFailedOver"
	case c.JobClaimed != nil:
		return "enters JobClaimed"
	case c.JobDeployed != nil:
		return "enters JobDeployed"
	case c.LogEpochBegun != nil:
		return "enters LogEpochBegun"
	case m == nil:
		return ""
	}
	return "enters " + moveEntry(m)
}

func moveEntry(m *coordinator.MoveCommand) string {
	switch {
	case m.Began != nil:
		return "MoveBegan"
	case m.Halting != nil:
		return "MoveHalting"
	case m.Offered != nil:
		return "MoveOffered"
	case m.Decided != nil:
		return "MoveDecided"
	case m.Forgotten != nil:
		return "MoveForgotten"
	case m.Fenced != nil:
		return "JobFenced"
	case m.ArrivalBegan != nil:
		return "ArrivalBegan"
	case m.ArrivalPrepared != nil:
		return "ArrivalPrepared"
	case m.ArrivalDecided != nil:
		return "ArrivalDecided"
	}
	return "ArrivalForgotten"
}
