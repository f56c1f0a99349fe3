package jobmanager

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// sorted are a map's keys in order.
func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func (a *apply) leaderBegan(c *coordinator.LeaderBegan) error {
	switch {
	case c.Node == "" || len(c.Node) > MaxName:
		return refuse(ErrRefused, "a leader without a node, or with a name that is too long")
	case c.Term == a.Term && c.Node == a.Leader:
		a.isolate(c.Isolated)
		return nil
	case c.Term <= a.Term:
		return refuse(ErrStale, "a leader of term %d: that of term %d has begun, on %s", c.Term, a.Term, a.Leader)
	}
	a.Term, a.Leader = c.Term, c.Node
	a.isolate(c.Isolated)
	a.changed(Leader, "")
	return nil
}

func (a *apply) siteFounded(c *coordinator.SiteFounded) error {
	switch {
	case c.Mesh == "" || c.Site == "" || len(c.Mesh) > MaxName || len(c.Site) > MaxName:
		return refuse(ErrRefused, "a site needs its own name and its mesh's, of at most %d bytes", MaxName)
	case a.Mesh == c.Mesh && a.Site == c.Site:
		return nil
	case a.Mesh != "":
		return refuse(ErrExists, "this is site %q of mesh %q", a.Site, a.Mesh)
	}
	a.Mesh, a.Site = c.Mesh, c.Site
	a.changed(Site, "")
	return nil
}

// Admits tells whether the state takes an agent in as it says that it is, or what
// it has to do for that.
func Admits(st *coordinator.State, c *coordinator.Agent) error {
	switch {
	case c.Node == "" || c.Name == "" || len(c.Node) > MaxName || len(c.Name) > MaxName:
		return refuse(ErrRefused, "an agent needs a node and a name, of at most %d bytes", MaxName)
	case max(len(c.Host), len(c.Link), len(c.HTTP), len(c.Version)) > MaxText || len(c.Labels) > MaxName || c.Slots < 0:
		return refuse(ErrRefused, "agent %q: a text that is too long, too many labels, or less than no slots", c.Name)
	case c.Level < st.Level:
		return refuse(ErrRefused, "agent %q knows feature level %d, and level %d is in force: give it a newer program", c.Name, c.Level, st.Level)
	case st.Level >= coordinator.AdoptLevel && st.Agents[c.Node] == nil && st.Removed[c.Node] != nil:
		// Its last Hello may have been under way when it was taken out.
		return refuse(ErrRefused, "agent %q was taken out of the site: it joins again with a token", st.Removed[c.Node].Name)
	case st.Agents[c.Node] == nil && len(st.Agents) >= MaxAgents:
		return refuse(ErrRefused, "the site has %d agents, and no more are possible: remove those that are gone for good", MaxAgents)
	}
	for _, node := range sorted(st.Agents) {
		if st.Agents[node].Name == c.Name && node != c.Node {
			return refuse(ErrExists, "agent %q is %s already: give this one another name, or remove that one", c.Name, node)
		}
	}
	return nil
}

func (a *apply) agentJoined(c *coordinator.Agent) error {
	if err := Admits(a.State, c); err != nil {
		return err
	}
	joined := *c
	joined.Labels = maps.Clone(c.Labels)
	if old := a.Agents[c.Node]; old != nil && old.Equal(&joined) {
		return nil
	}
	a.Agents[c.Node] = &joined
	delete(a.Removed, c.Node)
	a.changed(Agent, string(c.Node))
	return nil
}

func (a *apply) agentLeft(c *coordinator.AgentLeft) error {
	if a.Agents[c.Node] == nil {
		return refuse(ErrUnknown, "no agent %q", c.Node)
	}
	a.remove(a.Agents[c.Node])
	a.changed(Agent, string(c.Node))
	for _, id := range sorted(a.Tokens) { // what let it in once does so no more for nothing
		if t := a.Tokens[id]; slices.Contains(t.Nodes, c.Node) {
			next := *t
			next.Nodes = slices.DeleteFunc(slices.Clone(t.Nodes), func(n mesh.NodeID) bool { return n == c.Node })
			a.Tokens[id] = &next
			a.changed(Token, id)
		}
	}
	// What it committed is gone with its disk, or nobody's business any more.
	for _, id := range sorted(a.Jobs) {
		job := a.Jobs[id]
		of := func(s coordinator.SinkCommit) bool { return s.Node == c.Node }
		if slices.ContainsFunc(job.Sinks, of) {
			next := *job
			next.Sinks = slices.DeleteFunc(slices.Clone(job.Sinks), of)
			a.put(&next)
		}
	}
	return nil
}

// remove notes an agent as one that nobody lets in.
func (a *apply) remove(agent *coordinator.Agent) {
	delete(a.Agents, agent.Node)
	a.Removed[agent.Node] = &coordinator.Removed{Node: agent.Node, Name: agent.Name, At: a.c.At}
	if len(a.Removed) <= MaxRemoved {
		return
	}
	var first *coordinator.Removed
	for _, node := range sorted(a.Removed) {
		if r := a.Removed[node]; first == nil || r.At < first.At {
			first = r
		}
	}
	delete(a.Removed, first.Node)
}

