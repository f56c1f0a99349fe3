package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Window is how many bytes of a stream may be on their way in one direction:
// more are written only as the peer reads.
const Window = 256 << 10

// errReset is what Read and Write say when the peer closed the stream.
var errReset = errors.New("the peer closed the stream")

// Pipe is a stream inside a process: an agent to itself, and, held up and
// broken at will, the streams of mesh/simnet. It has no goroutine, and waits
// with a condition only, so that testing/synctest sees it wait.
type Pipe struct {
	mu      sync.Mutex // guards all that follows; never held while waiting
	changed sync.Cond
	window  int
	delay   time.Duration
	ways    [2]way // ways[i] leads from end i to the other
	ends    [2]pipeEnd
	broken  error
}

// way is one direction of a pipe.
type way struct {
	buf     []byte // written and not yet read
	arrived int    // of buf: the reader may have it
	late    int    // of buf: it would have arrived, but the way is held up
	held    bool
	ended   bool // by CloseWrite
	reset   bool // by the writer's Close
	stopped bool // by the reader's Close
}

type pipeEnd struct {
	p        *Pipe
	i        int
	peer     mesh.Peer
	closed   bool
	deadline time.Time
	timer    *time.Timer
}

// NewPipe makes a pipe between a and b, which are what each is to the other.
func NewPipe(a, b mesh.Peer, window int) *Pipe {
	p := &Pipe{window: window}
	p.changed.L = &p.mu
	p.ends = [2]pipeEnd{{p: p, i: 0, peer: b}, {p: p, i: 1, peer: a}}
	return p
}

// Ends are a's end and b's.
func (p *Pipe) Ends() (a, b mesh.Stream) { return &p.ends[0], &p.ends[1] }

// Break ends both directions with an error, which wraps ErrUnreachable as a
// rule. What was on its way is lost.
func (p *Pipe) Break(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken = err
	}
	p.changed.Broadcast()
}

// Hold lets nothing arrive that the end from (0: a's, 1: b's) writes, until it
// is called with false.
func (p *Pipe) Hold(from int, held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &p.ways[from]
	if w.held = held; !held {
		w.arrived, w.late = w.arrived+w.late, 0
		p.changed.Broadcast()
	}
}

// Delay lets what is written from now on arrive d later.
func (p *Pipe) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Over tells whether nothing more can come out of the pipe.
func (p *Pipe) Over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken != nil || p.ends[0].closed && p.ends[1].closed
}

func (w *way) arrive(n int) {
	if w.held {
		w.late += n
		return
	}
	w.arrived += n
}

// fault is why an end can go on neither reading nor writing.
func (e *pipeEnd) fault() error {
	switch {
	case e.closed:
		return net.ErrClosed
	case e.p.broken != nil:
		return e.p.broken
	case !e.deadline.IsZero() && !time.Now().Before(e.deadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (e *pipeEnd) Read(b []byte) (int, error) {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	w := &e.p.ways[1-e.i]
	for {
		switch err := e.fault(); {
		case err != nil:
			return 0, err
		case w.reset:
			return 0, errReset
		case len(b) == 0:
			return 0, nil
		case w.arrived > 0:
			n := copy(b, w.buf[:w.arrived])
			w.buf = w.buf[:copy(w.buf, w.buf[n:])]
			w.arrived -= n
			e.p.changed.Broadcast()
			return n, nil
		case w.ended && len(w.buf) == 0 && !w.held:
			return 0, io.EOF
		}
		e.p.changed.Wait()
	}
}

func (e *pipeEnd) Write(b []byte) (int, error) {
	p := e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &p.ways[e.i]
	done := 0
	for {
		switch err := e.fault(); {
		case err != nil:
			return done, err
		case w.stopped:
			return done, errReset
		case w.ended:
			return done, fmt.Errorf("written after CloseWrite: %w", net.ErrClosed)
		}
		if n := min(len(b)-done, p.window-len(w.buf)); n > 0 {
			w.buf = append(w.buf, b[done:done+n]...)
			done += n
			p.send(w, n)
		}
		if done == len(b) {
			return done, nil
		}
		p.changed.Wait()
	}
}

// send lets n bytes arrive, now or later.
func (p *Pipe) send(w *way, n int) {
	if p.delay == 0 {
		w.arrive(n)
		p.changed.Broadcast()
		return
	}
	time.AfterFunc(p.delay, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		w.arrive(n)
		p.changed.Broadcast()
	})
}

func (e *pipeEnd) CloseWrite() error {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	if err := e.fault(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	e.p.ways[e.i].ended = true
	e.p.changed.Broadcast()
	return nil
}

func (e *pipeEnd) Close() error {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	out, in := &e.p.ways[e.i], &e.p.ways[1-e.i]
	out.reset = out.reset || !out.ended
	in.stopped = true
	if e.timer != nil {
		e.timer.Stop()
	}
	e.p.changed.Broadcast()
	return nil
}

func (e *pipeEnd) SetDeadline(t time.Time) error {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	e.deadline = t
	if !t.IsZero() && !e.closed {
		e.timer = time.AfterFunc(time.Until(t), func() {
			e.p.mu.Lock()
			defer e.p.mu.Unlock()
			e.p.changed.Broadcast()
		})
	}
	e.p.changed.Broadcast()
	return nil
}

func (e *pipeEnd) Peer() mesh.Peer { return e.peer }
