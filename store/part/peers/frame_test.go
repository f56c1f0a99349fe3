package peers

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
)

// golden reads the blocks of the document: bytes in hex, comments after #.
func golden(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("../../../docs/PARTS_PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string][]byte)
	for _, block := range strings.Split(string(text), "```hex ")[1:] {
		name, rest, _ := strings.Cut(block, "\n")
		rest, _, _ = strings.Cut(rest, "```")
		var digits strings.Builder
		for _, line := range strings.Split(rest, "\n") {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.ReplaceAll(line, " ", ""))
		}
		if blocks[name], err = hex.DecodeString(digits.String()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return blocks
}

func digestOf(c byte) (d store.Digest) {
	for i := range d {
		d[i] = c
	}
	return d
}

func TestGoldenBytesOfTheDocument(t *testing.T) {
	whose := beginning{job: "j7", id: dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "home", Attempt: 3}, Counter: 17}}
	parts := []store.Part{{Digest: digestOf(0xaa), Size: 4096}, {Digest: digestOf(0xbb), Size: 300}}
	bodies := map[string]struct {
		t    frameType
		body []byte
	}{"begin": {begin, encodeBegin(whose)}, "push": {push, encodeParts(parts)}, "refused": {refused, encodeRefusal(store.ErrMissing)}, "given, packed": {givenPacked, encodePacked(300)}}
	blocks := golden(t)
	if len(blocks) != len(bodies) {
		t.Errorf("the document has %d examples, the test %d", len(blocks), len(bodies))
	}
	for name, b := range bodies {
		var w bytes.Buffer
		if err := writeFrame(&w, b.t, b.body); err != nil || !bytes.Equal(w.Bytes(), blocks[name]) {
			t.Errorf("%s: %x, want %x", name, w.Bytes(), blocks[name])
		}
	}
	if got, err := decodeBegin(encodeBegin(whose)); err != nil || got != whose {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := decodeParts(encodeParts(parts)); err != nil || len(got) != 2 || got[1] != parts[1] {
		t.Errorf("%+v, %v", got, err)
	}
}

// The kind of an error survives the wire, and its words do.
func TestRefusalsKeepTheirKind(t *testing.T) {
	for _, k := range append(kinds[:], struct {
		code code
		err  error
	}{codeOther, nil}) {
		err := errors.New("the wolf ate it")
		if k.err != nil {
			err = fmt.Errorf("the wolf ate it: %w", k.err)
		}
		got := decodeRefusal(encodeRefusal(err))
		if got.Error() != err.Error() || k.err != nil && !errors.Is(got, k.err) || k.err == nil && errors.Is(got, store.ErrMissing) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// What is no frame is refused, and not read for ever.
func TestBadFrames(t *testing.T) {
	if _, _, err := readFrame(bytes.NewReader([]byte{2, 0xff, 0xff, 0xff, 0xff})); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("4 GiB: %v", err)
	}
	if _, _, err := readFrame(bytes.NewReader([]byte{2, 0, 0, 0, 9, 1})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
	whole := encodeParts([]store.Part{{Digest: digestOf(1), Size: 1}})
	none := append(append([]byte{}, whole[:len(whole)-1]...), 0)
	for name, body := range map[string][]byte{"empty": {}, "no part": {0, 0, 0, 0}, "short": whole[:len(whole)-1], "long": append(whole, 0), "size 0": none, "too many": {0xff, 0, 0, 0}} {
		if _, err := decodeParts(body); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := decodeBegin(append([]byte{versionPack + 1}, encodeBegin(beginning{})[1:]...)); !errors.Is(err, errVersion) {
		t.Errorf("version %d: %v", versionPack+1, err)
	}
	one := store.Part{Digest: digestOf(3), Size: 77}
	if p, at, n, err := decodeSome(encodeSome(one, 70, 7)); err != nil || p != one || at != 70 || n != 7 {
		t.Errorf("a piece: %v, %d, %d, %v", p, at, n, err)
	}
	for _, c := range [][2]int64{{70, 8}, {70, 0}, {77, 1}, {-1, 2}, {1, -1}, {1, 1 << 62}} {
		if _, _, _, err := decodeSome(encodeSome(one, c[0], c[1])); err == nil {
			t.Errorf("a piece of %d bytes at %d of 77: taken", c[1], c[0])
		}
	}
	if n, err := decodePacked(encodePacked(77), 77); err != nil || n != 77 {
		t.Errorf("a piece that is not packed: %d, %v", n, err)
	}
	for _, body := range [][]byte{encodePacked(0), encodePacked(78), encodePacked(-1), encodePacked(7)[:3], append(encodePacked(7), 0)} {
		if _, err := decodePacked(body, 77); err == nil {
			t.Errorf("%x for a piece of 77 bytes: taken", body)
		}
	}
	if _, err := decodeBegin(nil); err == nil {
		t.Error("an empty begin is taken")
	}
}

// Frames that somebody made up are refused or understood, and no panic follows.
func FuzzFrames(f *testing.F) {
	f.Add(encodeBegin(beginning{job: "j", id: dataflow.CheckpointID{Counter: 1}}))
	f.Add(encodeParts([]store.Part{{Digest: digestOf(3), Size: 77}}))
	f.Add(encodeRefusal(store.ErrFull))
	f.Add(encodeParts([]store.Part{{Size: 1 << 62}, {Size: 1 << 62}, {Size: 1 << 62}, {Size: 1 << 62}}))
	f.Add(encodeRest(store.Part{Digest: digestOf(3), Size: 77}, 76))
	f.Add(encodeBegin(beginning{from: true}))
	f.Add(encodeBegin(beginning{from: true, some: true, pack: true}))
	f.Add(encodePacked(300))
	f.Add(encodeSome(store.Part{Digest: digestOf(3), Size: 77}, 70, 7))
	f.Fuzz(func(t *testing.T, body []byte) {
		if p, at, err := decodeRest(body); err == nil && (!bytes.Equal(encodeRest(p, at), body) || at >= p.Size) {
			t.Errorf("rest %x", body)
		}
		if b, err := decodeBegin(body); err == nil && !bytes.Equal(encodeBegin(b), body) {
			t.Errorf("begin %x", body)
		}
		if p, err := decodeParts(body); err == nil {
			if !bytes.Equal(encodeParts(p), body) {
				t.Errorf("parts %x", body)
			}
			if oneBatch(p) && slices.ContainsFunc(p, func(p store.Part) bool { return p.Size > batchBytes }) {
				t.Errorf("parts %x are held in memory", body)
			}
		}
		if n, err := decodePacked(body, 1000); err == nil && (n < 1 || n > 1000 || !bytes.Equal(encodePacked(int(n)), body)) {
			t.Errorf("packed %x", body)
		}
		_ = decodeRefusal(body)
		_, _, _ = readFrame(bytes.NewReader(body))
	})
}
