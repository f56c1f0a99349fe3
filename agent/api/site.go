package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
)

// pathLeave is for the agent that is asked, whoever leads.
const pathLeave = "/v1/members/self/leave"

func (s *server) registerSite() {
	register(s, op(http.MethodGet, "/v1/site", "show-site", "The site"), s.showSite)
	register(s, op(http.MethodGet, "/v1/sites", "list-sites", "All sites of the mesh that are known, and what they answer now"), s.listSites)
	register(s, op(http.MethodGet, "/v1/members", "list-members", "The agents of the site"), s.listMembers)
	register(s, op(http.MethodPost, pathLeave, "leave", "The agent that is asked leaves the site in order, and its process ends", lasting(time.Minute), status(http.StatusNoContent)), s.leave)
	register(s, op(http.MethodDelete, "/v1/members/{member}", "remove-member", "Take out an agent that is gone for good", lasting(time.Minute), status(http.StatusNoContent)), s.removeMember)
}

// slotsOf are the slots that a job has, by agent; of one whose text cannot be read
// nobody knows. It takes as long as reading that does.
func slotsOf(j *coordinator.Job) map[mesh.NodeID]int {
	if !j.Deployed() {
		return nil
	}
	p, err := leader.Parse(j)
	if err != nil {
		return nil
	}
	return schedule.Used(p.Slots, j.Places)
}

func (s *server) members() []Agent {
	var jobs []*coordinator.Job
	s.b.View(func(st *coordinator.State) { jobs = slices.Collect(maps.Values(st.Jobs)) })
	used := make(map[mesh.NodeID]int)
	for _, j := range jobs {
		for n, k := range slotsOf(j) {
			used[n] += k
		}
	}
	all := []Agent{}
	for _, m := range s.b.Members() {
		a := Agent{
			Node: string(m.Node), Name: m.Name, Site: string(m.Site), Status: m.Status.String(), Role: m.Role, Slots: m.Slots, Free: max(0, m.Slots-used[m.Node]),
			Host: m.Host, Labels: m.Labels, Version: m.Version, Level: m.Level, Addr: m.Link, HTTP: m.HTTP,
		}
		if a.Labels == nil {
			a.Labels = map[string]string{}
		}
		all = append(all, a)
	}
	return all
}

func (s *server) listMembers(ctx context.Context, in *Stale) (*body[[]Agent], error) {
	if err := s.read(ctx, *in, func(*coordinator.State) error { return nil }); err != nil {
		return nil, err
	}
	return answer(s.members()), nil
}

func (s *server) showSite(ctx context.Context, in *Stale) (*body[SiteInfo], error) {
	var out SiteInfo
	l := s.b.Leader()
	err := s.read(ctx, *in, func(st *coordinator.State) error {
		out = SiteInfo{Mesh: st.Mesh, Site: string(st.Site), Agents: len(st.Agents), Level: st.Level, Index: st.Index}
		if l != "" {
			out.Leader = nameOf(st.Agents, l)
		}
		return nil
	})
	for _, m := range s.b.Members() {
		if m.Role == "leader" || m.Role == "voter" {
			out.Voters++
		}
	}
	return answer(out), err
}

func (s *server) listSites(ctx context.Context, in *Stale) (*body[[]Site], error) {
	if err := s.read(ctx, *in, func(*coordinator.State) error { return nil }); err != nil {
		return nil, err
	}
	all, kept := s.b.Sites(ctx), s.b.Replicas()
	for i := range all {
		if site := all[i].Site; !all[i].Self {
			all[i].LagTo = lagText(kept, func(r *Replica) bool { return r.To == site })
			all[i].LagFrom = lagText(kept, func(r *Replica) bool { return r.From == site })
		}
	}
	return answer(all), nil
}

// lagText says how far what is kept of jobs is behind; empty: nothing is kept.
func lagText(all []Replica, of func(*Replica) bool) string {
	var jobs, lost, unknown int
	var entries, most int64
	for i := range all {
		r := &all[i]
		if !of(r) {
			continue
		}
		jobs, entries, most = jobs+1, entries+r.Entries, max(most, r.Time)
		if !r.Restorable {
			lost++
		}
		if r.Unknown {
			unknown++
		}
	}
	if jobs == 0 {
		return ""
	}
	text := fmt.Sprintf("%d entries", entries)
	if most > 0 {
		text += ", " + (time.Duration(most) * time.Millisecond).String()
	}
	if unknown > 0 {
		text += fmt.Sprintf(", more is not known of %d of %d jobs", unknown, jobs)
	}
	if lost > 0 {
		text += fmt.Sprintf(", %d of %d jobs not restorable", lost, jobs)
	}
	return text
}

func (s *server) leave(ctx context.Context, _ *struct{}) (*struct{}, error) {
	if err := s.b.Leave(ctx); err != nil {
		return nil, asked(err)
	}
	return nil, nil
}

