package state

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Map is a map from values of one type to records, for each key: map state.
// Null is no map key. Zeros of either sign are one key, and NaNs are one.
type Map struct {
	cells *cells
	order []int32
}

// Map declares map state.
func (s *Store) Map(name string, key batch.Field, ttl TTL, fields ...batch.Field) *Map {
	return &Map{cells: s.declare(newMapping(name, key, ttl, fields))}
}

// Broadcast declares a map of the operator, not of a key, that all subtasks
// keep alike: each writes only what came to all of them.
func (s *Store) Broadcast(name string, key batch.Field, fields ...batch.Field) *Map {
	c := newMapping(name, key, TTL{}, fields)
	c.spread = broadcast
	return &Map{cells: s.declare(c)}
}

func newMapping(name string, key batch.Field, ttl TTL, fields []batch.Field) *cells {
	return &cells{name: name, shape: mapping, fields: fields, ttl: ttl, subs: column{typ: key.Type}, sub: key}
}

func (m *Map) get(v int64, b []byte) (Cursor, bool) {
	c := m.cells
	key, ok := c.store.current(c)
	if !ok {
		return Cursor{}, false
	}
	e := c.findSub(key, v, b, hashSub(key, v, b, c.subs.typ.Variable()))
	if e < 0 || !c.there(e) {
		return Cursor{}, false
	}
	c.read(e)
	return Cursor{c, e}, true
}

func (m *Map) put(v int64, b []byte) Cursor {
	c := m.cells
	key, ok := c.store.current(c)
	if !ok {
		return c.nowhere()
	}
	return Cursor{c, c.putSub(key, v, b)}
}

// putSub is the entry of a map key, made if need be, to be written.
func (c *cells) putSub(key int32, v int64, b []byte) int32 {
	h := hashSub(key, v, b, c.subs.typ.Variable())
	if e := c.findSub(key, v, b, h); e >= 0 {
		c.write(e)
		return e
	}
	e := c.create(key)
	c.index(e, v, b, h)
	return e
}

// Get is the entry of a bigint, timestamp or boolean (0, 1) key.
func (m *Map) Get(key int64) (Cursor, bool) { return m.get(key, nil) }

// GetDouble is Get for a double key.
func (m *Map) GetDouble(key float64) (Cursor, bool) { return m.get(int64(DoubleBits(key)), nil) }

// GetBytes is Get for a string or bytes key.
func (m *Map) GetBytes(key []byte) (Cursor, bool) { return m.get(0, key) }

// Put is the entry of a bigint, timestamp or boolean key, to be filled. A new one
// is all null; one that is there keeps the columns that are not set.
func (m *Map) Put(key int64) Cursor { return m.put(key, nil) }

// PutDouble is Put for a double key.
func (m *Map) PutDouble(key float64) Cursor { return m.put(int64(DoubleBits(key)), nil) }

// PutBytes is Put for a string or bytes key.
func (m *Map) PutBytes(key []byte) Cursor { return m.put(0, key) }

// Remove removes an entry.
func (m *Map) Remove(r Cursor) { r.cells.remove(r.entry) }

// Clear removes all entries.
func (m *Map) Clear() {
	if key, ok := m.cells.store.current(m.cells); ok {
		m.cells.clear(key)
	}
}

// Len is the number of entries. Counting is no reading.
func (m *Map) Len() int {
	if key, ok := m.cells.store.current(m.cells); ok {
		return m.cells.countOf(key)
	}
	return 0
}

// Each calls f with each entry in order of the map keys until it returns
// false. f may change or remove the entry it is given.
func (m *Map) Each(f func(Cursor) bool) {
	c := m.cells
	key, ok := c.store.current(c)
	if !ok {
		return
	}
	order := m.order[:0]
	for n := c.heads[key]; n != 0; n = c.next[n-1] {
		if c.there(n - 1) {
			order = append(order, n-1)
		}
	}
	m.order = nil // f may call Each
	slices.SortFunc(order, c.subs.compare)
	for _, e := range order {
		if !c.there(e) {
			continue
		}
		c.read(e)
		if !f(Cursor{c, e}) {
			break
		}
	}
	m.order = order
}

func (c *column) compare(a, b int32) int {
	switch {
	case c.typ.Variable():
		return bytes.Compare(c.bytes(a), c.bytes(b))
	case c.typ == batch.Double:
		return cmp.Compare(math.Float64frombits(uint64(c.ints[a])), math.Float64frombits(uint64(c.ints[b])))
	}
	return cmp.Compare(c.ints[a], c.ints[b])
}

// KeyInt is the map key of an entry, bigint, timestamp or boolean.
func (r Cursor) KeyInt() int64 { return r.cells.subs.ints[r.entry] }

// KeyDouble is the map key of an entry.
func (r Cursor) KeyDouble() float64 { return math.Float64frombits(uint64(r.KeyInt())) }

// KeyBytes is the map key of an entry; it holds until state is written.
func (r Cursor) KeyBytes() []byte { return r.cells.subs.bytes(r.entry) }
