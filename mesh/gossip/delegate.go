package gossip

import (
	"fmt"
	"slices"
	"sort"

	"github.com/hashicorp/memberlist"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// delegate is what memberlist calls, some of it with its own lock held: nothing
// here blocks or calls it back.
type delegate struct{ *Pool }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
)

// NodeMeta is this agent's facts.
func (d delegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.facts
}

// NotifyMsg takes labels that somebody broadcast.
func (d delegate) NotifyMsg(data []byte) {
	l, err := readLabels(data)
	if err != nil {
		d.tellOdd(Event{Kind: Refused, Why: fmt.Sprintf("labels of a member are not understood: %v", err)})
		return
	}
	if d.learn(l) {
		d.broadcast(l)
	}
}

// GetBroadcasts are labels to tell.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.labels.GetBroadcasts(overhead, limit)
}

// LocalState is all labels that we know.
func (d delegate) LocalState(bool) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]labels, 0, len(d.told))
	for node, l := range d.told {
		if node == d.self.Node || d.members[node] != nil {
			all = append(all, l)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Node < all[j].Node })
	data, err := encMode().Marshal(all[:min(len(all), maxMembers)])
	if err != nil {
		return nil // cannot be: they are maps of strings
	}
	return data
}

// MergeRemoteState takes all labels that another member knows.
func (d delegate) MergeRemoteState(data []byte, _ bool) {
	all, err := readStates(data)
	if err != nil {
		d.tellOdd(Event{Kind: Refused, Why: fmt.Sprintf("labels of members are not understood: %v", err)})
		return
	}
	for _, l := range all {
		if d.learn(l) {
			d.broadcast(l)
		}
	}
}

// NotifyAlive refuses a life of a node that is no member.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if node, _, ok := lifeOf(n.Name); ok && d.refuses(node) {
		return ErrMember
	}
	return nil
}

// NotifyJoin: a life of a node began, or is back.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.lives(n) }

// NotifyUpdate: its facts changed.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.lives(n) }

// NotifyLeave: a life of a node ended.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	node, boot, ok := lifeOf(n.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.members[node]
	if !ok || m == nil || m.Boot != boot {
		return // an earlier life: the present one goes on
	}
	m.Status = mesh.Failed
	if m.leaving {
		m.Status = mesh.Left
	}
	d.order++
	m.gone = d.order
	d.mark(m)
	d.forget()
}

// lives notes a member as alive, with its facts.
func (p *Pool) lives(n *memberlist.Node) {
	f, err := readFacts(n.Meta)
	if err == nil && lifeName(f.Node, f.Boot) != n.Name {
		err = ErrMember
	}
	if err != nil {
		p.tellOdd(Event{Refused, mesh.Member{Gossip: n.Address()}, fmt.Sprintf("a member is not understood: %v", err)})
		return
	}
	if k, odd := p.live(f, n.Address()); odd != "" {
		p.tellOdd(Event{k, mesh.Member{Node: f.Node, Boot: f.Boot, Link: f.Link, Gossip: n.Address()}, odd})
	}
}

// NotifyConflict: a life is told of at another address than before. If it is this
// agent's, who runs there is to hear of it too.
func (d delegate) NotifyConflict(have, n *memberlist.Node) {
	f, err := readFacts(n.Meta)
	d.mu.Lock()
	mine := have.Name == lifeName(d.self.Node, d.self.Boot)
	if mine {
		d.twin = n.Address()
	}
	d.mu.Unlock()
	if !mine {
		return // that agent tells it
	}
	if err != nil || lifeName(f.Node, f.Boot) != n.Name {
		f = facts{}
	}
	d.tellOdd(Event{Twin, mesh.Member{Node: f.Node, Boot: f.Boot, Link: f.Link, Gossip: n.Address()}, mesh.ErrTwin.Error()})
}

// live is lives of facts that were understood; what it returns is to be told.
func (p *Pool) live(f facts, address string) (k Kind, odd string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.Node == p.self.Node {
		if f.Boot > p.self.Boot {
			return Twin, mesh.ErrTwin.Error()
		}
		return 0, ""
	}
	m := p.members[f.Node]
	switch {
	case m == nil && len(p.members) >= maxMembers:
		return Refused, fmt.Sprintf("too many members: beyond %d none is seen", maxMembers)
	case m == nil:
		m = &member{}
		p.members[f.Node] = m
	case f.Boot < m.Boot:
		return 0, "" // an earlier life
	}
	m.Member = mesh.Member{
		Node: f.Node, Boot: f.Boot, Name: f.Name, Site: f.Site, Link: f.Link, Gossip: address, HTTP: f.HTTP, Host: f.Host,
		Slots: f.Slots, Version: f.Version, Level: f.Level, Status: mesh.Alive,
	}
	m.leaving, m.change, m.gone = f.Leaving, f.Change, 0
	if l := p.told[f.Node]; l.Boot == f.Boot {
		m.Labels = l.Labels
	}
	p.mark(m)
	return 0, ""
}

// learn takes labels, and tells whether they were news.
func (p *Pool) learn(l labels) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	have, ok := p.told[l.Node]
	if l.Node == p.self.Node || ok && !l.newer(have) {
		return false
	}
	if !ok && len(p.told) > maxMembers && !p.unlearn() {
		return false
	}
	p.told[l.Node] = l
	if m := p.members[l.Node]; m != nil && m.Boot == l.Boot {
		m.Labels = l.Labels
		p.mark(m)
	}
	return true
}

// unlearn makes room for the labels of another node: those of one that is no
// member go. If it becomes one it is asked for them. Under mu.
func (p *Pool) unlearn() bool {
	for node := range p.told {
		if node != p.self.Node && p.members[node] == nil {
			delete(p.told, node)
			return true
		}
	}
	return false
}

// forget drops the longest gone members beyond the bound. Under mu.
func (p *Pool) forget() {
	var gone []*member
	for _, m := range p.members {
		if m.gone > 0 {
			gone = append(gone, m)
		}
	}
	slices.SortFunc(gone, func(a, b *member) int { return int(a.gone) - int(b.gone) })
	for _, m := range gone[:max(0, len(gone)-maxGone)] {
		delete(p.members, m.Node)
		delete(p.told, m.Node)
	}
}

// mark has Events told of a member. Under mu.
func (p *Pool) mark(m *member) {
	if !m.dirty {
		m.dirty = true
		p.dirty = append(p.dirty, m.Node)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// news is labels on their way to all.
type news struct {
	node mesh.NodeID
	data []byte
}

var _ memberlist.NamedBroadcast = news{}

func (n news) Name() string    { return string(n.node) }
func (n news) Message() []byte { return n.data }
func (news) Finished()         {}

func (n news) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(news)
	return ok && o.node == n.node
}

// broadcast tells everybody labels that are news. Long ones wait for the next
// exchange of states.
func (p *Pool) broadcast(l labels) {
	data, err := encMode().Marshal(l)
	if err == nil && len(data) <= maxBroadcast {
		p.labels.QueueBroadcast(news{l.Node, data})
	}
}
