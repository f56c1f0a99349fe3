package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/gossip"
	"github.com/tidemark-mesh/tidemark/mesh/join"
)

// wan is what an agent knows of the other sites of its mesh: whom it sees in the
// gossip of all sites, and where it may look for those of whom it sees nobody.
type wan struct {
	pool atomic.Pointer[gossip.Pool] // nil until it is started
	find search                      // of the pool's goroutine that joins

	mu    sync.Mutex // guards what follows
	kept  map[mesh.Site][]join.Contact
	news  int // how often kept has changed
	saved int // the change up to which it is written down
	sites map[mesh.Site]seen
}

// seen tells whether somebody of a site is seen, and since when that is so.
type seen struct {
	here  bool
	since dataflow.Time // of this agent's wall clock
}

// mostSites bounds how many other sites are remembered: those beyond are reached
// while they are seen. A leader writes to so many, and what is for another one is lost.
const mostSites = 256

// mostSiteContacts is how many addresses of a site are remembered.
const mostSiteContacts = 8

// startWAN begins to gossip with the agents of all sites.
func (n *Node) startWAN(ends *ends) (err error) {
	c, a := n.o.Config, n.agent()
	if n.wan.kept, err = readSites(c.DataDir); err != nil {
		return err
	}
	delete(n.wan.kept, n.id.Site()) // no other one
	for _, o := range n.sponsors {
		n.wan.kept[o.Site] = remember(n.wan.kept[o.Site], []join.Contact{o})
	}
	if len(n.sponsors) > 0 {
		if err := n.writeSites(n.wan.kept); err != nil {
			return err
		}
	}
	profile := gossip.WAN
	if config.Loopback(c.Bind) {
		profile = gossip.LoopbackWAN
	}
	pool, err := gossip.Start(gossip.Config{
		Bind: c.WANBind, Advertise: c.WANAdvertise, Key: n.id.GossipKey(), Label: n.id.Mesh(),
		Self: mesh.Member{Node: a.Node, Boot: n.boot, Name: a.Name, Site: n.id.Site(), Link: a.Link, Version: a.Version, Level: a.Level},
		Join: n.sponsorsGiven(), Known: n.wanMates, Seek: n.seekSites, Profile: profile, Events: n.hearWAN,
		Refuse: func(node mesh.NodeID) bool { return n.removed(node) != nil },
	})
	if err != nil {
		return err
	}
	n.wan.pool.Store(pool)
	ends.add(pool.Close)
	return nil
}

// sponsorsGiven are addresses of agents of another site: of the one that let this
// one be founded.
func (n *Node) sponsorsGiven() (all []string) {
	if n.sponsored() {
		for _, j := range n.o.Config.Join {
			all = append(all, config.WANOf(j))
		}
	}
	return all
}

// sponsored tells whether another site let this agent found its own: then --join
// is of that one.
func (n *Node) sponsored() bool { return n.founding != nil && n.founding.Token.ID == "" }

// wanMates are where this site's agents gossip with other sites, unless their users
// chose another port: then they find each other through other sites. Gossip knows those
// of a site that has no leader, where the state may not be read yet.
func (n *Node) wanMates() (all []string) {
	for _, m := range n.gossipMembers() {
		if m.Node != n.id.Node() && m.Status == mesh.Alive && m.Link != "" {
			all = append(all, config.WANOf(m.Link))
		}
	}
	n.replica.view(func(st *coordinator.State) {
		for id, a := range st.Agents {
			if at := config.WANOf(a.Link); id != n.id.Node() && a.Link != "" && !slices.Contains(all, at) {
				all = append(all, at)
			}
		}
	})
	return all
}

// wanMembers are all agents of the mesh that are known, those of this site among them.
func (n *Node) wanMembers() []mesh.Member {
	if pool := n.wan.pool.Load(); pool != nil {
		return pool.Members()
	}
	return nil
}

