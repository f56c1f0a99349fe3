package part

import (
	"io"
	"slices"
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
// later attempt has begun; and each of them once a job, however often it was pinned.
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
	held("abbc")
	if n := len(h.Held("j", checkpointOf(1, 1))); n != 1 {
		t.Errorf("%d parts are held for the first and none after it", n)
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

// Checkpoints that do not complete name the same parts again and again: what is noted of
// them is as much as there are parts, and they are let go as if each had been noted.
func TestHoldsOfChainsAreAsManyAsParts(t *testing.T) {
	s, h, put := holdsOf(t)
	chain := []store.Part{put("a"), put("b"), put("c")}
	h.Take("j", checkpointOf(1, 1), chain...)
	for n := uint64(2); n <= 100; n++ {
		put("a")
		put("b")
		h.Take("j", checkpointOf(1, n), chain[:2]...)
	}
	put("a") // what is heard late of one before changes nothing
	h.Take("j", checkpointOf(1, 50), chain[0])
	if n := len(h.jobs["j"]); n != len(chain) || s.Pinned() != len(chain) {
		t.Errorf("%d entries and %d pins for %d parts", n, s.Pinned(), len(chain))
	}
	for _, p := range chain {
		if s.pins[p.Digest] != 1 {
			t.Errorf("%s is pinned %d times", p.Digest, s.pins[p.Digest])
		}
	}
	for _, step := range []struct {
		through uint64
		pinned  int
	}{{0, 3}, {1, 2}, {99, 2}, {100, 0}} {
		if h.Through("j", checkpointOf(1, step.through)); s.Pinned() != step.pinned {
			t.Errorf("through checkpoint %d: %d parts are pinned, want %d", step.through, s.Pinned(), step.pinned)
		}
	}
}

// Of a job whose checkpoints have no order each is held for itself, also where two name
// one part.
func TestHoldsApart(t *testing.T) {
	s, _, put := holdsOf(t)
	h := NewHolds(s, "imports")
	a := put("a")
	h.Take("imports", checkpointOf(0, 9), a)
	h.Take("imports", checkpointOf(0, 2), put("a"), put("b"))
	if ids := h.Checkpoints("imports"); !slices.Equal(ids, []dataflow.CheckpointID{checkpointOf(0, 2), checkpointOf(0, 9)}) {
		t.Errorf("what is held is %v", ids)
	}
	h.Only("imports", checkpointOf(0, 9))
	if s.pins[a.Digest] != 1 || s.Pinned() != 2 || len(h.Held("imports", checkpointOf(0, 2))) != 2 {
		t.Errorf("the one that comes before is gone with it: %v", s.pins)
	}
	h.Only("imports", checkpointOf(0, 2))
	if s.Pinned() != 0 || len(h.jobs) > 0 {
		t.Errorf("%v is pinned, for %v", s.pins, h.jobs)
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
