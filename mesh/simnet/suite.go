package simnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Two are two nodes, "a" and "b" of site "s", that have not been started yet.
type Two struct {
	A, B   mesh.Transport
	Start  func()
	CloseB func() // closes B
}

// Suite is the contract of a mesh.Transport. make makes two that know each other
// and nobody else, and has them closed when the test ends.
func Suite(t *testing.T, make func(t *testing.T) Two) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, n *two)
	}{
		{"bytes arrive in order, both ways", testEcho},
		{"a direction ends alone", testCloseWrite},
		{"what was written before CloseWrite arrives", testCloseAfterCloseWrite},
		{"Close ends all at both ends", testClose},
		{"Close wakes who waits", testCloseWakes},
		{"a Write waits for the reader", testBackPressure},
		{"blocked streams hold up no other", testBlocked},
		{"deadlines", testDeadlines},
		{"who cannot be reached", testUnreachable},
		{"a kind that nobody takes", testNoHandler},
		{"watching", testWatch},
		{"to itself", testSelf},
		{"many at once", testMany},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &two{Two: make(t), taken: map[mesh.Kind]chan mesh.Stream{}}
			for _, kind := range []mesh.Kind{mesh.Control, mesh.Channel} {
				n.taken[kind] = newTaken(n.A, n.B, kind)
			}
			c.test(t, n)
		})
	}
}

// two is what a test of the suite works with: streams of kinds control and
// channel that a or b opens are handed out by taken.
type two struct {
	Two
	taken map[mesh.Kind]chan mesh.Stream
}

func newTaken(a, b mesh.Transport, kind mesh.Kind) chan mesh.Stream {
	c := make(chan mesh.Stream, 1000)
	a.Handle(kind, func(s mesh.Stream) { c <- s })
	b.Handle(kind, func(s mesh.Stream) { c <- s })
	return c
}

// open is a stream from a to b, both ends.
func (n *two) open(t *testing.T, kind mesh.Kind) (a, b mesh.Stream) {
	t.Helper()
	a, err := n.A.Open(t.Context(), n.B.Self(), kind)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	b = <-n.taken[kind]
	t.Cleanup(func() { must(t, a.Close()); must(t, b.Close()) })
	return a, b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// pattern is n bytes that do not repeat soon.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) + byte(i>>8)*31 + byte(i>>16)*17 + seed
	}
	return b
}

func testEcho(t *testing.T, n *two) {
	n.Start()
	for kind := range n.taken {
		a, b := n.open(t, kind)
		if p := a.Peer(); p.Node != "b" || p.Site != "s" || p.Addr == "" {
			t.Errorf("the peer of a's end is %+v", p)
		}
		if p := b.Peer(); p.Node != "a" || p.Site != "s" || p.Addr == "" {
			t.Errorf("the peer of b's end is %+v", p)
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		for i, s := range []mesh.Stream{a, b} {
			wg.Go(func() {
				_, err := s.Write(pattern(1<<20, byte(i)))
				must(t, errors.Join(err, s.CloseWrite()))
			})
			wg.Go(func() {
				got, err := io.ReadAll(s)
				if must(t, err); !bytes.Equal(got, pattern(1<<20, byte(1-i))) {
					t.Errorf("end %d got other bytes, %d of them", i, len(got))
				}
			})
		}
	}
}

func testCloseWrite(t *testing.T, n *two) {
	n.Start()
	a, b := n.open(t, mesh.Control)
	_, err := a.Write([]byte("question"))
	must(t, errors.Join(err, a.CloseWrite()))
	got, err := io.ReadAll(b)
	if must(t, err); string(got) != "question" {
		t.Errorf("got %q", got)
	}
	_, err = b.Write([]byte("answer"))
	must(t, errors.Join(err, b.CloseWrite()))
	got, err = io.ReadAll(a)
	if must(t, err); string(got) != "answer" {
		t.Errorf("got %q", got)
	}
	if _, err := a.Write([]byte("more")); err == nil {
		t.Error("written after CloseWrite")
	}
}

func testCloseAfterCloseWrite(t *testing.T, n *two) {
	n.Start()
	a, b := n.open(t, mesh.Channel)
	want := pattern(100_000, 3)
	_, err := a.Write(want)
	must(t, errors.Join(err, a.CloseWrite(), a.Close()))
	got, err := io.ReadAll(b)
	if must(t, err); !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d arrived", len(got), len(want))
	}
}