// away are the agents of other sites that are seen now, by site.
func (n *Node) away() map[mesh.Site][]mesh.Member {
	all := make(map[mesh.Site][]mesh.Member)
	for _, m := range n.wanMembers() {
		if m.Site != n.id.Site() && (m.Status == mesh.Alive || m.Status == mesh.Suspect) {
			all[m.Site] = append(all[m.Site], m)
		}
	}
	return all
}

// packLevel is the feature level from which on agents know of packed logs and parts.
const packLevel = coordinator.GoesOnLevel

// packs tells whether an agent of another site knows of packed logs and parts.
func (n *Node) packs(node mesh.NodeID) bool {
	for _, m := range n.wanMembers() {
		if m.Node == node {
			return m.Level >= packLevel
		}
	}
	return false
}

// levelAt is the feature level that all agents of another site know that are seen; 0:
// none is.
func (n *Node) levelAt(site mesh.Site) (least uint32) {
	for i, m := range n.away()[site] {
		if i == 0 || m.Level < least {
			least = m.Level
		}
	}
	return least
}

// leaveWAN tells other sites, if there are any, that this agent goes.
func (n *Node) leaveWAN(ctx context.Context) {
	if len(n.away()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	_ = n.wan.pool.Load().Leave(ctx) // who has not heard it notices
}

// hearWAN passes on what gossip does not take, and notes where an agent is of which
// there is news: it may be gone before keepSites looks. Who comes and goes noteSites
// tells, by site; that nobody answers is no news where there may be no other site.
func (n *Node) hearWAN(e gossip.Event) {
	switch e.Kind {
	case gossip.Refused, gossip.Twin:
		n.tell("agent", e.String())
	case gossip.Alone:
	default:
		n.wan.mu.Lock()
		n.wan.meet(n.id.Site(), map[mesh.Site][]mesh.Member{e.Member.Site: {e.Member}})
		n.wan.mu.Unlock()
	}
}

// seekSites is where to look for sites of which nobody is seen.
func (n *Node) seekSites() []string {
	here := n.away()
	lost := make(map[mesh.Site][]string)
	for site, all := range n.siteContacts() {
		if len(here[site]) == 0 {
			for _, c := range all {
				lost[site] = append(lost[site], c.Gossip)
			}
		}
	}
	return n.wan.find.due(n.uptime(), lost)
}

// siteContacts are the last known addresses of other sites: those that this agent has
// seen itself, and those that the site remembers.
func (n *Node) siteContacts() map[mesh.Site][]join.Contact {
	all := make(map[mesh.Site][]join.Contact)
	n.wan.mu.Lock()
	for site, list := range n.wan.kept {
		all[site] = slices.Clone(list)
	}
	n.wan.mu.Unlock()
	return all
}

// search says when to look for what is lost: at once, then after longer and longer
// pauses, for ever.
type search struct {
	tries map[mesh.Site]try
}

type try struct {
	n    int // so far
	next dataflow.Time
}

// Pauses between two tries for the same site, and addresses in a try.
const (
	leastSeek = dataflow.Duration(10 * dataflow.Second)
	mostSeek  = dataflow.Duration(30 * dataflow.Second)
	seekAt    = 2
)

// due are the addresses to try now, some of those of each site that is lost and whose time
// has come. What is lost no more begins anew the next time.
func (s *search) due(now dataflow.Time, lost map[mesh.Site][]string) (to []string) {
	tries := make(map[mesh.Site]try)
	for _, site := range slices.Sorted(maps.Keys(lost)) {
		all, t := lost[site], s.tries[site]
		if len(all) > 0 && now >= t.next {
			for i := range min(seekAt, len(all)) {
				to = append(to, all[(t.n*seekAt+i)%len(all)])
			}
			pause := leastSeek / 10
			if t.n > 3 { // some quick ones first: who was just started is found soon
				pause = min(leastSeek<<min(t.n-4, 8), mostSeek)
			}
			t = try{t.n + 1, now.Add(pause)}
		}
		tries[site] = t
	}
	s.tries = tries
	return to
}

func sitesFile(data string) string { return filepath.Join(data, "sites.json") }

// readSites says where agents of other sites were last.
func readSites(data string) (map[mesh.Site][]join.Contact, error) {
	all := make(map[mesh.Site][]join.Contact)
	text, err := os.ReadFile(sitesFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; it may be removed", sitesFile(data), err)
	}
	if all == nil { // the file says null
		all = make(map[mesh.Site][]join.Contact)
	}
	return all, nil
}

// contactsOf are the addresses of members that are remembered.
func contactsOf(members []mesh.Member) (all []join.Contact) {
	for _, m := range members {
		if m.Link != "" && m.Gossip != "" {
			all = append(all, join.Contact{Node: m.Node, Link: m.Link, Gossip: m.Gossip, Site: m.Site})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Node < all[j].Node })
	return all[:min(len(all), mostSiteContacts)]
}

// remember adds where agents of a site are seen now to what is known of it: those come
// first, in their order, then those that are not seen, the lately seen before the others.
// Who is not seen stays: when a line goes down agents vanish one after the other, and the
// last one need not be where it was when the line is back. What it loses is an older
// address of the same agent, who was where another one is now, and the longest unseen
// where there are more than mostSiteContacts.
func remember(kept, seen []join.Contact) (all []join.Contact) {
	for _, c := range slices.Concat(seen, kept) {
		known := slices.ContainsFunc(all, func(o join.Contact) bool {
			return c.Node != "" && c.Node == o.Node || c.Link == o.Link && c.Gossip == o.Gossip
		})
		if !known && len(all) < mostSiteContacts {
			all = append(all, c)
		}
	}
	return all
}

// meet notes where agents are, by site. What is known of a site stays: see remember.
// Under mu.
func (w *wan) meet(self mesh.Site, here map[mesh.Site][]mesh.Member) {
	for _, site := range slices.Sorted(maps.Keys(here)) {
		known, ok := w.kept[site]
		all := remember(known, contactsOf(here[site]))
		if site == self || len(all) == 0 || slices.Equal(all, known) || !ok && len(w.kept) >= mostSites {
			continue
		}
		w.kept[site] = all
		w.news++
	}
}

// keepSites notes which sites are seen, and writes down where their agents are when that
// has changed.
func (n *Node) keepSites() error {
	here := n.away()
	n.noteSites(here)
	n.wan.mu.Lock()
	n.wan.meet(n.id.Site(), here)
	next, news, same := maps.Clone(n.wan.kept), n.wan.news, n.wan.news == n.wan.saved
	n.wan.mu.Unlock()
	if same {
		return nil
	}
	if err := n.writeSites(next); err != nil {
		return err
	}
	n.wan.mu.Lock()
	n.wan.saved = news
	n.wan.mu.Unlock()
	return nil
}

func (n *Node) writeSites(all map[mesh.Site][]join.Contact) error {
	text, err := json.Marshal(all)
	if err == nil {
		err = replace(sitesFile(n.o.Config.DataDir), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("where other sites are could not be written down yet: %w", err)
	}
	return nil
}

// noteSites tells which sites came and went.
func (n *Node) noteSites(here map[mesh.Site][]mesh.Member) {
	now := dataflow.Time(n.id.Now().UnixMicro())
	var news []string
	n.wan.mu.Lock()
	if n.wan.sites == nil {
		n.wan.sites = make(map[mesh.Site]seen)
	}
	for _, site := range slices.Sorted(maps.Keys(here)) {
		if s := n.wan.sites[site]; !s.here && (s.since != 0 || len(n.wan.sites) < mostSites) {
			n.wan.sites[site] = seen{true, now}
			news = append(news, fmt.Sprintf("site %s is seen", site))
		}
	}
	for _, site := range slices.Sorted(maps.Keys(n.wan.sites)) {
		if n.wan.sites[site].here && len(here[site]) == 0 {
			n.wan.sites[site] = seen{false, now}
			news = append(news, fmt.Sprintf("nobody of site %s is seen any more: this site goes on alone, and looks for it", site))
		}
	}
	n.wan.mu.Unlock()
	for _, text := range news {
		n.tell("site", text)
	}
}
