package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is a transport whose answers share a line of so many bytes a second.
type line struct {
	*simnet.Transport
	rate float64

	mu   sync.Mutex // guards free
	free time.Time
}

func (l *line) Handle(kind mesh.Kind, take func(mesh.Stream)) {
	l.Transport.Handle(kind, func(s mesh.Stream) { take(&lineStream{s, l}) })
}

type lineStream struct {
	mesh.Stream
	l *line
}

func (s *lineStream) Write(b []byte) (done int, err error) {
	for done < len(b) && err == nil {
		piece := b[done:min(len(b), done+1<<14)]
		s.l.mu.Lock()
		if now := time.Now(); s.l.free.Before(now) {
			s.l.free = now
		}
		s.l.free = s.l.free.Add(time.Duration(float64(len(piece)) / s.l.rate * float64(time.Second)))
		wait := time.Until(s.l.free)
		s.l.mu.Unlock()
		<-time.After(wait)
		var n int
		n, err = s.Stream.Write(piece)
		done += n
	}
	return done, err
}

// far is a node behind a line of 20 Mbit/s and 50 ms each way, and one that fetches from it.
func far(t *testing.T) (a, z *node, w *ways, net *simnet.Net) {
	t.Helper()
	net = simnet.New()
	tr := net.New("a", "home")
	a = &node{id: "a", disk: storetest.New()}
	var err error
	if a.store, err = part.Open(a.disk, "/parts"); err != nil {
		t.Fatal(err)
	}
	a.peers = New(Options{Transport: &line{Transport: tr, rate: 20e6 / 8}, Site: "home", Store: a.store, Holds: part.NewHolds(a.store)})
	tr.Start()
	t.Cleanup(func() {
		if err := errors.Join(a.peers.Close(), tr.Close()); err != nil {
			t.Error(err)
		}
	})
	z, w = away(t, net, "z", "away")
	net.Delay("a", "z", 50*time.Millisecond)
	return a, z, w, net
}

// smalls puts parts of so many bytes.
func smalls(t *testing.T, n *node, sizes ...int) (parts []store.Part) {
	t.Helper()
	for i, size := range sizes {
		parts = append(parts, n.put(t, fmt.Sprintf("%08d", i)+noise(size+i)))
	}
	return parts
}

func always() bool { return true }

// news is what Several says of parts.
type news struct {
	came []int // in this order
	errs map[int]error
}

func (o *news) each(i int, err error) {
	if err == nil {
		o.came = append(o.came, i)
		return
	}
	if o.errs == nil {
		o.errs = make(map[int]error)
	}
	o.errs[i] = err
}

// check checks that what has come is here and pinned, and nothing else is.
func (o *news) check(t *testing.T, n *node, parts []store.Part, want int) {
	t.Helper()
	if len(o.came) != want || n.store.Pinned() != want {
		t.Errorf("%d parts of %d came, not %d; %d are pinned", len(o.came), len(parts), want, n.store.Pinned())
	}
	for _, i := range o.came {
		if err := n.store.Verify(parts[i]); err != nil {
			t.Error(err)
		}
	}
}

// Many small parts of another site take as long as their bytes and some round trips, and
// not a round trip each; of all sizes, packed or not.
func TestSeveral(t *testing.T) {
	eitherWay(t, func(t *testing.T, packs func(mesh.NodeID) bool) {
		for _, sizes := range [][]int{slices.Repeat([]int{12 << 10}, 200), slices.Repeat([]int{100}, 256), {1, mostPiece, mostPiece + 1, SmallBytes - 20, 5, 3 * mostPiece, wideBytes - 9}, {70}} {
			a, z, w, _ := far(t)
			z.peers.o.Packs = packs
			parts, bytes := smalls(t, a, sizes...), int64(0)
			for _, p := range parts {
				bytes += p.Size
			}
			began, got := time.Now(), news{}
			if err := z.peers.Several(t.Context(), "a", parts, always, got.each); err != nil || got.errs != nil {
				t.Fatal(err, got.errs)
			}
			got.check(t, z, parts, len(parts))
			most := time.Duration(float64(bytes)/20e6*8*float64(time.Second))*5/4 + time.Second // of the fake clock
			if took := time.Since(began); took > most || w.opened > 4 || w.open != 0 {
				t.Errorf("%d parts of %d bytes took %v, at most %v are due, on %d streams; %d are open", len(parts), bytes, took, most, w.opened, w.open)
			}
		}
	})
}

