package mqtt

import (
	"context"
	"errors"
	"fmt"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// WriterOptions say what a Writer publishes.
type WriterOptions struct {
	Connection
	Topic  string // may name columns, as in alerts/{sensor}; see docs/MQTT.md for what a value may look like there
	Schema *batch.Schema
	QoS    byte
	Retain bool
	// Encode appends the payload of the row at pos.
	Encode func(dst []byte, b *batch.Batch, pos int) []byte

	// MaxInFlight bounds the messages published and not acknowledged (QoS 0:
	// not written to the socket); when it is reached, Write blocks. 0: 4,096
	// for QoS 0, 1,000 for QoS 1, 16 for QoS 2, where brokers allow few.
	MaxInFlight int
	// MaxBytes bounds them too. 0: 16 MiB.
	MaxBytes int
}

const maxWindow = 32767

// WriterStats counts since the writer was made.
type WriterStats struct {
	Published   int64 // rows handed to the connection, each once
	Republished int64 // sent again after a connection was lost
	Acked       int64 // acknowledged; QoS 0: written
	Uncertain   int64 // transactional, QoS 2: published again because the broker lost the session before it had acknowledged them to the end; they may be there twice
	Connects    int64 // connections that the broker accepted
	InFlight    int   // taken and not acknowledged now
	Connected   bool
}

// Writer is a sink: a sensors.Writer that publishes each row. Rows are visible
// at once, not at Commit; Commit waits until the broker has them all. With
// QoS 1 and 2 a row is published at least once; twice, when a connection is
// lost before the acknowledgement comes, QoS 2 then only if the broker has
// lost the session as well. QoS 0: at most once, lost with the connection.
type Writer struct {
	o       WriterOptions
	s       *session
	topic   template
	changed chan struct{} // wakes Write and Commit; holds at most one

	name, payload []byte // of the row being written; only Write uses them

	mu    sync.Mutex // guards what follows; no I/O and no callback under it
	win   window
	conn  *conn // nil: no connection
	stats WriterStats
	ended bool
}

// window is the rows taken and not acknowledged, in order. The row seq is in
// slot seq % len(slots) and has the packet id seq % 65535 + 1.
//
// Invariants: head <= next <= tail; tail - head <= len(slots) <= maxWindow, so
// ids are unique; rows from head to next were sent on the present connection.
type window struct {
	slots            []slot
	head, next, tail int64
	bytes            int
}

type slot struct {
	frame    []byte
	end      int64 // QoS 0: the count of bytes sent on the connection with it
	sent     bool  // on any connection
	acked    bool
	released bool // QoS 2: the broker has it, and PUBREL was sent
}

// NewWriter makes a writer and begins to connect. A broker that is down is no
// error; options that cannot work are.
func NewWriter(o WriterOptions) (*Writer, error) {
	e, err := o.resolve()
	if err != nil {
		return nil, err
	}
	if err := o.defaults(); err != nil {
		return nil, err
	}
	if o.QoS == 2 && o.ClientID == "" {
		return nil, errors.New("mqtt: QoS 2 needs a session that outlives its connections: give a client id")
	}
	t, err := parseTemplate(o.Topic, o.Schema)
	if err != nil {
		return nil, err
	}
	w := &Writer{o: o, topic: t, changed: make(chan struct{}, 1)}
	w.win.slots = make([]slot, o.MaxInFlight)
	w.s = &session{e: e, clean: o.QoS < 2, user: w, store: &store{outDone: w.brokerDone}}
	w.s.start()
	return w, nil
}

func (o *WriterOptions) defaults() error {
	if o.QoS > 2 {
		return fmt.Errorf("mqtt: qos %d; use 0, 1 or 2", o.QoS)
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = [...]int{4096, 1000, 16}[o.QoS]
	}
	if o.MaxInFlight < 1 || o.MaxInFlight > maxWindow {
		return fmt.Errorf("mqtt: %d messages in flight; use 1 to %d", o.MaxInFlight, maxWindow)
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 16 << 20
	}
	return nil
}

func checkRow(name, payload []byte) error {
	if len(name) <= 65535 && len(name)+len(payload) <= maxRemaining-4 {
		return nil
	}
	return fmt.Errorf("mqtt: a row with a topic of %d bytes and a payload of %d cannot be published: the most are 65,535, and 256 MB together; shorten it in a select", len(name), len(payload))
}

// Write publishes the rows of b. See sensors.Writer.
func (w *Writer) Write(ctx context.Context, b *batch.Batch) error {
	const burst = 64 // rows handed to the connection at a time: the first must not wait for the last to be encoded
	n := b.Len()
	for k := range n {
		pos := b.Position(k)
		w.name = w.topic.append(w.name[:0], b, pos)
		w.payload = w.o.Encode(w.payload[:0], b, pos)
		if err := checkRow(w.name, w.payload); err != nil {
			return err
		}
		for !w.put(k == n-1 || k%burst == burst-1) {
			if err := w.wait(ctx, "publish"); err != nil {
				return err
			}
		}
	}
	return nil
}

// put takes the row in name and payload into the window; false if there is no
// room.
func (w *Writer) put(pump bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	win := &w.win
	if win.tail-win.head == int64(len(win.slots)) || win.bytes >= w.o.MaxBytes {
		w.pump()
		return false
	}
	s := win.slot(win.tail)
	*s = slot{frame: appendPublish(s.frame[:0], w.o.QoS, w.o.Retain, packetID(win.tail), w.name, w.payload)}
	win.bytes += len(s.frame)
	win.tail++
	w.stats.Published++
	if pump {
		w.pump()
	}
	return true
}

func (win *window) slot(seq int64) *slot { return &win.slots[seq%int64(len(win.slots))] }

func packetID(seq int64) uint16 { return uint16(seq%65535) + 1 }

// find is the row in flight that has a packet id.
func (win *window) find(id uint16) (*slot, bool) {
	d := (int64(id) - 1 - win.head%65535 + 65535) % 65535
	if id == 0 || win.head+d >= win.next {
		return nil, false
	}
	return win.slot(win.head + d), true
}

// advance drops what is acknowledged from the window.
func (win *window) advance() (n int64) {
	for ; win.head < win.next && win.slot(win.head).acked; win.head++ {
		s := win.slot(win.head)
		win.bytes -= len(s.frame)
		if cap(s.frame) > 64<<10 {
			s.frame = nil
		}
		n++
	}
	return n
}

// pump hands rows to the connection while that takes them.
func (w *Writer) pump() {
	if w.conn == nil {
		return
	}
	for win := &w.win; win.next < win.tail; win.next++ {
		s := win.slot(win.next)
		if s.acked {
			continue
		}
		frame := s.frame
		switch {
		case s.released:
			var rel [4]byte
			frame = appendAck(rel[:0], framePubrel, packetID(win.next))
		case s.sent && w.o.QoS > 0:
			frame[0] |= frameDup
		}
		end, ok := w.conn.offer(frame)
		if !ok {
			return
		}
		if s.sent {
			w.stats.Republished++
		}
		s.end, s.sent = end, true
	}
}

// Commit waits until the broker has acknowledged every row. See
// sensors.Writer.
func (w *Writer) Commit(ctx context.Context) error {
	for {
		w.mu.Lock()
		left := w.win.tail - w.win.head
		ended := w.ended
		w.mu.Unlock()
		if left == 0 && !ended {
			return nil
		}
		if err := w.wait(ctx, "commit"); err != nil {
			return err
		}
	}
}

// wait blocks until the window has moved.
func (w *Writer) wait(ctx context.Context, what string) error {
	w.mu.Lock()
	ended, left := w.ended, w.win.tail-w.win.head
	w.mu.Unlock()
	if ended {
		return fmt.Errorf("%w: the writer to %s", ErrClosed, w.s.e.url)
	}
	select {
	case <-w.changed:
		return nil
	case <-ctx.Done():
	}
	err := ctx.Err()
	if why := w.s.trouble(); why != nil {
		return fmt.Errorf("mqtt: %s gave up with %d rows not acknowledged by %s: %w (%v)", what, left, w.s.e.url, err, why)
	}
	return fmt.Errorf("mqtt: %s gave up with %d rows not acknowledged by %s: %w", what, left, w.s.e.url, err)
}

func (w *Writer) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Stats is a snapshot of the counters. Any goroutine may call it.
func (w *Writer) Stats() WriterStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.InFlight = int(w.win.tail - w.win.head)
	s.Connected = w.conn != nil
	return s
}

