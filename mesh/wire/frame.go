package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// The bytes are described in docs/WIRE.md, whose examples are checked against
// this code. They never change; others get another version in the preface.
const (
	// Version of the streams that this program speaks, all kinds alike.
	Version = 1

	headBytes  = 5 // length and kind
	sumBytes   = 8 // xxh3-64
	frameBytes = headBytes + sumBytes

	// PrefaceBytes begin every stream.
	PrefaceBytes = 2
)

// MaxPayload is the most that any frame may carry; most kinds have lower limits.
const MaxPayload = 64 << 20

// ErrFormat is wrapped by every error about bytes that are no frame, or none
// that is expected: the stream is of no use any more.
var ErrFormat = errors.New("not a frame")

// Preface is what the opener of a stream of a kind sends first.
func Preface(k mesh.Kind) [PrefaceBytes]byte { return [PrefaceBytes]byte{byte(k), Version} }

// ReadPreface takes the preface off a stream. Whether the kind is one that
// somebody handles the caller decides; another version is an error.
func ReadPreface(r io.Reader) (mesh.Kind, error) {
	var p [PrefaceBytes]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return 0, err
	}
	if p[1] != Version {
		return mesh.Kind(p[0]), fmt.Errorf("%w: a stream of version %d, this program speaks version %d", ErrFormat, p[1], Version)
	}
	return mesh.Kind(p[0]), nil
}

// Begin reserves the head of a frame at the end of dst. The caller appends the
// payload and calls Finish with the length that dst had before.
func Begin(dst []byte, kind byte) []byte { return append(dst, 0, 0, 0, 0, kind) }

// Finish completes the frame that begins at dst[at].
func Finish(dst []byte, at int) []byte {
	n := len(dst) - at - headBytes
	if n < 0 || n > MaxPayload {
		panic(fmt.Sprintf("wire: a frame with a payload of %d bytes", n))
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(n))
	return binary.LittleEndian.AppendUint64(dst, xxh3.Hash(dst[at:]))
}

// Append adds a whole frame to dst.
func Append(dst []byte, kind byte, payload []byte) []byte {
	at := len(dst)
	return Finish(append(Begin(dst, kind), payload...), at)
}

// Size is how many bytes the frame has that begins b: one that was made here.
func Size(b []byte) int { return frameBytes + int(binary.LittleEndian.Uint32(b)) }

// Cut takes the frame off b that begins it, in place.
func Cut(b []byte) (kind byte, payload, rest []byte, err error) {
	if len(b) < frameBytes || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-frameBytes) {
		return 0, nil, nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(b))
	}
	all := Size(b)
	body, sum := b[:all-sumBytes], binary.LittleEndian.Uint64(b[all-sumBytes:])
	if xxh3.Hash(body) != sum {
		return 0, nil, nil, fmt.Errorf("%w: the checksum of %d bytes of kind %d is wrong", ErrFormat, all-frameBytes, b[4])
	}
	return b[4], body[headBytes:], b[all:], nil
}

// Limit is the most that a frame of a kind may carry.
type Limit struct {
	Kind  byte
	Bytes int
}

// Reader cuts frames out of a stream. One goroutine uses it.
//
// It takes memory as bytes arrive, never because a length says so, and keeps
// at most twice the largest frame that came.
type Reader struct {
	r      io.Reader
	limits [256]int32 // -1: no such kind
	buf    []byte
	begin  int // of what is in buf and not yet taken
	end    int
	err    error // that ended the stream, behind what is in buf
}

// ReadSize is how much a Reader asks a stream for at a time.
const ReadSize = 64 << 10

// NewReader makes a reader of frames of the kinds that limits names; any other
// kind is an error.
func NewReader(r io.Reader, limits ...Limit) *Reader {
	d := &Reader{r: r}
	for i := range d.limits {
		d.limits[i] = -1
	}
	for _, l := range limits {
		d.limits[l.Kind] = int32(min(l.Bytes, MaxPayload))
	}
	return d
}

