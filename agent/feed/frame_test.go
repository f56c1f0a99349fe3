package feed

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh/pack"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// golden is the bytes of an example in docs/INGEST_LOG.md.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	doc, err := os.ReadFile("../../docs/INGEST_LOG.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```hex " + name + "\n(.*?)```").FindSubmatch(doc)
	if m == nil {
		t.Fatalf("the page has no example %q", name)
	}
	var all strings.Builder
	for line := range strings.Lines(string(m[1])) {
		text, _, _ := strings.Cut(line, "#")
		all.WriteString(strings.Join(strings.Fields(text), ""))
	}
	b, err := hex.DecodeString(all.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exampleID() ingestlog.LogID {
	return ingestlog.LogID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
}

func exampleMirror() mirrorHello {
	return mirrorHello{feed: "j7-north.in", as: "j7-north.in", reign: coordinator.Reign{Epoch: 2, Site: "north", Start: 40}, id: exampleID(), end: 300}
}

func TestGoldenFrames(t *testing.T) {
	h, s, no := hello{"j7.in", 3, exampleID()}, copyState{exampleID(), 3, 2, 100, 300}, refusal{refusedSealed, "epoch 4 has begun"}
	g := &ingestlog.Group{Seq: 300, Next: 301, Blocks: []ingestlog.GroupBlock{{Lane: 1, Data: []byte{0xaa, 0xbb}}}, State: []byte{0xcc}}
	for name, got := range map[string][]byte{
		"hello": h.append(nil), "state": s.append(nil), "refused": no.append(nil), "group frames": appendGroup(nil, g),
		"replicated": appendReplicated(nil, 301, 100), "ack": appendSeq(nil, frameAck, 301),
		"mirror": exampleMirror().append(nil), "from": appendSeq(nil, frameFrom, 300), "stand": stand{301, 4096, 1_700_000_000_000_000}.append(nil),
	} {
		if want := golden(t, name); !bytes.Equal(got, want) {
			t.Errorf("%s is\n% x, the page has\n% x", name, got, want)
		}
	}
	var h2 hello
	var s2 copyState
	var no2 refusal
	if err := errors.Join(h2.decode(payload(t, golden(t, "hello"))), s2.decode(payload(t, golden(t, "state"))), no2.decode(payload(t, golden(t, "refused")))); err != nil {
		t.Fatal(err)
	}
	if h2 != h || s2 != s || no2 != no {
		t.Errorf("read as %v, %v, %v", h2, s2, no2)
	}
	var m mirrorHello
	var at stand
	if err := errors.Join(m.decode(frameMirror, payload(t, golden(t, "mirror"))), at.decode(payload(t, golden(t, "stand")))); err != nil || m != exampleMirror() || at != (stand{301, 4096, 1_700_000_000_000_000}) {
		t.Errorf("read as %v, %v, %v", m, at, err)
	}
	h3 := exampleMirror()
	h3.packs = true
	if err := m.decode(framePacking, payload(t, golden(t, "mirror, packing"))); err != nil || m != h3 || !bytes.Equal(h3.append(nil), golden(t, "mirror, packing")) {
		t.Errorf("read as %v, %v", m, err)
	}
	h4 := exampleMirror()
	h4.reign.Life = 1
	if err := m.decode(frameMirror, payload(t, golden(t, "mirror of a life"))); err != nil || m != h4 || !bytes.Equal(h4.append(nil), golden(t, "mirror of a life")) {
		t.Errorf("read as %v, %v", m, err)
	}
	large := *g
	large.Blocks = []ingestlog.GroupBlock{{Lane: 1, Data: bytes.Repeat([]byte("abcdefgh"), 8)}}
	if got, err := unpacked(nil, payload(t, golden(t, "packed")), new(pack.Packer), func(byte, []byte) error { return nil }); err != nil || !bytes.Equal(got, appendGroup(nil, &large)) {
		t.Errorf("unpacked to %x, %v", got, err)
	}
	in := wire.NewReader(bytes.NewReader(golden(t, "group frames")), ownerFrames()...)
	_, b, err := in.Next()
	if err != nil {
		t.Fatal(err)
	}
	block, err := decodeBlock(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, b, err = in.Next(); err != nil {
		t.Fatal(err)
	}
	if g2, err := decodeGroup(b, []ingestlog.GroupBlock{block}); err != nil || !reflect.DeepEqual(g, g2) {
		t.Errorf("read as %+v, %v", g2, err)
	}
	if _, err := decodeGroup(b, nil); !errors.Is(err, errFrame) {
		t.Errorf("a group without its block: %v", err)
	}
}

// A group that never ends ends the stream; the blocks of one that has ended do
// not count for the next.
func TestAGroupIsBounded(t *testing.T) {
	c := copying{f: &follower{}, most: 300}
	block := append([]byte{0}, make([]byte, 99)...)
	take := func() error { _, err := c.frame(frameBlock, block, true); return err }
	end := func() error { _, err := c.frame(frameGroup, []byte{0, 1, byte(len(c.blocks))}, true); return err }
	if err := errors.Join(take(), end(), take(), end()); err != nil {
		t.Fatal(err)
	}
	if err := take(); err != nil {
		t.Fatal(err)
	}
	if err := take(); !errors.Is(err, errFrame) || len(c.blocks) != 1 {
		t.Errorf("%v, and %d blocks", err, len(c.blocks))
	}
}

// A packed frame holds blocks and groups, and nothing else; what is larger than one
// may be goes as it is.
func TestPackedFrames(t *testing.T) {
	p := new(pack.Packer)
	g := &ingestlog.Group{Seq: 300, Next: 301, State: []byte{0xcc}}
	for lane := range 20 {
		g.Blocks = append(g.Blocks, ingestlog.GroupBlock{Lane: lane, Data: bytes.Repeat([]byte("abc"), 1000*(1+lane))})
	}
	g.Blocks[7].Data = bytes.Repeat([]byte("large"), mostPacked/4)
	frames := appendGroup(nil, g)
	packed := appendPacked([]byte("head"), frames, p)
	in := wire.NewReader(bytes.NewReader(packed[4:]), sourceFrames()...)
	var buf, again []byte
	kinds := make(map[byte]int)
	for {
		kind, b, err := in.Next()
		if err != nil {
			break
		}
		if kinds[kind]++; kind != framePacked {
			again = wire.Append(again, kind, b)
			continue
		}
		buf, err = unpacked(buf, b, p, func(kind byte, b []byte) error {
			again = wire.Append(again, kind, b)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(again, frames) || kinds[framePacked] < 2 || kinds[frameBlock] != 1 || len(kinds) != 2 {
		t.Errorf("%d bytes became %d, in %v", len(frames), len(again), kinds)
	}
	for what, frames := range map[string][]byte{
		"another kind": appendSeq(nil, frameFrom, 1), "packed twice": wire.Append(nil, framePacked, []byte{1}),
		"a large group": wire.Append(nil, frameGroup, make([]byte, maxSmall+1)), "half a frame": frames[:100],
	} {
		small, _ := p.Pack(nil, append(frames, make([]byte, 1000)...))
		if _, err := unpacked(nil, small, p, func(byte, []byte) error { return nil }); !errors.Is(err, errFrame) && !errors.Is(err, wire.ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// payload is that of the only frame in b.
func payload(t *testing.T, b []byte) []byte {
	t.Helper()
	_, p, err := wire.NewReader(bytes.NewReader(b), slices.Concat(firstFrames(), memberFrames(), sourceFrames())...).Next()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What can be read is written as it was, and nothing panics.
func FuzzFrames(f *testing.F) {
	f.Add(frameHello, hello{"j7.in", 3, exampleID()}.append(nil)[5:31])
	f.Add(frameState, []byte{1})
	f.Add(frameMirror, exampleMirror().append(nil)[5:])
	f.Add(frameStand, stand{301, 4096, -1}.append(nil)[5:16])
	f.Add(frameFrom, []byte{0xad, 0x02})
	f.Add(frameAck, []byte{0xad, 0x02})
	f.Add(frameReplicated, []byte{0xad, 0x02, 0x64})
	f.Add(frameGroup, []byte{0xac, 0x02, 0xad, 0x02, 0x00, 0xcc})
	f.Add(frameBlock, []byte{1, 2, 3})
	packed, _ := new(pack.Packer).Pack(nil, appendGroup(nil, &ingestlog.Group{Seq: 1, Next: 2, Blocks: []ingestlog.GroupBlock{{Data: make([]byte, 500)}}, State: []byte{1}}))
	f.Add(framePacked, packed)
	f.Add(frameRefused, []byte{2, 1, 'x'})
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		var again []byte
		switch kind {
		case frameHello:
			var h hello
			if h.decode(b) != nil {
				return
			}
			again = h.append(nil)
		case frameState:
			var s copyState
			if s.decode(b) != nil {
				return
			}
			again = s.append(nil)
		case frameRefused:
			var r refusal
			if r.decode(b) != nil || len(r.why) > 4096 {
				return
			}
			again = r.append(nil)
		case frameMirror, framePacking:
			var h mirrorHello
			if h.decode(kind, b) != nil {
				return
			}
			again = h.append(nil)
		case frameStand:
			var s stand
			if s.decode(b) != nil {
				return
			}
			again = s.append(nil)
		case frameAck, frameCut, frameFrom:
			seq, err := decodeSeq(b)
			if err != nil {
				return
			}
			again = appendSeq(nil, kind, seq)
		case frameReplicated:
			seq, floor, err := decodeReplicated(b)
			if err != nil {
				return
			}
			again = appendReplicated(nil, seq, floor)
		case frameGroup:
			g, err := decodeGroup(b, nil)
			if err != nil {
				return
			}
			again = appendGroup(nil, g)
		case framePacked:
			most := 0
			raw, _ := unpacked(nil, b, new(pack.Packer), func(kind byte, b []byte) error {
				most += len(b)
				block, err := decodeBlock(b)
				_, again := decodeGroup(b, []ingestlog.GroupBlock{block})
				return errors.Join(err, again)
			})
			if most > len(raw) || len(raw) > mostPacked {
				t.Fatalf("%d bytes of %d", most, len(raw))
			}
			return
		default:
			if block, err := decodeBlock(b); err == nil && len(block.Data) > len(b) {
				t.Fatal("more than there was")
			}
			return
		}
		if len(b) <= maxSmall && !bytes.Equal(payload(t, again), b) {
			t.Fatalf("%x was read, and written as %x", b, payload(t, again))
		}
	})
}
