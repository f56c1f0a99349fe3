package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
)

// What agents ask each other over mesh.Call, beside the API. These paths are not
// served on the API's port: only who has a certificate of the site reaches them.
const (
	pathJoin    = "/internal/join"    // a join.Request in CBOR; the answer is a join.Grant, or the text of why not
	pathKey     = "/internal/key"     // the site's intermediate, for a voter
	pathHasKey  = "/internal/key/has" // 200: the agent has it
	headRefusal = "Tidemark-Refusal"  // the code of join, of a request to join that is refused
	maxJoin     = 1 << 20
	joinTime    = 15 * time.Second
)

// issuer is the join.Issuer of an agent: it decides where this agent leads, and
// asks the leader where it does not.
type issuer struct{ n *Node }

// Issue is join.Issuer's.
func (i issuer) Issue(ctx context.Context, r join.Request) (join.Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	leader, _ := i.n.raft.Leader()
	switch leader {
	case "":
		return join.Grant{}, fmt.Errorf("%w: the site has no leader", join.ErrUnavailable)
	case i.n.id.Node():
		return i.n.admit(ctx, r)
	}
	return i.n.askToAdmit(ctx, r)
}

// admit decides about a request on the leader. Each step may be done twice.
func (n *Node) admit(ctx context.Context, r join.Request) (join.Grant, error) {
	var known *coordinator.Agent
	var kept *join.Token
	var taken string
	var used bool
	var founds mesh.Site
	var sealed []byte
	if n.leads() == nil || !n.founded() { // its state may lack what was decided before
		return join.Grant{}, fmt.Errorf("%w: this agent is about to lead the site", join.ErrUnavailable)
	}
	var level uint32 // in force
	n.replica.view(func(st *coordinator.State) {
		level = st.Level
		known = st.Agents[r.Node]
		if t := st.Tokens[r.Token]; t != nil {
			used, founds, sealed = slices.Contains(t.Nodes, r.Node), t.Founds, t.Sealed
			kept = &join.Token{Hash: t.Hash, Uses: t.Uses, Revoked: t.Revoked}
			if t.Expires != dataflow.MaxTime {
				kept.Expires = time.UnixMicro(int64(t.Expires))
			}
		}
		for id, a := range st.Agents {
			if a.Name == r.Name && id != r.Node {
				taken = string(id)
			}
		}
	})
	if used {
		kept.Uses = max(kept.Uses, 1) // the same node again costs nothing
	}
	if founds != "" {
		return n.letFound(ctx, r, kept, founds, sealed)
	}
	if err := join.CheckSite(n.id.Site(), r); err != nil {
		return join.Grant{}, err
	}
	switch {
	case r.Renewal() && known == nil:
		return join.Grant{}, join.ErrRemoved
	case taken != "":
		return join.Grant{}, fmt.Errorf("%w: the name %q is taken by agent %s; give another with --name", join.ErrRequest, r.Name, taken)
	}
	if !r.Renewal() {
		if err := join.CheckToken(kept, r, n.id.Now()); err != nil {
			return join.Grant{}, err
		}
		if max(r.Level, coordinator.BaseLevel) < level { // it would be refused for ever, and not cost a use
			return join.Grant{}, fmt.Errorf("%w: agent %q knows feature level %d, and level %d is in force: give it a newer program", join.ErrRequest, r.Name, r.Level, level)
		}
		if _, err := n.Propose(ctx, coordinator.Command{TokenUsed: &coordinator.TokenUsed{ID: r.Token, Hash: r.SecretHash[:], Node: r.Node}}); err != nil {
			return join.Grant{}, unavailable(err)
		}
		if known == nil {
			a := coordinator.Agent{Node: r.Node, Name: r.Name, Level: max(r.Level, 1), Version: r.Version, Link: r.Link}
			if _, err := n.Propose(ctx, coordinator.Command{AgentJoined: &a}); err != nil {
				return join.Grant{}, unavailable(err)
			}
		}
	}
	if n.parts(r.Node) {
		return join.Grant{}, fmt.Errorf("%w: the agent is being taken out of the site", join.ErrUnavailable)
	}
	if n.placed(r.Node) { // else keepRoster does it, when it is
		if err := n.raft.AddNonvoter(ctx, r.Node); err != nil {
			return join.Grant{}, unavailable(err)
		}
	}
	return n.grant(r)
}