// Close gives up what was not acknowledged and waits for all goroutines.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.s.close()
	w.wake()
	return nil
}

// What follows is the side of Writer that its session calls.

func (w *Writer) prepare(c *conn) {
	c.flushed = w.flushed
	c.released = w.brokerHas
}

// attach sends again what was not acknowledged, in order. A broker that has
// lost the session has lost what it held of QoS 2 as well.
func (w *Writer) attach(l *link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = l.conn
	w.stats.Connects++
	w.win.next = w.win.head
	for seq := w.win.head; seq < w.win.tail && !l.known; seq++ {
		w.win.slot(seq).released = false
	}
	w.pump()
}

func (w *Writer) up(context.Context, *link) error { return nil }

func (w *Writer) down(*link) {
	w.mu.Lock()
	w.conn = nil
	w.mu.Unlock()
}

func (w *Writer) message(*link, paho.Message) {} // we subscribe to nothing

// flushed hears from the flusher how much of what was handed to the
// connection is written.
func (w *Writer) flushed(total int64) {
	w.mu.Lock()
	if w.conn == nil { // only the handshake so far
		w.mu.Unlock()
		return
	}
	moved := int64(0)
	if w.o.QoS == 0 {
		for seq := w.win.head; seq < w.win.next && w.win.slot(seq).end <= total; seq++ {
			w.win.slot(seq).acked = true
		}
		moved = w.moved()
	}
	w.pump()
	w.mu.Unlock()
	if moved > 0 {
		w.wake()
	}
}

func (w *Writer) moved() int64 {
	n := w.win.advance()
	w.stats.Acked += n
	return n
}

// brokerDone hears that the broker has acknowledged a message.
func (w *Writer) brokerDone(id uint16) {
	w.mu.Lock()
	moved := int64(0)
	if s, ok := w.win.find(id); ok {
		s.acked = true
		moved = w.moved()
	}
	w.mu.Unlock()
	if moved > 0 {
		w.wake()
	}
}

// brokerHas hears that paho answers a PUBREC: the broker has the message, and
// publishing it again would be a duplicate.
func (w *Writer) brokerHas(id uint16) bool {
	w.mu.Lock()
	if s, ok := w.win.find(id); ok {
		s.released = true
	}
	w.mu.Unlock()
	return true
}
