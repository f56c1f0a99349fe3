package channel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

func frame(kind byte, payload []byte) []byte { return wire.Append(nil, kind, payload) }

func TestGoldenBytesOfTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/WIRE.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{
		"open":    appendHello(nil, hello(schema())),
		"barrier": appendBarrier(nil, *barrier(300)),
		"refused": appendRefusal(nil, &Refusal{Fenced, "attempt 4 runs"}),
	} {
		_, block, _ := strings.Cut(string(text), "```hex "+name+"\n")
		block, _, _ = strings.Cut(block, "```")
		var want []byte
		for line := range strings.Lines(block) {
			digits, _, _ := strings.Cut(line, "#")
			b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, b...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n%sthe document says\n%s", name, hex.Dump(got), hex.Dump(want))
		}
	}
}

func TestPayloadsComeBack(t *testing.T) {
	h := hello(schema())
	if got, err := parseHello(appendHello(nil, h)); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range uint64(6) {
		if got, err := parseBarrier(appendBarrier(nil, *barrier(n))); err != nil || got != *barrier(n) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	r := &Refusal{NoChannel, strings.Repeat("x", 2*maxRefused)}
	if got, err := parseRefusal(appendRefusal(nil, r)); err != nil || got.Reason != NoChannel || len(got.Why) != maxRefused-1 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, {0}, {77, 'x'}} {
		if _, err := parseRefusal(bad); !errors.Is(err, wire.ErrFormat) {
			t.Errorf("%x: %v", bad, err)
		}
	}
	if _, err := parseBarrier([]byte{6, 1, 0, 1, 1}); !errors.Is(err, wire.ErrFormat) {
		t.Errorf("sources do something unknown: %v", err)
	}
}

// read is the batches in a stream of frames, each encoded, and how many of them
// were packed.
func read(t *testing.T, p *batch.Pool, stream []byte) (all []*batch.Batch, packed int) {
	t.Helper()
	r := wire.NewReader(bytes.NewReader(stream), toReceiver()...)
	for {
		kind, payload, err := r.Next()
		if err != nil {
			return all, packed
		}
		if kind == framePacked {
			packed++
			if payload, err = unpack(nil, payload, maxBatch); err != nil {
				t.Fatal(err)
			}
		}
		b, err := batch.Decode(p, schema(), payload)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
}

func TestPackingWhereItPays(t *testing.T) {
	p := batch.NewPool(0, nil)
	s := schema()
	r := rand.New(rand.NewPCG(1, 2))
	var k packer
	k.max = maxBatch
	count := func(n, rowsEach int, alike bool) int {
		var stream bytes.Buffer
		w := wire.NewWriter(&stream, 1<<30)
		for range n {
			b := rows(p, s, rowsEach, r, alike)
			if err := k.write(w, b); err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		all, packed := read(t, p, stream.Bytes())
		for _, b := range all {
			b.Release()
		}
		if len(all) != n {
			t.Errorf("%d batches of %d", len(all), n)
		}
		return packed
	}
	if n := count(packTry, 1000, true); n != packTry {
		t.Errorf("of batches alike %d of %d were packed", n, packTry)
	}
	if n := count(3*packTry, 1000, false); n != 0 {
		t.Errorf("%d random batches were packed", n)
	}
	if n := count(packTry, 1000, true); n != packTry {
		t.Errorf("packing pays again, and %d of %d were packed", n, packTry)
	}
	if n := count(packTry, 10, true); n != 0 {
		t.Errorf("%d small batches were packed", n)
	}
	if p.Out() != 0 {
		t.Errorf("%d batches were not released", p.Out())
	}
}

// Hashes are computed where they are needed, and the batch that others may hold
// too keeps its own.
func TestHashesStayHere(t *testing.T) {
	p := batch.NewPool(0, nil)
	b := rows(p, schema(), 10, rand.New(rand.NewPCG(1, 2)), false)
	clear(b.OwnHashes(10))
	var stream bytes.Buffer
	w := wire.NewWriter(&stream, 1)
	k := packer{max: maxBatch}
	if err := k.write(w, b); err != nil {
		t.Fatal(err)
	}
	got, _ := read(t, p, stream.Bytes())
	if len(got) != 1 || got[0].Hashes != nil || len(b.Hashes) != 10 || !slices.Equal(got[0].Times, b.Times) {
		t.Errorf("%d batches, hashes %v", len(got), b.Hashes)
	}
	got[0].Release()
	b.Release()
	if p.Out() != 0 {
		t.Errorf("%d batches were not released", p.Out())
	}
}

// A batch that is too large for a frame comes in pieces: the same rows and marks.
func TestLargeBatchesAreCut(t *testing.T) {
	p := batch.NewPool(0, nil)
	whole := rows(p, schema(), 1000, rand.New(rand.NewPCG(1, 2)), false)
	defer whole.Release()
	var stream bytes.Buffer
	w := wire.NewWriter(&stream, 1<<30)
	k := packer{max: 10_000}
	if err := k.write(w, whole); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	parts, _ := read(t, p, stream.Bytes())
	var times []int64
	var marks []batch.Mark
	for _, b := range parts {
		if n := len(batch.Encode(nil, b)); n > 10_000 {
			t.Errorf("a piece of %d bytes", n)
		}
		for _, m := range b.Marks {
			m.Row += int32(len(times))
			marks = append(marks, m)
		}
		times = append(times, b.Times...)
		b.Release()
	}
	if len(parts) < 2 || !slices.Equal(times, whole.Times) || !slices.Equal(marks, whole.Marks) {
		t.Errorf("%d pieces, %d rows, marks %v, want %v", len(parts), len(times), marks, whole.Marks)
	}
	k.max = 20
	if err := k.write(w, whole); !errors.Is(err, errTooLarge) {
		t.Errorf("a row that does not fit: %v", err)
	}
	if p.Out() != 1 {
		t.Errorf("%d batches were not released", p.Out()-1)
	}
}

func FuzzPayloads(f *testing.F) {
	f.Add(appendHello(nil, hello(schema())))
	f.Add(appendBarrier(nil, *barrier(300)))
	f.Add(appendRefusal(nil, &Refusal{Fenced, "why"}))
	f.Add([]byte{0x80, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		if h, err := parseHello(p); err == nil && !bytes.Equal(appendHello(nil, h), p) {
			t.Errorf("%x read as %+v", p, h)
		}
		if b, err := parseBarrier(p); err == nil && !bytes.Equal(appendBarrier(nil, b), p) {
			t.Errorf("%x read as %+v", p, b)
		}
		if r, err := parseRefusal(p); err == nil && len(p) <= maxRefused && !bytes.Equal(appendRefusal(nil, r), p) {
			t.Errorf("%x read as %+v", p, r)
		}
	})
}

func FuzzPacked(f *testing.F) {
	p := batch.NewPool(0, nil)
	s := schema()
	b := rows(p, s, 20, rand.New(rand.NewPCG(1, 2)), true)
	f.Add(s2.Encode(nil, batch.Encode(nil, b)))
	f.Add([]byte{255, 255, 255, 255, 15})
	b.Release()
	f.Fuzz(func(t *testing.T, packed []byte) {
		plain, err := unpack(nil, packed, 1<<20)
		if err != nil {
			if !errors.Is(err, wire.ErrFormat) {
				t.Errorf("error %v", err)
			}
			return
		}
		if len(plain) > 1<<20 {
			t.Errorf("%d bytes", len(plain))
		}
		if b, err := batch.Decode(p, s, plain); err == nil {
			b.Release()
		}
	})
}
