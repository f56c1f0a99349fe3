package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

const (
	readBuffer = 64 << 10
	// outBound is how much may wait to be written. It is more than the
	// acknowledgements of all 65,535 packet ids, PUBREC and PUBCOMP, so a reader
	// never waits for it.
	outBound = 1 << 20
	// farewell bounds the writing of what is still waiting at Close.
	farewell = time.Second
)

const (
	// ask is how long the broker says nothing before it is asked (PINGREQ) whether
	// it can still be heard; at most a quarter of the keep-alive.
	ask = 2 * time.Second
	// doubts is how many times as long it may be silent before it counts as out
	// of reach. It was asked twice by then.
	doubts = 2.5
)

var errStuck = errors.New("the broker does not read what we send")

// conn is the connection lent to paho: buffered in, and written by a goroutine
// of its own (the flusher), so that whatever gathers while one write is on its
// way goes out with the next, and nobody waits for the peer to read.
//
// It also watches over the peer's life, in paho's stead: paho drops a
// connection whose reader is late, we only one that is silent.
type conn struct {
	net.Conn
	br *bufio.Reader
	in inbound // of Read

	hold      func() <-chan struct{} // the reader's gate, from CONNACK on: nil, or what to wait for before reading on; may be nil
	flushed   func(total int64)      // called by the flusher after each write, without a lock; may be nil
	released  func(id uint16) bool   // asked before paho's PUBREL goes out; false: somebody else will send it; may be nil
	completes func(id uint16) bool   // asked before paho's PUBCOMP goes out; false: somebody else will send it; may be nil
	quiet     func()                 // called by the flusher, again and again, while the peer has been silent for doubt; may be nil: nobody asks
	heard     func(held bool)        // called after each read of the socket; held: the gate was shut before it; nil if quiet is
	silence   time.Duration          // the longest time without a byte from the peer
	keepalive time.Duration
	ask       time.Duration // the silence after which the peer is asked
	doubt     time.Duration // the silence after which it is out of reach
	began     time.Time
	last      atomic.Int64 // nanoseconds from began to the last byte
	holding   atomic.Bool  // the gate is shut: the silence is ours
	live      atomic.Bool  // the handshake is over: deadlines are ours

	asked atomic.Int32 // how many filters SUBSCRIBE has; 0 before
	came  atomic.Int64 // grows when something comes but the answer to a ping, and when the gate opens

	kick      chan struct{} // wakes the flusher; holds at most one
	ended     chan struct{} // closed when nothing is to be read any more
	endOnce   sync.Once
	closeOnce sync.Once
	done      chan struct{} // closed when the flusher has ended

	mu     sync.Mutex // guards what follows; never held during I/O
	room   sync.Cond  // out has shrunk, or the connection has ended
	out    []byte     // waits for the flusher
	gone   int64      // bytes handed to Write and send so far
	err    error      // why nothing can be written any more
	closed bool
}

// newConn takes over nc and starts the flusher.
func newConn(nc net.Conn, keepalive time.Duration) *conn {
	c := &conn{
		Conn:      nc,
		keepalive: keepalive,
		// Paho looks every 5 s (or a quarter of a shorter keep-alive) whether it is time for a ping.
		silence: keepalive + min(keepalive/4, 5*time.Second) + 10*time.Second,
		ask:     min(ask, keepalive/4),
		began:   time.Now(),
		kick:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
		done:    make(chan struct{}),
	}
	c.doubt = time.Duration(doubts * float64(c.ask))
	c.room.L = &c.mu
	c.br = bufio.NewReaderSize(socket{c}, readBuffer)
	return c
}

// start lets the flusher run; the hooks are set by now.
func (c *conn) start() {
	go pprof.Do(context.Background(), pprof.Labels("mqtt", "flusher"), func(context.Context) { c.flush() })
}

// Read is for paho only.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.br.Read(p)
	if n > 0 && c.in.body > 0 {
		c.came.Add(1)
	}
	if wrong := c.in.pass(p[:n], c.header); wrong != nil {
		c.fail(wrong)
		return 0, c.reason(wrong)
	}
	return n, err
}

// socket reads below the buffer.
type socket struct{ c *conn }

func (s socket) Read(p []byte) (int, error) {
	c := s.c
	held := false
	if c.live.Load() && c.hold != nil {
		var err error
		if held, err = c.wait(); err != nil {
			return 0, err
		}
	}
	if c.live.Load() {
		if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, c.reason(err)
		}
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.last.Store(int64(time.Since(c.began)))
		if c.heard != nil {
			c.heard(held)
		}
	}
	if err != nil {
		err = c.reason(err)
	}
	return n, err
}

// silent is how long the peer has said nothing.
func (c *conn) silent() time.Duration { return time.Since(c.began) - time.Duration(c.last.Load()) }

