package ingestlog

import (
	"encoding/binary"
	"math"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// mark is where a lane is. Numbers of messages and bytes are since the log was
// made.
type mark struct {
	next     int64 // offset of the next entry
	clock    int64
	deaf     bool
	messages int64
	bytes    int64 // payloads and topics
}

// state is where a log is, at the beginning of a segment or after a commit.
type state struct {
	segment uint64
	seq     int64 // of the next entry of all lanes
	lanes   []mark
}

func (s *state) clone() state {
	c := *s
	c.lanes = append([]mark(nil), s.lanes...)
	return c
}

func newState(lanes int) state {
	s := state{lanes: make([]mark, lanes)}
	for i := range s.lanes {
		s.lanes[i].clock = minClock
	}
	return s
}

func (s *state) messages() (n int64) {
	for i := range s.lanes {
		n += s.lanes[i].messages
	}
	return n
}

// clock is that of the lane that is furthest.
func (s *state) clock() dataflow.Time {
	t := minClock
	for i := range s.lanes {
		t = max(t, s.lanes[i].clock)
	}
	return dataflow.Time(t)
}

func (s *state) encode(dst []byte) []byte {
	dst = append(dst[:0], 0, 0, 0, 0, 0, 0, 0, 0, version)
	dst = appendUvarint(dst, s.segment)
	dst = appendUvarint(dst, uint64(s.seq))
	dst = appendUvarint(dst, uint64(len(s.lanes)))
	for i := range s.lanes {
		m := &s.lanes[i]
		deaf := uint64(0)
		if m.deaf {
			deaf = 1
		}
		dst = appendUvarint(dst, uint64(m.next)<<1|deaf)
		dst = binary.AppendVarint(dst, m.clock)
		dst = appendUvarint(dst, uint64(m.messages))
		dst = appendUvarint(dst, uint64(m.bytes))
	}
	binary.LittleEndian.PutUint64(dst, xxh3.Hash(dst[sumBytes:]))
	return dst
}

func (s *state) decode(data []byte) error {
	if err := verify(data); err != nil {
		return err
	}
	if data[sumBytes] != version {
		return errVersion
	}
	in := source{b: data[sumBytes+1:]}
	s.segment, s.seq = in.uvarint(), in.offset()
	lanes := in.count(min(math.MaxUint16, len(in.b)/4))
	s.lanes = make([]mark, lanes)
	for i := range s.lanes {
		next := in.uvarint()
		s.lanes[i] = mark{next: int64(next >> 1), deaf: next&1 != 0, clock: in.varint(), messages: in.offset(), bytes: in.offset()}
	}
	if in.bad || lanes == 0 || len(in.b) > 0 {
		return errMalformed
	}
	return nil
}
