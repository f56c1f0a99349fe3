package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// What sites ask each other, from leader to leader as a rule: a POST over mesh.Call
// to any agent of the other site, which passes it on to the one that leads it.
// Nothing else of an agent answers another site.
const (
	pathSite     = "/v1/sites/"
	PathSiteSelf = pathSite + "self" // nothing; the answer is an api.SiteSelf as JSON
)

const (
	headSite  = "Tidemark-Site" // the site that asked, of a question that was passed on within the site
	maxSite   = codec.MaxSite   // bytes of a question, and of an answer
	siteTime  = 15 * time.Second
	siteTries = 3               // agents of a site that are asked, one after the other
	siteMost  = 5 * time.Minute // of a question to an agent, and a second more for each slowSite bytes that have moved
	slowSite  = 4 << 10         // bytes a second; a line that carries less is as good as none
	longSite  = 64 << 10        // bytes of a question that takes a while on a slow line
)

// siteCall answers a question of another site, on the agent that leads this one. The
// error's text is told to who asked; api.ErrNotLeader has it ask again.
type siteCall func(ctx context.Context, from mesh.Site, body []byte) ([]byte, error)

// siteCalls are all that other sites may ask, by path.
func (n *Node) siteCalls() map[string]siteCall {
	return map[string]siteCall{
		PathSiteSelf:   n.siteSelf,
		pathMoveTarget: n.moveTarget,
		pathMoveSource: n.moveSource,
		pathOwner:      n.ownerNews,
		PathReplicas:   n.siteReplicas,
	}
}

// siteSelf says what this site is.
func (n *Node) siteSelf(context.Context, mesh.Site, []byte) ([]byte, error) {
	var self api.SiteSelf
	n.replica.view(func(st *coordinator.State) {
		self = api.SiteSelf{Mesh: st.Mesh, Site: string(st.Site), Agents: len(st.Agents), Level: st.Level, Index: st.Index, Node: string(n.id.Node())}
		if a := st.Agents[n.id.Node()]; a != nil {
			self.Leader = a.Name
		}
	})
	for _, m := range n.raft.Members() {
		if m.Voter {
			self.Voters++
		}
	}
	return json.Marshal(self)
}

// SiteError is the answer of another site that did not do what it was asked for.
type SiteError struct {
	Site   mesh.Site
	Node   mesh.NodeID // that answered
	Status int         // of HTTP: 404 it knows of no such question, 409 it refuses, 503 nobody leads it
	Text   string
}

// Error is one line.
func (e *SiteError) Error() string { return fmt.Sprintf("site %s: %s", e.Site, e.Text) }

// ErrSiteUnreached means that no agent of a site answered: the question may have been
// heard all the same, unless none was reached.
var ErrSiteUnreached = errors.New("not reached")

