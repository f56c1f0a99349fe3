package ingestlog

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// What may be wrong with a block; errors that leave the package name the place.
var (
	errSum       = errors.New("the checksum does not fit")
	errVersion   = errors.New("written by a newer version of Tidemark")
	errMalformed = errors.New("the bytes are not those of a block")
)

// cursor reads a block from the front to the back. Everything it is told by the
// bytes is checked before it is used.
type cursor struct {
	lane   int
	offset int64 // of the next entry
	end    int64 // offset behind the last
	seq    int64 // of the next entry
	clock  int64 // of the lane, before the next entry

	runs     []run
	at       int // the run of the next entry; it may be begun
	notes    []byte
	clocks   []byte
	index    []byte
	lens     []byte
	tags     []byte // nil: no tags
	payloads []byte
	names    []byte // the dictionary: name i is names[spans[2i]:spans[2i+1]]
	spans    []int32
	tooLong  []int32
	long     int   // those of tooLong that were taken
	row      int32 // number of the next message in the block
}

// verify checks the checksum of a block or a state.
func verify(data []byte) error {
	if len(data) < sumBytes+2 {
		return errMalformed
	}
	if binary.LittleEndian.Uint64(data) != xxh3.Hash(data[sumBytes:]) {
		return errSum
	}
	return nil
}

// source reads numbers and bytes off the front; after the first that is not
// there it is bad, and everything is zero.
type source struct {
	b   []byte
	bad bool
}

func (s *source) uvarint() uint64 {
	v, n := binary.Uvarint(s.b)
	if n <= 0 {
		s.bad, s.b = true, nil
		return 0
	}
	s.b = s.b[n:]
	return v
}

func (s *source) varint() int64 {
	v, n := binary.Varint(s.b)
	if n <= 0 {
		s.bad, s.b = true, nil
		return 0
	}
	s.b = s.b[n:]
	return v
}

// count is a number that cannot be more than most.
func (s *source) count(most int) int {
	v := s.uvarint()
	if v > uint64(most) {
		s.bad, s.b = true, nil
		return 0
	}
	return int(v)
}

// offset is a number that is no less than zero when signed.
func (s *source) offset() int64 {
	v := s.uvarint()
	if v > math.MaxInt64/2 {
		s.bad = true
		return 0
	}
	return int64(v)
}

func (s *source) bytes(n int) []byte {
	if n > len(s.b) {
		s.bad, s.b = true, nil
		return nil
	}
	b := s.b[:n:n]
	s.b = s.b[n:]
	return b
}

func (s *source) sized() []byte { return s.bytes(s.count(len(s.b))) }

// open sets the cursor before the first entry of a block. data stays the
// caller's, and must not change while the cursor is used.
func (c *cursor) open(data []byte) error {
	s, err := c.openHead(data)
	if err != nil {
		return err
	}
	messages, notes := c.count()
	c.notes = s.bytes(4 * notes)
	c.clocks = s.sized()
	flags := data[sumBytes+1]
	if flags&^allFlags != 0 || (flags&withMessages != 0) != (messages > 0) || flags&^withMessages != 0 && messages == 0 {
		return errMalformed
	}
	if messages > 0 {
		c.openMessages(&s, messages, flags)
	} else if len(s.b) > 0 {
		s.bad = true
	}
	if s.bad {
		return errMalformed
	}
	return nil
}

// openHead reads what says which entries are in the block: lane, offset, end,
// seq, clock and runs. It returns what follows.
func (c *cursor) openHead(data []byte) (source, error) {
	if len(data) < sumBytes+2 {
		return source{}, errMalformed
	}
	if data[sumBytes] != version {
		return source{}, errVersion
	}
	s := source{b: data[sumBytes+2:]}
	*c = cursor{runs: c.runs[:0], spans: c.spans[:0], tooLong: c.tooLong[:0]}
	c.lane = s.count(math.MaxUint16)
	c.offset, c.seq = s.offset(), s.offset()
	c.clock = s.varint()
	c.openRuns(&s)
	if s.bad {
		return s, errMalformed
	}
	return s, nil
}

// count is the number of messages and notes in a block that was just opened.
func (c *cursor) count() (messages, notes int) {
	for _, r := range c.runs {
		switch r.kind {
		case message:
			messages += r.count
		case note:
			notes += r.count
		}
	}
	return messages, notes
}