// listen asks a silent peer whether it can be heard. A connection can be dead
// for a long time before it ends, and until then silence would seem to be the
// devices'. The flusher calls it; asked is when it asked last.
func (c *conn) listen(asked *time.Time) {
	if !c.live.Load() || c.holding.Load() {
		return
	}
	silent := c.silent()
	if silent >= c.doubt {
		c.quiet()
	}
	if silent >= c.ask && time.Since(*asked) >= c.ask {
		*asked = time.Now()
		c.send(pingreq[:])
	}
}

// reason is why the connection failed, if fail said it, else err. Paho takes
// the error of a closed socket for its own doing and would never tell.
func (c *conn) reason(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	return err
}

// wait blocks while the gate is shut. Meanwhile it tells the broker that we
// live: paho sends no second ping before it has read the answer to the first.
func (c *conn) wait() (waited bool, err error) {
	room := c.hold()
	if room == nil {
		return false, nil
	}
	c.holding.Store(true)
	defer func() {
		c.last.Store(int64(time.Since(c.began)))
		c.came.Add(1)
		c.holding.Store(false)
	}()
	tick := time.NewTicker(c.keepalive / 2)
	defer tick.Stop()
	for room != nil {
		select {
		case <-room:
			room = c.hold()
		case <-c.ended:
			return true, c.reason(net.ErrClosed)
		case <-tick.C:
			c.send(pingreq[:])
		}
	}
	return true, nil
}

// SetDeadline is paho's, during the handshake; a zero time ends that.
func (c *conn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		c.live.Store(true)
	}
	return c.Conn.SetDeadline(t)
}

// Write is for paho, which writes whole packets. It blocks while too much
// waits.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) == 4 && p[0] == framePubrel && c.released != nil && !c.released(uint16(p[2])<<8|uint16(p[3])) {
		return len(p), nil
	}
	if len(p) == 4 && p[0] == framePubcomp && c.completes != nil && !c.completes(uint16(p[2])<<8|uint16(p[3])) {
		return len(p), nil
	}
	c.mu.Lock()
	for len(c.out) >= outBound && c.err == nil && !c.closed {
		c.room.Wait()
	}
	_, ok := c.add(p)
	err := c.err
	c.mu.Unlock()
	if ok {
		return len(p), nil
	}
	if err == nil {
		err = net.ErrClosed
	}
	return 0, err
}

// offer is Write for whole packets of our own: it never blocks. It returns the
// count of bytes up to the end of p, to compare with what flushed is told; ok
// is false if there is no room or the connection has ended.
func (c *conn) offer(p []byte) (end int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) >= outBound {
		return 0, false
	}
	return c.add(p)
}

// send is offer for what has no other chance: a peer that lets so much wait is
// given up.
func (c *conn) send(p []byte) {
	c.mu.Lock()
	stuck := len(c.out) >= outBound && c.err == nil
	if !stuck {
		c.add(p)
	}
	c.mu.Unlock()
	if stuck {
		c.fail(errStuck)
	}
}

func (c *conn) add(p []byte) (end int64, ok bool) {
	if c.err != nil || c.closed {
		return 0, false
	}
	c.out = append(c.out, p...)
	c.gone += int64(len(p))
	select {
	case c.kick <- struct{}{}:
	default:
	}
	return c.gone, true
}

// flush is the flusher: it writes until the connection is closed or fails.
func (c *conn) flush() {
	defer close(c.done)
	var buf []byte
	var look <-chan time.Time
	var asked time.Time
	if c.quiet != nil {
		t := time.NewTicker(c.ask / 2)
		defer t.Stop()
		look = t.C
	}
	total := int64(0)
	for {
		c.mu.Lock()
		for len(c.out) == 0 && !c.closed {
			c.mu.Unlock()
			select {
			case <-c.kick:
			case <-look:
				c.listen(&asked)
			}
			c.mu.Lock()
		}
		buf, c.out = c.out, buf[:0]
		last := c.closed
		c.room.Broadcast()
		c.mu.Unlock()
		if len(buf) > 0 {
			n, err := c.Conn.Write(buf)
			total += int64(n)
			if c.flushed != nil {
				c.flushed(total)
			}
			if err != nil {
				c.fail(err)
				return
			}
		}
		if last {
			return
		}
	}
}

// fail ends the connection because of err; paho's read then fails too. It
// never blocks, so it says no goodbye.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.room.Broadcast()
	c.mu.Unlock()
	c.endOnce.Do(func() { close(c.ended) })
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = c.Conn.Close()
}

// Close writes what is waiting, if the peer takes it within a moment, and ends
// the connection and the flusher. Paho calls it, more than once.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		c.endOnce.Do(func() { close(c.ended) })
		c.mu.Lock()
		c.closed = true
		c.room.Broadcast()
		c.mu.Unlock()
		_ = c.SetWriteDeadline(time.Now().Add(farewell))
		select {
		case c.kick <- struct{}{}:
		default:
		}
		<-c.done
		_ = c.Conn.Close()
	})
	return nil
}
