package mqtt

// nobody is the lane of a delivery that no lane will ever hand out: it is
// acknowledged as soon as its turn comes.
const nobody = -1

// delivery is a message of QoS 1 or 2 that has not been acknowledged.
type delivery struct {
	offset int64  // within the lane
	gen    uint32 // the connection on which the broker waits for the acknowledgement; an old one: it waits on none
	id     uint16
	lane   int16
	qos    byte
}

// seen is what is known of the last message that had a packet id.
type seen struct {
	digest uint64
	seq    int64 // its place in the ledger's order; recalled: it came before this process
	qos    byte  // 0: nothing is known, or the broker has closed it
	ending bool  // QoS 2: PUBREL came, and its release is not noted durably yet
}

// recalled is the place of what a process before this one took: it is durable,
// and so below every head.
const recalled = -1

// release is a PUBREL that is to be noted durably before it is answered.
type release struct {
	offset  int64  // of the note, in noteLane
	gen     uint32 // the connection on which the broker waits for PUBCOMP
	id      uint16
	session uint8
}

// noteLane is the lane whose records the notes go with.
const noteLane = 0

// ledger knows every message of QoS 1 and 2 that may come again, and in which
// order to acknowledge. It belongs to the reader, under the reader's lock.
//
// Full: the broker stops sending when its window of unacknowledged messages
// is full; a packet id has 16 bits, so at most 65,535 are open.
//
// Invariants: head <= tail; deliveries below head are acknowledged, those from
// head to tail wait; gen is that of the present connection, and a delivery's
// acknowledgement is written only while it bears that gen.
type ledger struct {
	gen        uint32
	ring       []delivery // of a power of two; the delivery seq is at seq & (len-1)
	head, tail int64
	ids        [256]*[256]seen // by packet id, in pages
	session    uint8           // counts the sessions that the broker lost; wraps
	counted    bool            // a session has begun, here or in the log
	releases   []release       // in order; at most one a packet id and session
}

// verdict is what arrive says of a message.
type verdict uint8

const (
	fresh    verdict = iota // not seen before: it now waits in the ledger
	again                   // a redelivery of one that waits
	againOld                // a redelivery of one that was acknowledged: do it again at once
)

// connected begins a connection. If the broker has lost the session, what it
// sends from now on has nothing to do with what it sent before.
func (l *ledger) connected(known bool) {
	l.gen++
	if !known {
		l.counted = true
		l.session++
		l.ids = [256]*[256]seen{}
	}
}

func (l *ledger) seen(id uint16) *seen {
	p := &l.ids[id>>8]
	if *p == nil {
		*p = new([256]seen)
	}
	return &(*p)[id&0xff]
}

// arrive judges a message of QoS 1 or 2 and, if it is fresh, enters it as the
// given offset of lane.
//
// A redelivery has the content of the last message of its packet id in this
// session, and DUP set, as the protocol demands of a broker. Of QoS 2 DUP is not
// asked for while the id is open, not released by PUBREL, and the message came
// in this process.
//
// A message of QoS 2 whose id was released and that comes again with DUP is a
// redelivery too: by the protocol it cannot be, but Mosquitto does so when it
// was restarted.
//
// So the one thing taken wrongly for a redelivery is a message with the content
// of the previous one of its id, whose own first sending got lost with a
// connection or a process.
func (l *ledger) arrive(id uint16, qos byte, dup bool, digest uint64, lane int16, offset int64) verdict {
	s := l.seen(id)
	same := s.qos == qos && (dup || qos == 2 && s.seq != recalled) || qos == 2 && s.qos == 0 && dup // open, or released
	if same && s.digest == digest {
		if s.seq < l.head {
			return againOld
		}
		l.at(s.seq).gen = l.gen
		return again
	}
	if s.qos != 0 && s.seq >= l.head {
		l.at(s.seq).gen = 0 // the id means another message now
	}
	*s = seen{digest: digest, seq: l.tail, qos: qos}
	if int(l.tail-l.head) == len(l.ring) {
		l.grow()
	}
	*l.at(l.tail) = delivery{offset: offset, gen: l.gen, id: id, lane: lane, qos: qos}
	l.tail++
	return fresh
}

