package avro

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/store"
)

var errClosed = errors.New("avro: the part is closed")

// The most bytes of a header's metadata, and of one of its keys or values.
const maxHeader = 4 << 20

// Reader reads a part. It belongs to one goroutine.
//
// Rows come before the end of the file has been seen, where its digest is
// verified: a caller acts on none before Next has returned io.EOF, or throws
// away what it made of them.
type Reader struct {
	r      *bufio.Reader
	pool   *batch.Pool
	writer record
	sync   [16]byte
	plan   plan
	err    error

	block []byte // that is being read
	at    int    // how far it is read
	left  int    // rows in it that are not
}

// NewReader reads the header of a part. Batches come from p.
func NewReader(r io.Reader, p *batch.Pool) (*Reader, error) {
	size := 64 << 10
	if m, ok := r.(interface{ Len() int }); ok { // it is in memory
		size = min(size, m.Len())
	}
	rd := &Reader{r: bufio.NewReaderSize(r, size), pool: p}
	if err := rd.header(); err != nil {
		return nil, err
	}
	rd.plan = straight(rd.writer)
	return rd, nil
}

// Header says what the part holds, as it was written.
func (r *Reader) Header() Header { return r.writer.header }

// Schema is the schema of the batches: as written, or ResolveTo's.
func (r *Reader) Schema() *batch.Schema { return r.plan.schema }

func corrupt(format string, args ...any) error {
	return fmt.Errorf("avro: part %w: %s", store.ErrCorrupt, fmt.Sprintf(format, args...))
}

// cut is the error for one of the reader below in the middle of something.
func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return corrupt("it ends too early")
	}
	return err
}

func (r *Reader) header() error {
	var start [len(magic)]byte
	if _, err := io.ReadFull(r.r, start[:]); err != nil {
		return cut(err)
	}
	if string(start[:]) != magic {
		return corrupt("it does not begin as an Avro object container")
	}
	meta, err := r.metadata()
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(r.r, r.sync[:]); err != nil {
		return cut(err)
	}
	if c := meta[codecKey]; c != "" && c != "null" {
		return fmt.Errorf("avro: the part has codec %q; parts are not compressed", c)
	}
	if v := meta[versionKey]; v != "" && v != partVersion {
		return fmt.Errorf("avro: part of version %s; this program reads version %s: use the program that wrote it, or a newer one", v, partVersion)
	}
	r.writer, err = parseRecord(meta[schemaKey])
	if err != nil {
		return corrupt("%v", err)
	}
	return nil
}

// metadata reads the map of the header.
func (r *Reader) metadata() (map[string]string, error) {
	meta := make(map[string]string)
	room := int64(maxHeader)
	for {
		n, err := r.long()
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return meta, nil
		}
		if n < 0 { // then its size in bytes follows
			if _, err := r.long(); err != nil {
				return nil, err
			}
			n = -n
		}
		if n < 0 || n > room {
			return nil, corrupt("a header of %d entries", n)
		}
		for range n {
			var pair [2]string
			for i := range pair {
				if pair[i], err = r.text(&room); err != nil {
					return nil, err
				}
			}
			meta[pair[0]] = pair[1]
		}
	}
}

// text reads a string of the header; room is what the header may still take.
func (r *Reader) text(room *int64) (string, error) {
	n, err := r.long()
	if err != nil {
		return "", err
	}
	if *room -= n + 1; n < 0 || *room < 0 {
		return "", corrupt("a header of more than %d bytes", maxHeader)
	}
	v, err := r.take(nil, int(n))
	return string(v), err
}

// long reads a number.
func (r *Reader) long() (int64, error) {
	var u uint64
	for shift := 0; shift < 64; shift += 7 {
		c, err := r.r.ReadByte()
		if err != nil {
			return 0, cut(err)
		}
		if u |= uint64(c&0x7f) << shift; c < 0x80 {
			return int64(u>>1) ^ -int64(u&1), nil
		}
	}
	return 0, corrupt("a number that does not end")
}

