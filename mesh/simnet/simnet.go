package simnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/link"
)

// Timeout is how long a link may be cut before its connection is lost, as the
// idle timeout of mesh/link.
const Timeout = 3 * time.Second

// Net is a network of agents.
type Net struct {
	mu      sync.Mutex // guards all that follows; no handler or watcher is called under it
	nodes   map[mesh.NodeID]*Transport
	links   map[pair]*wires
	news    []func() // that watchers are to be told, in order
	telling bool     // somebody does
}

// pair is two nodes, the lower first.
type pair struct{ a, b mesh.NodeID }

func pairOf(a, b mesh.NodeID) pair { return pair{min(a, b), max(a, b)} }

// wires are what lies between two nodes.
type wires struct {
	cut    [2]bool // from a, from b
	since  int     // counts changes of cut, so that an old timer does nothing
	delay  time.Duration
	up     bool // a connection stands
	pipes  []*link.Pipe
	mended chan struct{} // closed when it is cut no more
}

// New makes a network.
func New() *Net {
	return &Net{nodes: make(map[mesh.NodeID]*Transport), links: make(map[pair]*wires)}
}

// New adds a node. A node of that name that was closed is there again.
func (n *Net) New(node mesh.NodeID, site mesh.Site) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.nodes[node]; old != nil && !old.closed {
		panic(fmt.Sprintf("simnet: two nodes named %q", node))
	}
	t := &Transport{net: n, peer: mesh.Peer{Node: node, Site: site, Addr: string(node) + ":1"}, handlers: make(map[mesh.Kind]func(mesh.Stream))}
	n.nodes[node] = t
	return t
}

// Cut loses all that a and b send each other from now on. What was sent arrives
// if the link is healed within Timeout; after that the connection is lost.
func (n *Net) Cut(a, b mesh.NodeID) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay loses all that from sends to. A connection needs both ways: it is
// lost after Timeout too.
func (n *Net) CutOneWay(from, to mesh.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := pairOf(from, to)
	w := n.wires(p)
	end := 0
	if from == p.b {
		end = 1
	}
	if !w.cut[0] && !w.cut[1] {
		w.mended = make(chan struct{})
		w.since++
		since := w.since
		time.AfterFunc(Timeout, func() { n.expire(p, since) })
	}
	w.cut[end] = true
	for _, pipe := range w.pipes {
		pipe.Hold(end, true)
	}
}

// expire loses the connection over a link that has been cut since then.
func (n *Net) expire(p pair, since int) {
	n.mu.Lock()
	w := n.wires(p)
	if w.since != since || !w.cut[0] && !w.cut[1] {
		n.mu.Unlock()
		return
	}
	n.lose(p, fmt.Errorf("%w: no answer for %v", mesh.ErrUnreachable, Timeout))
}

// Heal mends the link between a and b, both ways.
func (n *Net) Heal(a, b mesh.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heal(n.wires(pairOf(a, b)))
}

// HealAll mends every link.
func (n *Net) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.links {
		n.heal(w)
	}
}

func (n *Net) heal(w *wires) {
	if !w.cut[0] && !w.cut[1] {
		return
	}
	w.cut = [2]bool{}
	w.since++
	close(w.mended)
	for _, pipe := range w.pipes {
		pipe.Hold(0, false)
		pipe.Hold(1, false)
	}
}

// Isolate cuts a node off from all others, Rejoin ends that.
func (n *Net) Isolate(node mesh.NodeID) { n.each(node, n.Cut) }

// Rejoin heals all links of a node.
func (n *Net) Rejoin(node mesh.NodeID) { n.each(node, n.Heal) }

func (n *Net) each(node mesh.NodeID, do func(a, b mesh.NodeID)) {
	n.mu.Lock()
	var others []mesh.NodeID
	for o := range n.nodes {
		if o != node {
			others = append(others, o)
		}
	}
	n.mu.Unlock()
	slices.Sort(others)
	for _, o := range others {
		do(node, o)
	}
}

// Delay lets all that a and b write from now on arrive d later.
func (n *Net) Delay(a, b mesh.NodeID, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.wires(pairOf(a, b))
	w.delay = d
	for _, pipe := range w.pipes {
		pipe.Delay(d)
	}
}

// Break loses the connection between a and b at once: all its streams break. The
// next Open makes another one.
func (n *Net) Break(a, b mesh.NodeID) {
	n.mu.Lock()
	n.lose(pairOf(a, b), fmt.Errorf("%w: the connection broke", mesh.ErrUnreachable))
}

// Streams is the number of streams between a and b that are not over.
func (n *Net) Streams(a, b mesh.NodeID) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.wires(pairOf(a, b))
	w.sweep()
	return len(w.pipes)
}

func (n *Net) wires(p pair) *wires {
	w := n.links[p]
	if w == nil {
		w = &wires{}
		n.links[p] = w
	}
	return w
}

func (w *wires) sweep() {
	live := w.pipes[:0]
	for _, p := range w.pipes {
		if !p.Over() {
			live = append(live, p)
		}
	}
	clear(w.pipes[len(live):])
	w.pipes = live
}

// lose breaks all streams of a link and tells both nodes. It is called with mu
// locked and unlocks it.
func (n *Net) lose(p pair, why error) {
	w := n.wires(p)
	was := w.up
	w.up = false
	for _, pipe := range w.pipes {
		pipe.Break(why)
	}
	w.pipes = nil
	n.tell(p, was, false)
	n.unlock()
}

// tell has both nodes told what became of their link, once mu is free.
func (n *Net) tell(p pair, was, up bool) {
	if was == up {
		return
	}
	for _, ends := range [][2]mesh.NodeID{{p.a, p.b}, {p.b, p.a}} {
		if t := n.nodes[ends[0]]; t != nil && !t.closed {
			for _, f := range t.watchers {
				n.news = append(n.news, func() { f(ends[1], up) })
			}
		}
	}
}

