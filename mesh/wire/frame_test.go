package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// golden reads the blocks of the document: bytes in hex, comments after #.
func golden(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("../../docs/WIRE.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string][]byte)
	name := ""
	for line := range strings.Lines(string(text)) {
		switch rest, fence := strings.CutPrefix(strings.TrimSpace(line), "```"); {
		case fence && name == "":
			name, _ = strings.CutPrefix(rest, "hex ")
		case fence:
			name = ""
		case name != "":
			digits, _, _ := strings.Cut(line, "#")
			b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
			if err != nil {
				t.Fatalf("block %q: %q: %v", name, line, err)
			}
			blocks[name] = append(blocks[name], b...)
		}
	}
	return blocks
}

func TestGoldenBytesOfTheDocument(t *testing.T) {
	blocks := golden(t)
	preface := wire.Preface(mesh.Channel)
	for name, got := range map[string][]byte{
		"preface": preface[:],
		"frame":   wire.Append(nil, 7, []byte("tide")),
		"empty":   wire.Append(nil, 1, nil),
	} {
		if !bytes.Equal(got, blocks[name]) {
			t.Errorf("%s:\n%sthe document says\n%s", name, hex.Dump(got), hex.Dump(blocks[name]))
		}
	}
	k, err := wire.ReadPreface(bytes.NewReader(blocks["preface"]))
	if k != mesh.Channel || err != nil {
		t.Errorf("preface read as %v, %v", k, err)
	}
	kind, payload, err := wire.NewReader(bytes.NewReader(blocks["frame"]), wire.Limit{Kind: 7, Bytes: 4}).Next()
	if kind != 7 || string(payload) != "tide" || err != nil {
		t.Errorf("frame read as %d %q, %v", kind, payload, err)
	}
}

func TestPrefaceOfAnotherVersion(t *testing.T) {
	if _, err := wire.ReadPreface(bytes.NewReader([]byte{4, 2})); !errors.Is(err, wire.ErrFormat) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("error %v", err)
	}
	if _, err := wire.ReadPreface(bytes.NewReader([]byte{4})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
}

// Whatever frames are written in whatever pieces, the same come out, and the
// stream's end is told from a stream cut in a frame.
func TestFramesComeOutAsTheyWentIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type frame struct {
			kind    byte
			payload []byte
		}
		var all []frame
		var stream bytes.Buffer
		w := wire.NewWriter(&stream, rapid.IntRange(1, 200_000).Draw(t, "gather"))
		for range rapid.IntRange(0, 8).Draw(t, "frames") {
			f := frame{kind: rapid.Byte().Draw(t, "kind"), payload: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "payload")}
			if rapid.IntRange(0, 5).Draw(t, "large") == 0 {
				f.payload = bytes.Repeat([]byte{1, 2, 3}, rapid.IntRange(0, 100_000).Draw(t, "times"))
			}
			all = append(all, f)
			if err := w.Frame(f.kind, f.payload); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		var limits []wire.Limit
		for k := range 256 {
			limits = append(limits, wire.Limit{Kind: byte(k), Bytes: 300_000})
		}
		cut := 0
		if stream.Len() > 0 && rapid.Bool().Draw(t, "cut") {
			cut = rapid.IntRange(1, min(12, stream.Len())).Draw(t, "bytes cut")
			all = all[:len(all)-1]
		}
		var from io.Reader = bytes.NewReader(stream.Bytes()[:stream.Len()-cut])
		switch rapid.IntRange(0, 2).Draw(t, "pieces") {
		case 1:
			from = iotest.HalfReader(from)
		case 2:
			from = iotest.DataErrReader(from)
		}
		r := wire.NewReader(from, limits...)
		for i, f := range all {
			kind, payload, err := r.Next()
			if err != nil || kind != f.kind || !bytes.Equal(payload, f.payload) {
				t.Fatalf("frame %d: kind %d, %d bytes, %v; want kind %d, %d bytes", i, kind, len(payload), err, f.kind, len(f.payload))
			}
		}
		want := io.EOF
		if cut > 0 {
			want = io.ErrUnexpectedEOF
		}
		for range 2 {
			if _, _, err := r.Next(); err != want {
				t.Fatalf("after the last frame: %v, want %v", err, want)
			}
		}
	})
}

