package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// peer is a node that is, or was, connected, or is being dialled. It is guarded
// by Link.mu. There are as many as nodes that were ever named.
type peer struct {
	node    mesh.NodeID
	conns   [classes][]*conn // oldest first
	ended   [classes]Total   // what those that are no more in conns had done
	dials   [classes]*dial
	changed [classes]chan struct{} // closed when a connection comes
	probing bool

	// After a refusal, by either side, it is not dialled for a while: longer each
	// time, until a connection stands.
	rest    time.Duration
	until   time.Time
	refused error

	told bool // what the watchers know: up
	fell bool // it has been down since
}

func (p *peer) up() bool { return len(p.conns[control])+len(p.conns[data]) > 0 }

// conn is a connection on which both sides have welcomed each other.
type conn struct {
	q       *quic.Conn
	peer    mesh.Peer
	class   class
	boot    uint64 // of the peer's process
	dialled bool   // by this agent
	since   time.Time
	streams atomic.Int64 // that are open here
	why     atomic.Pointer[error]
	pacer   *pacer // of an agent of another site, where what is sent there is bounded
}

// dial is an attempt to reach a peer, which all who want it wait for.
type dial struct {
	done chan struct{}
	err  error // valid once done is closed
}

// of is the peer's entry; Link.mu is held.
func (l *Link) of(node mesh.NodeID) *peer {
	p := l.peers[node]
	if p == nil {
		p = &peer{node: node}
		for i := range p.changed {
			p.changed[i] = make(chan struct{})
		}
		l.peers[node] = p
	}
	return p
}

// pick is the connection for a new stream, or the dial to wait for.
func (l *Link) pick(node mesh.NodeID, k class) (*conn, *dial, <-chan struct{}, error) {
	if c := l.best(node, k); c != nil {
		return c, nil, nil, nil
	}
	addrs := l.cfg.Resolver.Addresses(node)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[node]
	switch {
	case l.closed:
		return nil, nil, nil, errClosing
	case p != nil && len(p.conns[k]) > 0:
		return p.best(l.cfg.Self, k), nil, nil, nil
	case p != nil && p.dials[k] == nil && time.Now().Before(p.until):
		return nil, nil, nil, fmt.Errorf("%w; it is asked again in %v at the latest", p.refused, p.rest)
	case p == nil || p.dials[k] == nil:
		if len(addrs) == 0 {
			return nil, nil, nil, mesh.ErrUnknown
		}
		p = l.of(node)
		d := &dial{done: make(chan struct{})}
		p.dials[k] = d
		l.wg.Go(func() { l.dial(d, node, k, addrs) })
	}
	return nil, p.dials[k], p.changed[k], nil
}

// spread is the connection for a new stream with bulk to an agent of another site: one
// carries little where packets get lost, so as many are dialled as the
// configuration says, when those that there are have streams already.
func (l *Link) spread(ctx context.Context, c *conn) *conn {
	if c.peer.Site == l.cfg.Site || l.cfg.Bulk < 2 {
		return c
	}
	for {
		l.mu.Lock()
		p := l.of(c.peer.Node)
		all := p.conns[data]
		best := c
		for _, o := range all {
			if o.streams.Load() < best.streams.Load() {
				best = o
			}
		}
		if best.streams.Load() == 0 || len(all) == 0 || len(all) >= l.cfg.Bulk || l.closed || time.Now().Before(p.until) {
			l.mu.Unlock()
			return best
		}
		d := p.dials[data]
		if d == nil {
			d = &dial{done: make(chan struct{})}
			p.dials[data] = d
			at := []string{c.peer.Addr}
			l.wg.Go(func() { l.dial(d, c.peer.Node, data, at) })
		}
		l.mu.Unlock()
		select {
		case <-d.done:
			if d.err != nil {
				return best
			}
		case <-ctx.Done():
			return best
		}
	}
}

// Limits of the rest after a refusal.
const (
	leastRest = 500 * time.Millisecond
	mostRest  = 30 * time.Second
)

// refusedBy notes that a peer does not let this agent in, or is not let in, so
// that nobody dials it in a tight loop. Link.mu is held.
func (p *peer) refusedBy(err error) {
	p.rest = min(max(2*p.rest, leastRest), mostRest)
	p.until, p.refused = time.Now().Add(p.rest), err
}