// letFound lets a node found another site: it gets that site's key, which its token
// opens, and is no agent here.
func (n *Node) letFound(ctx context.Context, r join.Request, kept *join.Token, site mesh.Site, sealed []byte) (join.Grant, error) {
	if err := join.CheckToken(kept, r, n.id.Now()); err != nil {
		return join.Grant{}, err
	}
	if r.Site != "" && r.Site != site {
		return join.Grant{}, fmt.Errorf("%w: agent %q is to found site %s, and the token founds site %s", join.ErrRequest, r.Name, r.Site, site)
	}
	n.lettingFound.Lock()
	defer n.lettingFound.Unlock()
	if err := n.unfounded(site, r.Node, r.Token); err != nil {
		return join.Grant{}, fmt.Errorf("%w: %v", join.ErrRequest, err)
	}
	if _, err := n.Propose(ctx, coordinator.Command{TokenUsed: &coordinator.TokenUsed{ID: r.Token, Hash: r.SecretHash[:], Node: r.Node}}); err != nil {
		return join.Grant{}, unavailable(err)
	}
	g := join.Grant{Mesh: n.id.Mesh(), Site: site, Root: n.id.Root().Raw, Gossip: n.id.GossipKey(), Sealed: sealed}
	g.Members = n.sponsorsFor()
	return g, nil
}

// Unfounded is api.Backend's.
func (n *Node) Unfounded(site mesh.Site) error { return n.unfounded(site, "", "") }

// unfounded says why nobody, or nobody but a node with a token, may found a site: two of
// one name would each have its jobs, and others would speak now with the one, now with
// the other. One of which nobody is seen may be away only; that it is gone a person says,
// who revokes the token that founded it. And no id of a job is used twice.
func (n *Node) unfounded(site mesh.Site, node mesh.NodeID, token string) error {
	var by string
	var used error
	var gone bool
	n.replica.view(func(st *coordinator.State) {
		used = usedBefore(st, site)
		for _, id := range slices.Sorted(maps.Keys(st.Tokens)) {
			if t := st.Tokens[id]; id != token && t.Founds == site && len(t.Nodes) > 0 {
				if gone = gone || t.Revoked; !t.Revoked {
					by = id
				}
			}
		}
	})
	seen := slices.ContainsFunc(n.away()[site], func(m mesh.Member) bool { return m.Node != node })
	known := slices.ContainsFunc(n.siteContacts()[site], func(c join.Contact) bool { return c.Node != node })
	switch {
	case seen:
		return fmt.Errorf("site %s is there already: agents join it with a token of its own, from `tidemark token create` there", site)
	case by != "":
		return fmt.Errorf("site %s was founded already, with token %s: if that one is gone for good, `tidemark token revoke %s`, and try again", site, by, by)
	case used != nil:
		return used
	case known && !gone:
		return fmt.Errorf("site %s was there before, and nobody of it is seen now: it may only be away. Found it under another name; if it is gone for good, and one of its name is wanted, ask the site that has the token which founded it, and revoke that there first", site)
	}
	return nil
}

// usedBefore says why a site's name stays taken: jobs of a site of that name are known here.
// One that is forgotten no list shows.
func usedBefore(st *coordinator.State, site mesh.Site) error {
	job, known := st.AcceptedAt(site), "is known here"
	switch {
	case job == "":
		return nil
	case st.Forgotten[job] != nil:
		known = "is forgotten here, and on record still"
	}
	return fmt.Errorf("job %s, which %s, is of a site %s that was there before: a new one of that name would give its id to another job, or speak as the site that had it. The name stays taken: found it under another one", job, known, site)
}

