package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// The encoding is described byte by byte in docs/BATCH_FORMAT.md, whose
// examples are checked against this code. It never changes; another one gets
// another version.
const (
	wireVersion = 1

	wireKinds  = 1 << 0 // flag: a kind for each row follows the times
	wireHashes = 1 << 1 // flag: a hash for each row follows

	wireNullable = 0x80 // in a column's type byte: a validity bitmap follows

	minMarkBytes = 3
)

// ErrFormat is wrapped by every error of Decode.
var ErrFormat = errors.New("not an encoded batch")

// Encode appends the wire form of b to dst. Positions that the selection
// leaves out are not in it, and marks are moved to match.
func Encode(dst []byte, b *Batch) []byte {
	if b.Sel != nil {
		b = b.Compact()
		defer b.Release()
	}
	flags := byte(0)
	if b.Kinds != nil {
		flags |= wireKinds
	}
	if b.Hashes != nil {
		flags |= wireHashes
	}
	dst = append(dst, wireVersion, flags)
	dst = binary.AppendUvarint(dst, uint64(b.Rows))
	dst = appendMarks(dst, b.Marks)
	dst = appendWords(dst, b.Times[:b.Rows])
	if b.Kinds != nil {
		for _, k := range b.Kinds[:b.Rows] {
			dst = append(dst, byte(k))
		}
	}
	if b.Hashes != nil {
		dst = appendWords(dst, b.Hashes[:b.Rows])
	}
	dst = binary.AppendUvarint(dst, uint64(len(b.Cols)))
	for _, c := range b.Cols {
		dst = appendColumn(dst, c, b.Rows)
	}
	return dst
}

