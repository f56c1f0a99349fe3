package state

import (
	"encoding/binary"
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
	data := slices.Grow(dst.Data, cellBytes*n)
	for i, id := range ids {
		k := &c.cells[id]
		switch old := len(data); {
		case k.n > cellBytes:
			data = append(data, c.data[k.at:k.at+int64(k.n)]...)
			data = slices.Grow(data, cellBytes*(n-i))
		case k.n >= 8:
			data = data[:old+int(k.n)]
			binary.LittleEndian.PutUint64(data[old:], k.head)
			binary.LittleEndian.PutUint64(data[old+int(k.n)-8:], k.tail)
		case k.n >= 0:
			binary.LittleEndian.PutUint64(data[old:old+8], k.head)
			data = data[:old+int(k.n)]
		default:
			dst.SetNull(at+i, batch.MaxRows)
		}
		offsets[at+1+i] = int32(len(data))
	}
	dst.Offsets, dst.Data = offsets, data
}
