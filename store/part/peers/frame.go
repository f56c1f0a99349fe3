package peers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
)

// The versions. A stream is of the lowest that has what it needs.
const (
	version     = 1
	versionFrom = 2 // fetchFrom
	versionSome = 3 // fetchSome
	versionPack = 4 // fetchPacked
)

// frameType says what a frame is. Those of answers have the high bit.
type frameType uint8

const (
	begin     frameType = 1 // whose parts they are
	have      frameType = 2 // which of these are there?
	push      frameType = 3 // take these; their bytes follow the frame
	fetch     frameType = 4 // give this one
	fetchFrom frameType = 5 // give the rest of this one
	fetchSome frameType = 6 // give a piece of this one

	fetchPacked frameType = 7 // the same, packed if that makes it smaller

	has         frameType = 0x82
	done        frameType = 0x83 // of push: they are durable, and held
	given       frameType = 0x84 // of fetch: the bytes follow the frame
	givenPacked frameType = 0x85 // of fetchPacked: as many bytes as it says follow
	refused     frameType = 0xff // the stream ends
)

// Limits of frames: more is refused before it is read.
const (
	maxParts  = 4096 // in a have or push
	maxText   = 1 << 10
	partBytes = 32 + 8
	maxBody   = 4 + maxParts*partBytes
	headBytes = 1 + 4

	// A push of several parts is held in memory by the receiver, so that they are
	// made durable together.
	batchBytes = 1 << 20
)

// code is why something was refused.
type code uint8

const (
	codeOther code = iota
	codeFenced
	codeMissing
	codeFull
	codeCorrupt
	codeVersion
)

// ErrFenced means that a later attempt of the job has begun.
var ErrFenced = errors.New("a later attempt has begun")

// errVersion means that the other end speaks another version.
var errVersion = errors.New("another version of the protocol for parts")

// kinds are the errors that have a code, whose kind the other end can tell.
var kinds = [...]struct {
	code code
	err  error
}{{codeFenced, ErrFenced}, {codeMissing, store.ErrMissing}, {codeFull, store.ErrFull}, {codeCorrupt, store.ErrCorrupt}, {codeVersion, errVersion}}

// refusal is what the other end would not do.
type refusal struct {
	kind error
	text string
}

func (r refusal) Error() string { return r.text }
func (r refusal) Unwrap() error { return r.kind }

// beginning is the body of begin. A stream that only fetches has no job.
type beginning struct {
	job  string
	id   dataflow.CheckpointID
	from bool // it may have fetchFrom
	some bool // and fetchSome
	pack bool // and fetchPacked
}

