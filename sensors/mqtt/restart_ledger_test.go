package mqtt

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// entry is what a log has of a ledger's messages: one of them, or a note.
type entry struct {
	tag, note uint32
	digest    uint64
	n         int // the message; -1: a note
}

// life is a process with a log, a broker, and the wire between them. The log is
// one lane: what is fresh is appended at once, and becomes durable in order.
type life struct {
	t      *rapid.T
	qos    byte
	l      ledger
	lanes  []lane
	log    []entry
	synced int   // entries of the log that are durable
	from   int   // entries that are of processes before
	cut    int   // entries that no process is given any more
	logged []int // the messages in the log

	sent   int
	open   []open // at the broker, in order
	down   []frame
	up     []byte
	nextID uint16
	gone   map[int]bool // messages that the broker lost with the session
}

// open is a message that a broker keeps.
type open struct {
	id       uint16
	n        int
	released bool // QoS 2: PUBREC came, PUBREL was sent
}

type frame struct {
	open
	dup bool
}

func (w *life) digest(n int) uint64 {
	return uint64(n) + 1
}

// Processes that die at any moment, connections that are lost at any moment:
// every message is in the log once, in order, and the broker hears only what is
// durable.
func TestLedgerOutlivesProcesses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &life{t: t, qos: byte(rapid.IntRange(1, 2).Draw(t, "qos")), lanes: make([]lane, 1), gone: make(map[int]bool)}
		w.l.session = rapid.SampledFrom([]uint8{0, 100, 127, 200, 254, 255}).Draw(t, "sessions that were lost")
		w.l.connected(false)
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			switch what := rapid.IntRange(0, 12).Draw(t, "what"); what {
			case 0, 1, 2:
				if len(w.open) < 6 {
					w.publish()
				}
			case 3, 4, 5:
				w.deliver()
			case 6, 7:
				w.sync(rapid.IntRange(0, 3).Draw(t, "n"))
			case 8, 9:
				w.hear()
			case 10:
				w.reconnect(true)
			case 11:
				w.crash()
			case 12:
				w.reconnect(false)
			}
		}
		for len(w.down) > 0 || len(w.open) > 0 {
			w.deliver()
			w.sync(1)
			w.hear()
		}
		for n := range w.sent {
			if !slices.Contains(w.logged, n) && !w.gone[n] {
				t.Fatalf("message %d is lost; the log has %v", n, w.logged)
			}
		}
	})
}

func (w *life) publish() {
	for used := true; used; {
		w.nextID = w.nextID%7 + 1
		used = slices.ContainsFunc(w.open, func(o open) bool { return o.id == w.nextID })
	}
	o := open{id: w.nextID, n: w.sent}
	w.sent++
	w.open = append(w.open, o)
	w.down = append(w.down, frame{open: o})
}

func (w *life) append(e entry) {
	w.log = append(w.log, e)
	w.lanes[0].next++
	w.lanes[0].read++
}

func (w *life) deliver() {
	if len(w.down) == 0 {
		return
	}
	f := w.down[0]
	w.down = w.down[1:]
	if f.released {
		open, fresh := w.l.ends(f.id, w.lanes[0].next)
		if fresh {
			w.append(entry{note: makeNote(w.l.session, f.id), n: -1})
		}
		if !open {
			w.up = appendAck(w.up, framePubcomp, f.id)
		}
		return
	}
	switch w.l.arrive(f.id, w.qos, f.dup, w.digest(f.n), 0, w.lanes[0].next) {
	case fresh:
		if k := len(w.logged); k > 0 && w.logged[k-1] >= f.n {
			w.t.Fatalf("message %d is fresh after %v", f.n, w.logged)
		}
		w.append(entry{tag: makeTag(w.l.session, f.id, w.qos, false, f.dup), digest: w.digest(f.n), n: f.n})
		w.logged = append(w.logged, f.n)
	case againOld:
		w.up = appendReceipt(w.up, w.qos, f.id)
	}
}

// sync makes some entries durable and acknowledges them.
func (w *life) sync(n int) {
	w.synced = min(len(w.log), w.synced+n)
	w.lanes[0].acked = max(w.lanes[0].acked, int64(w.synced-w.from))
	w.up = w.l.pop(w.up, w.lanes)
	w.up = w.l.complete(w.up, w.lanes[0].acked)
}

