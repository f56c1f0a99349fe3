package node

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// pipe is a stream from an agent to itself: the leader is an agent like the
// others. What is written waits in memory; it is bounded by its users, who
// answer each other.
type pipe struct {
	in, out *half
	peer    mesh.Peer
}

// half is one direction.
type half struct {
	mu     sync.Mutex // guards what follows
	more   sync.Cond
	data   []byte
	ended  bool // nothing will be written any more
	broken bool
}

func newHalf() *half {
	h := &half{}
	h.more.L = &h.mu
	return h
}

// newPipe makes both ends.
func newPipe(self mesh.Peer) (mesh.Stream, mesh.Stream) {
	a, b := newHalf(), newHalf()
	return &pipe{in: a, out: b, peer: self}, &pipe{in: b, out: a, peer: self}
}

// Read is mesh.Stream's.
func (p *pipe) Read(b []byte) (int, error) {
	h := p.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.data) == 0 && !h.ended && !h.broken {
		h.more.Wait()
	}
	switch {
	case h.broken:
		return 0, io.ErrClosedPipe
	case len(h.data) == 0:
		return 0, io.EOF
	}
	n := copy(b, h.data)
	h.data = h.data[n:]
	return n, nil
}

// Write is mesh.Stream's.
func (p *pipe) Write(b []byte) (int, error) {
	h := p.out
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended || h.broken {
		return 0, io.ErrClosedPipe
	}
	h.data = append(h.data, b...)
	h.more.Broadcast()
	return len(b), nil
}

// CloseWrite is mesh.Stream's.
func (p *pipe) CloseWrite() error {
	p.out.end(func(h *half) { h.ended = true })
	return nil
}

// Close is mesh.Stream's.
func (p *pipe) Close() error {
	p.in.end(func(h *half) { h.broken = true })
	p.out.end(func(h *half) { h.ended = true })
	return nil
}

func (h *half) end(how func(*half)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	how(h)
	h.more.Broadcast()
}

var errNoDeadline = errors.New("a stream to oneself has no deadline")

// SetDeadline is mesh.Stream's; only the zero time is possible.
func (p *pipe) SetDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return errNoDeadline
}

// Peer is mesh.Stream's.
func (p *pipe) Peer() mesh.Peer { return p.peer }