func (a *apply) levelRaised(c *coordinator.LevelRaised) error {
	switch {
	case c.Level == a.Level:
		return nil
	case c.Level < a.Level:
		return refuse(ErrStale, "feature level %d is in force: it never goes down", a.Level)
	}
	for _, node := range sorted(a.Agents) {
		if agent := a.Agents[node]; agent.Level < c.Level {
			return refuse(ErrRefused, "agent %q knows feature level %d only", agent.Name, agent.Level)
		}
	}
	before := a.Level
	a.Level = c.Level
	a.changed(Level, "")
	if life := coordinator.Life(a.Index); life > 0 && before < coordinator.SettledLevel {
		a.revive(life) // it was recovered before that
	}
	return nil
}

func (a *apply) tokenCreated(c *coordinator.Token) error {
	if err := manifest.CheckName(c.ID); err != nil {
		return refuse(ErrRefused, "a token's id %q: use letters, digits, '-', '_' and '.'", c.ID)
	}
	switch {
	case len(c.Hash) != sha256.Size:
		return refuse(ErrRefused, "token %s: its hash has %d bytes, not %d", c.ID, len(c.Hash), sha256.Size)
	case c.Uses != -1 && (c.Uses < 1 || c.Uses > MaxTokenUses):
		return refuse(ErrRefused, "token %s: %d uses; 1 to %d are possible, or any number", c.ID, c.Uses, MaxTokenUses)
	case a.Tokens[c.ID] != nil:
		return refuse(ErrExists, "token %s is there already", c.ID)
	case (c.Founds != "") != (len(c.Sealed) > 0) || c.Founds != "" && c.Uses != 1 || len(c.Sealed) > MaxSealed || len(c.Founds) > MaxName:
		return refuse(ErrRefused, "token %s: one that founds a site has its key, of at most %d bytes, and one use", c.ID, MaxSealed)
	case c.Founds != "" && c.Founds == a.Site:
		return refuse(ErrExists, "this is site %s: another one has another name", a.Site)
	}
	if len(a.Tokens) >= MaxTokens && !a.dropToken() {
		return refuse(ErrRefused, "there are %d tokens: revoke some first", MaxTokens)
	}
	token := *c
	token.Hash, token.Sealed, token.Nodes, token.Revoked = bytes.Clone(c.Hash), bytes.Clone(c.Sealed), nil, false
	a.Tokens[c.ID] = &token
	a.changed(Token, c.ID)
	return nil
}

// dropToken removes the oldest token that admits nobody any more.
func (a *apply) dropToken() bool {
	var dead *coordinator.Token
	for _, id := range sorted(a.Tokens) {
		t := a.Tokens[id]
		if (t.Revoked || t.Uses == 0 || t.Expires < a.c.At) && (dead == nil || t.Created < dead.Created) {
			dead = t
		}
	}
	if dead == nil {
		return false
	}
	delete(a.Tokens, dead.ID)
	a.changed(Token, dead.ID)
	return true
}

func (a *apply) tokenUsed(c *coordinator.TokenUsed) error {
	t := a.Tokens[c.ID]
	switch {
	case t == nil || !bytes.Equal(t.Hash, c.Hash):
		return refuse(ErrUnknown, "no such token: ask for a new one on an agent of the site")
	case c.Node == "" || len(c.Node) > MaxName:
		return refuse(ErrRefused, "token %s: for no node, or one with a name that is too long", c.ID)
	case t.Revoked:
		return refuse(ErrRefused, "token %s was revoked", c.ID)
	case t.Expires < a.c.At:
		return refuse(ErrRefused, "token %s expired at %s", c.ID, t.Expires)
	case t.Uses == 0 && !slices.Contains(t.Nodes, c.Node):
		return refuse(ErrRefused, "token %s has no uses left", c.ID)
	}
	if a.Level >= coordinator.AdoptLevel && a.Removed[c.Node] != nil && t.Founds == "" { // it may join again
		delete(a.Removed, c.Node)
		a.changed(Agent, string(c.Node))
	}
	if t.Uses < 0 || slices.Contains(t.Nodes, c.Node) {
		return nil
	}
	next := *t
	next.Uses--
	next.Nodes = append(slices.Clone(t.Nodes), c.Node)
	a.Tokens[c.ID] = &next
	a.changed(Token, c.ID)
	return nil
}

func (a *apply) tokenRevoked(c *coordinator.TokenRevoked) error {
	t := a.Tokens[c.ID]
	switch {
	case t == nil:
		return refuse(ErrUnknown, "no token %q", c.ID)
	case t.Revoked:
		return nil
	}
	next := *t
	next.Revoked = true
	a.Tokens[c.ID] = &next
	a.changed(Token, c.ID)
	return nil
}

// cloneNodes is for slices that commands bring: the state keeps its own.
func cloneNodes(nodes []mesh.NodeID) []mesh.NodeID { return slices.Clone(nodes) }
