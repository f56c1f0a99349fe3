package peers

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/s2"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/pack"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func rows(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "\x02\x0esensor %d\x02\x00\x00\x00%c\x02", i, rune(i%90+32))
	}
	return b.String()[:size]
}

// Parts of another site come in fewer bytes over the line, small ones too; those that
// cannot be made smaller in hardly more; those of the own site as they are.
func TestFetchPacked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := site(t, "a")
		z, w := away(t, net, "z", "away")
		z.peers.o.Packs = func(mesh.NodeID) bool { return true }
		for _, c := range []struct {
			text string
			most int
		}{{rows(1000), 600}, {rows(wideBytes - 1), wideBytes / 2}, {rows(9*mostPiece + 5), 5 * mostPiece}, {noise(3*mostPiece + 1), 3*mostPiece + 1000}, {noise(1), 20}} {
			w.read = 0
			p := nodes[0].put(t, c.text)
			if err := z.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, p); err != nil || z.text(t, p) != c.text {
				t.Fatalf("%d bytes: %v", len(c.text), err)
			}
			if w.read > c.most {
				t.Errorf("%d bytes came over the line for %d", w.read, len(c.text))
			}
		}
		raw, sent := nodes[0].peers.o.Packer.Counts()
		if raw < 12*mostPiece || sent > 8*mostPiece {
			t.Errorf("%d bytes for %d", sent, raw)
		}
		y, w := away(t, net, "y", "home")
		y.peers.o.Packs = z.peers.o.Packs
		p := nodes[0].put(t, rows(2000))
		if err := y.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, p); err != nil || w.read < 2000 {
			t.Errorf("of the same site in %d bytes: %v", w.read, err)
		}
	})
}

// older is a transport at which nobody knows of version 4.
type older struct{ *simnet.Transport }

func (o older) Handle(kind mesh.Kind, take func(mesh.Stream)) {
	o.Transport.Handle(kind, func(s mesh.Stream) { take(&olderStream{Stream: s}) })
}

type olderStream struct {
	mesh.Stream
	at int
}

func (s *olderStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if i := headBytes - s.at; i >= 0 && i < n && b[i] == versionPack {
		b[i] = 99
	}
	s.at += n
	return n, err
}

// Who knows nothing of packed pieces is asked for others.
func TestOlderNodesAreNotAskedForPackedPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		tr := net.New("a", "home")
		a := &node{id: "a", disk: storetest.New()}
		var err error
		if a.store, err = part.Open(a.disk, "/parts"); err != nil {
			t.Fatal(err)
		}
		a.peers = New(Options{Transport: older{tr}, Site: "home", Store: a.store, Holds: part.NewHolds(a.store)})
		tr.Start()
		t.Cleanup(func() {
			if err := errors.Join(a.peers.Close(), tr.Close()); err != nil {
				t.Error(err)
			}
		})
		z, w := away(t, net, "z", "away")
		z.peers.o.Packs = func(mesh.NodeID) bool { return true }
		for _, size := range []int{700, wideBytes + 9, 9 * mostPiece} {
			p := a.put(t, rows(size))
			w.most = 0
			if err := z.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, p); err != nil || z.text(t, p) != rows(size) {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if size > 8*leastPiece && w.most != 4 {
				t.Errorf("%d bytes over %d streams at a time", size, w.most)
			}
		}
	})
}

// A node that answers with something else than the piece gets nothing taken, and no
// memory.
func TestPackedPiecesThatAreNone(t *testing.T) {
	for name, answer := range map[string][]byte{
		"a bomb":      s2.Encode(nil, make([]byte, 8<<20)),
		"too little":  s2.Encode(nil, make([]byte, 100)),
		"too much":    s2.Encode(nil, make([]byte, 5000)),
		"no S2 block": []byte("\xff\xff\xff\xff\x0f something"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				tr := net.New("a", "home")
				tr.Handle(mesh.Parts, func(s mesh.Stream) {
					defer s.Close()
					for {
						t, _, err := readFrame(s)
						if err == nil && t == fetchPacked {
							if err = writeFrame(s, givenPacked, encodePacked(len(answer))); err == nil {
								_, err = s.Write(answer)
							}
						}
						if err != nil {
							return
						}
					}
				})
				tr.Start()
				defer tr.Close()
				z, _ := away(t, net, "z", "away")
				z.peers.o.Packs = func(mesh.NodeID) bool { return true }
				p := store.Part{Digest: digestOf(1), Size: 4096}
				if len(answer) > 4096 {
					p.Size = mostPiece
				}
				err := z.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, p)
				if err == nil || z.store.Has(p) || name != "too little" && !errors.Is(err, pack.ErrFormat) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}