// hear takes one frame at the broker.
func (w *life) hear() {
	if len(w.up) == 0 {
		return
	}
	kind, id := w.up[0], uint16(w.up[2])<<8|uint16(w.up[3])
	w.up = w.up[4:]
	i := slices.IndexFunc(w.open, func(o open) bool { return o.id == id })
	if i < 0 {
		if kind != framePubcomp { // of a PUBREL that was sent twice
			w.t.Fatalf("%x of %d, which is not open", kind, id)
		}
		return
	}
	o := &w.open[i]
	if !slices.ContainsFunc(w.log[:w.synced], func(e entry) bool { return e.n == o.n }) {
		w.t.Fatalf("the broker hears %x of message %d, which is not durable", kind, o.n)
	}
	switch {
	case kind == framePubrec && !o.released:
		o.released = true
		w.down = append(w.down, frame{open: *o})
	case kind == framePuback, kind == framePubcomp && o.released:
		w.open = slices.Delete(w.open, i, i+1)
	}
}

// lose ends the connection with part of what was on its way to the broker.
func (w *life) lose() {
	for rapid.Bool().Draw(w.t, "heard") && len(w.up) > 0 {
		w.hear()
	}
	w.up, w.down = nil, nil
}

func (w *life) reconnect(known bool) {
	w.lose()
	w.connect(known)
}

func (w *life) connect(known bool) {
	w.l.connected(known)
	if !known {
		for _, o := range w.open {
			w.gone[o.n] = true
		}
		w.open, w.nextID = nil, 0
	}
	for _, o := range w.open {
		w.down = append(w.down, frame{o, true})
	}
}

// crash begins another process with what is durable, and perhaps some of what
// was about to be.
func (w *life) crash() {
	w.lose()
	keep := rapid.IntRange(w.synced, len(w.log)).Draw(w.t, "kept")
	w.log, w.synced, w.from = w.log[:keep], keep, keep
	w.logged = nil
	w.l, w.lanes = ledger{}, make([]lane, 1)
	w.forget()
	for i, e := range w.log {
		switch {
		case e.n >= 0:
			w.logged = append(w.logged, e.n)
			if i >= w.cut {
				w.l.recall(e.tag, e.digest)
			}
		case i >= w.cut:
			w.l.recallNote(e.note)
		}
	}
	w.connect(true)
}

// forget cuts off the beginning of the log, up to the first entry that still
// says something of a message that the broker has.
func (w *life) forget() {
	cut := rapid.IntRange(w.cut, len(w.log)).Draw(w.t, "cut")
	for i, e := range w.log[:cut] {
		if slices.ContainsFunc(w.open, func(o open) bool { return o.n == e.n || o.id == tagID(e.note) && e.n < 0 }) {
			cut = i
			break
		}
	}
	w.cut = max(w.cut, cut)
}

// Messages of an older session that became durable late do not count.
func TestLedgerRecallsTheLastSession(t *testing.T) {
	var l ledger
	l.recall(makeTag(254, 1, 2, false, false), 10)
	l.recallNote(makeNote(255, 0))
	l.recall(makeTag(0, 1, 2, false, false), 11) // the count wraps
	l.recall(makeTag(255, 1, 2, false, false), 12)
	l.recall(makeTag(255, 2, 2, false, false), 13)
	l.recallNote(makeNote(255, 1))
	l.connected(true)
	if v := l.arrive(1, 2, true, 11, 0, 0); v != againOld {
		t.Errorf("the last session's: %v", v)
	}
	if v := l.arrive(2, 2, true, 13, 0, 0); v != fresh {
		t.Errorf("an older session's: %v", v)
	}
	if v := l.arrive(1, 2, false, 11, 0, 1); v != fresh {
		t.Errorf("with an id used again, not as a redelivery: %v", v)
	}
}

// The bits of tags and notes are a format on disk.
func TestTagBits(t *testing.T) {
	if got := makeTag(0xAB, 0x1234, 2, true, true); got != 0xAB0E1234 {
		t.Errorf("tag %08X", got)
	}
	if got := makeTag(1, 7, 1, false, false); got != 0x01010007 {
		t.Errorf("tag %08X", got)
	}
	if got := makeNote(0xCD, 0x1234); got != 0xCD001234 {
		t.Errorf("note %08X", got)
	}
}
