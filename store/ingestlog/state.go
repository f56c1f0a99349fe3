package ingestlog

import (
	"encoding/binary"
	"encoding/hex"
	"math"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// stateVersion is that of states which are written; version 1 is read.
const stateVersion = 2

// beginsAnew is the flag of a state.
const beginsAnew = 1

// mark is where a lane is. Numbers of messages and bytes are since the log was
// made.
type mark struct {
	next     int64 // offset of the next entry
	clock    int64
	deaf     bool
	messages int64
	bytes    int64 // payloads and topics
}

// LogID names a log: it is drawn when the log is made, and all copies have it.
// Sequence numbers of logs with different ids have nothing to do with each
// other. Zero: one that no program of this version has written yet.
type LogID [16]byte

// String is the id in hexadecimal.
func (id LogID) String() string { return hex.EncodeToString(id[:]) }

// state is where a log is, at the beginning of a segment or after a commit.
type state struct {
	id      LogID
	segment uint64 // 0 in the state of a Group, since each copy numbers its own
	epoch   uint64 // that the last group was appended in; 0: in none
	seq     int64  // of the next entry of all lanes
	anew    bool   // of a head: the log begins here, segments before it are to be removed
	lanes   []mark
}

func (s *state) clone() state {
	c := *s
	c.lanes = append([]mark(nil), s.lanes...)
	return c
}

// become makes s what o is, in the memory that s has.
func (s *state) become(o *state) {
	lanes := append(s.lanes[:0], o.lanes...)
	*s = *o
	s.lanes = lanes
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
	flags := byte(0)
	if s.anew {
		flags = beginsAnew
	}
	dst = append(dst[:0], 0, 0, 0, 0, 0, 0, 0, 0, stateVersion, flags)
	dst = append(dst, s.id[:]...)
	dst = appendUvarint(dst, s.segment)
	dst = appendUvarint(dst, s.epoch)
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
	in := source{b: data[sumBytes+1:]}
	*s = state{}
	switch data[sumBytes] {
	case 1: // without id and epoch
		s.segment, s.seq = in.uvarint(), in.offset()
	case stateVersion:
		flags := in.bytes(1)
		s.anew = len(flags) == 1 && flags[0]&beginsAnew != 0
		if len(flags) == 1 && flags[0]&^beginsAnew != 0 {
			return errMalformed
		}
		copy(s.id[:], in.bytes(len(s.id)))
		s.segment, s.epoch, s.seq = in.uvarint(), in.uvarint(), in.offset()
	default:
		return errVersion
	}
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