func (c *cursor) openRuns(s *source) {
	// An entry has at least a byte somewhere, so there are not more than bytes.
	most := len(s.b)
	entries := 0
	for i := range s.count(most) {
		v, gap := s.uvarint(), s.offset()
		if s.bad || v>>2 == 0 || v>>2 > uint64(most-entries) || i == 0 && gap != 0 {
			s.bad = true
			return
		}
		r := run{kind: kind(v & 3), count: int(v >> 2), gap: gap}
		entries += r.count
		c.runs = append(c.runs, r)
	}
	c.end = c.offset + int64(entries)
	if entries == 0 {
		s.bad = true
	}
}

func (c *cursor) openMessages(s *source, messages int, flags byte) {
	whole := s.b
	for range s.count(len(s.b)) {
		n := s.count(len(s.b))
		at := len(whole) - len(s.b)
		s.bytes(n)
		c.spans = append(c.spans, int32(at), int32(at+n))
	}
	c.names = whole
	if flags&withTooLong != 0 {
		last := 0
		for i := range s.count(messages) {
			d := s.count(messages - 1 - last)
			if i > 0 && d == 0 {
				s.bad = true
				return
			}
			last += d
			c.tooLong = append(c.tooLong, int32(last))
		}
		if len(c.tooLong) == 0 {
			s.bad = true
		}
	}
	c.index, c.lens = s.sized(), s.sized()
	if flags&withTags != 0 {
		c.tags = s.bytes(4 * messages)
	}
	c.payloads = s.b
}

// peek is the kind of the next entry and how many of it follow each other;
// false at the end of the block.
func (c *cursor) peek() (kind, int, bool) {
	if c.at == len(c.runs) {
		return 0, 0, false
	}
	return c.runs[c.at].kind, c.runs[c.at].count, true
}

// done takes n entries off the run.
func (c *cursor) done(n int) {
	r := &c.runs[c.at]
	c.offset += int64(n)
	c.seq += int64(n)
	if r.count -= n; r.count == 0 {
		if c.at++; c.at < len(c.runs) {
			c.seq += c.runs[c.at].gap
		}
	}
}

// finish checks that nothing is left over at the end of the block.
func (c *cursor) finish() error {
	if len(c.clocks)+len(c.index)+len(c.lens)+len(c.payloads)+len(c.tags)+len(c.notes)+len(c.tooLong)-c.long > 0 {
		return errMalformed
	}
	return nil
}

// takeClock takes a tick or deaf and returns the clock then.
func (c *cursor) takeClock() (int64, error) {
	s := source{b: c.clocks}
	d := s.uvarint()
	if s.bad || !c.advance(d) {
		return 0, errMalformed
	}
	c.clocks = s.b
	c.done(1)
	return c.clock, nil
}

// advance moves the clock, unless that would go past the end of time.
func (c *cursor) advance(d uint64) bool {
	if d > uint64(math.MaxInt64)-uint64(c.clock) {
		return false
	}
	c.clock = int64(uint64(c.clock) + d)
	return true
}

// takeNotes appends n notes.
func (c *cursor) takeNotes(dst []uint32, n int) []uint32 {
	for i := range n {
		dst = append(dst, binary.LittleEndian.Uint32(c.notes[4*i:]))
	}
	c.skipNotes(n)
	return dst
}

func (c *cursor) skipNotes(n int) {
	c.notes = c.notes[4*n:]
	c.done(n)
}

