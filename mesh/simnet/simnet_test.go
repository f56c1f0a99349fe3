package simnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
)

func TestContract(t *testing.T) {
	simnet.Suite(t, func(t *testing.T) simnet.Two {
		n := simnet.New()
		a, b := n.New("a", "s"), n.New("b", "s")
		closeIt := func(x *simnet.Transport) {
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
		t.Cleanup(func() { closeIt(a); closeIt(b) })
		return simnet.Two{A: a, B: b, Start: func() { a.Start(); b.Start() }, CloseB: func() { closeIt(b) }}
	})
}

// world is two nodes of which b answers each stream with what it was told.
type world struct {
	net  *simnet.Net
	a, b *simnet.Transport
	told []string
}

func newWorld() *world {
	w := &world{net: simnet.New()}
	w.a, w.b = w.net.New("a", "s"), w.net.New("b", "s")
	w.a.Watch(func(n mesh.NodeID, up bool) { w.told = append(w.told, fmt.Sprintf("%s %v", n, up)) })
	w.b.Handle(mesh.Control, func(s mesh.Stream) {
		defer s.Close() //nolint:errcheck // a test may have broken it
		if _, err := io.Copy(s, s); err == nil {
			s.CloseWrite() //nolint:errcheck // a test may have broken it
		}
	})
	w.a.Start()
	w.b.Start()
	return w
}

func (w *world) close(t *testing.T) {
	if err := errors.Join(w.a.Close(), w.b.Close()); err != nil {
		t.Error(err)
	}
}

func (w *world) open(t *testing.T) mesh.Stream {
	t.Helper()
	s, err := w.a.Open(t.Context(), "b", mesh.Control)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask writes a byte and waits for it to come back.
func ask(s mesh.Stream) error {
	if _, err := s.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(s, make([]byte, 1))
	return err
}

func TestCutThatHealsInTimeLosesNothing(t *testing.T) {
	for _, cut := range []func(n *simnet.Net){
		func(n *simnet.Net) { n.Cut("a", "b") },
		func(n *simnet.Net) { n.CutOneWay("a", "b") },
		func(n *simnet.Net) { n.CutOneWay("b", "a") },
		func(n *simnet.Net) { n.Isolate("b") },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			defer w.close(t)
			s := w.open(t)
			began := time.Now()
			cut(w.net)
			time.AfterFunc(simnet.Timeout-time.Millisecond, w.net.HealAll)
			if err := ask(s); err != nil || time.Since(began) != simnet.Timeout-time.Millisecond {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			time.Sleep(time.Minute)
			if !slices.Equal(w.told, []string{"b true"}) {
				t.Errorf("told %v", w.told)
			}
		})
	}
}

func TestCutThatLastsLosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close(t)
		s := w.open(t)
		w.net.CutOneWay("b", "a")
		if err := ask(s); !errors.Is(err, mesh.ErrUnreachable) {
			t.Errorf("error %v", err)
		}
		if _, err := w.a.Open(t.Context(), "b", mesh.Control); !errors.Is(err, mesh.ErrUnreachable) {
			t.Errorf("opened over a cut link: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := w.a.Open(ctx, "b", mesh.Control); !errors.Is(err, mesh.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("opened over a cut link: %v", err)
		}
		time.AfterFunc(time.Second, func() { w.net.Heal("a", "b") })
		if err := ask(w.open(t)); err != nil {
			t.Errorf("once it is healed: %v", err)
		}
		if !slices.Equal(w.told, []string{"b true", "b false", "b true"}) {
			t.Errorf("told %v", w.told)
		}
	})
}

func TestBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close(t)
		s, other := w.open(t), w.open(t)
		if n := w.net.Streams("a", "b"); n != 2 {
			t.Errorf("%d streams", n)
		}
		time.AfterFunc(time.Second, func() { w.net.Break("b", "a") })
		for _, s := range []mesh.Stream{s, other} {
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, mesh.ErrUnreachable) {
				t.Errorf("error %v", err)
			}
		}
		if err := ask(w.open(t)); err != nil {
			t.Error(err)
		}
		if n := w.net.Streams("a", "b"); n != 1 {
			t.Errorf("%d streams", n)
		}
	})
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close(t)
		s := w.open(t)
		w.net.Delay("a", "b", 70*time.Millisecond)
		began := time.Now()
		if err := ask(s); err != nil || time.Since(began) != 140*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestANodeComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := w.open(t)
		if err := w.b.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, simnet.ErrClosed) {
			t.Errorf("error %v", err)
		}
		w.b = w.net.New("b", "s")
		w.b.Handle(mesh.Control, func(s mesh.Stream) { s.CloseWrite(); s.Close() }) //nolint:errcheck // it has just been opened
		w.b.Start()
		defer w.close(t)
		if got, err := io.ReadAll(w.open(t)); len(got) > 0 || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

// A watcher may use the network.
func TestWatcherMayOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		defer w.close(t)
		opened := 0
		w.a.Watch(func(n mesh.NodeID, up bool) {
			if _, err := w.a.Open(t.Context(), n, mesh.Control); up && err == nil {
				opened++
			}
		})
		w.open(t)
		if opened != 1 {
			t.Errorf("opened %d", opened)
		}
	})
}
