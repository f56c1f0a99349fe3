package consensus

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// address is a node id as a net.Addr: the library's addresses are node ids, the
// mesh knows where a node is now.
type address mesh.NodeID

func (address) Network() string  { return "mesh" }
func (a address) String() string { return string(a) }

// layer gives the library its connections: streams of the mesh of kind Raft. It
// is the owner of all of them: Close ends them, also those that the library
// keeps for later.
type layer struct {
	transport mesh.Transport
	site      mesh.Site // streams of other sites are refused; empty: none are

	in     chan *conn
	ctx    context.Context // done when it is closed
	cancel context.CancelFunc

	mu    sync.Mutex // guards conns
	conns map[*conn]struct{}
}

var _ raft.StreamLayer = (*layer)(nil)

func newLayer(t mesh.Transport, site mesh.Site) *layer {
	l := &layer{transport: t, site: site, in: make(chan *conn), conns: make(map[*conn]struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	t.Handle(mesh.Raft, l.take)
	return l
}

// take hands a stream that another node opened to Accept. It waits until that
// has it.
func (l *layer) take(s mesh.Stream) {
	if l.site != "" && s.Peer().Site != l.site {
		_ = s.Close()
		return
	}
	c, err := l.own(s, s.Peer().Node)
	if err != nil {
		return
	}
	select {
	case l.in <- c:
	case <-l.ctx.Done():
		_ = c.Close()
	}
}

// own makes a connection that ends with the layer.
func (l *layer) own(s mesh.Stream, peer mesh.NodeID) (*conn, error) {
	c := &conn{Stream: s, layer: l, peer: peer}
	l.mu.Lock()
	closed := l.ctx.Err() != nil
	if !closed {
		l.conns[c] = struct{}{}
	}
	l.mu.Unlock()
	if closed {
		_ = s.Close()
		return nil, net.ErrClosed
	}
	return c, nil
}

// Accept waits for a stream that another node opens.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Dial opens a stream to a node.
func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx := l.ctx
	if timeout > 0 {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		ctx = bounded
	}
	s, err := l.transport.Open(ctx, mesh.NodeID(to), mesh.Raft)
	if err != nil {
		return nil, err
	}
	c, err := l.own(s, mesh.NodeID(to))
	if err != nil {
		return nil, err // and not a nil *conn
	}
	return c, nil
}

// Close ends all connections. It may be called again.
func (l *layer) Close() error {
	l.mu.Lock()
	l.cancel()
	conns := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Addr is this node.
func (l *layer) Addr() net.Addr { return address(l.transport.Self()) }

// conn is a stream as a net.Conn. A stream has one deadline for both directions:
// the library sets a read and a write deadline only before it reads or writes,
// always the same time ahead, so that the later of them is as good for both.
type conn struct {
	mesh.Stream
	layer *layer
	peer  mesh.NodeID
}

func (c *conn) LocalAddr() net.Addr                { return c.layer.Addr() }
func (c *conn) RemoteAddr() net.Addr               { return address(c.peer) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

// Close may be called again.
func (c *conn) Close() error {
	c.layer.mu.Lock()
	_, open := c.layer.conns[c]
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	if !open {
		return nil
	}
	return c.Stream.Close()
}
