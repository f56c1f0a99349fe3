package mqtt

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// halfIDs is how many packet ids each half has: 1 to 32,767, and the others.
const halfIDs = maxWindow

// courier brings pieces to the broker under one client id, one after the
// other. Row i of a piece has packet id i of its half; the next piece has the
// other half.
//
// With QoS 2 no row of a piece is released (PUBREL) before the broker has them
// all (PUBREC) and the journal says so:
//
//	opened    -- publish; PUBREC of all, journal -->    released
//	released  -- release; PUBCOMP of all, journal -->   complete
//
// In opened, to publish a row again under its id is no duplicate, since the
// broker holds the id until it is released; in released, to release an id again
// does nothing. So each step can be repeated, by another process too. That is
// what the two halves are for: while the journal says that one piece is
// released, the next may be published already, and releasing the first one
// again must not touch it.
type courier struct {
	o       *WriterOptions
	id      string
	journal *journal
	s       *session // nil: not started
	changed chan struct{}

	// Only the goroutine that commits uses these.
	current pieceKey // on its way; the zero value: none
	half    int      // of the current piece, or of the next
	dup     bool     // the next piece may have been published by another process

	mu        sync.Mutex // guards what follows; no I/O and no callback under it
	parcels   []parcel
	releasing bool // the journal says that the broker has all parcels
	base      int  // packet id of parcel 0
	next      int  // the next parcel for the present connection
	conn      *conn
	met       bool // there was a connection
	ended     bool
	stats     WriterStats
}

// parcel is a row on its way.
type parcel struct {
	frame []byte
	end   int64 // QoS 0: the count of bytes sent on the connection with it
	sent  bool
	taken bool // QoS 2: PUBREC came
	done  bool
}

// held is a piece with its rows.
type held struct {
	key  pieceKey
	rows []byte // see appendRow
}

func newCourier(o *WriterOptions, id string, j *journal) *courier {
	return &courier{o: o, id: id, journal: j, changed: make(chan struct{}, 1)}
}

// start connects. wipe: the broker is to forget what it holds of the client id
// first, since ids that it holds would swallow our rows.
func (c *courier) start(wipe bool) error {
	conn := c.o.Connection
	conn.ClientID = c.id
	e, err := conn.resolve()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.met = false
	c.mu.Unlock()
	c.s = &session{e: e, clean: c.o.QoS < 2, wipe: wipe && c.o.QoS == 2, user: c, store: &store{outDone: c.brokerDone}}
	c.s.start()
	return nil
}

func (c *courier) close() error {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	if c.s != nil {
		c.s.close()
	}
	c.wake()
	return c.journal.close()
}

// recover publishes what is left of pieces, which a checkpoint held, and
// readies the session for those that follow.
func (c *courier) recover(ctx context.Context, pieces []held) error {
	wipe := true
	if e := c.journal.last; e != nil && e.Piece != (pieceKey{}) {
		n := 0 // how many the broker has
		for n < len(pieces) && e.has(pieces[n].key) {
			n++
		}
		unfinished := e.Stage == released && n > 0 && pieces[n-1].key == e.Piece
		if unfinished && c.o.QoS < 2 { // there is no session to release it in
			unfinished, n = false, n-1
		}
		open, half := e.open()
		c.half = half
		c.dup = open != nil && e.QoS == 2 && n < len(pieces) && pieces[n].key == *open
		wipe = e.Stage == released && !unfinished || open != nil && !c.dup
		if unfinished {
			if err := c.start(false); err != nil {
				return err
			}
			if err := c.load(&pieces[n-1], e.Half, true); err != nil {
				return err
			}
			if err := c.end(ctx, e.Next); err != nil {
				return err
			}
			if wipe {
				c.s.close()
				c.s = nil
			}
		}
		pieces = pieces[n:]
	}
	if c.s == nil {
		if err := c.start(wipe); err != nil {
			return err
		}
	}
	for i := range pieces {
		if err := c.deliver(ctx, &pieces[i], nextKey(pieces, i)); err != nil {
			return err
		}
	}
	return nil
}