func (l *ledger) at(seq int64) *delivery { return &l.ring[seq&int64(len(l.ring)-1)] }

func (l *ledger) grow() {
	ring := make([]delivery, max(256, 2*len(l.ring)))
	for seq := l.head; seq < l.tail; seq++ {
		ring[seq&int64(len(ring)-1)] = *l.at(seq)
	}
	l.ring = ring
}

// recall enters what a process before this one has made durable. It may come
// among messages of an older session; current tells whether it did not.
func (l *ledger) recall(tag uint32, digest uint64) (current bool) {
	current = l.current(tag)
	if current && tagQoS(tag) > 0 {
		*l.seen(tagID(tag)) = seen{digest: digest, seq: recalled, qos: tagQoS(tag)}
	}
	return current
}

// recallNote is recall for a note.
func (l *ledger) recallNote(note uint32) (current bool) {
	current = l.current(note)
	if id := tagID(note); current && id != 0 {
		l.closed(id)
	}
	return current
}

// current tells whether a tag or note is of the present session; one of a later
// session begins that. The first one says where the count stands: it may be
// anywhere.
func (l *ledger) current(tag uint32) bool {
	if !l.counted {
		l.counted, l.session = true, tagSession(tag)
	}
	d := int8(tagSession(tag) - l.session)
	if d > 0 {
		l.ids = [256]*[256]seen{}
		l.session = tagSession(tag)
	}
	return d >= 0
}

// closed says that the broker is done with a message of QoS 2.
func (l *ledger) closed(id uint16) {
	if s := l.seen(id); s.qos == 2 {
		s.qos = 0
	}
}

// ends hears PUBREL. open: it must not be answered before it is noted durably;
// fresh: the note is yet to be made, at the given offset of noteLane.
func (l *ledger) ends(id uint16, offset int64) (open, fresh bool) {
	s := l.seen(id)
	if s.qos != 2 {
		return false, false
	}
	if !s.ending {
		s.ending = true
		l.releases = append(l.releases, release{offset: offset, gen: l.gen, id: id, session: l.session})
		return true, true
	}
	for i := range l.releases { // the broker asks again, on another connection
		if r := &l.releases[i]; r.id == id && r.session == l.session {
			r.gen = l.gen
		}
	}
	return true, false
}

// complete appends the PUBCOMPs that are due: those whose notes are before
// acked, the lowest offset of noteLane that is not safe yet.
func (l *ledger) complete(dst []byte, acked int64) []byte {
	n := 0
	for ; n < len(l.releases) && l.releases[n].offset < acked; n++ {
		r := l.releases[n]
		if r.session == l.session && l.seen(r.id).ending {
			l.closed(r.id)
		}
		if r.gen == l.gen {
			dst = appendAck(dst, framePubcomp, r.id)
		}
	}
	l.releases = append(l.releases[:0], l.releases[n:]...)
	return dst
}

// pop appends the acknowledgements that are due, in the order in which the
// messages came: those before the first that its lane has not acknowledged.
// acked is the lowest offset of each lane that is not safe yet.
func (l *ledger) pop(dst []byte, lanes []lane) []byte {
	for ; l.head < l.tail; l.head++ {
		d := l.at(l.head)
		if d.lane != nobody && d.offset >= lanes[d.lane].acked {
			break
		}
		if d.gen == l.gen {
			dst = appendReceipt(dst, d.qos, d.id)
		}
	}
	return dst
}

// appendReceipt appends what a subscriber answers to a message.
func appendReceipt(dst []byte, qos byte, id uint16) []byte {
	if qos == 2 {
		return appendAck(dst, framePubrec, id)
	}
	return appendAck(dst, framePuback, id)
}
