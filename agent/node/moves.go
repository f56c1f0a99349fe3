package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// What leaders of two sites say of a move: questions without an answer, as each is
// said again until what it says has come true. docs/MIGRATION.md.
const (
	pathMoveTarget = pathSite + "move/target" // a coordinator.ToTarget
	pathMoveSource = pathSite + "move/source" // a coordinator.ToSource
	pathOwner      = pathSite + "owner"       // a coordinator.OwnerNews
)

// Limits of what is kept for moves.
const (
	mostUnsent = 32  // messages that wait for a site; those beyond are lost
	mostTold   = 500 // what was told of moves, for people
)

// moveTarget hears the source of a move.
func (n *Node) moveTarget(_ context.Context, from mesh.Site, body []byte) ([]byte, error) {
	m, err := codec.DecodeToTarget(body)
	if err != nil {
		return nil, err
	}
	return nil, n.heardSite(leader.FromSite{Site: from, ToTarget: m})
}

// moveSource hears the target of a move.
func (n *Node) moveSource(_ context.Context, from mesh.Site, body []byte) ([]byte, error) {
	m, err := codec.DecodeToSource(body)
	if err != nil {
		return nil, err
	}
	return nil, n.heardSite(leader.FromSite{Site: from, ToSource: m})
}

// ownerNews hears who has a job.
func (n *Node) ownerNews(_ context.Context, from mesh.Site, body []byte) ([]byte, error) {
	m, err := codec.DecodeOwner(body)
	if err != nil {
		return nil, err
	}
	return nil, n.heardSite(leader.FromSite{Site: from, Owner: m})
}

func (n *Node) heardSite(m leader.FromSite) error {
	o := n.leads()
	if o == nil || !o.inbox.post(func() { o.step(leader.Event{FromSite: &m}) }) {
		return api.ErrNotLeader
	}
	return nil
}

// sitesSeen are the other sites of which somebody is seen, in order.
func (n *Node) sitesSeen() []mesh.Site { return slices.Sorted(maps.Keys(n.away())) }

// courier carries what a leader says to those of other sites, for one term: what is
// for one site in order, but that nothing waits for what is large, and no site waits for
// another one. A letter may be late, or come after a later one: docs/MIGRATION.md.
type courier struct {
	call func(ctx context.Context, site mesh.Site, path string, body []byte) ([]byte, error)
	now  func() dataflow.Time
	tell func(string)
	// refused: a site cannot be told of a move; any goroutine calls it.
	refused func(mesh.Site, coordinator.MoveID, string)
	to      map[mesh.Site]*route // of the office's goroutine
	full    bool                 // it was told that there are too many
}

// route is what is to be carried to a site.
type route struct {
	letters chan letter // small ones
	large   chan letter // of 1; nil until there is one
	busy    atomic.Bool // a large one waits or is being carried: it is said again, and one is enough
}

type letter struct {
	path string
	what string // for people
	body []byte
	move coordinator.MoveID // whose job it offers
}

// send may lose it.
func (c *courier) send(o *office, m *leader.ToSite) {
	l := letter{what: "a move"}
	var err error
	switch {
	case m.Owner != nil:
		l.path, l.what = pathOwner, "who has job "+string(m.Owner.Job)
		l.body, err = codec.EncodeOwner(m.Owner)
	case m.ToTarget != nil:
		l.path = pathMoveTarget
		said := m.ToTarget
		if said.Propose != nil {
			var why string
			if said, why = readable(said, m.Site, o.levelAt(m.Site)); why != "" {
				c.refused(m.Site, m.ToTarget.Move, why)
			}
		}
		if said == nil {
			return
		}
		l.body, err = codec.EncodeToTarget(said)
	default:
		l.path = pathMoveSource
		l.body, err = codec.EncodeToSource(m.ToSource)
	}
	if t := m.ToTarget; t != nil && t.Verdict == 0 {
		l.move = t.Move
	}
	if err != nil {
		c.tell(fmt.Sprintf("site %s cannot be told of %s: %v", m.Site, l.what, err))
		if l.move != "" {
			c.refused(m.Site, l.move, fmt.Sprintf("it cannot be told of the job's state: %v", err))
		}
		return
	}
	r := c.to[m.Site]
	if r == nil && len(c.to) >= mostSites {
		if !c.full {
			c.full = true
			c.tell(fmt.Sprintf("site %s, and others, are not told of anything: there are %d already that are", m.Site, mostSites))
		}
		return
	}
	if r == nil {
		r = &route{letters: make(chan letter, mostUnsent)}
		c.to[m.Site] = r
		o.done.Go(func() { c.carry(o.ctx, m.Site, r.letters, func() {}) })
	}
	if len(l.body) > longSite {
		if r.large == nil {
			r.large = make(chan letter, 1)
			o.done.Go(func() { c.carry(o.ctx, m.Site, r.large, func() { r.busy.Store(false) }) })
		}
		if !r.busy.Swap(true) {
			r.large <- l // there is room: none is there
		}
		return
	}
	select {
	case r.letters <- l:
	default: // it is said again
	}
}

