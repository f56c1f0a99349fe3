package batch

import (
	"encoding/binary"
	"slices"
)

// Pool is the pool that b came from.
func (b *Batch) Pool() *Pool { return b.pool }

// Gather returns a fresh batch with copies of the rows of b at the given
// positions, at most MaxRows, in that order, with their times, kinds and
// hashes. The marks are copied as they are: their Row counts rows of the new
// batch.
func (b *Batch) Gather(positions []int32, marks []Mark) *Batch {
	n := len(positions)
	g := b.pool.Get(b.Schema)
	g.Rows = n
	for i, c := range b.Cols {
		g.Own(i, n).gather(c, positions, 0)
	}
	take(g.OwnTimes(n), b.Times, positions)
	if b.Kinds != nil {
		take(g.OwnKinds(n), b.Kinds, positions)
	}
	if b.Hashes != nil {
		take(g.OwnHashes(n), b.Hashes, positions)
	}
	g.ownMarks = append(g.ownMarks[:0], marks...)
	g.Marks = g.ownMarks
	b.pool.Account(g)
	return g
}

// MarksOnly returns a batch of p with no row and one mark.
func (p *Pool) MarksOnly(s *Schema, m Mark) *Batch {
	b := p.Get(s)
	for i := range b.Cols {
		b.Own(i, 0)
	}
	b.OwnTimes(0)
	m.Row = 0
	b.AddMark(m)
	return b
}

// Compact returns b without the positions that its selection leaves out: b
// itself with a reference more if there are none, else a gathered copy with
// the marks moved.
func (b *Batch) Compact() *Batch {
	if b.Sel == nil {
		return b.Retain()
	}
	c := b.Gather(b.Sel, nil)
	c.ownMarks = b.rankedMarks(c.ownMarks[:0])
	c.Marks = c.ownMarks
	return c
}

// rankedMarks appends the marks of b to dst with their place counted in rows
// that are there; of marks with no such row between them it keeps the last.
func (b *Batch) rankedMarks(dst []Mark) []Mark {
	if b.Sel == nil {
		return append(dst, b.Marks...)
	}
	k := 0
	from := len(dst)
	for _, m := range b.Marks {
		for k < len(b.Sel) && b.Sel[k] < m.Row {
			k++
		}
		m.Row = int32(k)
		if n := len(dst); n > from && dst[n-1].Row == m.Row {
			dst[n-1] = m
			continue
		}
		dst = append(dst, m)
	}
	return dst
}

// take copies src at positions to dst, which is as long.
func take[T any](dst, src []T, positions []int32) {
	dst = dst[:len(positions)]
	for k, p := range positions {
		dst[k] = src[p]
	}
}

// gather appends the values of src at positions to c, which has row values.
func (c *Column) gather(src *Column, positions []int32, row int) {
	n := len(positions)
	switch c.Type {
	case Boolean:
		for len(c.Bits) < Words(row+n) {
			c.Bits = append(c.Bits, 0)
		}
		for k, p := range positions {
			c.Bits.Put(row+k, src.Bits.Get(int(p)))
		}
	case Bigint, Timestamp:
		c.Ints = slices.Grow(c.Ints[:row], n)[:row+n]
		take(c.Ints[row:], src.Ints, positions)
	case Double:
		c.Doubles = slices.Grow(c.Doubles[:row], n)[:row+n]
		take(c.Doubles[row:], src.Doubles, positions)
	case String, Bytes:
		c.gatherBytes(src, positions, row)
	}
	if src.Valid == nil {
		return
	}
	for k, p := range positions {
		if !src.Valid.Get(int(p)) {
			c.SetNull(row+k, MaxRows)
		}
	}
}

// gatherBytes is gather for values with a length of their own. Most are short:
// where both sides have room, eight bytes are moved with one load and store,
// which is cheaper than a call to copy; what is too much is overwritten.
func (c *Column) gatherBytes(src *Column, positions []int32, row int) {
	n := len(positions)
	size := 0
	for _, p := range positions {
		size += int(src.Offsets[p+1] - src.Offsets[p])
	}
	off := slices.Grow(c.Offsets[:row+1], n)[:row+1+n]
	at := int(off[row])
	data := slices.Grow(c.Data[:at], size+8)[:at+size+8]
	ends := off[row+1:][:n]
	wide := len(src.Data) - 8 // values that begin up to here have eight bytes to read
	for k, p := range positions {
		from, to := int(src.Offsets[p]), int(src.Offsets[p+1])
		if to-from <= 8 && from <= wide {
			binary.LittleEndian.PutUint64(data[at:], binary.LittleEndian.Uint64(src.Data[from:]))
		} else {
			copy(data[at:], src.Data[from:to])
		}
		at += to - from
		ends[k] = int32(at)
	}
	c.Offsets, c.Data = off, data[:at]
}
