package avro

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// Numbers put together from a word are those of the reference, and so is what is
// none.
func TestLongsOfAllLengths(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		data := make([]byte, r.IntN(14))
		for i := range data {
			data[i] = byte(r.Uint32()) | byte(r.IntN(2)<<7) // mostly, more follow
		}
		if r.IntN(2) == 0 {
			data = append(binary.AppendVarint(nil, int64(r.Uint64()>>r.IntN(64))-1<<r.IntN(40)), data...)
		}
		want, n := binary.Varint(data)
		got, end := getLong(data, 0)
		if n <= 0 {
			want, n = 0, -1
		}
		if got != want || end != n {
			t.Fatalf("%x: %d, to %d; want %d, to %d", data, got, end, want, n)
		}
	}
}