// take reads n bytes into buf, growing it only as they come.
func (r *Reader) take(buf []byte, n int) ([]byte, error) {
	const step = 1 << 20
	buf = buf[:0]
	for len(buf) < n {
		from, more := len(buf), min(n-len(buf), max(step, len(buf)))
		if cap(buf) < from+more {
			grown := make([]byte, from, from+more)
			copy(grown, buf)
			buf = grown
		}
		buf = buf[:from+more]
		if _, err := io.ReadFull(r.r, buf[from:]); err != nil {
			return buf[:from], cut(err)
		}
	}
	return buf, nil
}

// Next returns up to batch.MaxRows rows with hashes, if the table is keyed, and
// kinds, if the part is a delta; the caller owns the reference. Times are zero.
// io.EOF is the end of a part that is whole.
func (r *Reader) Next() (*batch.Batch, error) {
	for r.err == nil && r.left == 0 {
		if r.at < len(r.block) {
			r.err = corrupt("%d bytes are left over behind the rows of a block", len(r.block)-r.at)
			break
		}
		r.err = r.nextBlock()
	}
	if r.err != nil {
		return nil, r.err
	}
	n := min(r.left, r.plan.most)
	b, at := r.plan.decode(r.pool, r.block, r.at, n)
	if b == nil {
		r.err = corrupt("a row that cannot be read")
		return nil, r.err
	}
	r.left, r.at = r.left-n, at
	return b, nil
}

func (r *Reader) nextBlock() error {
	if _, err := r.r.Peek(1); err != nil {
		return err // io.EOF, or that the file is not what its name says
	}
	rows, err := r.long()
	if err != nil {
		return err
	}
	size, err := r.long()
	if err != nil {
		return err
	}
	if size < 0 || size > maxBlock || rows < 0 || rows > max(size, blockRows) || rows*int64(r.plan.least) > size {
		return corrupt("a block of %d rows in %d bytes", rows, size)
	}
	if r.block, err = r.take(r.block, int(size)); err != nil {
		return err
	}
	r.at = 0
	var sync [16]byte
	if _, err := io.ReadFull(r.r, sync[:]); err != nil {
		return cut(err)
	}
	if sync != r.sync {
		return corrupt("a block does not end where it should")
	}
	r.left = int(rows)
	return nil
}

// The loops below take values off the front of data. at is where they are; a
// value that does not fit makes it negative.

func getLong(data []byte, at int) (v int64, next int) {
	if at >= 0 && at < len(data) && data[at] < 0x80 {
		u := data[at]
		return int64(u>>1) ^ -int64(u&1), at + 1
	}
	return getLongSlow(data, at)
}

// getLongSlow takes numbers of more than one byte. Those of up to eight, nearly
// all, are put together from one word: the bytes' lower seven bits are moved
// next to each other, by pairs.
func getLongSlow(data []byte, at int) (int64, int) {
	if at < 0 || at >= len(data) {
		return 0, -1
	}
	if len(data)-at >= 8 {
		w := binary.LittleEndian.Uint64(data[at:])
		if last := ^w & 0x8080808080808080; last != 0 { // a byte without the bit that says that more follow
			w &= last ^ (last - 1)
			w = w&0x007f007f007f007f | w&0x7f007f007f007f00>>1
			w = w&0x00003fff00003fff | w&0x3fff00003fff0000>>2
			w = w&0x000000000fffffff | w&0x0fffffff00000000>>4
			return int64(w>>1) ^ -int64(w&1), at + bits.TrailingZeros64(last)/8 + 1
		}
	}
	v, n := binary.Varint(data[at:])
	if n <= 0 {
		return 0, -1
	}
	return v, at + n
}

func getBytes(data []byte, at int) (v []byte, next int) {
	n, at := getLong(data, at)
	if at < 0 || n < 0 || n > int64(len(data)-at) {
		return nil, -1
	}
	return data[at : at+int(n)], at + int(n)
}

func getDouble(data []byte, at int) (float64, int) {
	if at < 0 || len(data)-at < 8 {
		return 0, -1
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(data[at:])), at + 8
}

func getFloat(data []byte, at int) (float64, int) {
	if at < 0 || len(data)-at < 4 {
		return 0, -1
	}
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(data[at:]))), at + 4
}