// readable is what a target is asked, as its agents read it. nil: nothing, because it would
// do harm, and why says so; or because nobody of it is seen who could tell what they read:
// it is said again. Nothing has been done to the job by then, as the first question of a
// move is whether the target takes it.
func readable(t *coordinator.ToTarget, site mesh.Site, level uint32) (said *coordinator.ToTarget, why string) {
	p := t.Propose
	if level >= coordinator.SettledLevel {
		return t, ""
	}
	for i := range p.Job.Feeds {
		f := &p.Job.Feeds[i]
		if !p.NeedsSettled(f) {
			continue
		}
		if level > 0 {
			why = fmt.Sprintf("an agent of site %s has a program of feature level %d, and cannot take the session of the shared feed %s: upgrade all its agents, or let the session stay (--feed stay)", site, level, f.Name)
		}
		return nil, why
	}
	plain := p.Job.Plain()
	switch {
	case plain == &p.Job:
		return t, ""
	case level == 0:
		return nil, ""
	}
	own, propose := *t, *p
	propose.Job, own.Propose = *plain, &propose
	return &own, ""
}

// carry carries letters, and says when each is carried; it ends with ctx.
func (c *courier) carry(ctx context.Context, site mesh.Site, letters <-chan letter, carried func()) {
	var said repeated
	for {
		select {
		case l := <-letters:
			_, err := c.call(ctx, site, l.path, l.body)
			carried()
			var e *SiteError
			if l.move != "" && errors.As(err, &e) && e.Status == http.StatusBadRequest {
				c.refused(site, l.move, fmt.Sprintf("it does not take a message of %d bytes, which the job's state needs (%s); if its agents are of a version that takes no more than 16 MiB, upgrade them", len(l.body), e.Text))
			}
			if ctx.Err() == nil && said.due(err, c.now()) {
				c.tell(fmt.Sprintf("site %s has not heard of %s: %v", site, l.what, err))
			}
		case <-ctx.Done():
			return
		}
	}
}

// refused: what is to be said of a move does not go to its target, now or later, which
// is as if that refused the move.
func (o *office) refused(site mesh.Site, id coordinator.MoveID, why string) {
	o.inbox.post(func() {
		o.step(leader.Event{FromSite: &leader.FromSite{Site: site, ToSource: &coordinator.ToSource{Move: id, Refused: &coordinator.MoveRefused{Why: why}}}})
	})
}

// reach tells the leader when other sites come and go.
func (o *office) reach() {
	sites := o.sites()
	if o.reached != nil && slices.Equal(sites, o.reached) {
		return
	}
	o.reached = append([]mesh.Site{}, sites...)
	o.step(leader.Event{Sites: &sites})
}

// moves keeps and publishes what there is to say of a move.
func (o *office) moves(m leader.Moving) {
	told := api.MoveTold{At: o.wall(), Move: m.Move, Job: m.Job, Progress: m.Progress}
	o.view(func(st *coordinator.State) {
		if d := st.Moves.Departures[m.Move]; d != nil {
			told.To = d.To
		} else if st.Moves.Arrivals[m.Move] != nil {
			told.To = st.Site
		}
	})
	o.mu.Lock()
	o.told = append(o.told, told)
	if len(o.told) > mostTold {
		o.told = slices.Clone(o.told[len(o.told)-mostTold:])
	}
	o.mu.Unlock()
	o.moving(told)
}

// Told is api.Backend's.
func (n *Node) Told() []api.MoveTold {
	o := n.leads()
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.told)
}

// SiteSeen is api.Backend's.
func (n *Node) SiteSeen(site mesh.Site) (known, seen bool) {
	_, known = n.siteContacts()[site]
	seen = len(n.away()[site]) > 0
	return known || seen, seen
}

// OtherSites is api.Backend's.
func (n *Node) OtherSites() []mesh.Site { return n.sitesSeen() }

// moveTold publishes a step of a move.
func (n *Node) moveTold(t api.MoveTold) {
	n.event(api.Event{What: "move", Job: t.Job, Text: moveLine(t.Move, t.Progress), Move: &t})
}

// moveLine is what people read of a step.
func moveLine(id coordinator.MoveID, p migration.Progress) string {
	return fmt.Sprintf("%s: %s", id, api.MoveLine(p))
}
