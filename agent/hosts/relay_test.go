//go:build hosts

package hosts

import (
	"net"
	"sync"
	"testing"
)

// relay stands between a client and a broker, in the place of a network.
type relay struct {
	ln   net.Listener
	to   string
	dial func(addr string) (net.Conn, error)
	wait sync.WaitGroup

	mu      sync.Mutex // guards what follows
	changed sync.Cond  // held or closed has changed
	held    bool       // bytes are taken from neither side: the cable is cut, and nobody is told
	refuse  bool       // new connections end at once
	closed  bool
	conns   map[net.Conn]bool

	down, up func([]byte) // see the bytes from and to the broker; nil: nobody looks
}

func newRelay(t *testing.T, to string, down, up func([]byte)) *relay {
	t.Helper()
	return newRelayTo(t, to, dialTCP, down, up)
}

func dialTCP(addr string) (net.Conn, error) { return net.Dial("tcp", addr) }

// newRelayBy is a relay to what only dial reaches.
func newRelayBy(t *testing.T, to string, dial func(addr string) (net.Conn, error)) *relay {
	t.Helper()
	return newRelayTo(t, to, dial, nil, nil)
}

func newRelayTo(t *testing.T, to string, dial func(addr string) (net.Conn, error), down, up func([]byte)) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, to: to, dial: dial, conns: make(map[net.Conn]bool), down: down, up: up}
	r.changed.L = &r.mu
	r.wait.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

func (r *relay) url() string { return "mqtt://" + r.ln.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.wait.Go(func() { r.serve(in) })
	}
}

func (r *relay) serve(in net.Conn) {
	defer in.Close()
	if !r.enter(in) {
		return
	}
	defer r.leave(in)
	out, err := r.dial(r.to)
	if err != nil {
		return
	}
	defer out.Close()
	if !r.enter(out) {
		return
	}
	defer r.leave(out)
	r.wait.Go(func() { r.pump(in, out, r.down) })
	r.pump(out, in, r.up)
}

// pump carries bytes one way, and ends both ways when it ends.
func (r *relay) pump(to, from net.Conn, see func([]byte)) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		for r.held && !r.closed && r.conns[from] {
			r.changed.Wait()
		}
		r.mu.Unlock()
		if see != nil {
			see(buf[:n])
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (r *relay) enter(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.held && !r.closed { // a SYN is not answered either; the kernel answers for us, and that is all
		r.changed.Wait()
	}
	if r.refuse || r.closed {
		return false
	}
	r.conns[c] = true
	return true
}

func (r *relay) leave(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// cut stops the bytes, without a word to either side, and mend lets them go on.
func (r *relay) cut()  { r.set(func() { r.held = true }) }
func (r *relay) mend() { r.set(func() { r.held, r.refuse = false, false }) }

// drop ends all connections.
func (r *relay) drop() {
	r.set(func() {
		for c := range r.conns {
			_ = c.Close()
		}
		clear(r.conns)
	})
}

// away ends all connections and takes no new ones.
func (r *relay) away() {
	r.set(func() { r.refuse = true })
	r.drop()
}

func (r *relay) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.changed.Broadcast()
}

func (r *relay) close() {
	_ = r.ln.Close()
	r.set(func() { r.closed = true })
	r.drop()
	r.wait.Wait()
}