func TestFramesThatAreRefused(t *testing.T) {
	good := wire.Append(nil, 3, []byte("abc"))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		_, _, err := wire.NewReader(bytes.NewReader(bad), wire.Limit{Kind: 3, Bytes: 3}).Next()
		if !errors.Is(err, wire.ErrFormat) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for _, c := range []struct {
		limit wire.Limit
		want  string
	}{
		{wire.Limit{Kind: 3, Bytes: 2}, "at most 2"},
		{wire.Limit{Kind: 4, Bytes: 9}, "kind 3 is not expected"},
	} {
		_, _, err := wire.NewReader(bytes.NewReader(good), c.limit).Next()
		if !errors.Is(err, wire.ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: error %v, want %q", c.limit, err, c.want)
		}
	}
}

// A length that is claimed takes no memory before its bytes are there.
func TestClaimedLengthTakesNoMemory(t *testing.T) {
	claim := wire.Append(nil, 1, make([]byte, 32<<20))[:100_000]
	r := wire.NewReader(bytes.NewReader(claim), wire.Limit{Kind: 1, Bytes: 64 << 20})
	if _, _, err := r.Next(); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
	if b := r.Capacity(); b > 4*wire.ReadSize {
		t.Errorf("a buffer of %d bytes for 100,000", b)
	}
}

func TestNothingIsAllocatedForAFrame(t *testing.T) {
	payload := make([]byte, 10_000)
	var pipe bytes.Buffer
	w := wire.NewWriter(&pipe, 1<<20)
	r := wire.NewReader(&pipe, wire.Limit{Kind: 1, Bytes: 10_000})
	round := func() {
		for range 20 {
			if err := w.Frame(1, payload); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
		r.Again()
	}
	round()
	if n := testing.AllocsPerRun(20, round); n > 0 {
		t.Errorf("%v allocations for 20 frames", n)
	}
}

func TestBuffered(t *testing.T) {
	two := append(wire.Append(nil, 1, []byte("a")), wire.Append(nil, 1, []byte("bc"))...)
	r := wire.NewReader(bytes.NewReader(two[:len(two)-1]), wire.Limit{Kind: 1, Bytes: 10})
	if r.Buffered() {
		t.Error("buffered before anything was read")
	}
	if _, _, err := r.Next(); err != nil || r.Buffered() {
		t.Errorf("one byte is missing: buffered %v, %v", r.Buffered(), err)
	}
	r = wire.NewReader(bytes.NewReader(two), wire.Limit{Kind: 1, Bytes: 10})
	if _, _, err := r.Next(); err != nil || !r.Buffered() {
		t.Errorf("the second is there: buffered %v, %v", r.Buffered(), err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(wire.Append(wire.Append(nil, 1, []byte("first")), 2, nil), byte(3))
	f.Add([]byte{255, 255, 255, 255, 1, 0}, byte(1))
	f.Fuzz(func(t *testing.T, stream []byte, piece byte) {
		r := wire.NewReader(&pieces{stream, int(piece)%50 + 1}, wire.Limit{Kind: 1, Bytes: 1000}, wire.Limit{Kind: 2, Bytes: 0})
		var again []byte
		for {
			kind, payload, err := r.Next()
			if err != nil {
				break
			}
			again = wire.Append(again, kind, payload)
		}
		if !bytes.HasPrefix(stream, again) {
			t.Errorf("read %x out of %x", again, stream)
		}
	})
}

// pieces is a stream that comes a few bytes at a time.
type pieces struct {
	left []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.left)
	p.left = p.left[n:]
	return n, nil
}

// Cut takes frames off bytes as a Reader takes them off a stream.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bodies := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 1, 4).Draw(t, "bodies")
		var all []byte
		for i, b := range bodies {
			at := len(all)
			all = wire.Append(all, byte(i), b)
			if n := wire.Size(all[at:]); n != len(all)-at {
				t.Fatalf("a frame of %d bytes has %d", len(all)-at, n)
			}
		}
		rest := all
		for i, b := range bodies {
			kind, got, left, err := wire.Cut(rest)
			if err != nil || int(kind) != i || !bytes.Equal(got, b) {
				t.Fatalf("frame %d is %d %x, %v", i, kind, got, err)
			}
			rest = left
		}
		if len(rest) > 0 {
			t.Fatalf("%d bytes are left", len(rest))
		}
		first := all[:wire.Size(all)]
		if _, _, _, err := wire.Cut(first[:rapid.IntRange(0, len(first)-1).Draw(t, "cut")]); !errors.Is(err, wire.ErrFormat) {
			t.Fatalf("cut short: %v", err)
		}
		first[rapid.IntRange(0, len(first)-1).Draw(t, "damaged")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, _, _, err := wire.Cut(first); !errors.Is(err, wire.ErrFormat) {
			t.Fatalf("damaged: %v", err)
		}
	})
}
