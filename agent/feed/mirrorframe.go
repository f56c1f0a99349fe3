package feed

import (
	"encoding/binary"
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/pack"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// The frames of a stream of kind mesh.Log that a mirror's owner opens, beside
// those that a stream to a member has. docs/INGEST_LOG.md has the bytes.
const (
	frameMirror  byte = 10 // from the mirror
	frameFrom    byte = 11 // from the source
	frameStand   byte = 12 // from the source
	framePacking byte = 13 // from the mirror: frameMirror of one that takes framePacked
	framePacked  byte = 14 // from the source
)

// mostPacked is how many bytes of frames are in one that is packed.
const mostPacked = 1 << 20

// mirrorHello begins a stream: what the mirror has.
type mirrorHello struct {
	feed  string // of the source
	as    string // the mirror's own name
	reign coordinator.Reign
	id    ingestlog.LogID
	end   int64 // 0: it has nothing, and id does not matter
	packs bool  // it takes packed frames
}

// stand is where the source's log is.
type stand struct {
	end     int64 // what is replicated
	payload int64
	clock   int64 // µs; MinTime: none
}

func (h mirrorHello) append(dst []byte) []byte {
	at, kind := len(dst), frameMirror
	if h.packs {
		kind = framePacking
	}
	dst = appendSized(wire.Begin(dst, kind), []byte(h.feed))
	dst = appendSized(dst, []byte(h.as))
	dst = binary.AppendUvarint(dst, h.reign.Epoch)
	dst = appendSized(dst, []byte(h.reign.Site))
	dst = binary.AppendUvarint(dst, uint64(h.reign.Start))
	dst = append(dst, h.id[:]...)
	dst = binary.AppendUvarint(dst, uint64(h.end))
	if h.reign.Life > 0 { // else who knows nothing of lives takes it
		dst = binary.AppendUvarint(dst, h.reign.Life)
	}
	return wire.Finish(dst, at)
}

func (h *mirrorHello) decode(kind byte, b []byte) error {
	f := fields{wire.FieldsOf(b)}
	*h = mirrorHello{packs: kind == framePacking, feed: string(f.Sized()), as: string(f.Sized())}
	h.reign = coordinator.Reign{Epoch: f.Uvarint(), Site: mesh.Site(f.Sized()), Start: f.seq()}
	h.id, h.end = f.id(), f.seq()
	if !f.Whole() {
		if h.reign.Life = f.Uvarint(); h.reign.Life == 0 {
			f.Fail() // it is not said
		}
	}
	return f.done("mirror")
}

func (s stand) append(dst []byte) []byte {
	at := len(dst)
	dst = binary.AppendUvarint(wire.Begin(dst, frameStand), uint64(s.end))
	dst = binary.AppendUvarint(dst, uint64(s.payload))
	return wire.Finish(binary.LittleEndian.AppendUint64(dst, uint64(s.clock)), at)
}

func (s *stand) decode(b []byte) error {
	f := fields{wire.FieldsOf(b)}
	*s = stand{end: f.seq(), payload: f.seq()}
	if c := f.Take(8); len(c) == 8 {
		s.clock = int64(binary.LittleEndian.Uint64(c))
	}
	return f.done("stand")
}

// appendPacked makes frames of frames: packed ones, where that makes them fewer bytes.
func appendPacked(dst, frames []byte, p *pack.Packer) []byte {
	for len(frames) > 0 {
		n := wire.Size(frames)
		for n < len(frames) && n+wire.Size(frames[n:]) <= mostPacked {
			n += wire.Size(frames[n:])
		}
		at, some := len(dst), frames[:n]
		frames = frames[n:]
		if n <= mostPacked {
			if out, ok := p.Pack(wire.Begin(dst, framePacked), some); ok {
				dst = wire.Finish(out, at)
				continue
			}
		}
		dst = append(dst[:at], some...)
	}
	return dst
}

// unpacked calls each with the frames of a group that are in a packed one.
func unpacked(buf, b []byte, p *pack.Packer, each func(kind byte, b []byte) error) ([]byte, error) {
	buf, err := p.Unpack(buf, b, mostPacked)
	for rest := buf; err == nil && len(rest) > 0; {
		var kind byte
		var body []byte
		kind, body, rest, err = wire.Cut(rest)
		switch {
		case err != nil:
		case kind != frameBlock && (kind != frameGroup || len(body) > maxSmall):
			err = fmt.Errorf("%w: %d bytes of kind %d, packed", errFrame, len(body), kind)
		default:
			err = each(kind, body)
		}
	}
	return buf, err
}

// time is the clock as a status has it: 0 for none.
func (s *stand) time() dataflow.Time {
	if t := dataflow.Time(s.clock); t != dataflow.MinTime {
		return t
	}
	return 0
}

// sourceFrames and mirrorFrames are what each may send.
func sourceFrames() []wire.Limit {
	limits := []wire.Limit{{Kind: frameBlock, Bytes: wire.MaxPayload}, {Kind: framePacked, Bytes: mostPacked}}
	for _, k := range []byte{frameAnew, frameFrom, frameGroup, frameStand, frameRefused} {
		limits = append(limits, wire.Limit{Kind: k, Bytes: maxSmall})
	}
	return limits
}

// firstFrames are what the first frame of a stream may be, and what follows.
func firstFrames() []wire.Limit {
	return append(ownerFrames(), wire.Limit{Kind: frameMirror, Bytes: maxSmall}, wire.Limit{Kind: framePacking, Bytes: maxSmall}, wire.Limit{Kind: frameAck, Bytes: maxSmall})
}