// Next waits for a frame. The payload is valid until the next call. The error is
// io.EOF where the stream ended between two frames, io.ErrUnexpectedEOF where
// it ended in one, ErrFormat, or the stream's own.
func (d *Reader) Next() (kind byte, payload []byte, err error) {
	if err := d.need(headBytes); err != nil {
		return 0, nil, err
	}
	head := d.buf[d.begin:]
	n, kind := binary.LittleEndian.Uint32(head), head[4]
	switch limit := d.limits[kind]; {
	case limit < 0:
		return kind, nil, fmt.Errorf("%w: kind %d is not expected here", ErrFormat, kind)
	case int64(n) > int64(limit):
		return kind, nil, fmt.Errorf("%w: %d bytes of kind %d, at most %d", ErrFormat, n, kind, limit)
	}
	all := frameBytes + int(n)
	if err := d.need(all); err != nil {
		return kind, nil, err
	}
	frame := d.buf[d.begin : d.begin+all]
	body, sum := frame[:all-sumBytes], binary.LittleEndian.Uint64(frame[all-sumBytes:])
	if xxh3.Hash(body) != sum {
		return kind, nil, fmt.Errorf("%w: the checksum of %d bytes of kind %d is wrong", ErrFormat, n, kind)
	}
	d.begin += all
	return kind, body[headBytes:], nil
}

// Buffered tells whether a whole frame is there already, so that Next will not
// wait for the stream.
func (d *Reader) Buffered() bool {
	have := d.buf[d.begin:d.end]
	return len(have) >= frameBytes && uint64(len(have)-frameBytes) >= uint64(binary.LittleEndian.Uint32(have))
}

// need waits until n bytes are in the buffer.
func (d *Reader) need(n int) error {
	for d.end-d.begin < n {
		if d.err != nil {
			if d.err == io.EOF && d.end > d.begin {
				return io.ErrUnexpectedEOF
			}
			return d.err
		}
		d.makeRoom(n)
		var got int
		got, d.err = d.r.Read(d.buf[d.end:])
		d.end += got
	}
	return nil
}

// makeRoom moves what is left to the front, and doubles the buffer if that is
// full of one frame.
func (d *Reader) makeRoom(n int) {
	switch left := d.end - d.begin; {
	case left == 0:
		d.begin, d.end = 0, 0
	case d.begin > 0 && (len(d.buf)-d.begin < n || d.end == len(d.buf)):
		copy(d.buf, d.buf[d.begin:d.end])
		d.begin, d.end = 0, left
	}
	if d.end == len(d.buf) {
		grown := make([]byte, max(ReadSize, 2*len(d.buf)))
		copy(grown, d.buf[:d.end])
		d.buf = grown
	}
}

// Writer gathers frames and writes them in large pieces. One goroutine uses it.
type Writer struct {
	w    io.Writer
	size int
	buf  []byte
	at   int // where the frame that is being made begins
}

// NewWriter makes a writer that writes by itself once size bytes have gathered.
func NewWriter(w io.Writer, size int) *Writer { return &Writer{w: w, size: size} }

// Begin starts a frame: the caller appends the payload to what it returns, and
// passes the result to End.
func (w *Writer) Begin(kind byte) []byte {
	w.at = len(w.buf)
	return Begin(w.buf, kind)
}

// End completes the frame and writes what has gathered if that is enough.
func (w *Writer) End(buf []byte) error {
	w.buf = Finish(buf, w.at)
	if len(w.buf) < w.size {
		return nil
	}
	return w.Flush()
}

// Frame adds a frame.
func (w *Writer) Frame(kind byte, payload []byte) error {
	return w.End(append(w.Begin(kind), payload...))
}

// Flush writes what has gathered. What could not be written is dropped: the
// stream is of no use any more.
func (w *Writer) Flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.w.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}