// appendMarks writes the number of marks and each as differences to the one
// before. Of marks at the same row only the last is written.
func appendMarks(dst []byte, marks []Mark) []byte {
	n := 0
	for i := range marks {
		if lastAtRow(marks, i) {
			n++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	prev := Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	for i, m := range marks {
		if !lastAtRow(marks, i) {
			continue
		}
		head := uint64(m.Row-prev.Row) << 1
		if m.Idle {
			head |= 1
		}
		dst = binary.AppendUvarint(dst, head)
		dst = binary.AppendUvarint(dst, uint64(m.Watermark)-uint64(prev.Watermark))
		dst = binary.AppendUvarint(dst, uint64(m.Arrival)-uint64(prev.Arrival))
		prev = m
	}
	return dst
}

func lastAtRow(marks []Mark, i int) bool { return i+1 == len(marks) || marks[i+1].Row != marks[i].Row }

func appendColumn(dst []byte, c *Column, n int) []byte {
	head := byte(c.Type)
	if c.Valid != nil {
		head |= wireNullable
	}
	dst = append(dst, head)
	if c.Valid != nil {
		dst = appendBitmap(dst, c.Valid, n)
	}
	switch c.Type {
	case Boolean:
		dst = appendBitmap(dst, c.Bits, n)
	case Bigint, Timestamp:
		dst = appendWords(dst, c.Ints[:n])
	case Double:
		dst = appendDoubles(dst, c.Doubles[:n])
	case String, Bytes:
		dst = appendHalves(dst, c.Offsets[1:n+1])
		dst = append(dst, c.Data[:c.Offsets[n]]...)
	}
	return dst
}

// appendBitmap writes whole words, the bits past the last row as zero.
func appendBitmap(dst []byte, m Bitmap, n int) []byte {
	dst = appendWords(dst, m[:Words(n)])
	if r := n % 64; r != 0 {
		tail := dst[len(dst)-8:]
		binary.LittleEndian.PutUint64(tail, binary.LittleEndian.Uint64(tail)&(1<<r-1))
	}
	return dst
}

// extend makes dst n bytes longer and returns it with the new part.
func extend(dst []byte, n int) (all, part []byte) {
	at := len(dst)
	if cap(dst)-at < n {
		grown := make([]byte, at, max(2*cap(dst), at+n))
		copy(grown, dst)
		dst = grown
	}
	dst = dst[:at+n]
	return dst, dst[at:]
}

// The loops below move eight values at a time: the compiler then checks bounds
// once for all of them, which makes them as fast as a copy of memory.

func appendWords[T int64 | uint64](dst []byte, v []T) []byte {
	dst, p := extend(dst, 8*len(v))
	for len(v) >= 8 && len(p) >= 64 {
		binary.LittleEndian.PutUint64(p[0:8], uint64(v[0]))
		binary.LittleEndian.PutUint64(p[8:16], uint64(v[1]))
		binary.LittleEndian.PutUint64(p[16:24], uint64(v[2]))
		binary.LittleEndian.PutUint64(p[24:32], uint64(v[3]))
		binary.LittleEndian.PutUint64(p[32:40], uint64(v[4]))
		binary.LittleEndian.PutUint64(p[40:48], uint64(v[5]))
		binary.LittleEndian.PutUint64(p[48:56], uint64(v[6]))
		binary.LittleEndian.PutUint64(p[56:64], uint64(v[7]))
		v, p = v[8:], p[64:]
	}
	for i, x := range v {
		binary.LittleEndian.PutUint64(p[8*i:], uint64(x))
	}
	return dst
}

func appendDoubles(dst []byte, v []float64) []byte {
	dst, p := extend(dst, 8*len(v))
	for len(v) >= 4 && len(p) >= 32 {
		binary.LittleEndian.PutUint64(p[0:8], math.Float64bits(v[0]))
		binary.LittleEndian.PutUint64(p[8:16], math.Float64bits(v[1]))
		binary.LittleEndian.PutUint64(p[16:24], math.Float64bits(v[2]))
		binary.LittleEndian.PutUint64(p[24:32], math.Float64bits(v[3]))
		v, p = v[4:], p[32:]
	}
	for i, x := range v {
		binary.LittleEndian.PutUint64(p[8*i:], math.Float64bits(x))
	}
	return dst
}

func appendHalves(dst []byte, v []int32) []byte {
	dst, p := extend(dst, 4*len(v))
	for len(v) >= 4 && len(p) >= 16 {
		binary.LittleEndian.PutUint32(p[0:4], uint32(v[0]))
		binary.LittleEndian.PutUint32(p[4:8], uint32(v[1]))
		binary.LittleEndian.PutUint32(p[8:12], uint32(v[2]))
		binary.LittleEndian.PutUint32(p[12:16], uint32(v[3]))
		v, p = v[4:], p[16:]
	}
	for i, x := range v {
		binary.LittleEndian.PutUint32(p[4*i:], uint32(x))
	}
	return dst
}

// Decode returns the batch of schema s that data encodes, from pool p. Data may
// come from anywhere: what it claims is checked before memory is taken for it,
// and it must be used up exactly. The batch does not refer to data. An error
// wraps ErrFormat.
func Decode(p *Pool, s *Schema, data []byte) (*Batch, error) {
	b := p.Get(s)
	d := wireReader{data: data}
	d.batch(b)
	if d.err == "" && len(d.data) > 0 {
		d.fail("bytes left over")
	}
	if d.err != "" {
		b.Release()
		return nil, fmt.Errorf("%w: %s at byte %d of %d", ErrFormat, d.err, len(data)-len(d.data), len(data))
	}
	p.Account(b)
	return b, nil
}

// wireReader takes bytes off the front of data; after the first failure it
// does nothing.
type wireReader struct {
	data []byte
	err  string
}

func (d *wireReader) fail(why string) {
	if d.err == "" {
		d.err = why
	}
}

// bytes takes n bytes; nil if there are not so many.
func (d *wireReader) bytes(n int) []byte {
	if d.err != "" || n > len(d.data) {
		d.fail("too short")
		return nil
	}
	v := d.data[:n]
	d.data = d.data[n:]
	return v
}

func (d *wireReader) byte() byte {
	if v := d.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *wireReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.data)
	if d.err != "" || n <= 0 {
		d.fail("bad number")
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *wireReader) batch(b *Batch) {
	if v := d.byte(); v != wireVersion {
		d.fail(fmt.Sprintf("version %d, this program reads version %d", v, wireVersion))
	}
	flags := d.byte()
	if flags&^(wireKinds|wireHashes) != 0 {
		d.fail("unknown flags")
	}
	n := d.uvarint()
	if n > MaxRows {
		d.fail("too many rows")
	}
	if d.err != "" {
		return
	}
	b.Rows = int(n)
	d.marks(b)
	if v := d.bytes(8 * b.Rows); d.err == "" {
		readWords(b.OwnTimes(b.Rows), v)
	}
	if v := d.bytes(b.Rows * int(flags&wireKinds)); d.err == "" && flags&wireKinds != 0 {
		for i, k := range b.OwnKinds(b.Rows) {
			if k = Kind(v[i]); k > Delete {
				d.fail("unknown row kind")
			}
			b.Kinds[i] = k
		}
	}
	if flags&wireHashes != 0 {
		if v := d.bytes(8 * b.Rows); d.err == "" {
			readWords(b.OwnHashes(b.Rows), v)
		}
	}
	if c := d.uvarint(); c != uint64(b.Schema.Len()) {
		d.fail(fmt.Sprintf("%d columns, the schema has %d", c, b.Schema.Len()))
	}
	for i := range b.Cols {
		if d.err != "" {
			return
		}
		d.column(b, i)
	}
}

func (d *wireReader) marks(b *Batch) {
	n := d.uvarint()
	if n > uint64(b.Rows)+1 || n > uint64(len(d.data))/minMarkBytes {
		d.fail("too many marks")
	}
	prev := Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	for i := uint64(0); i < n && d.err == ""; i++ {
		head := d.uvarint()
		row := head >> 1
		if i > 0 && row == 0 || row > uint64(b.Rows-int(prev.Row)) {
			d.fail("a mark out of place")
			return
		}
		m := Mark{Row: prev.Row + int32(row), Idle: head&1 != 0}
		m.Watermark = d.later(prev.Watermark)
		m.Arrival = d.later(prev.Arrival)
		b.AddMark(m)
		prev = m
	}
}

// later takes a difference and adds it to t.
func (d *wireReader) later(t dataflow.Time) dataflow.Time {
	by := d.uvarint()
	if by > uint64(dataflow.MaxTime)-uint64(t) {
		d.fail("a mark past the end of time")
		return t
	}
	return dataflow.Time(uint64(t) + by)
}

func (d *wireReader) column(b *Batch, i int) {
	n := b.Rows
	head := d.byte()
	if t := b.Schema.Field(i).Type; d.err == "" && Type(head&^wireNullable) != t {
		d.fail(fmt.Sprintf("column %d is of %v, the schema says %v", i, Type(head&^wireNullable), t))
	}
	var valid []byte
	if head&wireNullable != 0 {
		valid = d.bitmap(n)
	}
	var values []byte
	switch b.Schema.Field(i).Type {
	case Boolean:
		values = d.bitmap(n)
	case Bigint, Timestamp, Double:
		values = d.bytes(8 * n)
	case String, Bytes:
		values = d.bytes(4 * n)
	}
	if d.err != "" {
		return
	}
	c := b.Own(i, n)
	switch c.Type {
	case Boolean:
		readWords(c.Bits[:Words(n)], values)
	case Bigint, Timestamp:
		readWords(c.Ints, values)
	case Double:
		readDoubles(c.Doubles, values)
	case String, Bytes:
		d.variable(c, values, n)
	}
	if valid != nil {
		readWords(c.NewValid(n), valid)
	}
}

// bitmap takes the words of n bits; those past the last must be zero.
func (d *wireReader) bitmap(n int) []byte {
	v := d.bytes(8 * Words(n))
	if r := n % 64; r != 0 && v != nil && binary.LittleEndian.Uint64(v[len(v)-8:])>>r != 0 {
		d.fail("bits after the last row")
	}
	return v
}

// variable reads the ends of n values and takes their bytes.
func (d *wireReader) variable(c *Column, ends []byte, n int) {
	c.Offsets = grown(c.Offsets, n+1)
	c.Offsets[0] = 0
	last := uint32(0)
	off := c.Offsets[1:]
	bad := false
	for i := range off {
		end := binary.LittleEndian.Uint32(ends[4*i:])
		bad = bad || end < last
		last = end
		off[i] = int32(end)
	}
	if bad || last > math.MaxInt32 {
		d.fail("a value ends before it begins")
		return
	}
	c.Data = append(c.Data[:0], d.bytes(int(last))...)
}

func readWords[T int64 | uint64](dst []T, p []byte) {
	for len(dst) >= 8 && len(p) >= 64 {
		dst[0] = T(binary.LittleEndian.Uint64(p[0:8]))
		dst[1] = T(binary.LittleEndian.Uint64(p[8:16]))
		dst[2] = T(binary.LittleEndian.Uint64(p[16:24]))
		dst[3] = T(binary.LittleEndian.Uint64(p[24:32]))
		dst[4] = T(binary.LittleEndian.Uint64(p[32:40]))
		dst[5] = T(binary.LittleEndian.Uint64(p[40:48]))
		dst[6] = T(binary.LittleEndian.Uint64(p[48:56]))
		dst[7] = T(binary.LittleEndian.Uint64(p[56:64]))
		dst, p = dst[8:], p[64:]
	}
	for i := range dst {
		dst[i] = T(binary.LittleEndian.Uint64(p[8*i:]))
	}
}

func readDoubles(dst []float64, p []byte) {
	for len(dst) >= 4 && len(p) >= 32 {
		dst[0] = math.Float64frombits(binary.LittleEndian.Uint64(p[0:8]))
		dst[1] = math.Float64frombits(binary.LittleEndian.Uint64(p[8:16]))
		dst[2] = math.Float64frombits(binary.LittleEndian.Uint64(p[16:24]))
		dst[3] = math.Float64frombits(binary.LittleEndian.Uint64(p[24:32]))
		dst, p = dst[4:], p[32:]
	}
	for i := range dst {
		dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(p[8*i:]))
	}
}
