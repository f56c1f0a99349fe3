package state

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// HashKeys puts the hash of each row's key into b.Hashes, unless it is there
// already: xxh3-64 of the encoded key. The encoding and the hash are part of
// the state format and never change:
//
//   - boolean: one byte, 0 or 1; bigint and timestamp: 8 bytes, little endian;
//     double: its IEEE bits in the same way, -0 as +0 and every NaN as
//     0x7ff8000000000001; string and bytes: the bytes; null: no bytes.
//   - A key of one column is that value. A key of several columns is, for each,
//     uvarint(length+1) and the value, or a zero byte for null.
//
// Null and the empty string of a one-column key share a hash; KeyTable tells
// them apart by their validity.
func HashKeys(b *batch.Batch, keys []int) {
	switch {
	case b.Hashes != nil:
		return
	case hashed(b, keys):
		b.Hashes = b.ColumnHashes
		return
	}
	h := b.OwnHashes(b.Rows)
	if len(keys) == 1 {
		hashOne(b.Cols[keys[0]], h)
		return
	}
	var buf []byte
	var stack [128]byte
	for i := range h {
		buf = stack[:0]
		for _, k := range keys {
			buf = AppendKeyPart(buf, b.Cols[k], i)
		}
		h[i] = xxh3.Hash(buf)
	}
}

// hashed tells whether the hashes of the keys are those of one column that b
// brings with it.
func hashed(b *batch.Batch, keys []int) bool {
	return len(keys) == 1 && b.HashedColumn != nil && b.HashedColumn == b.Cols[keys[0]]
}

// hashOne hashes every position, there or not: what a selection leaves out is
// readable, and one loop without a branch is faster than the exact one.
func hashOne(c *batch.Column, h []uint64) {
	var v [8]byte
	switch c.Type {
	case batch.String, batch.Bytes:
		data, from := c.Data, c.Offsets[0]
		for i, to := range c.Offsets[1 : len(h)+1] {
			if v := data[from:to]; len(v) > 8 && len(v) <= 16 {
				h[i] = hash16(v)
			} else {
				h[i] = xxh3.Hash(v)
			}
			from = to
		}
	case batch.Bigint, batch.Timestamp:
		for i := range h {
			binary.LittleEndian.PutUint64(v[:], uint64(c.Ints[i]))
			h[i] = xxh3.Hash(v[:])
		}
	case batch.Double:
		for i := range h {
			binary.LittleEndian.PutUint64(v[:], DoubleBits(c.Doubles[i]))
			h[i] = xxh3.Hash(v[:])
		}
	case batch.Boolean:
		zero, one := xxh3.Hash([]byte{0}), xxh3.Hash([]byte{1})
		for i := range h {
			h[i] = zero
			if c.Bits.Get(i) {
				h[i] = one
			}
		}
	}
	if c.Valid != nil {
		null := xxh3.Hash(nil)
		for i := range h {
			if !c.Valid.Get(i) {
				h[i] = null
			}
		}
	}
}

// emptyHash is the hash of the key without columns: xxh3-64 of no bytes.
const emptyHash = 0x2d06800538d394c2

// HashRows puts the hashes of the keys at the given positions into dst, which
// has room for them. It is HashKeys for a batch that is not one's own.
func HashRows(b *batch.Batch, keys []int, positions []int32, dst []uint64) {
	dst = dst[:len(positions)]
	switch {
	case b.Hashes != nil:
		gatherHashes(dst, b.Hashes, positions)
	case hashed(b, keys):
		gatherHashes(dst, b.ColumnHashes, positions)
	case len(keys) == 0:
		for i := range dst {
			dst[i] = emptyHash
		}
	case len(keys) == 1:
		HashColumn(b.Cols[keys[0]], positions, dst)
	default:
		var stack [128]byte
		buf := stack[:0]
		for i, p := range positions {
			buf = buf[:0]
			for _, k := range keys {
				buf = AppendKeyPart(buf, b.Cols[k], int(p))
			}
			dst[i] = xxh3.Hash(buf)
		}
	}
}

func gatherHashes(dst, from []uint64, positions []int32) {
	for i, p := range positions {
		dst[i] = from[p]
	}
}

// HashColumn puts the hashes of the values at the given positions, taken as
// keys of one column, into dst, which has room for them.
func HashColumn(c *batch.Column, positions []int32, dst []uint64) {
	dst = dst[:len(positions)]
	if c.Valid == nil && c.Type.Variable() {
		offsets, data := c.Offsets, c.Data
		for i, p := range positions {
			if v := data[offsets[p]:offsets[p+1]]; len(v) > 8 && len(v) <= 16 {
				dst[i] = hash16(v)
			} else {
				dst[i] = xxh3.Hash(v)
			}
		}
		return
	}
	for i, p := range positions {
		dst[i] = hashValue(c, int(p))
	}
}

// hash16 is xxh3-64 of 9 to 16 bytes, most keys' length: small enough for the
// compiler to put it into the loops.
func hash16(v []byte) uint64 {
	lo := binary.LittleEndian.Uint64(v) ^ 0x6782737bea4239b9
	hi := binary.LittleEndian.Uint64(v[len(v)-8:]) ^ 0xaf56bc3b0996523a
	x, y := bits.Mul64(lo, hi)
	h := uint64(len(v)) + bits.ReverseBytes64(lo) + hi + (x ^ y)
	h ^= h >> 37
	h *= 0x165667919e3779f9
	return h ^ h>>32
}

// hashValue is the hash of a key of one column.
func hashValue(c *batch.Column, p int) uint64 {
	if c.IsNull(p) {
		return emptyHash
	}
	var v [8]byte
	switch c.Type {
	case batch.Boolean:
		if c.Bits.Get(p) {
			v[0] = 1
		}
		return xxh3.Hash(v[:1])
	case batch.Bigint, batch.Timestamp:
		binary.LittleEndian.PutUint64(v[:], uint64(c.Ints[p]))
	case batch.Double:
		binary.LittleEndian.PutUint64(v[:], DoubleBits(c.Doubles[p]))
	default:
		return xxh3.Hash(c.At(p))
	}
	return xxh3.Hash(v[:])
}

// AppendKeyPart appends one column of a key of several; see HashKeys.
func AppendKeyPart(buf []byte, c *batch.Column, i int) []byte {
	if c.IsNull(i) {
		return append(buf, 0)
	}
	switch c.Type {
	case batch.Boolean:
		v := byte(0)
		if c.Bits.Get(i) {
			v = 1
		}
		return append(buf, 2, v)
	case batch.Bigint, batch.Timestamp:
		return binary.LittleEndian.AppendUint64(append(buf, 9), uint64(c.Ints[i]))
	case batch.Double:
		return binary.LittleEndian.AppendUint64(append(buf, 9), DoubleBits(c.Doubles[i]))
	default:
		v := c.At(i)
		return append(binary.AppendUvarint(buf, uint64(len(v))+1), v...)
	}
}

// DoubleBits are the bits by which doubles are equal as keys: -0 is +0, and all
// NaNs are one.
func DoubleBits(v float64) uint64 {
	switch {
	case v == 0:
		return 0
	case v != v:
		return 0x7ff8000000000001
	}
	return math.Float64bits(v)
}

// hashOf is the hash of a key given as columns of one row.
func hashOf(cols []*batch.Column) uint64 {
	switch len(cols) {
	case 0:
		return emptyHash
	case 1:
		return hashValue(cols[0], 0)
	}
	var stack [128]byte
	buf := stack[:0]
	for _, c := range cols {
		buf = AppendKeyPart(buf, c, 0)
	}
	return xxh3.Hash(buf)
}
