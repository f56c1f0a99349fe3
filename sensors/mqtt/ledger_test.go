package mqtt

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// A broker that keeps the session, connections that are lost at any moment
// with part of what was under way in both directions: every message is fresh
// exactly once, in order, and the broker gets an acknowledgement only of what
// the reader had acknowledged.
func TestLedgerProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		qos := byte(rapid.IntRange(1, 2).Draw(t, "qos"))
		window := rapid.IntRange(1, 10).Draw(t, "window")
		w := &world{t: t, qos: qos, lanes: make([]lane, 1)}
		w.l.connected(false)
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1:
				if len(w.open) < window {
					w.publish()
				}
			case 2:
				w.deliver()
			case 3:
				w.ack(rapid.IntRange(0, 3).Draw(t, "n"))
			case 4:
				w.hear()
			case 5:
				w.reconnect()
			}
		}
		for w.received < w.sent {
			w.deliver()
			w.ack(1)
		}
	})
}

// world is the broker and both directions of the wire.
type world struct {
	t     *rapid.T
	qos   byte
	l     ledger
	lanes []lane

	sent, received int      // messages
	open           []packet // at the broker, not acknowledged
	down           []packet // on their way to the reader
	up             []byte   // frames on their way to the broker
	nextID         uint16
}

type packet struct {
	id  uint16
	n   int
	dup bool
}

func (w *world) publish() {
	for used := true; used; {
		w.nextID = w.nextID%12 + 1
		used = false
		for _, p := range w.open {
			used = used || p.id == w.nextID
		}
	}
	p := packet{id: w.nextID, n: w.sent}
	w.sent++
	w.open = append(w.open, p)
	w.down = append(w.down, p)
}

func (w *world) deliver() {
	if len(w.down) == 0 {
		return
	}
	p := w.down[0]
	w.down = w.down[1:]
	switch w.l.arrive(p.id, w.qos, p.dup, uint64(p.n)+1, 0, int64(w.received)) {
	case fresh:
		if p.n != w.received {
			w.t.Fatalf("message %d is fresh where %d was due", p.n, w.received)
		}
		w.received++
		w.lanes[0].read++
	case againOld:
		w.up = appendReceipt(w.up, w.qos, p.id)
	}
}

func (w *world) ack(n int) {
	w.lanes[0].acked = min(w.lanes[0].read, w.lanes[0].acked+int64(n))
	w.up = w.l.pop(w.up, w.lanes)
}

// hear takes one frame at the broker.
func (w *world) hear() {
	if len(w.up) == 0 {
		return
	}
	f := w.up[:4]
	w.up = w.up[4:]
	id := uint16(f[2])<<8 | uint16(f[3])
	for i, p := range w.open {
		if p.id != id {
			continue
		}
		if int64(p.n) >= w.lanes[0].acked {
			w.t.Fatalf("message %d was acknowledged to the broker, the reader is at %d", p.n, w.lanes[0].acked)
		}
		w.open = append(w.open[:i:i], w.open[i+1:]...)
		if w.qos == 2 {
			w.l.closed(id) // PUBREL comes back on the same connection
		}
		return
	}
	w.t.Fatalf("acknowledgement of %d, which is not open", id)
}

// reconnect loses what is on the wire; the broker sends again what is open.
func (w *world) reconnect() {
	for rapid.Bool().Draw(w.t, "heard") && len(w.up) > 0 {
		w.hear()
	}
	w.up, w.down = nil, nil
	w.l.connected(true)
	for _, p := range w.open {
		p.dup = true
		w.down = append(w.down, p)
	}
}

// An id whose message is still open comes with another one: the old one is
// read, but nothing is said to the broker about it.
func TestLedgerForgets(t *testing.T) {
	var l ledger
	lanes := make([]lane, 1)
	l.connected(false)
	if v := l.arrive(1, 1, false, 11, 0, 0); v != fresh {
		t.Fatal(v)
	}
	l.connected(false)
	if v := l.arrive(1, 1, true, 11, 0, 1); v != fresh {
		t.Fatalf("a redelivery across sessions: %v", v)
	}
	if v := l.arrive(1, 1, false, 12, 0, 2); v != fresh {
		t.Fatal(v)
	}
	lanes[0].acked = 2
	if got := l.pop(nil, lanes); len(got) != 0 {
		t.Errorf("acknowledged % x for messages whose id was taken away", got)
	}
	lanes[0].acked = 3
	if got := l.pop(nil, lanes); !bytes.Equal(got, []byte{framePuback, 2, 0, 1}) {
		t.Errorf("acknowledged % x", got)
	}
}

func TestLedgerGrows(t *testing.T) {
	var l ledger
	lanes := make([]lane, 1)
	l.connected(false)
	for i := range 65535 {
		if l.arrive(uint16(i+1), 1, false, uint64(i), 0, int64(i)) != fresh {
			t.Fatal(i)
		}
		if i == 1000 { // so that the ring is turned when it grows
			lanes[0].acked = 700
			l.pop(nil, lanes)
		}
	}
	lanes[0].acked = 65535
	if n := len(l.pop(nil, lanes)); n != 4*(65535-700) || l.head != l.tail {
		t.Errorf("%d bytes of acknowledgements", n)
	}
}
