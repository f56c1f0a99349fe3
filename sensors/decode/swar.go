package decode

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Eight bytes at a time in one word, the first in the lowest byte.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// cursor reads the scanner's copy of a payload without bounds checks. That is
// sound because no token goes over a zero byte, padding zero bytes stand behind
// the payload, and nothing is read farther than padding bytes from where the
// scanner stands.
type cursor struct{ p unsafe.Pointer }

func (c cursor) at(i int) byte { return *(*byte)(unsafe.Add(c.p, i)) }

func (c cursor) word(i int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(c.p, i))[:])
}

// put stores eight bytes, which the caller has made room for.
func (c cursor) put(i int, x uint64) {
	binary.LittleEndian.PutUint64((*[8]byte)(unsafe.Add(c.p, i))[:], x)
}

// special has a high bit in each byte of x that ends the plain part of a
// string: quote, backslash, control character, not ASCII. Bytes above the
// lowest such one may have it wrongly, so only that one counts.
func special(x uint64) uint64 {
	return (((x ^ ones*'"') - ones) | ((x ^ ones*'\\') - ones) | (x - ones*' ') | x) & highs
}

// digits reads the decimal digits at i, at most eight: their value and number.
func digits(c cursor, i int) (v uint64, n int) {
	x := c.word(i) ^ ones*'0'
	// The lowest byte that is above 9 gets its high bit; those after it are cut.
	n = bits.TrailingZeros64((x+ones*(0x80-10)|x)&highs) >> 3
	x <<= uint(64 - 8*n) // nothing is left if there are none
	// Pairs, then fours, then all eight: S. Lemire's parse of eight digits.
	x = x*10 + x>>8
	x = (x&0x000000ff000000ff*0x000f424000000064 + x>>16&0x000000ff000000ff*0x0000271000000001) >> 32
	return x, n
}
