package broker

import (
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// goodbye bounds the writing of the last packets to each client at Close.
const goodbye = 250 * time.Millisecond

// listener accepts connections for the server. Unlike the server's own
// listeners it knows every connection, from accepting it to its end, so that
// Close leaves none behind, not even one that never sent CONNECT.
type listener struct {
	ln      net.Listener
	goodbye func() // the server takes leave of all its clients

	sessions *sessions

	mu     sync.Mutex // guards what follows
	conns  map[*conn]struct{}
	closed bool
	wg     sync.WaitGroup // the goroutines of connections
}

func (l *listener) Init(*slog.Logger) error { return nil }
func (l *listener) ID() string              { return "tcp" }
func (l *listener) Address() string         { return l.ln.Addr().String() }
func (l *listener) Protocol() string        { return l.ln.Addr().Network() }

// Serve accepts until the listener is closed.
func (l *listener) Serve(establish listeners.EstablishFn) {
	for n := uint64(1); ; n++ {
		nc, err := l.ln.Accept()
		if err != nil {
			return
		}
		c := &conn{Conn: nc, came: n, sessions: l.sessions, ended: make(chan struct{})}
		if !l.add(c) {
			_ = c.Close()
			return
		}
		go func() {
			defer l.remove(c)
			_ = establish(l.ID(), c) // the server has logged it
		}()
	}
}

func (l *listener) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = struct{}{}
	l.wg.Add(1)
	return true
}

func (l *listener) remove(c *conn) {
	_ = c.Close()
	l.sessions.end(c)
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	l.wg.Done()
}

// Close stops accepting, has the server say goodbye to its clients, cuts the
// rest off, and waits.
//
// The server's own way to do it, which is the argument, asks for the lock of its
// list of clients while it has it, and hangs if a client goes in that moment.
func (l *listener) Close(listeners.CloseFn) {
	_ = l.ln.Close()
	l.mu.Lock()
	for c := range l.conns { // a client that does not read must not hold up the goodbye
		_ = c.SetWriteDeadline(time.Now().Add(goodbye))
	}
	l.mu.Unlock()
	l.goodbye()
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
