package feed

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/mesh/wire"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// The frames of a stream of kind mesh.Log. docs/INGEST_LOG.md has the bytes and
// who sends what when.
const (
	// From the owner.
	frameHello      byte = 1
	frameAnew       byte = 2
	frameCut        byte = 3
	frameBlock      byte = 4
	frameGroup      byte = 5
	frameReplicated byte = 6
	// From the member.
	frameState   byte = 7
	frameAck     byte = 8
	frameRefused byte = 9
)

// maxSmall bounds the payload of all frames but blocks.
const maxSmall = 64 << 10

// errFrame is wrapped by what a frame is not.
var errFrame = errors.New("not a frame of a log")

// hello begins a stream.
type hello struct {
	feed  string
	epoch uint64
	id    ingestlog.LogID
}

// copyState is where a member's copy is.
type copyState struct {
	id       ingestlog.LogID
	promised uint64
	epoch    uint64
	first    int64
	end      int64
}

// refusal is why a member takes nothing.
type refusal struct {
	code byte
	why  string
}

// The codes of a refusal.
const (
	refusedLater   byte = 1 // the member does not know of the epoch yet, or is busy: come again
	refusedSealed  byte = 2 // a later epoch was promised: this owner is none any more
	refusedFailing byte = 3 // its disk fails: come again
	refusedFull    byte = 6 // its disk is full: come again, and say what it may let go
	// To a mirror only.
	refusedElsewhere byte = 4 // the text is the node that owns the log
	refusedOther     byte = 5 // the mirror's log is none of this one's: come again, as either may learn something
)

// fields are those of a payload.
type fields struct{ wire.Fields }

// seq is a sequence number.
func (f *fields) seq() int64 {
	v := f.Uvarint()
	if v > 1<<62 {
		f.Fail()
		return 0
	}
	return int64(v)
}

func (f *fields) id() (id ingestlog.LogID) {
	copy(id[:], f.Take(len(id)))
	return id
}

// done is an error unless all was there and nothing is left.
func (f *fields) done(kind string) error {
	if !f.Whole() {
		return fmt.Errorf("%w: %s", errFrame, kind)
	}
	return nil
}

func appendSized(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func (h hello) append(dst []byte) []byte {
	at := len(dst)
	dst = appendSized(wire.Begin(dst, frameHello), []byte(h.feed))
	dst = binary.AppendUvarint(dst, h.epoch)
	return wire.Finish(append(dst, h.id[:]...), at)
}

func (h *hello) decode(b []byte) error {
	f := fields{wire.FieldsOf(b)}
	*h = hello{feed: string(f.Sized()), epoch: f.Uvarint(), id: f.id()}
	return f.done("hello")
}

func (s copyState) append(dst []byte) []byte {
	at := len(dst)
	dst = append(wire.Begin(dst, frameState), s.id[:]...)
	for _, v := range []uint64{s.promised, s.epoch, uint64(s.first), uint64(s.end)} {
		dst = binary.AppendUvarint(dst, v)
	}
	return wire.Finish(dst, at)
}

func (s *copyState) decode(b []byte) error {
	f := fields{wire.FieldsOf(b)}
	*s = copyState{id: f.id(), promised: f.Uvarint(), epoch: f.Uvarint(), first: f.seq(), end: f.seq()}
	return f.done("state")
}

func (r refusal) append(dst []byte) []byte {
	at := len(dst)
	why := r.why[:min(len(r.why), 4096)]
	return wire.Finish(appendSized(append(wire.Begin(dst, frameRefused), r.code), []byte(why)), at)
}

func (r *refusal) decode(b []byte) error {
	f := fields{wire.FieldsOf(b)}
	if code := f.Take(1); len(code) == 1 {
		r.code = code[0]
	}
	r.why = string(f.Sized())
	return f.done("refused")
}

// appendSeq makes a frame that has only a sequence number: cut and ack.
func appendSeq(dst []byte, kind byte, seq int64) []byte {
	at := len(dst)
	return wire.Finish(binary.AppendUvarint(wire.Begin(dst, kind), uint64(seq)), at)
}

func decodeSeq(b []byte) (int64, error) {
	f := fields{wire.FieldsOf(b)}
	seq := f.seq()
	return seq, f.done("a sequence number")
}

func appendReplicated(dst []byte, seq, floor int64) []byte {
	at := len(dst)
	dst = binary.AppendUvarint(wire.Begin(dst, frameReplicated), uint64(seq))
	return wire.Finish(binary.AppendUvarint(dst, uint64(floor)), at)
}

func decodeReplicated(b []byte) (seq, floor int64, err error) {
	f := fields{wire.FieldsOf(b)}
	seq, floor = f.seq(), f.seq()
	return seq, floor, f.done("replicated")
}

// appendGroup makes the frames of a group: one for each block, then the one that
// ends it.
func appendGroup(dst []byte, g *ingestlog.Group) []byte {
	for i := range g.Blocks {
		at := len(dst)
		dst = binary.AppendUvarint(wire.Begin(dst, frameBlock), uint64(g.Blocks[i].Lane))
		dst = wire.Finish(append(dst, g.Blocks[i].Data...), at)
	}
	at := len(dst)
	dst = binary.AppendUvarint(wire.Begin(dst, frameGroup), uint64(g.Seq))
	dst = binary.AppendUvarint(dst, uint64(g.Next))
	dst = binary.AppendUvarint(dst, uint64(len(g.Blocks)))
	return wire.Finish(append(dst, g.State...), at)
}

// decodeBlock has its own memory.
func decodeBlock(b []byte) (ingestlog.GroupBlock, error) {
	f := fields{wire.FieldsOf(b)}
	lane := f.Uvarint()
	if f.Failed() || lane > 1<<16 {
		return ingestlog.GroupBlock{}, fmt.Errorf("%w: block", errFrame)
	}
	return ingestlog.GroupBlock{Lane: int(lane), Data: append([]byte(nil), f.Rest()...)}, nil
}

// decodeGroup ends a group whose blocks came before.
func decodeGroup(b []byte, blocks []ingestlog.GroupBlock) (*ingestlog.Group, error) {
	f := fields{wire.FieldsOf(b)}
	g := &ingestlog.Group{Seq: f.seq(), Next: f.seq(), Blocks: blocks}
	if n := f.Uvarint(); f.Failed() || n != uint64(len(blocks)) {
		return nil, fmt.Errorf("%w: group of %d blocks, %d came", errFrame, n, len(blocks))
	}
	g.State = append([]byte(nil), f.Rest()...)
	return g, nil
}

// ownerFrames and memberFrames are what each may send.
func ownerFrames() []wire.Limit {
	limits := []wire.Limit{{Kind: frameBlock, Bytes: wire.MaxPayload}}
	for _, k := range []byte{frameHello, frameAnew, frameCut, frameGroup, frameReplicated} {
		limits = append(limits, wire.Limit{Kind: k, Bytes: maxSmall})
	}
	return limits
}

func memberFrames() []wire.Limit {
	return []wire.Limit{{Kind: frameState, Bytes: maxSmall}, {Kind: frameAck, Bytes: maxSmall}, {Kind: frameRefused, Bytes: maxSmall}}
}
