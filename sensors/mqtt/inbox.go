package mqtt

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

const (
	// A segment takes no more once it has so many messages or payload bytes.
	segmentRows  = 4096
	segmentBytes = 256 << 10
	// spareSegments is how many empty ones are kept for reuse.
	spareSegments = 16
	// perMessage is what a message costs in the inbox beside topic and payload.
	perMessage = 24
)

// segment is a run of messages of one lane, or a change of its hearing: then
// it holds none.
type segment struct {
	r     sensors.Records // Split, Payloads, Ends, Topics, TopicEnd, Arrivals, TooLong, Tags, Notes, First; Clock and Deaf if it is a change
	taken int             // messages handed out already
	turn  bool            // it is a change of hearing
}

// lane is one split: a queue of segments, with the clock and the positions of
// the split. It belongs to the inbox, under the reader's lock.
//
// Invariant: acked <= read <= next, all offsets of messages and of notes of
// releases, which count one each.
type lane struct {
	queue   []*segment // the oldest first; segments before head are nil
	head    int
	next    int64 // offset of the next message or release that arrives
	read    int64 // offset after the last one handed out
	acked   int64 // every one before it is safe
	base    int64 // what outside is added to these three
	clock   int64 // the latest instant told or stamped
	hearing bool
}

// inbox holds what has arrived and was not read. It belongs to the reader,
// under its lock.
//
// Full, with QoS 1 or 2: the reader stops reading from the socket (hold), TCP
// makes the broker wait, from CONNACK on, and nothing is lost; what paho has already read is
// still taken, at most a read buffer and a packet more. Full, with QoS 0: a
// message is dropped and counted.
type inbox struct {
	lanes    []lane
	spare    []*segment
	turn     int      // the lane to serve next
	messages int      // unread
	bytes    int      // of the unread, with perMessage for each
	tags     bool     // records have Tags
	began    []uint32 // at most two: notes of new sessions, which go before all else
	since    int64    // when the lanes became deaf, if they are
	round    int64    // when a tick was due last
}

func (b *inbox) segment(split int) *segment {
	if n := len(b.spare); n > 0 {
		s := b.spare[n-1]
		b.spare = b.spare[:n-1]
		s.r.Reset(split)
		s.taken, s.turn = 0, false
		return s
	}
	s := new(segment)
	s.r.Reset(split)
	return s
}

func (b *inbox) recycle(s *segment) {
	if len(b.spare) < spareSegments && cap(s.r.Payloads) <= 2*segmentBytes {
		b.spare = append(b.spare, s)
	}
}

func (l *lane) empty() bool { return l.head == len(l.queue) }

func (l *lane) push(s *segment) {
	if l.head > 64 && 2*l.head > len(l.queue) {
		l.queue = append(l.queue[:0], l.queue[l.head:]...)
		l.head = 0
	}
	l.queue = append(l.queue, s)
}

func (l *lane) pop() {
	l.queue[l.head] = nil
	l.head++
	if l.empty() {
		l.queue, l.head = l.queue[:0], 0
	}
}

// add appends a message whose payload was cut if long is set.
func (b *inbox) add(split int, topic string, payload []byte, tag uint32, now int64, long bool) {
	l := &b.lanes[split]
	l.clock = max(l.clock, now)
	var s *segment
	if !l.empty() {
		s = l.queue[len(l.queue)-1]
	}
	if s == nil || s.turn || len(s.r.Notes) > 0 || len(s.r.Ends) >= segmentRows || len(s.r.Payloads) >= segmentBytes {
		s = b.segment(split)
		s.r.First = l.next
		l.push(s)
	}
	r := &s.r
	if long {
		r.TooLong = append(r.TooLong, int32(len(r.Ends)))
	}
	if b.tags {
		r.Tags = append(r.Tags, tag)
	}
	r.Append(payload)
	r.Topics = append(r.Topics, topic...)
	r.TopicEnd = append(r.TopicEnd, int32(len(r.Topics)))
	r.Arrivals = append(r.Arrivals, l.clock)
	l.next++
	b.messages++
	b.bytes += len(topic) + len(payload) + perMessage
}

// begin enters the note of a new session. Of many that nobody has read the first stays, as
// a log must begin with that of its first session, and the newest: what is open is of that.
func (b *inbox) begin(note uint32) { b.began = append(b.began[:min(len(b.began), 1)], note) }

// release appends the note of a PUBREL and returns its offset in noteLane. There
// are never more than packet ids, so it has no bound of its own.
func (b *inbox) release(note uint32) (offset int64) {
	l := &b.lanes[noteLane]
	var s *segment
	if !l.empty() {
		s = l.queue[len(l.queue)-1]
	}
	if s == nil || s.turn {
		s = b.segment(noteLane)
		s.r.First = l.next
		l.push(s)
	}
	s.r.Notes = append(s.r.Notes, note)
	l.next++
	return l.next - 1
}

// hear notes on every lane that the broker is heard from now on, or is not.
// Changes with no message between them become one, so that a broker that comes
// and goes does not fill the inbox.
func (b *inbox) hear(hearing bool, now int64) {
	if b.hears() && !hearing {
		b.since = now
	}
	for i := range b.lanes {
		b.hearLane(i, hearing, now)
	}
}

// shut notes on every lane that it is deaf since its own clock, behind what came:
// what came after that may wait in the socket already.
func (b *inbox) shut(now int64) {
	if b.hears() {
		b.hear(false, int64(dataflow.MinTime))
		b.since = now
	}
}

