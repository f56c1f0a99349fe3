package node

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// calls is a net.Listener of the streams of mesh.Call that others open, and the
// owner of both ends of such streams here until they are over.
type calls struct {
	conns  chan net.Conn
	quit   chan struct{}
	once   sync.Once
	mu     sync.Mutex     // guards over, and linger's growth
	over   bool           // nothing lingers any more
	linger sync.WaitGroup // of streams that were closed, and whose last bytes are on their way
}

func newCalls() *calls { return &calls{conns: make(chan net.Conn), quit: make(chan struct{})} }

// take hands a stream to the HTTP server; it returns when that has it.
func (c *calls) take(s mesh.Stream) {
	select {
	case c.conns <- c.conn(s):
	case <-c.quit:
		_ = s.Close()
	}
}

// Accept is net.Listener's.
func (c *calls) Accept() (net.Conn, error) {
	select {
	case conn := <-c.conns:
		return conn, nil
	case <-c.quit:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's.
func (c *calls) Close() error {
	c.once.Do(func() { close(c.quit) })
	return nil
}

// wait waits for streams that linger; at most lingerTime. Those that are closed later
// do not.
func (c *calls) wait() error {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.linger.Wait()
	return nil
}

// lingerTime is how long a closed stream is given for its last bytes.
const lingerTime = 2 * time.Second

func (c *calls) conn(s mesh.Stream) *streamConn { return &streamConn{Stream: s, calls: c} }

// Addr is net.Listener's.
func (c *calls) Addr() net.Addr { return nodeAddr("mesh") }

// streamConn is a stream as a net.Conn: Close lets what was written arrive.
type streamConn struct {
	mesh.Stream
	calls *calls
	once  sync.Once
}

// Close is net.Conn's. The stream itself ends when the peer has taken everything
// and closed its end, or soon.
func (s *streamConn) Close() (err error) {
	s.once.Do(func() {
		err = s.CloseWrite()
		s.calls.mu.Lock()
		defer s.calls.mu.Unlock()
		if s.calls.over {
			_ = s.Stream.Close()
			return
		}
		s.calls.linger.Go(func() {
			end := time.AfterFunc(lingerTime, func() { _ = s.Stream.Close() })
			defer end.Stop()
			_, _ = io.Copy(io.Discard, s.Stream)
			_ = s.Stream.Close()
		})
	})
	return err
}

// LocalAddr is net.Conn's.
func (s *streamConn) LocalAddr() net.Addr { return nodeAddr("here") }

// RemoteAddr is net.Conn's.
func (s *streamConn) RemoteAddr() net.Addr { return nodeAddr(s.Peer().Node) }

// SetReadDeadline is net.Conn's. A stream has one for both directions; an HTTP
// server sets this one only to wake a read that is to end, and zero.
func (s *streamConn) SetReadDeadline(t time.Time) error { return s.SetDeadline(t) }

// SetWriteDeadline is net.Conn's.
func (s *streamConn) SetWriteDeadline(time.Time) error { return nil }

// nodeAddr is a node as a net.Addr.
type nodeAddr mesh.NodeID

// Network is net.Addr's.
func (nodeAddr) Network() string { return "mesh" }

// String is net.Addr's.
func (a nodeAddr) String() string { return string(a) }

type callerKey struct{}

// withCaller keeps who called, for handlers.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	if s, ok := c.(*streamConn); ok {
		return context.WithValue(ctx, callerKey{}, s.Peer())
	}
	return ctx
}

// callerOf is the agent whose certificate the call came with.
func callerOf(ctx context.Context) (mesh.Peer, bool) {
	p, ok := ctx.Value(callerKey{}).(mesh.Peer)
	return p, ok
}

// newClient makes calls to the agent that dial leads to, one connection for each.
func newClient(dial func(ctx context.Context) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives:   true, // it may be another one next time
		MaxIdleConnsPerHost: -1,
	}}
}