func (s *server) removeMember(ctx context.Context, in *struct {
	Member string `path:"member" doc:"its name or node id"`
	Force  bool   `query:"force" doc:"although it is alive"`
}) (*struct{}, error) {
	if err := s.b.Current(ctx); err != nil {
		return nil, failed(err)
	}
	var names []string
	for _, m := range s.b.Members() {
		if string(m.Node) != in.Member && m.Name != in.Member {
			names = append(names, m.Name)
			continue
		}
		switch {
		case m.Node == s.b.Self():
			return nil, refusal(http.StatusConflict, "agent %s leads the site; let it leave by itself: `tidemark member leave` with --addr of that agent", m.Name)
		case m.Status == mesh.Alive && !in.Force:
			return nil, refusal(http.StatusConflict, "agent %s is alive; let it leave by itself: `tidemark member leave` with --addr of that agent, or give --force", m.Name)
		}
		if err := s.b.Remove(ctx, m.Node); err != nil {
			return nil, failed(err)
		}
		return nil, nil
	}
	return nil, missing("agent", in.Member, names)
}

func (s *server) registerTokens() {
	register(s, op(http.MethodGet, "/v1/tokens", "list-tokens", "Join tokens, without their secrets"), s.listTokens)
	register(s, op(http.MethodPost, "/v1/tokens", "create-token", "Make a join token", status(http.StatusCreated)), s.createToken)
	register(s, op(http.MethodPost, "/v1/sites", "create-site", "Let one agent found another site of the mesh, with a token", status(http.StatusCreated)), s.createSite)
	register(s, op(http.MethodDelete, "/v1/tokens/{token}", "revoke-token", "Revoke a join token; who has joined with it stays", status(http.StatusNoContent)), s.revokeToken)
}

func describeToken(t *coordinator.Token, now time.Time) TokenInfo {
	out := TokenInfo{ID: t.ID, Created: stamp(t.Created), Expires: stamp(t.Expires), Uses: t.Uses, State: "good", Nodes: []string{}, Founds: string(t.Founds)}
	for _, n := range t.Nodes {
		out.Nodes = append(out.Nodes, string(n))
	}
	switch {
	case t.Revoked:
		out.State = "revoked"
	case t.Expires != dataflow.MaxTime && t.Expires.GoTime().Before(now):
		out.State = "expired"
	case t.Uses == 0:
		out.State = "used up"
	}
	return out
}

func (s *server) listTokens(ctx context.Context, in *Stale) (*body[[]TokenInfo], error) {
	all := []TokenInfo{}
	err := s.read(ctx, *in, func(st *coordinator.State) error {
		for _, id := range slices.Sorted(maps.Keys(st.Tokens)) {
			all = append(all, describeToken(st.Tokens[id], s.b.Now()))
		}
		return nil
	})
	return answer(all), err
}

func (s *server) createToken(ctx context.Context, in *struct{ Body NewToken }) (*body[TokenMade], error) {
	text, t, err := s.b.NewToken()
	if err != nil {
		return nil, failed(err)
	}
	t.Uses, t.Expires = -1, expires(t.Created, in.Body.TTL)
	if in.Body.Uses > 0 {
		t.Uses = in.Body.Uses
	}
	if _, err := s.propose(ctx, coordinator.Command{TokenCreated: &t}); err != nil {
		return nil, err
	}
	return answer(TokenMade{describeToken(&t, s.b.Now()), text}), nil
}

// expires is so many milliseconds later; 0: never.
func expires(from dataflow.Time, ms int64) dataflow.Time {
	if ms <= 0 {
		return dataflow.MaxTime
	}
	return from.Add(dataflow.Duration(min(ms, int64(dataflow.MaxTime)/int64(dataflow.Millisecond))) * dataflow.Millisecond)
}

// createSite keeps what the founder of another site is given. The secrets stay
// with who asks.
func (s *server) createSite(ctx context.Context, in *struct{ Body NewSite }) (*body[TokenInfo], error) {
	if err := identity.CheckName("a site", in.Body.Site); err != nil {
		return nil, refusal(http.StatusUnprocessableEntity, "%v", err)
	}
	now := dataflow.FromGo(s.b.Now())
	t := coordinator.Token{
		ID: in.Body.Token, Hash: in.Body.Hash, Created: now, Expires: expires(now, in.Body.TTL), Uses: 1,
		Founds: mesh.Site(in.Body.Site), Sealed: in.Body.Sealed,
	}
	err := s.read(ctx, Stale{}, func(st *coordinator.State) error {
		if st.Mesh != in.Body.Mesh {
			return refusal(http.StatusConflict, "the key is of mesh %s, and this is mesh %s: ask an agent of that one", in.Body.Mesh, st.Mesh)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.b.Unfounded(t.Founds); err != nil {
		return nil, refusal(http.StatusConflict, "%v", err)
	}
	if _, err := s.propose(ctx, coordinator.Command{TokenCreated: &t}); err != nil {
		return nil, err
	}
	return answer(describeToken(&t, s.b.Now())), nil
}

func (s *server) revokeToken(ctx context.Context, in *struct {
	Token string `path:"token" doc:"its id, as the list has it"`
}) (*struct{}, error) {
	_, err := s.propose(ctx, coordinator.Command{TokenRevoked: &coordinator.TokenRevoked{ID: in.Token}})
	return nil, err
}