func (b *inbox) hearLane(split int, hearing bool, now int64) {
	l := &b.lanes[split]
	if l.hearing == hearing {
		return
	}
	l.hearing = hearing
	l.clock = max(l.clock, now)
	if !hearing && !l.empty() {
		if last := l.queue[len(l.queue)-1]; last.turn && !last.r.Deaf && len(l.queue)-l.head > 1 && l.queue[len(l.queue)-2].turn {
			// deaf, hearing, deaf: the first stands for all.
			l.queue = l.queue[:len(l.queue)-1]
			b.recycle(last)
			return
		}
	}
	s := b.segment(split)
	s.turn, s.r.Deaf, s.r.Clock = true, !hearing, l.clock
	l.push(s)
}

// late lets a deaf lane take a message that was read from the socket before it was
// deaf, and leaves it deaf.
func (b *inbox) late(split int, topic string, payload []byte, tag uint32, now int64, long bool) {
	l, now := &b.lanes[split], min(now, b.since)
	if last := len(l.queue) - 1; !l.empty() && l.queue[last].turn && l.queue[last].r.Clock == l.clock { // deaf only since now
		b.recycle(l.queue[last])
		l.queue, l.hearing = l.queue[:last], true
	}
	b.hearLane(split, true, now)
	b.add(split, topic, payload, tag, now, long)
	b.hearLane(split, false, int64(dataflow.MinTime))
}

// hears tells whether the broker is heard. All lanes hear, or none does.
func (b *inbox) hears() bool { return b.lanes[0].hearing }

// waits tells whether take would find something.
func (b *inbox) waits() bool {
	if len(b.began) > 0 {
		return true
	}
	for i := range b.lanes {
		if !b.lanes[i].empty() {
			return true
		}
	}
	return false
}

// take fills out with the next run of messages or change of hearing, at most
// max messages; false if there is none.
func (b *inbox) take(out *sensors.Records, max int) bool {
	if len(b.began) > 0 {
		l := &b.lanes[noteLane]
		out.Reset(noteLane)
		out.First, out.Next = l.base+l.read, l.base+l.read // it has no offset: nothing waits for it
		out.Notes = append(out.Notes, b.began...)
		b.began = b.began[:0]
		return true
	}
	for range b.lanes {
		split := b.turn
		b.turn = (b.turn + 1) % len(b.lanes)
		if l := &b.lanes[split]; !l.empty() {
			b.serve(l, split, out, max)
			return true
		}
	}
	return false
}

func (b *inbox) serve(l *lane, split int, out *sensors.Records, max int) {
	s := l.queue[l.head]
	out.Reset(split)
	switch rest := len(s.r.Ends) - s.taken; {
	case s.turn:
		out.First, out.Next = l.base+l.read, l.base+l.read
		out.Clock, out.Deaf = s.r.Clock, s.r.Deaf
		l.pop()
		b.recycle(s)
		return
	case s.taken == 0 && rest <= max:
		// The whole segment: give the caller its memory and take the caller's.
		s.r, *out = *out, s.r
		l.pop()
		b.recycle(s)
	default:
		n := min(rest, max)
		s.copy(out, n)
		if s.taken += n; s.taken == len(s.r.Ends) {
			out.Notes = append(out.Notes, s.r.Notes...)
			l.pop()
			b.recycle(s)
		}
	}
	n := out.Len()
	l.read += int64(n + len(out.Notes))
	out.First += l.base
	out.Next = l.base + l.read
	if n > 0 { // notes alone tell no time: a tick could end the lane's deafness
		out.Clock = out.Arrivals[n-1]
	}
	b.messages -= n
	b.bytes -= n*perMessage + len(out.Payloads) + len(out.Topics)
}

// copy copies the next n messages to out.
func (s *segment) copy(out *sensors.Records, n int) {
	for i := s.taken; i < s.taken+n; i++ {
		out.AppendMessage(s.r.Topic(i), s.r.Payload(i), s.r.Arrivals[i])
	}
	if len(s.r.Tags) > 0 {
		out.Tags = append(out.Tags, s.r.Tags[s.taken:s.taken+n]...)
	}
	for _, k := range s.r.TooLong {
		if i := int(k) - s.taken; i >= 0 && i < n {
			out.TooLong = append(out.TooLong, int32(i))
		}
	}
	out.First = s.r.First + int64(s.taken)
}

// silent finds a lane that hears, has nothing to read, and whose clock stood
// still for at least every; it returns -1 and the time until the first lane is
// in that state, or 0 if that depends on something else. With one, those go whose
// clocks stood still for half of it: so silent lanes are told the time together, and
// who writes it down does so once for all of them.
func (b *inbox) silent(now, every int64) (split int, wait int64) {
	for i := range b.lanes {
		l := &b.lanes[i]
		if !l.hearing || !l.empty() {
			continue
		}
		if l.clock+(every+1)/2 <= min(b.round, now) { // the wall clock may have been set back since
			return i, 0
		}
		left := l.clock + every - now
		if left <= 0 {
			b.round = now
			return i, 0
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return -1, wait
}

// tick fills out with a tick of a lane.
func (b *inbox) tick(split int, now int64, out *sensors.Records) {
	l := &b.lanes[split]
	l.clock = max(l.clock, now)
	out.Reset(split)
	out.First, out.Next, out.Clock = l.base+l.read, l.base+l.read, l.clock
}