// takeMessages appends n messages of the run to out.
func (c *cursor) takeMessages(out *sensors.Records, n int, tags bool) error {
	out.Ends = slices.Grow(out.Ends, n)
	end := int32(len(out.Payloads))
	total, lens, at := 0, c.lens, 0
	for range n {
		v, p := uvarintAt(lens, at)
		if p < 0 || v > uint64(len(c.payloads)-total) {
			return errMalformed
		}
		at = p
		total += int(v)
		out.Ends = append(out.Ends, end+int32(total))
	}
	c.lens = lens[at:]
	out.Payloads = append(out.Payloads, c.payloads[:total]...)
	c.payloads = c.payloads[total:]
	if err := c.takeArrivals(out, n); err != nil {
		return err
	}
	if err := c.takeTopics(out, n); err != nil {
		return err
	}
	if c.tags != nil {
		for i := 0; tags && i < n; i++ {
			out.Tags = append(out.Tags, binary.LittleEndian.Uint32(c.tags[4*i:]))
		}
		c.tags = c.tags[4*n:]
	} else if tags {
		out.Tags = append(out.Tags, make([]uint32, n)...)
	}
	first := int32(len(out.Ends)-n) - c.row
	c.row += int32(n)
	for ; c.long < len(c.tooLong) && c.tooLong[c.long] < c.row; c.long++ {
		out.TooLong = append(out.TooLong, c.tooLong[c.long]+first)
	}
	c.done(n)
	return nil
}

func (c *cursor) takeArrivals(out *sensors.Records, n int) error {
	out.Arrivals = slices.Grow(out.Arrivals, n)
	at := 0
	for range n {
		v, p := uvarintAt(c.clocks, at)
		if p < 0 || !c.advance(v) {
			return errMalformed
		}
		at = p
		out.Arrivals = append(out.Arrivals, c.clock)
	}
	c.clocks = c.clocks[at:]
	return nil
}

func (c *cursor) takeTopics(out *sensors.Records, n int) error {
	out.TopicEnd = slices.Grow(out.TopicEnd, n)
	at := 0
	for range n {
		v, p := uvarintAt(c.index, at)
		if p < 0 || v >= uint64(len(c.spans)/2) {
			return errMalformed
		}
		at = p
		out.Topics = append(out.Topics, c.names[c.spans[2*v]:c.spans[2*v+1]]...)
		out.TopicEnd = append(out.TopicEnd, int32(len(out.Topics)))
	}
	c.index = c.index[at:]
	return nil
}

// uvarintAt reads a number at p and returns where the next begins; -1: there is
// none.
func uvarintAt(b []byte, p int) (uint64, int) {
	if p < len(b) && b[p] < 0x80 {
		return uint64(b[p]), p + 1
	}
	v, n := binary.Uvarint(b[min(p, len(b)):])
	if n <= 0 {
		return 0, -1
	}
	return v, p + n
}

// skip passes over entries up to an offset. scratch is used up.
func (c *cursor) skip(to int64, scratch *sensors.Records) error {
	for c.offset < to {
		k, n, ok := c.peek()
		if !ok {
			return errMalformed
		}
		n = int(min(int64(n), to-c.offset))
		switch k {
		case message:
			scratch.Reset(0)
			if err := c.takeMessages(scratch, n, false); err != nil {
				return err
			}
		case note:
			c.skipNotes(n)
		default:
			if _, err := c.takeClock(); err != nil {
				return err
			}
		}
	}
	return nil
}

// deliver fills out with what comes next in the block for a reader: messages
// that follow those which out has, at most max in all, a tick, or deaf. False:
// nothing more belongs into out; then the block is at its end, or out is full,
// or what comes next is no message that follows.
func (c *cursor) deliver(out *sensors.Records, max int) (bool, error) {
	c.passNotes(out)
	k, n, ok := c.peek()
	had := out.Len()
	switch {
	case !ok || had == max || had > 0 && (k != message || out.First+int64(had) != c.offset):
		return false, nil
	case k == message:
		if had == 0 {
			out.First = c.offset
		}
		if err := c.takeMessages(out, min(n, max-had), false); err != nil {
			return false, err
		}
		out.Next, out.Clock = c.offset, c.clock
		c.passNotes(out)
		return true, nil
	}
	out.First = c.offset
	clock, err := c.takeClock()
	out.Next, out.Clock, out.Deaf = c.offset, clock, k == deaf
	c.passNotes(out)
	return true, err
}

// passNotes skips notes; the position behind what out has passes over them.
func (c *cursor) passNotes(out *sensors.Records) {
	for {
		k, n, ok := c.peek()
		if !ok || k != note {
			return
		}
		if out.Next > 0 && out.Next == c.offset {
			out.Next += int64(n)
		}
		c.skipNotes(n)
	}
}

// minClock is a clock that has not begun.
const minClock = int64(dataflow.MinTime)