// sponsorsFor are where agents of all sites gossip with each other, for the founder
// of a new one: those of this site, then some of each other one.
func (n *Node) sponsorsFor() (all []join.Contact) {
	by := n.away()
	for _, m := range n.wanMembers() {
		if m.Site == n.id.Site() && m.Status == mesh.Alive {
			by[m.Site] = append(by[m.Site], m)
		}
	}
	all = contactsOf(by[n.id.Site()])
	delete(by, n.id.Site())
	for _, site := range slices.Sorted(maps.Keys(by)) {
		all = append(all, contactsOf(by[site])...)
	}
	return all[:min(len(all), mostContacts)]
}

func unavailable(err error) error { return fmt.Errorf("%w: %v", join.ErrUnavailable, err) }

func (n *Node) grant(r join.Request) (join.Grant, error) {
	chain, err := n.id.Issue(r.CSR, r.Node, n.id.Site(), n.steady.now())
	switch {
	case errors.Is(err, identity.ErrRequest):
		return join.Grant{}, fmt.Errorf("%w: %v", join.ErrRequest, err)
	case err != nil:
		return join.Grant{}, unavailable(err)
	}
	g := join.Grant{Mesh: n.id.Mesh(), Site: n.id.Site(), Chain: chain, Root: n.id.Root().Raw}
	if !r.Renewal() {
		g.Gossip = n.id.GossipKey()
	}
	g.Members = n.contactsFor(r.Node)
	return g, nil
}

// contactsFor are addresses of agents that are alive, for one that is new, and of
// other sites, whether they are or not.
func (n *Node) contactsFor(node mesh.NodeID) (all []join.Contact) {
	for _, m := range n.Members() {
		if m.Status == mesh.Alive && m.Node != node && len(all) < mostContacts/2 {
			all = append(all, join.Contact{Node: m.Node, Link: m.Link, Gossip: m.Gossip})
		}
	}
	sites := n.siteContacts()
	for _, site := range slices.Sorted(maps.Keys(sites)) {
		for _, c := range sites[site] {
			if len(all) < mostContacts {
				c.Site = site
				all = append(all, c)
			}
		}
	}
	return all
}

// mostContacts is how many addresses a joiner is given.
const mostContacts = 64

// askToAdmit passes a request to the leader.
func (n *Node) askToAdmit(ctx context.Context, r join.Request) (join.Grant, error) {
	body, err := cbor.Marshal(r)
	if err != nil {
		return join.Grant{}, err
	}
	answer, resp, err := post(ctx, n.toLeader, pathJoin, body)
	if err != nil {
		return join.Grant{}, unavailable(err)
	}
	if resp.StatusCode != http.StatusOK {
		code, _ := strconv.Atoi(resp.Header.Get(headRefusal)) // none: it is of no kind
		return join.Grant{}, &refusal{join.Kind(code), string(bytes.TrimSpace(answer))}
	}
	var g join.Grant
	if err := cbor.Unmarshal(answer, &g); err != nil {
		return join.Grant{}, unavailable(err)
	}
	return g, nil
}

// refusal is the leader's reason as another agent hands it on: of the kind that
// it names, so that the applicant does not try in vain.
type refusal struct {
	kind error
	why  string
}

func (r *refusal) Error() string { return r.why }

// Unwrap is the kind.
func (r *refusal) Unwrap() error { return r.kind }

// post asks an agent something; the response's body was read.
func post(ctx context.Context, client *http.Client, path string, body []byte) ([]byte, *http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxJoin))
	return answer, resp, err
}

// internal are the paths that other agents ask for.
func (n *Node) internal(mux *http.ServeMux) {
	mux.HandleFunc("POST "+pathJoin, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxJoin))
		var q join.Request
		if err == nil {
			err = cbor.Unmarshal(body, &q)
		}
		var g join.Grant
		if err == nil {
			g, err = n.admit(r.Context(), q)
		}
		if err == nil {
			body, err = cbor.Marshal(g)
		}
		if err != nil {
			w.Header().Set(headRefusal, strconv.Itoa(join.Code(err)))
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		_, _ = w.Write(body)
	})
	n.serveKey(mux)
}
