package state

import (
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// gather writes the values of the ids to dst from position at on.
func (c *keyColumn) gather(ids []int32, dst *batch.Column, at int) {
	n := len(ids)
	switch c.typ {
	case batch.Bigint, batch.Timestamp:
		dst.Ints = slices.Grow(dst.Ints[:at], n)[:at+n]
		out := dst.Ints[at:]
		for i, id := range ids {
			out[i] = c.ints[id]
		}
	case batch.Double:
		dst.Doubles = slices.Grow(dst.Doubles[:at], n)[:at+n]
		out := dst.Doubles[at:]
		for i, id := range ids {
			out[i] = math.Float64frombits(uint64(c.ints[id]))
		}
	case batch.Boolean:
		for len(dst.Bits) < batch.Words(at+n) {
			dst.Bits = append(dst.Bits, 0)
		}
		for i, id := range ids {
			dst.Bits.Put(at+i, c.ints[id] != 0)
		}
	default:
		c.gatherBytes(ids, dst, at)
		return
	}
	if c.nulls == nil {
		return
	}
	for i, id := range ids {
		if c.isNull(id) {
			dst.SetNull(at+i, batch.MaxRows)
		}
	}
}

func (c *keyColumn) gatherBytes(ids []int32, dst *batch.Column, at int) {
	n := len(ids)
	offsets := slices.Grow(dst.Offsets[:at+1], n)[:at+1+n]
	data := dst.Data
	for i, id := range ids {
		s := c.spans[id]
		if s.n > 0 {
			data = append(data, c.data[s.at:s.at+int64(s.n)]...)
		} else if s.n < 0 {
			dst.SetNull(at+i, batch.MaxRows)
		}
		offsets[at+1+i] = int32(len(data))
	}
	dst.Offsets, dst.Data = offsets, data
}
