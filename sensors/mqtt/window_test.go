package mqtt

import (
	"fmt"
	"testing"
)

// QoS 0: a row is done with when all its bytes are written, and on the
// connection on which it was sent.
func TestWindowQoS0(t *testing.T) {
	c, _ := pair(t)
	c.start()
	w := &Writer{o: WriterOptions{MaxBytes: 1 << 20}, changed: make(chan struct{}, 1)}
	w.win.slots = make([]slot, 10)
	w.conn = c
	for range 4 {
		w.name, w.payload = []byte("topic"), []byte("payload")
		if !w.put(true) {
			t.Fatal("no room")
		}
	}
	size := w.win.slot(0).end
	for _, k := range []struct{ total, acked int64 }{{size - 1, 0}, {size, 1}, {3*size - 1, 2}} {
		w.flushed(k.total)
		if s := w.Stats(); s.Acked != k.acked {
			t.Errorf("%d bytes written of %d a row: %d rows done, want %d", k.total, size, s.Acked, k.acked)
		}
	}
	w.down(nil)
	w.flushed(1000 * size) // the handshake of the next connection, say
	if s := w.Stats(); s.Acked != 2 || s.InFlight != 2 {
		t.Errorf("%+v", s)
	}
}

// Ids stay unique in the window, over the turn of the counter, and answers
// find their row in any order.
func TestWindowIDs(t *testing.T) {
	w := &window{slots: make([]slot, 7), head: 65535 - 3, next: 65535 + 4, tail: 65535 + 4}
	ids := map[uint16]bool{}
	for seq := w.head; seq < w.next; seq++ {
		id := packetID(seq)
		if id == 0 || ids[id] {
			t.Errorf("row %d has id %d", seq, id)
		}
		ids[id] = true
	}
	for seq := w.next - 1; seq >= w.head; seq-- {
		s, ok := w.find(packetID(seq))
		if !ok || s != w.slot(seq) {
			t.Errorf("row %d is not found by id %d", seq, packetID(seq))
		}
	}
	for _, id := range []uint16{0, packetID(w.next), packetID(w.head - 1), 30000} {
		if _, ok := w.find(id); ok {
			t.Errorf("id %d is found, ids in flight are %s", id, fmt.Sprint(ids))
		}
	}
}
