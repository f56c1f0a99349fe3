package state

import (
	"bytes"
	"encoding/binary"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// keyColumn holds one column of all keys, by id.
type keyColumn struct {
	typ   batch.Type
	ints  []int64 // all types of fixed length; doubles as DoubleBits
	cells []cell  // String, Bytes
	data  []byte  // of values longer than a cell
	nulls []uint8 // fixed length types; nil: no key is null
	null  int32   // the id of the last null key: the only one in a table of one column
}

// cell holds a string or bytes value; one of up to 16 bytes, which keys mostly
// are, is all in the cell, so that comparing it is two comparisons of words in
// one line of cache.
type cell struct {
	head uint64 // the first 8 bytes; of a shorter value all of them, then zeros
	tail uint64 // the last 8 bytes; 0 if shorter than that
	at   int64  // where in data a value of more than 16 bytes lies
	n    int32  // length; -1: null
}

const cellBytes = 16

// packed is head and tail of a value.
func packed(v []byte) (head, tail uint64) {
	n := len(v)
	switch {
	case n >= 8:
		return binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[n-8:])
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(v)) | uint64(binary.LittleEndian.Uint32(v[n-4:]))<<(8*(n-4)), 0
	case n > 0:
		return uint64(v[0]) | uint64(v[n/2])<<(8*(n/2)) | uint64(v[n-1])<<(8*(n-1)), 0
	}
	return 0, 0
}

// same tells whether a cell that is not null holds v.
func (c *keyColumn) same(k *cell, v []byte) bool {
	if int(k.n) != len(v) {
		return false
	}
	head, tail := packed(v)
	return k.head == head && k.tail == tail && (len(v) <= cellBytes || bytes.Equal(c.data[k.at:k.at+int64(k.n)], v))
}

func (c *keyColumn) fixed(in *batch.Column, p int) int64 {
	switch c.typ {
	case batch.Boolean:
		if in.Bits.Get(p) {
			return 1
		}
		return 0
	case batch.Double:
		return int64(DoubleBits(in.Doubles[p]))
	}
	return in.Ints[p]
}

func (c *keyColumn) isNull(id int32) bool { return int(id) < len(c.nulls) && c.nulls[id] != 0 }

func (c *keyColumn) equal(id int32, in *batch.Column, p int) bool {
	null := in.IsNull(p)
	if c.typ.Variable() {
		k := &c.cells[id]
		if null || k.n < 0 {
			return null && k.n < 0
		}
		return c.same(k, in.At(p))
	}
	if n := c.isNull(id); n || null {
		return n && null
	}
	return c.ints[id] == c.fixed(in, p)
}

// put stores the value at position p as that of the id, which is at most one
// past the last one.
func (c *keyColumn) put(id int32, in *batch.Column, p int) {
	null := in.IsNull(p)
	if null {
		c.null = id
	} else if c.null == id {
		c.null = -1
	}
	if c.typ.Variable() {
		k := cell{n: -1}
		if !null {
			v := in.At(p)
			k.n = int32(len(v))
			k.head, k.tail = packed(v)
			if len(v) > cellBytes {
				k.at = int64(len(c.data))
				c.data = append(c.data, v...)
			}
		}
		c.cells = set(c.cells, id, k)
		return
	}
	v := int64(0)
	if !null {
		v = c.fixed(in, p)
	}
	c.ints = set(c.ints, id, v)
	if null || int(id) < len(c.nulls) {
		for len(c.nulls) <= int(id) {
			c.nulls = append(c.nulls, 0)
		}
		c.nulls[id] = 0
		if null {
			c.nulls[id] = 1
		}
	}
}

func set[T any](s []T, id int32, v T) []T {
	if int(id) == len(s) {
		return append(s, v)
	}
	s[id] = v
	return s
}

func (c *keyColumn) cut(n int) {
	if c.typ.Variable() {
		c.cells = fitted(c.cells, n)
		return
	}
	c.ints = fitted(c.ints, n)
	c.nulls = c.nulls[:min(n, len(c.nulls))]
}

// compact drops the bytes of keys that are gone.
func (c *keyColumn) compact(refs []int32) {
	if c.null >= 0 && (int(c.null) >= len(refs) || refs[c.null] < 0) {
		c.null = -1
	}
	if !c.typ.Variable() {
		return
	}
	live := 0
	for id, k := range c.cells {
		if refs[id] >= 0 && k.n > cellBytes {
			live += int(k.n)
		}
	}
	data := make([]byte, 0, live+live/4)
	for id := range c.cells {
		k := &c.cells[id]
		switch {
		case refs[id] < 0:
			*k = cell{}
		case k.n > cellBytes:
			at := int64(len(data))
			data = append(data, c.data[k.at:k.at+int64(k.n)]...)
			k.at = at
		}
	}
	c.data = data
}
