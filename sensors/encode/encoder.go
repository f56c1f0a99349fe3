package encode

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Times is how timestamps are written.
type Times uint8

// The forms of `timestamps:`. Numbers have a fraction where the instant needs
// one.
const (
	RFC3339 Times = iota // the default: UTC, as many digits of the second as it needs
	Milliseconds
	Microseconds
)

// Options are what a sink may choose.
type Options struct {
	Timestamps Times
}

// Encoder appends rows of one schema to a byte slice. It holds nothing but
// what it was made with, so that one may be used by several goroutines.
type Encoder struct {
	schema *batch.Schema
	times  Times
	csv    bool
	keys   [][]byte // JSON: what stands before each value, `{"a":`, `,"b":`
	header []byte   // CSV: the names, with line end
}

// NewJSON makes an encoder of JSON lines: one object a row, keys in the order
// of the columns.
func NewJSON(schema *batch.Schema, o Options) *Encoder {
	e := &Encoder{schema: schema, times: o.Timestamps}
	for i, f := range schema.Fields() {
		key := []byte{','}
		if i == 0 {
			key[0] = '{'
		}
		e.keys = append(e.keys, append(appendJSONString(key, []byte(f.Name)), ':'))
	}
	return e
}

// NewCSV makes an encoder of RFC 4180's records, lines ended by \n.
func NewCSV(schema *batch.Schema, o Options) *Encoder {
	e := &Encoder{schema: schema, times: o.Timestamps, csv: true}
	for i, f := range schema.Fields() {
		if i > 0 {
			e.header = append(e.header, ',')
		}
		e.header = appendCSVField(e.header, []byte(f.Name))
	}
	e.header = append(e.header, '\n')
	return e
}

// Schema is the schema of the batches it takes.
func (e *Encoder) Schema() *batch.Schema { return e.schema }

// AppendHeader appends CSV's line of names; JSON lines have none.
func (e *Encoder) AppendHeader(dst []byte) []byte { return append(dst, e.header...) }

// Append appends all rows of b that are there, in order, each with its line
// end. It allocates only to make dst longer.
func (e *Encoder) Append(dst []byte, b *batch.Batch) []byte {
	if b.Sel != nil {
		for _, pos := range b.Sel {
			dst = append(e.AppendRow(dst, b, int(pos)), '\n')
		}
		return dst
	}
	for pos := range b.Rows {
		dst = append(e.AppendRow(dst, b, pos), '\n')
	}
	return dst
}

// AppendRow appends the row at position pos without a line end: the payload of
// a message.
func (e *Encoder) AppendRow(dst []byte, b *batch.Batch, pos int) []byte {
	if e.csv {
		return e.appendRecord(dst, b.Cols, pos)
	}
	if len(b.Cols) == 0 {
		return append(dst, "{}"...)
	}
	for i, c := range b.Cols {
		dst = append(dst, e.keys[i]...)
		if c.IsNull(pos) {
			dst = append(dst, "null"...)
			continue
		}
		dst = e.appendJSON(dst, c, pos)
	}
	return append(dst, '}')
}

func (e *Encoder) appendJSON(dst []byte, c *batch.Column, pos int) []byte {
	switch c.Type {
	case batch.String:
		return appendJSONString(dst, c.At(pos))
	case batch.Bytes:
		return append(appendBase64(append(dst, '"'), c.At(pos)), '"')
	case batch.Timestamp:
		if e.times == RFC3339 {
			return append(appendInstant(append(dst, '"'), c.Ints[pos]), '"')
		}
	case batch.Double:
		if v := c.Doubles[pos]; v-v != 0 { // not a number, or infinite
			return append(dst, "null"...)
		}
	}
	return e.appendPlain(dst, c, pos)
}

// appendRecord appends a row as a CSV record.
func (e *Encoder) appendRecord(dst []byte, cols []*batch.Column, pos int) []byte {
	from := len(dst)
	for i, c := range cols {
		if i > 0 {
			dst = append(dst, ',')
		}
		if c.IsNull(pos) {
			continue
		}
		switch c.Type {
		case batch.String:
			dst = appendCSVField(dst, c.At(pos))
		case batch.Bytes:
			if len(c.At(pos)) == 0 {
				dst = append(dst, `""`...)
				continue
			}
			dst = appendBase64(dst, c.At(pos))
		case batch.Double:
			if v := c.Doubles[pos]; v-v == 0 {
				dst = appendDouble(dst, v)
			}
		case batch.Timestamp:
			if e.times == RFC3339 {
				dst = appendInstant(dst, c.Ints[pos])
				continue
			}
			dst = e.appendPlain(dst, c, pos)
		default:
			dst = e.appendPlain(dst, c, pos)
		}
	}
	if len(dst) == from {
		dst = append(dst, `""`...) // an empty line would be no record
	}
	return dst
}

// appendPlain appends what is written the same way in both formats.
func (e *Encoder) appendPlain(dst []byte, c *batch.Column, pos int) []byte {
	switch c.Type {
	case batch.Boolean:
		if c.Bits.Get(pos) {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case batch.Bigint:
		return appendInt(dst, c.Ints[pos])
	case batch.Double:
		return appendDouble(dst, c.Doubles[pos])
	case batch.Timestamp:
		if e.times == Milliseconds {
			return appendMillis(dst, c.Ints[pos])
		}
		return appendInt(dst, c.Ints[pos])
	}
	return dst
}