// CallSite asks another site, or this one, and returns what its leader answers. Path is one of those
// that siteCalls has there. It asks agents of the site one after the other until one
// answers, within ctx, each for as long as something moves; so a question may be heard
// twice. *SiteError: it answered, and not with what was asked for. ErrSiteUnreached.
func (n *Node) CallSite(ctx context.Context, site mesh.Site, path string, body []byte) ([]byte, error) {
	if len(body) > maxSite {
		return nil, fmt.Errorf("a question of %d bytes to site %s; at most %d", len(body), site, maxSite)
	}
	to := n.siteAgents(site)
	if len(to) == 0 {
		return nil, fmt.Errorf("site %s: %w: no agent of it is known here", site, ErrSiteUnreached)
	}
	var errs []error
	for _, node := range to[:min(len(to), siteTries)] {
		answer, err := n.askSite(ctx, site, node, path, body)
		var e *SiteError
		switch {
		case err == nil:
			return answer, nil
		case errors.As(err, &e) && e.Status != http.StatusServiceUnavailable:
			return nil, err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	for _, err := range errs { // one that answered knows more than who was not reached
		if e := (*SiteError)(nil); errors.As(err, &e) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("site %s: %w: %w", site, ErrSiteUnreached, errors.Join(errs...))
}

// siteAgents are the agents of a site to ask: those that are connected, those that are
// seen, then those that were.
func (n *Node) siteAgents(site mesh.Site) (all []mesh.NodeID) {
	if site == n.id.Site() {
		if l := n.Leader(); l != "" {
			return []mesh.NodeID{l}
		}
		return nil
	}
	add := func(node mesh.NodeID) {
		if !slices.Contains(all, node) {
			all = append(all, node)
		}
	}
	for _, c := range n.link.Stats() {
		if c.Peer.Site == site {
			add(c.Peer.Node)
		}
	}
	for _, m := range n.away()[site] {
		add(m.Node)
	}
	for _, c := range n.siteContacts()[site] {
		add(c.Node)
	}
	return all
}

// moves is a reader that says how much has come out of it, at each time.
type moves struct {
	io.Reader
	moved func(n int)
}

func (m moves) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if n > 0 {
		m.moved(n)
	}
	return n, err
}

// askSite asks one agent.
func (n *Node) askSite(ctx context.Context, site mesh.Site, node mesh.NodeID, path string, body []byte) ([]byte, error) {
	status, answer, err := postSite(ctx, newClient(func(ctx context.Context) (net.Conn, error) { return n.openCall(ctx, node) }), path, body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("agent %s: %w", node, err)
	case len(answer) > maxSite:
		return nil, &SiteError{site, node, http.StatusBadGateway, fmt.Sprintf("an answer of more than %d bytes", maxSite)}
	case status != http.StatusOK:
		return nil, &SiteError{site, node, status, string(bytes.TrimSpace(answer[:min(len(answer), maxReasonText)]))}
	}
	return answer, nil
}

// postSite is one question. It is given up when nothing moves for 5 s, or too little for
// long: what is large takes long on a slow line.
func postSite(ctx context.Context, client *http.Client, path string, body []byte) (status int, answer []byte, err error) {
	still := siteTime / siteTries
	if len(body) > longSite {
		still = siteTime // what is on its way at the end is not seen to move
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(still, func() { cancel(fmt.Errorf("nothing has moved for %v", still)) })
	defer timer.Stop()
	began, all := time.Now(), new(atomic.Int64)
	moved := func(n int) { // the question may still move when the answer does
		if time.Since(began) > siteMost+time.Duration(all.Add(int64(n)))*time.Second/slowSite {
			cancel(fmt.Errorf("less than %d KiB a second have moved", slowSite>>10))
		}
		timer.Reset(still)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://site"+path, moves{bytes.NewReader(body), moved})
	if err != nil {
		return 0, nil, err
	}
	req.ContentLength = int64(len(body))
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, because(ctx, err)
	}
	defer resp.Body.Close()
	moved(0)
	if answer, err = io.ReadAll(moves{io.LimitReader(resp.Body, maxSite+1), moved}); err != nil {
		err = because(ctx, err)
	}
	return resp.StatusCode, answer, err
}

// because is why a context has ended, where that is why something failed.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

const maxReasonText = 1 << 10

// serveSites answers what other sites ask; and agents of this one, that pass it on.
func (n *Node) serveSites(mux *http.ServeMux) {
	for path, call := range n.siteCalls() {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			from, _ := callerOf(r.Context())
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSite))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			passed := from.Site == n.id.Site() && r.Header.Get(headSite) != ""
			if n.leads() == nil && !passed {
				n.passOn(w, r, from.Site, path, body)
				return
			}
			if passed { // that agent has looked at the certificate
				from.Site = mesh.Site(r.Header.Get(headSite))
			}
			var answer []byte
			if err = n.leadsNow(r.Context()); err == nil {
				answer, err = call(r.Context(), from.Site, body)
			}
			switch {
			case errors.Is(err, api.ErrNotLeader):
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			case err != nil:
				http.Error(w, err.Error(), http.StatusConflict)
			default:
				_, _ = w.Write(answer)
			}
		})
	}
}

// leadsNow tells whether this agent leads the site, and its state has all that was
// decided.
func (n *Node) leadsNow(ctx context.Context) error {
	if n.leads() == nil || !n.founded() {
		return fmt.Errorf("%w: it is about to, or another one does", api.ErrNotLeader)
	}
	return n.Current(ctx)
}

