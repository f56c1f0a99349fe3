package pack_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/s2"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/mesh/pack"
)

func readings(n int) []byte {
	var b []byte
	for i := range n {
		b = fmt.Appendf(b, `{"sensor":"s-%04d","ts":%d,"data":{"temp":%d.5},"kind":"reading","seq":%d}`, i%7, 1_700_000_000_000+i*250, 20+i%5, i)
	}
	return b
}

func noise(n int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestPacking(t *testing.T) {
	var p pack.Packer
	raw := readings(1000)
	packed, ok := p.Pack([]byte("head"), raw)
	if !ok || string(packed[:4]) != "head" || len(packed) > len(raw)/3 {
		t.Fatalf("%d bytes of readings are packed in %d: %v", len(raw), len(packed), ok)
	}
	if got, err := p.Unpack(nil, packed[4:], len(raw)); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
	if all, sent := p.Counts(); all != int64(len(raw)) || sent != int64(len(packed)-4) {
		t.Errorf("counted %d and %d", all, sent)
	}
	if same, ok := p.Pack([]byte("head"), noise(10_000)); ok || string(same) != "head" {
		t.Errorf("noise is packed: %v, %q", ok, same)
	}
	if all, sent := p.Counts(); all != int64(len(raw)+10_000) || sent != int64(len(packed)-4+10_000) {
		t.Errorf("counted %d and %d", all, sent)
	}
}

// Whatever is packed comes back, and is smaller by a sixteenth at least.
func TestWhatIsPackedComesBack(t *testing.T) {
	var p pack.Packer
	rapid.Check(t, func(t *rapid.T) {
		raw := bytes.Repeat(rapid.SliceOf(rapid.Byte()).Draw(t, "raw"), rapid.IntRange(1, 9).Draw(t, "times"))
		packed, ok := p.Pack(nil, raw)
		if !ok {
			return
		}
		if len(packed) > len(raw)-len(raw)/16 || len(packed) == len(raw) {
			t.Fatalf("%d bytes are packed in %d", len(raw), len(packed))
		}
		if got, err := p.Unpack(make([]byte, 3), packed, len(raw)); err != nil || !bytes.Equal(got, raw) {
			t.Fatalf("%x became %x, %v", raw, got, err)
		}
		if _, err := p.Unpack(nil, packed, len(raw)-1); !errors.Is(err, pack.ErrFormat) {
			t.Fatalf("more than were allowed: %v", err)
		}
	})
}

// What says that it is far more than it may be costs no memory.
func TestWhatIsTooMuchIsNotUnpacked(t *testing.T) {
	var p pack.Packer
	bomb := s2.Encode(nil, make([]byte, 64<<20))
	got := testing.AllocsPerRun(10, func() {
		if b, err := p.Unpack(nil, bomb, 1<<20); b != nil || !errors.Is(err, pack.ErrFormat) {
			t.Errorf("%d bytes of %d: %v", len(b), len(bomb), err)
		}
	})
	if got > 20 {
		t.Errorf("%v allocations", got)
	}
}

func FuzzUnpack(f *testing.F) {
	var p pack.Packer
	for _, raw := range [][]byte{readings(20), make([]byte, 5000)} {
		packed, _ := p.Pack(nil, raw)
		f.Add(packed)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 64 << 10
		raw, err := p.Unpack(make([]byte, 16), b, most)
		if err != nil {
			return
		}
		if len(raw) > most {
			t.Fatalf("%d bytes", len(raw))
		}
		if packed, ok := p.Pack(nil, raw); ok {
			if again, err := p.Unpack(nil, packed, most); err != nil || !bytes.Equal(again, raw) {
				t.Fatalf("%x: %v", raw, err)
			}
		}
	})
}