func nextKey(pieces []held, i int) *pieceKey {
	if i+1 < len(pieces) {
		return &pieces[i+1].key
	}
	return nil
}

// deliver publishes a piece and waits until the broker has all of it for good.
// next is the piece that comes after it, if that is known; the journal then
// needs one entry for both. After an error the piece stays on its way, and
// deliver is called with it again.
func (c *courier) deliver(ctx context.Context, p *held, next *pieceKey) error {
	if c.current != p.key {
		if err := c.wait(ctx, c.hasMet); err != nil { // the journal must not speak of a session that is not wiped yet
			return err
		}
		if !c.announced(p.key) {
			if err := c.journal.save(progress{QoS: c.o.QoS, Piece: p.key, Half: c.half, Stage: opened}); err != nil {
				return err
			}
		}
		if err := c.load(p, c.half, false); err != nil {
			return err
		}
	}
	if !c.releasing {
		if err := c.wait(ctx, c.allTaken); err != nil {
			return err
		}
		then := progress{QoS: c.o.QoS, Piece: p.key, Half: c.half, Stage: complete, Next: next}
		if c.o.QoS == 2 {
			then.Stage = released
		}
		if err := c.journal.save(then); err != nil {
			return err
		}
		c.release()
	}
	return c.end(ctx, next)
}

// end waits until the broker has acknowledged the piece that is being released.
func (c *courier) end(ctx context.Context, next *pieceKey) error {
	if err := c.wait(ctx, c.allDone); err != nil {
		return err
	}
	if e := *c.journal.last; next == nil && e.Stage == released {
		e.Stage = complete
		if err := c.journal.save(e); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.parcels, c.next, c.releasing = c.parcels[:0], 0, false
	c.mu.Unlock()
	c.current, c.half = pieceKey{}, 1-c.half
	return nil
}

// announced tells whether the journal says already that k is opened.
func (c *courier) announced(k pieceKey) bool {
	e := c.journal.last
	if e == nil || e.QoS != c.o.QoS {
		return false
	}
	open, _ := e.open()
	return open != nil && *open == k
}

// load makes a piece the one on its way.
func (c *courier) load(p *held, half int, releasing bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parcels = c.parcels[:0]
	base := 1 + half*halfIDs
	for rows := p.rows; len(rows) > 0; {
		name, payload, rest, ok := cutRow(rows)
		if !ok || len(c.parcels) == halfIDs {
			return fmt.Errorf("mqtt: piece %d of the rows of client %q is cut short; the checkpoint is damaged", p.key.Piece, c.id)
		}
		f := appendPublish(nil, c.o.QoS, c.o.Retain, uint16(base+len(c.parcels)), name, payload)
		c.parcels = append(c.parcels, parcel{frame: f, sent: c.dup && !releasing, taken: releasing})
		rows = rest
	}
	c.current, c.half, c.dup = p.key, half, c.dup && releasing
	c.base, c.next, c.releasing = base, 0, releasing
	c.pump()
	return nil
}

// release begins with the second half of QoS 2.
func (c *courier) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releasing, c.next = true, 0
	c.pump()
}

// appendRow appends a row as pieces hold it; cutRow takes it off again.
func appendRow(dst, name, payload []byte) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(name))), name...)
	return append(binary.AppendUvarint(dst, uint64(len(payload))), payload...)
}

func cutRow(rows []byte) (name, payload, rest []byte, ok bool) {
	if name, rows, ok = cutBytes(rows); !ok || len(name) > 65535 {
		return nil, nil, nil, false
	}
	payload, rows, ok = cutBytes(rows)
	return name, payload, rows, ok && len(name)+len(payload) <= maxRemaining-4
}

func cutBytes(b []byte) (part, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	return b[k : k+int(n)], b[k+int(n):], true
}

func (c *courier) hasMet() bool { return c.met }

// allTaken: the broker has all rows; below QoS 2 that is the end.
func (c *courier) allTaken() bool {
	for i := range c.parcels {
		if p := &c.parcels[i]; !p.done && !p.taken {
			return false
		}
	}
	return true
}