func testClose(t *testing.T, n *two) {
	n.Start()
	a, b := n.open(t, mesh.Channel)
	must(t, a.Close())
	must(t, a.Close())
	if _, err := a.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read from a closed stream: %v", err)
	}
	if _, err := a.Write([]byte{1}); err == nil {
		t.Error("wrote to a closed stream")
	}
	if _, err := io.ReadAll(b); err == nil {
		t.Error("a stream that was closed looks like one that ended")
	}
	for range 1000 { // the first may go before it is known
		if _, err := b.Write(make([]byte, 64<<10)); err != nil {
			return
		}
	}
	t.Error("the peer of a closed stream writes for ever")
}

func testCloseWakes(t *testing.T, n *two) {
	n.Start()
	a, b := n.open(t, mesh.Channel)
	for _, s := range []mesh.Stream{a, b} {
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Read(make([]byte, 1)); err == nil {
				t.Error("Read did not fail")
			}
		})
		wg.Go(func() {
			if _, err := s.Write(make([]byte, 8<<20)); err == nil {
				t.Error("Write did not fail")
			}
		})
		wg.Go(func() { must(t, s.Close()) })
		wg.Wait()
	}
}

func testBackPressure(t *testing.T, n *two) {
	n.Start()
	a, b := n.open(t, mesh.Channel)
	block(t, a)
	// What was written arrives all the same, and then there is room again.
	must(t, a.SetDeadline(time.Time{}))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, err := io.Copy(io.Discard, b)
		must(t, err)
	})
	_, err := a.Write(make([]byte, 1<<20))
	must(t, errors.Join(err, a.CloseWrite()))
}

// block writes until nothing more goes, which the suite's window says it must.
func block(t *testing.T, s mesh.Stream) {
	t.Helper()
	must(t, s.SetDeadline(time.Now().Add(20*time.Millisecond)))
	for total := 0; ; {
		k, err := s.Write(make([]byte, 64<<10))
		if total += k; errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil || total > 16<<20 {
			t.Fatalf("%d bytes were written and nobody reads: %v", total, err)
		}
	}
}

func testBlocked(t *testing.T, n *two) {
	n.Start()
	const blocked = 100
	var wg sync.WaitGroup
	for range blocked {
		a, _ := n.open(t, mesh.Channel)
		wg.Go(func() { fill(t, a) })
	}
	wg.Wait()
	for _, kind := range []mesh.Kind{mesh.Channel, mesh.Control, mesh.Channel} {
		a, b := n.open(t, kind)
		want := pattern(4<<20, byte(kind))
		wg.Go(func() {
			_, err := a.Write(want)
			must(t, errors.Join(err, a.CloseWrite()))
		})
		got, err := io.ReadAll(b)
		if must(t, err); !bytes.Equal(got, want) {
			t.Errorf("a stream of kind %d beside %d that are blocked: %d bytes of %d", kind, blocked, len(got), len(want))
		}
	}
	wg.Wait()
}

// fill writes until the window is full.
func fill(t *testing.T, s mesh.Stream) {
	must(t, s.SetDeadline(time.Now().Add(time.Second)))
	if _, err := s.Write(make([]byte, 2<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody reads, and all was written: %v", err)
	}
}

func testDeadlines(t *testing.T, n *two) {
	n.Start()
	a, b := n.open(t, mesh.Control)
	must(t, a.SetDeadline(time.Now().Add(-time.Second)))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	if _, err := a.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	must(t, a.SetDeadline(time.Now().Add(10*time.Millisecond)))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read that waits: %v", err)
	}
	must(t, a.SetDeadline(time.Time{}))
	_, err := b.Write([]byte("x"))
	must(t, err)
	if _, err := a.Read(make([]byte, 1)); err != nil {
		t.Errorf("Read after the deadline was taken away: %v", err)
	}
}

