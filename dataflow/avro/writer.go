package avro

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// A block ends after blockRows rows, or after the row with which it has
// blockBytes: neither depends on how rows came in batches. Blocks larger than
// maxBlock are neither written nor read.
const (
	blockRows  = 4096
	blockBytes = 1 << 20
	maxBlock   = 256 << 20
)

// The metadata of the container.
const (
	magic       = "Obj\x01"
	schemaKey   = "avro.schema"
	codecKey    = "avro.codec"
	versionKey  = "tidemark.part"
	partVersion = "1"
)

// Writer writes a part. It belongs to one goroutine.
type Writer struct {
	w      io.Writer
	header Header
	sync   [16]byte
	begun  bool
	err    error

	rows  int64
	n     int    // rows in the block
	buf   []byte // the block
	front []byte // what stands before it
	fixed int    // bytes that a row takes at most, without those of its strings
}

// NewWriter makes a writer of a part. Nothing is written before the first block
// is full, or Close.
func NewWriter(w io.Writer, h Header) *Writer {
	return &Writer{w: w, header: h, fixed: 2*binary.MaxVarintLen64 + h.Schema.Len()*(1+binary.MaxVarintLen64)}
}

// Rows is the number of rows so far.
func (w *Writer) Rows() int64 { return w.rows }

// Append adds the rows of b that are there; marks and times are not part of a
// state. It borrows b. A keyed table's rows must have hashes; rows with kind
// Delete are only for deltas. The first error stays.
func (w *Writer) Append(b *batch.Batch) error {
	switch {
	case w.err != nil:
		return w.err
	case b.Schema != w.header.Schema && !b.Schema.Equal(w.header.Schema):
		w.err = fmt.Errorf("avro: table %q is (%v), the batch is (%v)", w.header.Table, w.header.Schema, b.Schema)
	case w.header.Keyed && b.Hashes == nil && b.Len() > 0:
		w.err = fmt.Errorf("avro: table %q is keyed, and the batch has no hashes of its keys", w.header.Table)
	case !w.header.Delta && b.Kinds != nil && slices.Contains(b.Kinds, batch.Delete):
		w.err = w.checkWhole(b)
	}
	n := b.Len()
	for k := 0; k < n && w.err == nil; {
		to := min(n, k+blockRows-w.n)
		w.rows += int64(to - k)
		for ; k < to && len(w.buf) < blockBytes; k++ {
			w.appendRow(b, b.Position(k))
			w.n++
		}
		w.rows -= int64(to - k)
		if w.n == blockRows || len(w.buf) >= blockBytes {
			w.flush()
		}
	}
	return w.err
}

// checkWhole refuses removed rows; those that the selection leaves out do not
// count.
func (w *Writer) checkWhole(b *batch.Batch) error {
	for k := range b.Len() {
		if b.Kinds[b.Position(k)] == batch.Delete {
			return fmt.Errorf("avro: table %q: a removed row in a part that is no delta", w.header.Table)
		}
	}
	return nil
}

// appendRow encodes one row at the end of the block.
func (w *Writer) appendRow(b *batch.Batch, p int) {
	need := w.fixed
	for _, c := range b.Cols {
		if c.Type.Variable() {
			need += int(c.Offsets[p+1] - c.Offsets[p])
		}
	}
	at := len(w.buf)
	if cap(w.buf)-at < need {
		w.buf = slices.Grow(w.buf, need)
	}
	dst := w.buf[at : at+need]
	n := 0
	if w.header.Keyed {
		n = putLong(dst, 0, int64(b.Hashes[p]))
	}
	if w.header.Delta {
		dst[n] = 0
		if b.Kinds != nil && b.Kinds[p] == batch.Delete {
			dst[n] = 2
		}
		n++
	}
	for _, c := range b.Cols {
		if c.Valid != nil && !c.Valid.Get(p) {
			dst[n] = 0
			n++
			continue
		}
		dst[n] = 2
		n++
		switch c.Type {
		case batch.Bigint, batch.Timestamp:
			n = putLong(dst, n, c.Ints[p])
		case batch.Double:
			binary.LittleEndian.PutUint64(dst[n:], math.Float64bits(c.Doubles[p]))
			n += 8
		case batch.Boolean:
			dst[n] = 0
			if c.Bits.Get(p) {
				dst[n] = 1
			}
			n++
		default:
			v := c.At(p)
			n = putLong(dst, n, int64(len(v)))
			n += copy(dst[n:], v)
		}
	}
	w.buf = w.buf[:at+n]
}

// putLong writes v at dst[n:] as Avro does: zigzag, seven bits a byte, the
// least first. It returns the end.
func putLong(dst []byte, n int, v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	for u >= 0x80 {
		dst[n] = byte(u) | 0x80
		n++
		u >>= 7
	}
	dst[n] = byte(u)
	return n + 1
}

func appendLong(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

func appendText(dst []byte, s string) []byte { return append(appendLong(dst, int64(len(s))), s...) }

// begin writes the container's header. Its sync marker is made from the header,
// not drawn: equal parts must be equal bytes. Nobody seeks by it, as parts are
// read whole and verified by their digest.
func (w *Writer) begin() {
	w.begun = true
	h := append(w.front[:0], magic...)
	h = appendLong(h, 3)
	h = appendText(appendText(h, codecKey), "null")
	h = appendText(appendText(h, schemaKey), w.header.avro())
	h = appendText(appendText(h, versionKey), partVersion)
	h = append(h, 0)
	sum := sha256.Sum256(h)
	copy(w.sync[:], sum[:])
	w.front = append(h, w.sync[:]...)
}

// flush writes the block.
func (w *Writer) flush() {
	if len(w.buf) > maxBlock-blockBytes {
		w.err = fmt.Errorf("avro: table %q: a row of %d bytes; at most %d are possible", w.header.Table, len(w.buf), maxBlock-blockBytes)
		return
	}
	w.front = w.front[:0]
	if !w.begun {
		w.begin()
	}
	if w.n > 0 {
		w.front = appendLong(appendLong(w.front, int64(w.n)), int64(len(w.buf)))
		w.buf = append(w.buf, w.sync[:]...)
	}
	if len(w.front) > 0 {
		if _, w.err = w.w.Write(w.front); w.err != nil {
			return
		}
	}
	if w.n > 0 {
		_, w.err = w.w.Write(w.buf)
	}
	w.n, w.buf = 0, w.buf[:0]
}

// Close writes what is left. It does not close the writer below.
func (w *Writer) Close() error {
	if w.err == nil {
		w.flush()
	}
	err := w.err
	if err == nil {
		w.err = errClosed
	}
	return err
}
