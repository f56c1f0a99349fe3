package state

import (
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Value is a record of typed columns for each key: value state.
type Value struct {
	cells *cells
}

// Value declares value state. One field is a plain value; several are a record.
func (s *Store) Value(name string, ttl TTL, fields ...batch.Field) *Value {
	return &Value{cells: s.declare(&cells{name: name, shape: single, fields: fields, ttl: ttl})}
}

// find is the current key's entry, if a reader may see it.
func (v *Value) find() (int32, bool) {
	c := v.cells
	key, ok := c.store.current(c)
	if !ok {
		return 0, false
	}
	e := c.heads[key] - 1
	if e < 0 || !c.there(e) {
		return 0, false
	}
	c.read(e)
	return e, true
}

// edit is the current key's entry, made if need be.
func (v *Value) edit() (int32, bool) {
	c := v.cells
	key, ok := c.store.current(c)
	if !ok {
		return 0, false
	}
	e := c.heads[key] - 1
	if e < 0 {
		return c.create(key), true
	}
	c.write(e)
	return e, true
}

// Exists tells whether the key has a value.
func (v *Value) Exists() bool { _, ok := v.find(); return ok }

// Null tells whether there is no value, or column i of it is null.
func (v *Value) Null(i int) bool {
	e, ok := v.find()
	return !ok || v.cells.cols[i].isNull(e)
}

// Int is column i of the value, bigint or timestamp; 0 if there is none.
func (v *Value) Int(i int) int64 {
	if e, ok := v.find(); ok {
		return v.cells.cols[i].ints[e]
	}
	return 0
}

// Double is column i of the value; 0 if there is none.
func (v *Value) Double(i int) float64 { return math.Float64frombits(uint64(v.Int(i))) }

// Bool is column i of the value; false if there is none.
func (v *Value) Bool(i int) bool { return v.Int(i) != 0 }

// Bytes is column i of the value, string or bytes. It holds until the run ends
// or state is written.
func (v *Value) Bytes(i int) []byte {
	if e, ok := v.find(); ok {
		return v.cells.cols[i].bytes(e)
	}
	return nil
}

// SetInt sets column i, bigint or timestamp. A value that was not there has
// nulls in its other columns; that holds for all setters.
func (v *Value) SetInt(i int, x int64) {
	if e, ok := v.edit(); ok {
		v.cells.cols[i].setInt(e, x)
	}
}

// SetDouble sets column i.
func (v *Value) SetDouble(i int, x float64) { v.SetInt(i, int64(math.Float64bits(x))) }

// SetBool sets column i.
func (v *Value) SetBool(i int, x bool) { v.SetInt(i, oneIf(x)) }

// SetBytes sets column i, string or bytes, to a copy of x.
func (v *Value) SetBytes(i int, x []byte) {
	if e, ok := v.edit(); ok {
		v.cells.cols[i].setBytes(e, x)
	}
}

// SetNull sets column i to null.
func (v *Value) SetNull(i int) {
	if e, ok := v.edit(); ok {
		v.cells.cols[i].setNull(e)
	}
}

// Set sets column i to the value of a row.
func (v *Value) Set(i int, from *batch.Column, row int) {
	if e, ok := v.edit(); ok {
		v.cells.cols[i].take(e, from, row)
	}
}

// Clear removes the value.
func (v *Value) Clear() {
	c := v.cells
	if key, ok := c.store.current(c); ok {
		c.clear(key)
	}
}

// clear removes all entries of a key.
func (c *cells) clear(key int32) {
	for n := c.heads[key]; n != 0; {
		e := n - 1
		n = c.next[e]
		if c.flags[e]&live != 0 {
			c.remove(e)
		}
	}
}

// Cursor stands on an element of a list or an entry of a map.
type Cursor struct {
	cells *cells
	entry int32
}

// Null tells whether column i is null.
func (r Cursor) Null(i int) bool { return r.cells.cols[i].isNull(r.entry) }

// Int is column i, bigint or timestamp.
func (r Cursor) Int(i int) int64 { return r.cells.cols[i].ints[r.entry] }

// Double is column i.
func (r Cursor) Double(i int) float64 { return math.Float64frombits(uint64(r.Int(i))) }

// Bool is column i.
func (r Cursor) Bool(i int) bool { return r.Int(i) != 0 }

// Bytes is column i, string or bytes; it holds until state is written.
func (r Cursor) Bytes(i int) []byte { return r.cells.cols[i].bytes(r.entry) }

// Put sets column col of the row that to is building to column i.
func (r Cursor) Put(i int, to *batch.Builder, col int) { r.cells.cols[i].put(r.entry, to, col) }

// SetInt sets column i. Writing touches the entry; that holds for all setters.
func (r Cursor) SetInt(i int, x int64) {
	r.cells.write(r.entry)
	r.cells.cols[i].setInt(r.entry, x)
}

// SetDouble sets column i.
func (r Cursor) SetDouble(i int, x float64) { r.SetInt(i, int64(math.Float64bits(x))) }

// SetBool sets column i.
func (r Cursor) SetBool(i int, x bool) { r.SetInt(i, oneIf(x)) }

// SetBytes sets column i, string or bytes, to a copy of x.
func (r Cursor) SetBytes(i int, x []byte) {
	r.cells.write(r.entry)
	r.cells.cols[i].setBytes(r.entry, x)
}

// Set sets column i to the value of a row.
func (r Cursor) Set(i int, from *batch.Column, row int) {
	r.cells.write(r.entry)
	r.cells.cols[i].take(r.entry, from, row)
}

// List is a list of records for each key: list state.
type List struct{ cells *cells }

// List declares list state.
func (s *Store) List(name string, ttl TTL, fields ...batch.Field) *List {
	return &List{cells: s.declare(&cells{name: name, shape: list, fields: fields, ttl: ttl})}
}

// OperatorList declares list state of the operator, not of a key: dealt out
// evenly and in order when the parallelism changes, or (union) all to all.
func (s *Store) OperatorList(name string, all bool, fields ...batch.Field) *List {
	c := &cells{name: name, shape: list, fields: fields, spread: split}
	if all {
		c.spread = union
	}
	return &List{cells: s.declare(c)}
}

// Add appends an element, all null, and returns it to be filled. It is invalid
// if no key is current.
func (l *List) Add() Cursor {
	c := l.cells
	key, ok := c.store.current(c)
	if !ok {
		return c.nowhere()
	}
	n := int64(0)
	if t := c.tails[key]; t != 0 {
		n = c.numbers[t-1] + 1
	}
	e := c.create(key)
	c.numbers[e] = n
	return Cursor{c, e}
}

// nowhere is an entry that takes what is written without a key. The error has
// been noted; nobody reads it.
func (c *cells) nowhere() Cursor {
	if c.scrap == nil {
		c.scrap = &cells{store: &Store{}, shape: c.shape, spread: broadcast, cols: make([]column, len(c.cols)), subs: column{typ: c.subs.typ}}
		for i := range c.cols {
			c.scrap.cols[i].typ = c.cols[i].typ
		}
		c.scrap.widen(1)
	}
	return Cursor{c.scrap, c.scrap.create(0)}
}

// Each calls f with each element in order until it returns false. f may change
// the element, and call Remove with it.
func (l *List) Each(f func(Cursor) bool) {
	c := l.cells
	key, ok := c.store.current(c)
	if !ok {
		return
	}
	for n := c.heads[key]; n != 0; {
		e := n - 1
		n = c.next[e]
		if !c.there(e) {
			continue
		}
		c.read(e)
		if !f(Cursor{c, e}) {
			return
		}
	}
}

// First is the first element.
func (l *List) First() (r Cursor, ok bool) {
	l.Each(func(at Cursor) bool { r, ok = at, true; return false })
	return r, ok
}

// Len is the number of elements. Counting is no reading.
func (l *List) Len() int {
	c := l.cells
	key, ok := c.store.current(c)
	if !ok {
		return 0
	}
	return c.countOf(key)
}

func (c *cells) countOf(key int32) int {
	k := 0
	for n := c.heads[key]; n != 0; n = c.next[n-1] {
		if c.there(n - 1) {
			k++
		}
	}
	return k
}

// Remove removes an element.
func (l *List) Remove(r Cursor) { r.cells.remove(r.entry) }

// Clear removes all elements.
func (l *List) Clear() {
	if key, ok := l.cells.store.current(l.cells); ok {
		l.cells.clear(key)
	}
}