// unlock frees mu and calls watchers.
func (n *Net) unlock() {
	defer n.mu.Unlock()
	if n.telling {
		return
	}
	n.telling = true
	for len(n.news) > 0 {
		f := n.news[0]
		n.news = n.news[1:]
		n.mu.Unlock()
		f()
		n.mu.Lock()
	}
	n.telling = false
}

// Transport is a node of the network.
type Transport struct {
	net  *Net
	peer mesh.Peer

	// Guarded by net.mu.
	handlers map[mesh.Kind]func(mesh.Stream)
	watchers []func(mesh.NodeID, bool)
	closed   bool
	started  bool
	own      []*link.Pipe // to itself

	running sync.WaitGroup // handlers
}

var _ mesh.Transport = (*Transport)(nil)

// Self is the node's id.
func (t *Transport) Self() mesh.NodeID { return t.peer.Node }

// Handle sets who takes the streams of a kind.
func (t *Transport) Handle(kind mesh.Kind, take func(mesh.Stream)) {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.started || t.handlers[kind] != nil {
		panic(fmt.Sprintf("simnet: a handler of kind %d is set twice, or after Start", kind))
	}
	t.handlers[kind] = take
}

// Watch adds a watcher. It must not block.
func (t *Transport) Watch(f func(mesh.NodeID, bool)) {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	t.watchers = append(t.watchers, f)
}

// Start lets others reach the node.
func (t *Transport) Start() {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	t.started = true
}

// Open opens a stream to a node.
func (t *Transport) Open(ctx context.Context, to mesh.NodeID, kind mesh.Kind) (mesh.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("stream to %s: %w: %w", to, mesh.ErrUnreachable, context.Cause(ctx))
	}
	s, wait, err := t.try(to, kind)
	if wait == nil {
		return s, err
	}
	late := time.NewTimer(Timeout)
	defer late.Stop()
	for wait != nil {
		select {
		case <-wait:
			s, wait, err = t.try(to, kind)
		case <-ctx.Done():
			return nil, fmt.Errorf("stream to %s: %w: %w", to, mesh.ErrUnreachable, context.Cause(ctx))
		case <-late.C:
			return nil, fmt.Errorf("stream to %s: %w: no answer for %v", to, mesh.ErrUnreachable, Timeout)
		}
	}
	return s, err
}

// try opens a stream, or says what to wait for.
func (t *Transport) try(to mesh.NodeID, kind mesh.Kind) (mesh.Stream, <-chan struct{}, error) {
	n := t.net
	n.mu.Lock()
	defer n.unlock()
	other := n.nodes[to]
	switch {
	case t.closed:
		return nil, nil, fmt.Errorf("stream to %s: %w: this transport is closed", to, mesh.ErrUnreachable)
	case other == nil:
		return nil, nil, fmt.Errorf("stream to %s: %w", to, mesh.ErrUnknown)
	case other.closed || !other.started:
		return nil, nil, fmt.Errorf("stream to %s: %w: nobody is there", to, mesh.ErrUnreachable)
	}
	if to == t.peer.Node {
		return t.connect(&wires{}, 0, other, kind)
	}
	p := pairOf(t.peer.Node, to)
	w := n.wires(p)
	if w.cut[0] || w.cut[1] {
		return nil, w.mended, nil
	}
	was := w.up
	w.up = true
	n.tell(p, was, true)
	end := 0
	if t.peer.Node == p.b {
		end = 1
	}
	return t.connect(w, end, other, kind)
}

// connect makes the stream, with this node at its end (0: a's, 1: b's).
func (t *Transport) connect(w *wires, end int, other *Transport, kind mesh.Kind) (mesh.Stream, <-chan struct{}, error) {
	take := other.handlers[kind]
	if take == nil {
		return nil, nil, fmt.Errorf("stream to %s: %w: it takes no streams of kind %d", other.peer.Node, mesh.ErrRefused, kind)
	}
	ends := [2]*Transport{t, other}
	if end == 1 {
		ends = [2]*Transport{other, t}
	}
	pipe := link.NewPipe(ends[0].peer, ends[1].peer, link.Window)
	pipe.Delay(w.delay)
	w.sweep()
	w.pipes = append(w.pipes, pipe)
	a, b := pipe.Ends()
	if end == 1 {
		a, b = b, a
	}
	if other == t {
		t.own = append(t.own, pipe)
	}
	other.running.Go(func() { take(b) })
	return a, nil, nil
}

// ErrClosed is why streams of a node that was closed break.
var ErrClosed = errors.New("the node was closed")

// Close takes the node off the network: its connections are lost at once, on
// both sides. It waits for its handlers.
func (t *Transport) Close() error {
	n := t.net
	n.mu.Lock()
	if t.closed {
		n.mu.Unlock()
		return nil
	}
	t.closed = true
	var pairs []pair
	for p := range n.links {
		if p.a == t.peer.Node || p.b == t.peer.Node {
			pairs = append(pairs, p)
		}
	}
	for _, pipe := range t.own {
		pipe.Break(fmt.Errorf("%w: %w", mesh.ErrUnreachable, ErrClosed))
	}
	n.mu.Unlock()
	slices.SortFunc(pairs, func(x, y pair) int { return strings.Compare(string(x.a+x.b), string(y.a+y.b)) })
	for _, p := range pairs {
		n.mu.Lock()
		n.lose(p, fmt.Errorf("%w: %w", mesh.ErrUnreachable, ErrClosed))
	}
	t.running.Wait()
	return nil
}