func testUnreachable(t *testing.T, n *two) {
	n.Start()
	if _, err := n.A.Open(t.Context(), "nobody", mesh.Control); !errors.Is(err, mesh.ErrUnknown) {
		t.Errorf("a node that nobody knows: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.A.Open(ctx, "b", mesh.Control); !errors.Is(err, mesh.ErrUnreachable) || !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", err)
	}
	n.CloseB()
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := n.A.Open(ctx, "b", mesh.Control); !errors.Is(err, mesh.ErrUnreachable) {
		t.Errorf("a node that was closed: %v", err)
	}
}

func testNoHandler(t *testing.T, n *two) {
	n.Start()
	s, err := n.A.Open(t.Context(), "b", mesh.Log)
	if err == nil {
		defer s.Close() //nolint:errcheck // it is reset
		_, err = s.Read(make([]byte, 1))
	}
	if !errors.Is(err, mesh.ErrRefused) {
		t.Errorf("a kind without a handler: %v", err)
	}
}

func testWatch(t *testing.T, n *two) {
	type news struct {
		of, node mesh.NodeID
		up       bool
	}
	told := make(chan news, 100)
	n.A.Watch(func(node mesh.NodeID, up bool) { told <- news{"a", node, up} })
	n.B.Watch(func(node mesh.NodeID, up bool) { told <- news{"b", node, up} })
	n.Start()
	a, b := n.open(t, mesh.Channel)
	for range 2 {
		if m := <-told; !m.up || m.of == m.node {
			t.Errorf("told %+v", m)
		}
	}
	n.CloseB()
	if _, err := a.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the peer is closed: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("at the end that was closed: %v", err)
	}
	for m := range told {
		if m.of == "a" {
			if m.up || m.node != "b" {
				t.Errorf("told %+v", m)
			}
			return
		}
	}
}

func testSelf(t *testing.T, n *two) {
	n.Start()
	a, err := n.A.Open(t.Context(), "a", mesh.Control)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close() //nolint:errcheck // the test is over
	b := <-n.taken[mesh.Control]
	defer b.Close() //nolint:errcheck // the test is over
	if a.Peer().Node != "a" || b.Peer().Node != "a" {
		t.Errorf("peers %v and %v", a.Peer(), b.Peer())
	}
	_, err = a.Write([]byte("myself"))
	must(t, errors.Join(err, a.CloseWrite()))
	got, err := io.ReadAll(b)
	if must(t, err); string(got) != "myself" {
		t.Errorf("got %q", got)
	}
}

func testMany(t *testing.T, n *two) {
	n.Start()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			s := <-n.taken[mesh.Channel]
			wg.Go(func() {
				_, err := io.Copy(s, s)
				must(t, errors.Join(err, s.CloseWrite(), s.Close()))
			})
		}
	})
	for i := range 100 {
		from, to := n.A, n.B
		if i%2 == 1 {
			from, to = to, from
		}
		wg.Go(func() {
			s, err := from.Open(t.Context(), to.Self(), mesh.Channel)
			if err != nil {
				t.Error(err)
				n.taken[mesh.Channel] <- nothing{}
				return
			}
			defer s.Close() //nolint:errcheck // all was read
			want := fmt.Appendf(nil, "stream %d", i)
			_, err = s.Write(want)
			must(t, errors.Join(err, s.CloseWrite()))
			got, err := io.ReadAll(s)
			if must(t, err); !bytes.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	wg.Wait()
}

// nothing is a stream that has ended.
type nothing struct{ mesh.Stream }

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
func (nothing) CloseWrite() error        { return nil }
func (nothing) Close() error             { return nil }
