package batch

import "math/bits"

// Bitmap is a row of bits, position i in bit i%64 of word i/64. On a
// little-endian wire it is Arrow's layout. Bits past the last position are
// undefined.
type Bitmap []uint64

// Words is the number of words that n bits need.
func Words(n int) int { return (n + 63) / 64 }

// Get is bit i.
func (m Bitmap) Get(i int) bool { return m[uint(i)/64]>>(uint(i)%64)&1 != 0 }

// Set makes bit i one.
func (m Bitmap) Set(i int) { m[uint(i)/64] |= 1 << (uint(i) % 64) }

// Clear makes bit i zero.
func (m Bitmap) Clear(i int) { m[uint(i)/64] &^= 1 << (uint(i) % 64) }

// Put makes bit i v.
func (m Bitmap) Put(i int, v bool) {
	if v {
		m.Set(i)
	} else {
		m.Clear(i)
	}
}

// Count is the number of ones among the first n bits.
func (m Bitmap) Count(n int) int {
	c, full := 0, n/64
	for _, w := range m[:full] {
		c += bits.OnesCount64(w)
	}
	if r := uint(n % 64); r != 0 {
		c += bits.OnesCount64(m[full] & (1<<r - 1))
	}
	return c
}

// Fill sets the first n bits to v, growing m as needed, and returns it.
func (m Bitmap) Fill(n int, v bool) Bitmap {
	m = grown(m, Words(n))
	var w uint64
	if v {
		w = ^uint64(0)
	}
	for i := range m {
		m[i] = w
	}
	return m
}

// Column holds the values of one column of a batch. Only the slices that
// belong to Type are used; the others stay nil.
//
// A null has a zero bit in Valid and an undefined but present value: 0 bytes
// for the variable types. A nil Valid means that nothing is null.
type Column struct {
	Type    Type
	Valid   Bitmap
	Ints    []int64   // Bigint, Timestamp
	Doubles []float64 // Double
	Bits    Bitmap    // Boolean
	Offsets []int32   // String, Bytes: Rows+1 entries, the first is 0, ascending
	Data    []byte    // String, Bytes: value i is Data[Offsets[i]:Offsets[i+1]]

	spareValid Bitmap // keeps Valid's memory while Valid is nil
}

// IsNull tells whether the value at position i is null.
func (c *Column) IsNull(i int) bool { return c.Valid != nil && !c.Valid.Get(i) }

// At is the bytes of the variable-length value at position i. They belong to
// the batch.
func (c *Column) At(i int) []byte { return c.Data[c.Offsets[i]:c.Offsets[i+1]] }

// Resize gives c room for n positions of its type and leaves their values
// undefined, except that a variable-length column is empty and ready for
// Append calls. Valid becomes nil. It reuses memory.
func (c *Column) Resize(n int) {
	c.dropValid()
	switch c.Type {
	case Boolean:
		c.Bits = grown(c.Bits, Words(n))
	case Bigint, Timestamp:
		c.Ints = grown(c.Ints, n)
	case Double:
		c.Doubles = grown(c.Doubles, n)
	case String, Bytes:
		if cap(c.Offsets) < n+1 {
			c.Offsets = make([]int32, 0, n+1)
		}
		c.Offsets = append(c.Offsets[:0], 0)
		c.Data = c.Data[:0]
	}
}

// AppendBytes adds the next value of a variable-length column.
func (c *Column) AppendBytes(v []byte) {
	c.Data = append(c.Data, v...)
	c.Offsets = append(c.Offsets, int32(len(c.Data)))
}

// SetNull makes the value at position i of n null, giving c a validity bitmap
// if it had none. The value itself is left as it is.
func (c *Column) SetNull(i, n int) {
	if c.Valid == nil {
		c.Valid = c.spareValid.Fill(n, true)
		c.spareValid = nil
	}
	c.Valid.Clear(i)
}

// NewValid gives c a validity bitmap for n positions with undefined bits, for
// kernels that write whole words.
func (c *Column) NewValid(n int) Bitmap {
	if c.Valid == nil {
		c.Valid, c.spareValid = c.spareValid, nil
	}
	c.Valid = grown(c.Valid, Words(n))
	return c.Valid
}

func (c *Column) dropValid() {
	if c.Valid != nil {
		c.spareValid, c.Valid = c.Valid, nil
	}
}

// reset empties c but keeps its memory.
func (c *Column) reset() {
	c.dropValid()
	c.Ints, c.Doubles, c.Bits = c.Ints[:0], c.Doubles[:0], c.Bits[:0]
	c.Offsets, c.Data = c.Offsets[:0], c.Data[:0]
}

// capBytes is the memory c holds on to.
func (c *Column) capBytes() int64 {
	return int64(8*(cap(c.Valid)+cap(c.spareValid)+cap(c.Ints)+cap(c.Doubles)+cap(c.Bits)) + 4*cap(c.Offsets) + cap(c.Data))
}

// grown returns s with length n, reusing its memory where that suffices.
// What it holds is undefined.
func grown[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n, n+n/4)
}