// Expel ends all connections to a node that is not let in any more, and tells it
// why. That it is not let in again is Security's to say.
func (l *Link) Expel(node mesh.NodeID, why error) {
	l.mu.Lock()
	var all []*conn
	if p := l.peers[node]; p != nil {
		for _, list := range p.conns {
			all = append(all, list...)
		}
	}
	l.mu.Unlock()
	for _, c := range all {
		c.why.CompareAndSwap(nil, &why)
		l.drop(c, why)
		l.refuse(c.q, c.peer, why)
	}
}

// best is the newest connection that the lower node dialled, or else the newest:
// both sides choose alike.
func (p *peer) best(self mesh.NodeID, k class) *conn {
	var found *conn
	for _, c := range p.conns[k] {
		if c.dialled == (self < p.node) || found == nil || found.dialled == c.dialled {
			found = c
		}
	}
	return found
}

func (l *Link) best(node mesh.NodeID, k class) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.peers[node]; p != nil {
		return p.best(l.cfg.Self, k)
	}
	return nil
}

var errOlder = fmt.Errorf("%w: a process of it that was started later is connected", mesh.ErrRefused)

// add makes a connection known. Those of a process of the peer that was before
// are let go.
func (l *Link) add(c *conn) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errClosing
	}
	p := l.of(c.peer.Node)
	var old []*conn
	for _, list := range p.conns {
		for _, o := range list {
			if o.boot > c.boot {
				l.mu.Unlock()
				return fmt.Errorf("node %s: %w", c.peer.Node, errOlder)
			}
			if o.boot < c.boot {
				old = append(old, o)
			}
		}
	}
	was := p.up()
	p.rest, p.until = 0, time.Time{}
	clear(l.said)
	p.conns[c.class] = append(p.conns[c.class], c)
	close(p.changed[c.class])
	p.changed[c.class] = make(chan struct{})
	if !p.probing && !l.cfg.NoProbe {
		p.probing = true
		l.wg.Go(func() { l.probe(p) })
	}
	l.mu.Unlock()
	if !was {
		l.cfg.Events(Event{Kind: PeerUp, Peer: c.peer})
		l.wake()
	}
	for _, o := range old {
		l.end(o, errors.New("it was started again"))
	}
	if len(old) > 0 {
		l.mu.Lock()
		p.fell = true
		l.mu.Unlock()
		l.wake()
	}
	return nil
}

// end closes a connection, and says so at once.
func (l *Link) end(c *conn, why error) {
	c.why.CompareAndSwap(nil, &why)
	l.drop(c, why)
	c.q.CloseWithError(codeClosed, why.Error()) //nolint:errcheck // always nil
}

// drop forgets a connection that has ended.
func (l *Link) drop(c *conn, why error) {
	l.mu.Lock()
	p := l.peers[c.peer.Node]
	i := slices.Index(p.conns[c.class], c)
	if i < 0 {
		l.mu.Unlock()
		return
	}
	p.conns[c.class] = slices.Delete(p.conns[c.class], i, i+1)
	p.ended[c.class].add(c.q.ConnectionStats())
	down := !p.up()
	p.fell = p.fell || down
	l.mu.Unlock()
	if down {
		l.cfg.Events(Event{Kind: PeerDown, Peer: c.peer, Why: text(why)})
		l.wake()
	}
}

func (l *Link) wake() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// tellWatchers is the goroutine that calls them. A peer has at most a fall and a
// rise that they have not been told: more in between are left out.
func (l *Link) tellWatchers() {
	for {
		select {
		case <-l.news:
		case <-l.ctx.Done():
			return
		}
		type news struct {
			node mesh.NodeID
			up   bool
		}
		var all []news
		l.mu.Lock()
		for _, p := range l.peers {
			if p.fell && p.told {
				all = append(all, news{p.node, false})
				p.told = false
			}
			if p.fell = false; p.up() && !p.told {
				all = append(all, news{p.node, true})
				p.told = true
			}
		}
		watchers := l.watchers
		l.mu.Unlock()
		for _, n := range all {
			for _, f := range watchers {
				f(n.node, n.up)
			}
		}
	}
}