// passOn has the leader answer another site.
func (n *Node) passOn(w http.ResponseWriter, r *http.Request, from mesh.Site, path string, body []byte) {
	unavailable := func(err error) { http.Error(w, err.Error(), http.StatusServiceUnavailable) }
	leader := n.Leader()
	if leader == "" || leader == n.id.Node() {
		unavailable(api.ErrNoLeader)
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://leader"+path, bytes.NewReader(body))
	if err != nil {
		unavailable(err)
		return
	}
	req.Header.Set(headSite, string(from))
	resp, err := n.toLeader.Do(req)
	if err != nil {
		unavailable(fmt.Errorf("the leader %s: %w", leader, err))
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(resp.Body, maxSite))
}

// foreign answers agents of other sites, and nothing but that.
func (n *Node) foreign() http.Handler {
	mux := http.NewServeMux()
	n.serveSites(mux)
	n.servePassed(mux)
	wrong := astray{now: n.uptime, tell: func(s string) { n.tell("site", s) }}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		from, _ := callerOf(r.Context())
		wrong.asked(from, r.Method, r.URL.Path)
		http.Error(w, fmt.Sprintf("site %s answers no %s %s to other sites", n.id.Site(), r.Method, r.URL.Path), http.StatusNotFound)
	})
	return mux
}

// astray tells of questions of other sites that nobody answers there: of one a minute,
// and how many there were besides.
type astray struct {
	now  func() dataflow.Time
	tell func(string)

	mu   sync.Mutex // guards what follows
	next dataflow.Time
	more int
}

func (a *astray) asked(from mesh.Peer, method, path string) {
	a.mu.Lock()
	now, more := a.now(), a.more
	due := now >= a.next
	if a.more++; due {
		a.next, a.more = now+again, 0
	}
	a.mu.Unlock()
	if !due {
		return
	}
	besides := ""
	if more > 0 {
		besides = fmt.Sprintf("; since such a thing was told last %d were asked besides", more)
	}
	a.tell(fmt.Sprintf("agent %s of site %s asked for %.16s %.200s, which is for agents of this site%s", from.Node, from.Site, method, path, besides))
}

// Sites is api.Backend's: this site and all others that this agent knows, and what they say of
// themselves now.
func (n *Node) Sites(ctx context.Context) []api.Site {
	ctx, cancel := context.WithTimeout(ctx, siteTime/siteTries)
	defer cancel()
	here := n.away()
	names := map[mesh.Site]bool{n.id.Site(): true}
	for site := range here {
		names[site] = true
	}
	for site := range n.siteContacts() {
		names[site] = true
	}
	answers := make(chan api.Site, len(names))
	for site := range names {
		go func() { answers <- n.describeSite(ctx, site, len(here[site])) }()
	}
	all := make([]api.Site, 0, len(names))
	for range names {
		all = append(all, <-answers)
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Self != all[j].Self {
			return all[i].Self
		}
		return all[i].Site < all[j].Site
	})
	return all
}

// describeSite asks a site what it is.
func (n *Node) describeSite(ctx context.Context, site mesh.Site, agents int) api.Site {
	s := api.Site{Site: string(site), Self: site == n.id.Site(), Seen: agents}
	if s.Self {
		s.Reachable = true
		for _, m := range n.gossipMembers() {
			if m.Status == mesh.Alive || m.Status == mesh.Suspect {
				s.Seen++
			}
		}
	}
	n.wan.mu.Lock()
	if k, ok := n.wan.sites[site]; ok {
		s.Reachable, s.Since = k.here, k.since.GoTime().UTC().Format(time.RFC3339)
	}
	n.wan.mu.Unlock()
	began := time.Now()
	text, err := n.CallSite(ctx, site, PathSiteSelf, nil)
	var self api.SiteSelf
	if err == nil {
		s.RoundTrip = max(1, time.Since(began).Microseconds())
		err = json.Unmarshal(text, &self)
	}
	if err != nil {
		s.Why = strings.ReplaceAll(err.Error(), "\n", "; ")
		return s
	}
	s.Answers, s.Mesh, s.Leader, s.Agents, s.Voters, s.Level, s.Index = true, self.Mesh, self.Leader, self.Agents, self.Voters, self.Level, self.Index
	return s
}
