package part

import (
	"io"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func holdsOf(t *testing.T) (*Store, *Holds, func(text string) store.Part) {
	s, err := Open(storetest.New(), "/parts")
	if err != nil {
		t.Fatal(err)
	}
	put := func(text string) store.Part {
		t.Helper()
		p, err := s.Put(func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	return s, NewHolds(s), put
}

func checkpointOf(attempt, counter uint64) dataflow.CheckpointID {
	return dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "s", Attempt: attempt}, Counter: counter}
}

// Parts are held until their checkpoint, or a later one, has completed, or a
// later attempt has begun; and each of them once, however often it was pinned.
func TestHoldsAreLetGoTogether(t *testing.T) {
	s, h, put := holdsOf(t)
	a, b, c := put("a"), put("b"), put("c")
	h.Take("j", checkpointOf(1, 1), a, put("a"))
	h.Take("j", checkpointOf(1, 1), put("a"), b)
	h.Take("j", checkpointOf(1, 2), put("a"))
	h.Take("j", checkpointOf(2, 1), c)
	h.Take("other", checkpointOf(1, 1), put("b"))
	held := func(want string) {
		t.Helper()
		got := ""
		for _, p := range []struct {
			name string
			store.Part
		}{{"a", a}, {"b", b}, {"c", c}} {
			for range s.pins[p.Digest] {
				got += p.name
			}
		}
		if got != want {
			t.Errorf("%q is pinned, want %q", got, want)
		}
	}
	held("aabbc")
	if n := len(h.Held("j", checkpointOf(1, 1))); n != 2 {
		t.Errorf("%d parts are held for the first", n)
	}
	h.Through("j", checkpointOf(1, 1))
	held("abc")
	h.Through("j", checkpointOf(1, 1))
	h.Before("j", checkpointOf(1, 0).Token)
	held("abc")
	h.Before("j", checkpointOf(2, 0).Token)
	held("bc")
	h.Through("j", checkpointOf(2, 7))
	held("b")
	h.Drop("other")
	h.Drop("nobody")
	held("")
	if len(h.jobs) > 0 {
		t.Errorf("%v is left", h.jobs)
	}
}

// What a process finds at its start stays until it is let go.
func TestHoldAll(t *testing.T) {
	s, h, put := holdsOf(t)
	a := put("a")
	s.Unpin(a)
	release, err := h.HoldAll()
	if err != nil {
		t.Fatal(err)
	}
	none := func() ([]*Manifests, error) { return nil, nil }
	if done, err := s.Collect(none); err != nil || done.Removed != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	release()
	release()
	if done, err := s.Collect(none); err != nil || done.Removed != 1 || s.Has(a) {
		t.Errorf("%+v, %v", done, err)
	}
}
