package state

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// AppendKey encodes a row of key columns for a Backing, in the order of their
// values; MaxKey is the longest that a Backing takes.
func AppendKey(b []byte, cols []*batch.Column, row int) []byte { return appendKey(b, cols, row) }

// MaxKey is the longest encoded key, in bytes, that is given to a Backing.
const MaxKey = maxKey

// AppendRow encodes the values of a row, bit for bit.
func AppendRow(b []byte, cols []*batch.Column, row int) []byte {
	for _, c := range cols {
		if c.IsNull(row) {
			b = append(b, 0)
			continue
		}
		switch c.Type {
		case batch.Boolean:
			b = append(b, 1, byte(oneIf(c.Bits.Get(row))))
		case batch.Double:
			b = binary.BigEndian.AppendUint64(append(b, 1), math.Float64bits(c.Doubles[row]))
		case batch.String, batch.Bytes:
			v := c.At(row)
			b = append(binary.AppendUvarint(append(b, 1), uint64(len(v))), v...)
		default:
			b = binary.AppendVarint(append(b, 1), c.Ints[row])
		}
	}
	return b
}

// RowReader reads rows that AppendKey and AppendRow wrote.
type RowReader struct{ key []*batch.Column }

// NewRowReader makes one for keys of the given columns.
func NewRowReader(key []batch.Field) *RowReader {
	r := &RowReader{}
	for _, f := range key {
		r.key = append(r.key, &batch.Column{Type: f.Type})
	}
	return r
}

// Read ends a row of to: the key's columns, and behind them those of value.
func (r *RowReader) Read(key, value []byte, to *batch.Builder) error {
	if err := decodeKey(key, r.key); err != nil {
		return err
	}
	for i, c := range r.key {
		putRow(c, to, i)
	}
	in := &reader{b: value}
	for i := len(r.key); i < to.Schema().Len(); i++ {
		if in.byte() == 0 {
			continue
		}
		switch to.Schema().Field(i).Type {
		case batch.Boolean:
			to.SetBool(i, in.byte() != 0)
		case batch.Double:
			to.SetDouble(i, math.Float64frombits(in.word()))
		case batch.String, batch.Bytes:
			to.SetBytes(i, in.bytes(in.uvarint()))
		default:
			to.SetInt(i, in.varint())
		}
	}
	if in.bad || len(in.b) > 0 {
		to.AbortRow()
		return fmt.Errorf("state: row: %w", errUnit)
	}
	to.EndRow(0)
	return nil
}