// writeFrame writes head and body in one piece.
func writeFrame(w io.Writer, t frameType, body []byte) error {
	b := make([]byte, 0, headBytes+len(body))
	b = binary.BigEndian.AppendUint32(append(b, byte(t)), uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

// readFrame reads a frame. io.EOF: there is none.
func readFrame(r io.Reader) (frameType, []byte, error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxBody {
		return 0, nil, fmt.Errorf("parts: a frame of %d bytes, at most %d are possible", n, maxBody)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return frameType(head[0]), body, nil
}

func appendText(b []byte, text string) []byte {
	if len(text) > maxText {
		text = text[:maxText]
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

// cut takes a frame's body apart; bad stays true when it was too short.
type cut struct {
	b   []byte
	bad bool
}

func (c *cut) take(n int) []byte {
	if c.bad || len(c.b) < n {
		c.bad = true
		return make([]byte, min(n, partBytes))
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cut) u64() uint64 { return binary.BigEndian.Uint64(c.take(8)) }

func (c *cut) text() string {
	n := int(binary.BigEndian.Uint16(c.take(2)))
	if n > maxText {
		c.bad = true
	}
	if c.bad {
		return ""
	}
	return string(c.take(n))
}

// end tells whether the body was exactly what was taken.
func (c *cut) end(what string) error {
	if c.bad || len(c.b) > 0 {
		return fmt.Errorf("parts: a frame %s that is cut short, or too long", what)
	}
	return nil
}

func encodeBegin(b beginning) []byte {
	v := byte(version)
	switch {
	case b.pack:
		v = versionPack
	case b.some:
		v = versionSome
	case b.from:
		v = versionFrom
	}
	out := appendText([]byte{v}, b.job)
	out = binary.BigEndian.AppendUint64(out, b.id.Token.Epoch)
	out = appendText(out, b.id.Token.Site)
	out = binary.BigEndian.AppendUint64(out, b.id.Token.Attempt)
	return binary.BigEndian.AppendUint64(out, b.id.Counter)
}

func decodeBegin(body []byte) (b beginning, err error) {
	c := cut{b: body}
	switch v := c.take(1)[0]; v {
	case version:
	case versionFrom:
		b.from = true
	case versionSome:
		b.from, b.some = true, true
	case versionPack:
		b.from, b.some, b.pack = true, true, true
	default:
		return b, fmt.Errorf("%w: %d, and this program speaks %d to %d", errVersion, v, version, versionPack)
	}
	b.job = c.text()
	b.id.Token.Epoch = c.u64()
	b.id.Token.Site = c.text()
	b.id.Token.Attempt = c.u64()
	b.id.Counter = c.u64()
	return b, c.end("begin")
}

func encodeParts(parts []store.Part) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(parts)))
	for _, p := range parts {
		out = binary.BigEndian.AppendUint64(append(out, p.Digest[:]...), uint64(p.Size))
	}
	return out
}

func decodeParts(body []byte) ([]store.Part, error) {
	c := cut{b: body}
	n := int(binary.BigEndian.Uint32(c.take(4)))
	if n == 0 || n > maxParts {
		return nil, fmt.Errorf("parts: a frame of %d parts, not in 1 to %d", n, maxParts)
	}
	var parts []store.Part
	for range n {
		if c.bad {
			break
		}
		var p store.Part
		copy(p.Digest[:], c.take(len(p.Digest)))
		if p.Size = int64(c.u64()); p.Size <= 0 {
			c.bad = true
		}
		parts = append(parts, p)
	}
	return parts, c.end("of parts")
}

// encodeRest is the body of fetchFrom: a part, and how many bytes of it are there.
func encodeRest(p store.Part, at int64) []byte {
	return binary.BigEndian.AppendUint64(encodeParts([]store.Part{p}), uint64(at))
}

func decodeRest(body []byte) (p store.Part, at int64, err error) {
	if len(body) < 8 {
		return p, 0, errRest
	}
	parts, err := decodeParts(body[:len(body)-8])
	if err != nil {
		return p, 0, err
	}
	at = int64(binary.BigEndian.Uint64(body[len(body)-8:]))
	if len(parts) != 1 || at < 0 || at >= parts[0].Size {
		return p, 0, errRest
	}
	return parts[0], at, nil
}

var errRest = errors.New("parts: a fetch of the rest of no part, of several, or of none of it")

// encodeSome is the body of fetchSome: a part, where the piece begins, and its bytes.
func encodeSome(p store.Part, at, n int64) []byte {
	return binary.BigEndian.AppendUint64(encodeRest(p, at), uint64(n))
}

func decodeSome(body []byte) (p store.Part, at, n int64, err error) {
	if len(body) < 8 {
		return p, 0, 0, errSome
	}
	if p, at, err = decodeRest(body[:len(body)-8]); err != nil {
		return p, 0, 0, err
	}
	n = int64(binary.BigEndian.Uint64(body[len(body)-8:]))
	if n < 1 || n > p.Size-at {
		return p, 0, 0, errSome
	}
	return p, at, n, nil
}

var errSome = errors.New("parts: a fetch of a piece that the part does not have")

// encodePacked is the body of givenPacked: how many bytes follow.
func encodePacked(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// decodePacked is how many bytes follow for a piece of n: fewer if they are packed,
// as many if they are not.
func decodePacked(body []byte, n int64) (int64, error) {
	c := cut{b: body}
	sent := int64(binary.BigEndian.Uint32(c.take(4)))
	if sent < 1 || sent > n {
		c.bad = true
	}
	return sent, c.end("given, packed")
}

// oneBatch tells whether parts have at most batchBytes together. Their sum may not
// fit into an int64.
func oneBatch(parts []store.Part) bool {
	left := int64(batchBytes)
	for _, p := range parts {
		if p.Size > left {
			return false
		}
		left -= p.Size
	}
	return true
}

func encodeRefusal(err error) []byte {
	k := codeOther
	for _, kind := range kinds {
		if errors.Is(err, kind.err) {
			k = kind.code
			break
		}
	}
	return appendText([]byte{byte(k)}, err.Error())
}

func decodeRefusal(body []byte) error {
	c := cut{b: body}
	k := code(c.take(1)[0])
	r := refusal{text: c.text()}
	for _, kind := range kinds {
		if kind.code == k {
			r.kind = kind.err
		}
	}
	if err := c.end("refused"); err != nil {
		return err
	}
	return r
}
