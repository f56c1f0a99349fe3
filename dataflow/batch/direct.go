package batch

import "github.com/tidemark-mesh/tidemark/dataflow"

// Direct writing is the decoders' way into a batch: values are put at
// positions from Len() on, in any column order, again if a later one wins, and
// Extend makes rows of them once a whole payload has turned out well. Until
// then the builder has not changed.
//
//	cols := bl.Columns()
//	cols[0].PutInt(bl.Len(), 7)
//	cols[1].PutNull(bl.Len())
//	bl.Extend(1, 0)

// Columns begins a batch if there is none and returns its columns, to be
// written with the Put methods. They are the builder's until Take. No row may
// have been begun with a setter.
func (bl *Builder) Columns() []*Column { return bl.begin().Cols }

// Extend finishes n rows, at positions Len() to Len()+n-1, each with event time
// t. The caller has put a value or a null at each of them in every column, and
// n rows fit.
func (bl *Builder) Extend(n int, t dataflow.Time) {
	b := bl.b
	times := b.ownTimes[:bl.row]
	for range n {
		times = append(times, int64(t))
	}
	b.ownTimes = times
	bl.row += n
}

// Forget takes back what was put at positions from Len() up to end, nulls
// included.
func (bl *Builder) Forget(end int) {
	if bl.b == nil {
		return
	}
	for _, c := range bl.b.Cols {
		c.PutValid(bl.row, end)
	}
}

// PutInt puts a bigint or timestamp at position i.
func (c *Column) PutInt(i int, v int64) {
	if i >= len(c.Ints) {
		c.Ints = lengthened(c.Ints, i)
	}
	c.Ints[i] = v
}

// PutDouble puts a double at position i.
func (c *Column) PutDouble(i int, v float64) {
	if i >= len(c.Doubles) {
		c.Doubles = lengthened(c.Doubles, i)
	}
	c.Doubles[i] = v
}

// PutBool puts a boolean at position i.
func (c *Column) PutBool(i int, v bool) {
	if i/64 >= len(c.Bits) {
		c.Bits = lengthened(c.Bits, i/64)
	}
	c.Bits.Put(i, v)
}

// Room is where the bytes of the variable-length value at position i go: at
// least n of them. EndBytes says how many there were. Positions are put in
// order, the last one as often as need be.
func (c *Column) Room(i, n int) []byte {
	if i+1 >= len(c.Offsets) || int(c.Offsets[i])+n > len(c.Data) {
		c.makeRoom(i, n)
	}
	return c.Data[c.Offsets[i]:]
}

func (c *Column) makeRoom(i, n int) {
	if i+1 >= len(c.Offsets) {
		c.Offsets = lengthened(c.Offsets, i+1)
	}
	if end := int(c.Offsets[i]) + n; end > len(c.Data) {
		c.Data = lengthened(c.Data, end)
	}
}

// EndBytes ends the value at position i after n bytes of its Room.
func (c *Column) EndBytes(i, n int) { c.Offsets[i+1] = c.Offsets[i] + int32(n) }

// PutBytes puts a copy of v at position i.
func (c *Column) PutBytes(i int, v []byte) {
	copy(c.Room(i, len(v)), v)
	c.EndBytes(i, len(v))
}

// PutNull puts a null at position i.
func (c *Column) PutNull(i int) {
	switch c.Type {
	case Boolean:
		c.PutBool(i, false)
	case Bigint, Timestamp:
		c.PutInt(i, 0)
	case Double:
		c.PutDouble(i, 0)
	case String, Bytes:
		c.Room(i, 0)
		c.EndBytes(i, 0)
	}
	c.SetNull(i, MaxRows)
}

// PutValid takes back the nulls at positions from up to to.
func (c *Column) PutValid(from, to int) {
	if c.Valid == nil {
		return
	}
	for i := from; i < min(to, MaxRows); i++ {
		c.Valid.Set(i)
	}
}

// Repeat puts the value at position i at the n positions after it too.
func (c *Column) Repeat(i, n int) {
	if c.IsNull(i) {
		for k := range n {
			c.PutNull(i + 1 + k)
		}
		return
	}
	for k := i + 1; k <= i+n; k++ {
		switch c.Type {
		case Boolean:
			c.PutBool(k, c.Bits.Get(i))
		case Bigint, Timestamp:
			c.PutInt(k, c.Ints[i])
		case Double:
			c.PutDouble(k, c.Doubles[i])
		case String, Bytes:
			c.PutBytes(k, c.At(i))
		}
	}
}

// lengthened returns s with its values and at least i+1 entries, reusing its
// memory where that suffices. New entries are undefined.
func lengthened[T any](s []T, i int) []T {
	if i < cap(s) {
		return s[:cap(s)]
	}
	l := make([]T, max(2*cap(s), i+1, 16))
	copy(l, s)
	return l
}
