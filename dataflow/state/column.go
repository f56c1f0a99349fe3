package state

import (
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// column holds one column of the entries of a state, by entry.
type column struct {
	typ   batch.Type
	ints  []int64 // all types of fixed length; doubles as their bits, booleans as 0 and 1
	nulls []bool  // fixed length types
	spans []span  // String, Bytes
	data  []byte  // what spans lie in; written at its end only, so that what is undone is still there
	waste int     // bytes of data that no span has
}

// span is where a value of variable length lies; length -1: null.
type span struct {
	at int64
	n  int32
}

// word is one value as it was, to be put back.
type word struct {
	v    int64 // fixed: the value; variable: where it lies
	n    int32 // variable: its length
	null bool
}

func (c *column) grow() {
	if c.typ.Variable() {
		c.spans = append(c.spans, span{n: -1})
		return
	}
	c.ints, c.nulls = append(c.ints, 0), append(c.nulls, true)
}

// bytesEach is what an entry costs in this column, without bytes of its own.
func (c *column) bytesEach() int64 {
	if c.typ.Variable() {
		return 16
	}
	return 9
}

func (c *column) isNull(e int32) bool {
	if c.typ.Variable() {
		return c.spans[e].n < 0
	}
	return c.nulls[e]
}

func (c *column) setInt(e int32, v int64) { c.ints[e], c.nulls[e] = v, false }

func (c *column) bytes(e int32) []byte {
	s := c.spans[e]
	if s.n <= 0 {
		return nil
	}
	return c.data[s.at : s.at+int64(s.n) : s.at+int64(s.n)]
}

func (c *column) setBytes(e int32, v []byte) {
	c.drop(e)
	c.spans[e] = span{at: int64(len(c.data)), n: int32(len(v))}
	c.data = append(c.data, v...)
}

func (c *column) setNull(e int32) {
	if c.typ.Variable() {
		c.drop(e)
		c.spans[e].n = -1
		return
	}
	c.ints[e], c.nulls[e] = 0, true
}

func (c *column) drop(e int32) { c.waste += max(int(c.spans[e].n), 0) }

// word is the value for putBack. Its bytes stay until compact.
func (c *column) word(e int32) word {
	if c.typ.Variable() {
		return word{v: c.spans[e].at, n: c.spans[e].n}
	}
	return word{v: c.ints[e], null: c.nulls[e]}
}

func (c *column) putBack(e int32, w word) {
	if c.typ.Variable() {
		c.drop(e)
		c.waste -= max(int(w.n), 0)
		c.spans[e] = span{at: w.v, n: w.n}
		return
	}
	c.ints[e], c.nulls[e] = w.v, w.null
}

// compact drops the bytes that nobody has once they are the greater part. No
// words may be kept.
func (c *column) compact() {
	const few = 1 << 16
	if c.waste < few || c.waste < len(c.data)/2 {
		return
	}
	data := make([]byte, 0, len(c.data)-c.waste+few)
	for e := range c.spans {
		if s := &c.spans[e]; s.n > 0 {
			at := int64(len(data))
			data = append(data, c.data[s.at:s.at+int64(s.n)]...)
			s.at = at
		}
	}
	c.data, c.waste = data, 0
}

// take sets the value to that of a row.
func (c *column) take(e int32, from *batch.Column, row int) {
	switch {
	case from.IsNull(row):
		c.setNull(e)
	case c.typ.Variable():
		c.setBytes(e, from.At(row))
	case c.typ == batch.Double:
		c.setInt(e, int64(math.Float64bits(from.Doubles[row])))
	case c.typ == batch.Boolean:
		c.setInt(e, oneIf(from.Bits.Get(row)))
	default:
		c.setInt(e, from.Ints[row])
	}
}

func oneIf(v bool) int64 {
	if v {
		return 1
	}
	return 0
}

// put sets a column of the row that is being built to the value.
func (c *column) put(e int32, to *batch.Builder, col int) {
	switch {
	case c.isNull(e):
	case c.typ.Variable():
		to.SetBytes(col, c.bytes(e))
	default:
		putFixed(c.typ, c.ints[e], to, col)
	}
}

func putFixed(typ batch.Type, v int64, to *batch.Builder, col int) {
	switch typ {
	case batch.Double:
		to.SetDouble(col, math.Float64frombits(uint64(v)))
	case batch.Boolean:
		to.SetBool(col, v != 0)
	default:
		to.SetInt(col, v)
	}
}
