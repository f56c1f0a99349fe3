package peers

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// ways is a transport that counts streams, and may break some.
type ways struct {
	mesh.Transport
	mu     sync.Mutex // guards what follows
	open   int
	most   int           // open at a time
	opened int           // in all
	read   int           // bytes
	broken map[int]int   // the n-th stream, counted from 0, breaks after so many bytes
	never  map[int]error // or is not opened
}

func (w *ways) Open(ctx context.Context, to mesh.NodeID, kind mesh.Kind) (mesh.Stream, error) {
	w.mu.Lock()
	n := w.opened
	w.opened++
	err, left := w.never[n], -1
	if at, ok := w.broken[n]; ok {
		left = at
	}
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s, err := w.Transport.Open(ctx, to, kind)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.open++
	w.most = max(w.most, w.open)
	w.mu.Unlock()
	return &waysStream{Stream: s, w: w, left: left}, nil
}

type waysStream struct {
	mesh.Stream
	w    *ways
	left int
	once sync.Once
}

func (s *waysStream) Close() error {
	s.once.Do(func() {
		s.w.mu.Lock()
		s.w.open--
		s.w.mu.Unlock()
	})
	return s.Stream.Close()
}

func (s *waysStream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, mesh.ErrUnreachable
	}
	if s.left > 0 {
		p = p[:min(len(p), s.left)]
	}
	<-time.After(time.Millisecond) // so that nobody has everything before others begin
	n, err := s.Stream.Read(p)
	s.w.mu.Lock()
	s.w.read += n
	s.w.mu.Unlock()
	if s.left > 0 {
		s.left -= n
	}
	return n, err
}

// away is a node of another site, that fetches over four streams.
func away(t *testing.T, net *simnet.Net, name mesh.NodeID, site mesh.Site) (*node, *ways) {
	t.Helper()
	tr := net.New(name, site)
	w := &ways{Transport: tr}
	n := &node{id: name, disk: storetest.New()}
	var err error
	if n.store, err = part.Open(n.disk, "/parts"); err != nil {
		t.Fatal(err)
	}
	n.peers = New(Options{Transport: w, Site: site, Store: n.store, Holds: part.NewHolds(n.store), Ways: 4})
	tr.Start()
	t.Cleanup(func() {
		if err := errors.Join(n.peers.Close(), tr.Close()); err != nil {
			t.Error(err)
		}
	})
	return n, w
}

// eitherWay does f once with packed pieces and once without.
func eitherWay(t *testing.T, f func(t *testing.T, packs func(mesh.NodeID) bool)) {
	for name, packs := range map[string]bool{"packed": true, "as they are": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, func(mesh.NodeID) bool { return packs }) })
		})
	}
}

func noise(size int) string {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

// A large part of another site comes in pieces over several streams, one at a time of
// the own site, and of all sizes whole.
func TestFetchInPieces(t *testing.T) {
	eitherWay(t, func(t *testing.T, packs func(mesh.NodeID) bool) {
		net, nodes := site(t, "a")
		z, w := away(t, net, "z", "away")
		z.peers.o.Packs = packs
		for _, size := range []int{1, wideBytes - 1, wideBytes, wideBytes + 1, 9*mostPiece - 1, 41*mostPiece + 77} {
			text := noise(size)
			p := nodes[0].put(t, text)
			w.most = 0
			if err := z.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, p); err != nil || z.text(t, p) != text {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if (w.most > 1) != (size >= wideBytes) || size > 8*leastPiece && w.most != 4 {
				t.Errorf("%d bytes over %d streams at a time", size, w.most)
			}
		}
		y, w := away(t, net, "y", "home")
		p := nodes[0].put(t, noise(9*mostPiece))
		if err := y.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, p); err != nil || w.most != 1 {
			t.Errorf("of the same site over %d streams: %v", w.most, err)
		}
	})
}

// Streams that break, or cannot be opened, take nothing away that had come; what is
// damaged is not taken.
func TestPiecesBreakOff(t *testing.T) {
	eitherWay(t, func(t *testing.T, packs func(mesh.NodeID) bool) {
		net, nodes := site(t, "a")
		text := noise(30*mostPiece) + strings.Repeat(noise(mostPiece/4), 44) + "end"
		p := nodes[0].put(t, text)
		fetch := func(what string, broken map[int]int, never map[int]error) {
			t.Helper()
			z, w := away(t, net, mesh.NodeID(what), "away")
			w.broken, w.never, z.peers.o.Packs = broken, never, packs
			if err := z.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, p); err != nil || z.text(t, p) != text {
				t.Fatalf("%s: %v", what, err)
			}
			if w.open != 0 {
				t.Errorf("%s: %d streams are open", what, w.open)
			}
		}
		fetch("one breaks", map[int]int{2: 3 * mostPiece}, nil)
		fetch("the first breaks", map[int]int{0: 3 * mostPiece}, nil)
		fetch("all break", map[int]int{0: 2 * mostPiece, 1: 2 * mostPiece, 2: 2 * mostPiece, 3: 2 * mostPiece, 5: 100, 6: mostPiece}, nil)
		fetch("one is not opened", nil, map[int]error{3: mesh.ErrUnreachable})
		fetch("one brings nothing", map[int]int{1: headBytes}, nil)

		bad := store.Part{Digest: p.Digest, Size: p.Size - 1}
		z, _ := away(t, net, "z", "away")
		z.peers.o.Packs = packs
		if err := z.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, bad); err == nil {
			t.Error("a part of another size was taken")
		}
	})
}