// holding is a node whose answers wait until they are let go.
type holding struct {
	asked chan store.Part
	let   chan struct{}
}

func (h *holding) take(s mesh.Stream, data map[store.Digest]string) {
	defer s.Close()
	answers := make(chan store.Part, 1000)
	defer close(answers)
	go func() {
		for p := range answers {
			<-h.let
			_ = writeFrame(s, given, nil)
			_, _ = io.WriteString(s, data[p.Digest])
		}
	}()
	for {
		t, body, err := readFrame(s)
		if err != nil {
			return
		}
		if t == fetch {
			parts, _ := decodeParts(body)
			h.asked <- parts[0]
			answers <- parts[0]
		}
	}
}

// So many parts are asked for before one has come, and never more: of tiny ones as many as
// a stream may have, of others as many bytes, and over no more streams than are given.
func TestSeveralAhead(t *testing.T) {
	for _, c := range []struct {
		size, n, most int
	}{{1, 200, smallAhead}, {64 << 10, 100, 4 * bytesAhead >> 16}, {SmallBytes, 9, 4}, {300 << 10, 3, 3}} {
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New()
			tr := net.New("a", "home")
			h := &holding{asked: make(chan store.Part, 1000), let: make(chan struct{})}
			data := make(map[store.Digest]string)
			var parts []store.Part
			for i := range c.n {
				text := fmt.Sprintf("%03d", i) + noise(c.size)
				p := storetest.PartOf([]byte(text[:max(c.size, 3)]))
				data[p.Digest] = text[:max(c.size, 3)]
				parts = append(parts, p)
			}
			tr.Handle(mesh.Parts, func(s mesh.Stream) { h.take(s, data) })
			tr.Start()
			z, w := away(t, net, "z", "away")
			done, got := make(chan error, 1), news{}
			go func() { done <- z.peers.Several(t.Context(), "a", parts, always, got.each) }()
			for answered := range len(parts) {
				synctest.Wait()
				<-time.After(100 * time.Millisecond) // of the fake clock: the streams' reads wait for it
				if ahead := len(h.asked) - answered; ahead > c.most || ahead < min(c.most, len(parts)-answered)*3/4 {
					t.Fatalf("parts of %d bytes: %d are asked for with %d answered; %d at a time are due", c.size, len(h.asked), answered, c.most)
				}
				h.let <- struct{}{}
			}
			if err := <-done; err != nil || got.errs != nil {
				t.Error(err, got.errs)
			}
			got.check(t, z, parts, len(parts))
			if len(h.asked) != len(parts) {
				t.Errorf("%d parts were asked for %d times", len(parts), len(h.asked))
			}
			if w.open != 0 {
				t.Errorf("%d streams are open", w.open)
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Parts that a node lacks, or has damaged, take nothing away from others.
func TestSeveralWithoutSome(t *testing.T) {
	eitherWay(t, func(t *testing.T, packs func(mesh.NodeID) bool) {
		a, z, w, _ := far(t)
		z.peers.o.Packs = packs
		parts := smalls(t, a, slices.Repeat([]int{8 << 10}, 100)...)
		spoil(t, a, parts[7])
		for _, i := range []int{0, 50, 51, 99} {
			a.store.Unpin(parts[i])
			if gone, err := a.store.Remove(parts[i]); err != nil || !gone {
				t.Fatal(err)
			}
		}
		got := news{}
		if err := z.peers.Several(t.Context(), "a", parts, always, got.each); err != nil {
			t.Fatal(err)
		}
		got.check(t, z, parts, len(parts)-5)
		if len(got.errs) != 5 || !errors.Is(got.errs[7], store.ErrCorrupt) || !errors.Is(got.errs[50], store.ErrMissing) || !errors.Is(got.errs[99], store.ErrMissing) {
			t.Errorf("%v", got.errs)
		}
		if w.open != 0 {
			t.Errorf("%d streams are open", w.open)
		}
	})
}

// What has come stays when it ends before all has: nothing runs on, and nothing else is
// said to be here.
func TestSeveralEnds(t *testing.T) {
	enough := errors.New("enough")
	for name, c := range map[string]struct {
		do   func(z *node, w *ways, net *simnet.Net, cancel func(error))
		want error
	}{
		"cancelled":          {func(_ *node, _ *ways, _ *simnet.Net, cancel func(error)) { cancel(enough) }, enough},
		"the node is lost":   {func(_ *node, _ *ways, net *simnet.Net, _ func(error)) { net.Break("a", "z") }, mesh.ErrUnreachable},
		"the disk is full":   {func(z *node, _ *ways, _ *simnet.Net, _ func(error)) { z.disk.FailFrom(1, syscall.ENOSPC) }, store.ErrFull},
		"the peer is closed": {func(z *node, _ *ways, _ *simnet.Net, cancel func(error)) { _ = z.peers.Close(); cancel(enough) }, enough},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, z, w, net := far(t)
				parts := smalls(t, a, slices.Repeat([]int{30 << 10}, 100)...)
				ctx, cancel := context.WithCancelCause(t.Context())
				got := news{}
				err := z.peers.Several(ctx, "a", parts, always, func(i int, err error) {
					if got.each(i, err); len(got.came) == 20 {
						c.do(z, w, net, cancel)
					}
				})
				if !errors.Is(err, c.want) || got.errs != nil || len(got.came) < 20 || len(got.came) > 80 {
					t.Errorf("%v, %v, %d came", err, got.errs, len(got.came))
				}
				z.disk.Heal()
				got.check(t, z, parts, len(got.came))
				if w.open != 0 {
					t.Errorf("%d streams are open", w.open)
				}
				cancel(nil)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		a, z, w, _ := far(t)
		parts := smalls(t, a, slices.Repeat([]int{100}, 100)...)
		got, left := news{}, 11
		if err := z.peers.Several(t.Context(), "a", parts, func() bool { left--; return left > 0 }, got.each); err != nil || got.errs != nil {
			t.Error(err, got.errs)
		}
		got.check(t, z, parts, 10) // what was asked for comes
		large := a.put(t, noise(SmallBytes+1))
		if err := z.peers.Several(t.Context(), "a", []store.Part{large}, always, got.each); err == nil || !strings.Contains(err.Error(), "too many") {
			t.Errorf("a large one: %v", err)
		}
		if err := z.peers.Several(t.Context(), "nobody", parts, always, got.each); !errors.Is(err, mesh.ErrUnknown) || w.open != 0 {
			t.Errorf("nobody there: %v", err)
		}
	})
}

// Nodes of the own site are asked over one stream; who knows nothing of packed pieces is
// asked for others.
func TestSeveralElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := site(t, "a")
		y, w := away(t, net, "y", "home")
		y.peers.o.Packs = func(mesh.NodeID) bool { return true }
		parts := smalls(t, nodes[0], slices.Repeat([]int{30 << 10}, 100)...)
		got := news{}
		if err := y.peers.Several(t.Context(), "a", parts, always, got.each); err != nil || w.opened != 1 {
			t.Errorf("of the same site over %d streams: %v", w.opened, err)
		}
		got.check(t, y, parts, len(parts))

		tr := net.New("o", "home")
		o := &node{id: "o", disk: storetest.New()}
		var err error
		if o.store, err = part.Open(o.disk, "/parts"); err != nil {
			t.Fatal(err)
		}
		o.peers = New(Options{Transport: older{tr}, Site: "home", Store: o.store, Holds: part.NewHolds(o.store)})
		tr.Start()
		defer func() {
			if err := errors.Join(o.peers.Close(), tr.Close()); err != nil {
				t.Error(err)
			}
		}()
		z, _ := away(t, net, "z", "away")
		z.peers.o.Packs = func(mesh.NodeID) bool { return true }
		parts, got = smalls(t, o, slices.Repeat([]int{30 << 10}, 100)...), news{}
		if err := z.peers.Several(t.Context(), "o", parts, always, got.each); err != nil || got.errs != nil {
			t.Error(err, got.errs)
		}
		got.check(t, z, parts, len(parts))
	})
}