func (c *courier) allDone() bool {
	for i := range c.parcels {
		if !c.parcels[i].done {
			return false
		}
	}
	return true
}

// wait blocks until is, which is called under the lock, says so.
func (c *courier) wait(ctx context.Context, is func() bool) error {
	for {
		c.mu.Lock()
		ok, ended, left := is(), c.ended, len(c.parcels)
		c.mu.Unlock()
		switch {
		case ended:
			return fmt.Errorf("%w: the writer to %s", ErrClosed, c.o.Broker)
		case ok:
			return nil
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			err := ctx.Err()
			if why := c.s.trouble(); why != nil {
				err = fmt.Errorf("%w (%v)", err, why)
			}
			return fmt.Errorf("mqtt: commit gave up with %d rows on their way to %s as %q: %w", left, c.s.e.url, c.id, err)
		}
	}
}

func (c *courier) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// pump hands to the connection what it takes.
func (c *courier) pump() {
	if c.conn == nil {
		return
	}
	for ; c.next < len(c.parcels); c.next++ {
		p := &c.parcels[c.next]
		frame := p.frame
		switch {
		case p.done || p.taken && !c.releasing:
			continue
		case p.taken:
			var rel [4]byte
			frame = appendAck(rel[:0], framePubrel, uint16(c.base+c.next))
		case p.sent && c.o.QoS > 0:
			frame[0] |= frameDup
		}
		end, ok := c.conn.offer(frame)
		if !ok {
			return
		}
		p.end = end
		if p.taken {
			continue
		}
		if p.sent {
			c.stats.Republished++
		} else {
			c.stats.Published++
		}
		p.sent = true
	}
}

// What follows is the side of courier that its session calls.

func (c *courier) prepare(cn *conn) {
	cn.flushed = c.flushed
	cn.released = c.brokerHas
}

func (c *courier) up(context.Context, *link) error { return nil }

func (c *courier) message(*link, paho.Message) {} // we subscribe to nothing

// attach goes on with the piece on its way. A broker that has lost the session
// has lost what was not released, and whether what was is out nobody knows: it
// is published again, since a row that is there twice can be told from others,
// and one that is lost cannot.
func (c *courier) attach(l *link) {
	c.mu.Lock()
	c.conn, c.met, c.next = l.conn, true, 0
	c.stats.Connects++
	for i := range c.parcels {
		if p := &c.parcels[i]; p.taken && !p.done && !l.known {
			p.taken = false
			if c.releasing {
				c.stats.Uncertain++
			}
		}
	}
	c.pump()
	c.mu.Unlock()
	c.wake()
}

func (c *courier) down(*link) {
	c.mu.Lock()
	c.conn = nil
	c.mu.Unlock()
}

// flushed hears from the flusher how much is written.
func (c *courier) flushed(total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil { // only the handshake so far
		return
	}
	for i := 0; c.o.QoS == 0 && i < c.next; i++ {
		if p := &c.parcels[i]; !p.done && p.end <= total {
			p.done = true
			c.stats.Acked++
		}
	}
	c.pump()
	c.wake()
}

// find is the parcel with a packet id; nil: it is not on its way.
func (c *courier) find(id uint16) *parcel {
	if i := int(id) - c.base; i >= 0 && i < len(c.parcels) {
		return &c.parcels[i]
	}
	return nil
}

// brokerHas hears that paho answers a PUBREC, and tells whether it may. Some
// brokers repeat PUBREC when a client is back, perhaps before we have loaded the
// piece: to release a row then would lose the means to know it again.
func (c *courier) brokerHas(id uint16) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.find(id)
	if p == nil {
		return false
	}
	p.taken = true
	c.wake()
	return c.releasing
}

// brokerDone hears that the broker has acknowledged a message to the end.
func (c *courier) brokerDone(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.find(id); p != nil && !p.done && (c.o.QoS < 2 || c.releasing) {
		p.done = true
		c.stats.Acked++
		c.wake()
	}
}
