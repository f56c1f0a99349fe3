package gossip

import (
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// tell gives Events what happened.
func (p *Pool) tell() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
		}
		for p.ctx.Err() == nil {
			e, ok, more := p.next()
			if !more {
				break
			}
			if ok && p.config.Events != nil {
				p.config.Events(e)
			}
		}
	}
}

// next takes the next member of which there may be something to tell.
func (p *Pool) next() (e Event, ok, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.odd) > 0 {
		e, p.odd = p.odd[0], p.odd[1:]
		return e, true, true
	}
	if len(p.dirty) == 0 {
		return e, false, false
	}
	m := p.members[p.dirty[0]]
	p.dirty = p.dirty[1:]
	if m == nil { // forgotten
		return e, false, true
	}
	m.dirty = false
	k, ok := happened(m.said, m.Member)
	if ok {
		m.said = m.Member
	}
	return Event{Kind: k, Member: m.Member}, ok, true
}

// join reaches the members that were given; then those that failed, because
// memberlist itself forgets them, and two halves of a pool would never find each
// other again; and those whose labels did not arrive.
func (p *Pool) join() {
	again := time.NewTicker(p.timing.again)
	defer again.Stop()
	said := false
	for turn := 0; ; turn++ {
		to, alone := p.missing(turn)
		if len(to) > 0 {
			if n, err := p.list.Join(to); err != nil && n == 0 && alone && !said && p.ctx.Err() == nil {
				said = true
				p.tellOdd(Event{Kind: Alone, Why: oneLine(err.Error())})
			}
		}
		said = said && alone
		select {
		case <-p.ctx.Done():
			return
		case <-again.C:
		}
	}
}

// missing is whom to try to reach: those of Config.Join and Config.Known while
// nobody is here, those of Config.Seek, one of those that failed, and who has this
// agent's identity.
func (p *Pool) missing(turn int) (to []string, alone bool) {
	if p.hasLeft() {
		return nil, false
	}
	var failed []mesh.Member
	alone = true
	for _, m := range p.Members() {
		switch {
		case m.Node == p.config.Self.Node:
		case m.Status == mesh.Failed:
			failed = append(failed, m)
		case m.Status != mesh.Left:
			alone = false
		}
	}
	if alone {
		to = append(to, p.config.Join...)
		if p.config.Known != nil {
			to = append(to, p.config.Known()...)
		}
	}
	if p.config.Seek != nil {
		to = append(to, p.config.Seek()...)
	}
	if len(failed) > 0 {
		to = append(to, failed[turn%len(failed)].Gossip)
	}
	p.mu.Lock()
	if p.twin != "" {
		to, p.twin = append(to, p.twin), ""
	}
	p.mu.Unlock()
	return append(to, p.lagging()...), alone
}

const maxLagging = 4 // asked at a time

// lagging are the addresses of members whose labels are not the newest here.
func (p *Pool) lagging() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var to []string
	for node, m := range p.members {
		if l := p.told[node]; m.Status == mesh.Alive && (l.Boot != m.Boot || l.Change < m.change) {
			to = append(to, m.Gossip)
		}
	}
	slices.Sort(to)
	return to[:min(len(to), maxLagging)]
}

// Suspect is a hint that a node may be gone, from somebody who lost a connection
// to it. It is asked at once; if it answers it is back. It does not block.
func (p *Pool) Suspect(node mesh.NodeID) {
	select {
	case p.suspect <- node:
	default:
	}
}

// ask asks suspects until they answer or have failed.
func (p *Pool) ask() {
	again := time.NewTicker(p.timing.probe)
	defer again.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case node := <-p.suspect:
			p.become(node, mesh.Alive, mesh.Suspect, 0)
		case <-again.C:
		}
		for _, m := range p.Members() {
			if m.Status == mesh.Suspect && p.ctx.Err() == nil && p.answers(m) {
				p.become(m.Node, mesh.Suspect, mesh.Alive, m.Boot)
			}
		}
	}
}

// become changes a member's status, if it is still what it was.
func (p *Pool) become(node mesh.NodeID, from, to mesh.MemberStatus, boot uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.members[node]; m != nil && m.Status == from && (boot == 0 || m.Boot == boot) {
		m.Status = to
		p.mark(m)
	}
}

func (p *Pool) answers(m mesh.Member) bool {
	host, port, err := net.SplitHostPort(m.Gossip)
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return false
	}
	_, err = p.list.Ping(lifeName(m.Node, m.Boot), &net.UDPAddr{IP: net.ParseIP(host), Port: n})
	return err == nil
}
