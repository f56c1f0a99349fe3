package consensus

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Of three voters one is left: it leads alone, with all that was decided, and
// others come again with nothing.
func TestRecoverWithOneOfThree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.voters("a", "b", "c")
		s.propose(s.leader(), "1", "2")
		s.same("2")
		dir := func(id mesh.NodeID) string { return filepath.Join(s.dir, string(id)) }
		if _, err := Recover(dir("c"), "c", []mesh.NodeID{"c"}, &list{}); !errors.Is(err, ErrInUse) {
			t.Errorf("recover a running node: %v", err)
		}
		if err := Forget(dir("c")); !errors.Is(err, ErrInUse) {
			t.Errorf("forget a running node: %v", err)
		}
		for _, id := range []mesh.NodeID{"a", "b", "c"} {
			s.kill(id)
		}
		if _, err := Recover(dir("c"), "b", []mesh.NodeID{"b"}, &list{}); !errors.Is(err, ErrForeign) {
			t.Errorf("recover another's folder: %v", err)
		}
		if _, err := Recover(dir("c"), "c", []mesh.NodeID{"b"}, &list{}); err == nil {
			t.Error("recovered without itself")
		}
		if _, err := Recover(dir("nobody"), "c", []mesh.NodeID{"c"}, &list{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("recover nothing: %v", err)
		}
		found, err := Inspect(dir("c"))
		must(t, err)
		before, err := Recover(dir("c"), "c", []mesh.NodeID{"c"}, &list{})
		must(t, err)
		for _, f := range []Found{found, before} {
			if f.Node != "c" || len(f.Members) != 3 || f.Last == 0 || f.LastIn == 0 || f.Term == 0 {
				t.Errorf("found %+v", f)
			}
		}
		c := s.open("c")
		s.leader()
		s.propose(c, "3")
		must(t, Forget(dir("b")))
		s.open("b")
		must(t, c.AddNonvoter(soon(t), "b"))
		s.same("3")
		if m := c.Members(); len(m) != 2 || m[0].Node != "c" {
			t.Errorf("members %+v", m)
		}
		s.kill("b")
		s.kill("c")
		must(t, Forget(dir("b"))) // the second time in place of the first
	})
}

// A recovery that is done twice, or of a snapshot alone, is as good.
func TestRecoverTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder, func(o *Options) { o.Trailing = 1 })
		s.leader()
		s.propose(a, "1", "2")
		must(t, a.Snapshot(soon(t)))
		s.propose(a, "3")
		s.kill("a")
		for range 3 {
			<-time.After(time.Second) // a snapshot's name has the milliseconds
			_, err := Recover(filepath.Join(s.dir, "a"), "a", []mesh.NodeID{"a"}, &list{})
			must(t, err)
		}
		a = s.open("a")
		s.leader()
		s.same("3")
		if got := a.list.commands(); len(got) != 3 {
			t.Errorf("%q", got)
		}
	})
}

// What a majority decided that is gone, and told others under its indexes, comes under none
// of them again: whoever heard of it takes what is decided since for newer.
func TestRecoverGoesOnFurtherUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder)
		s.leader()
		s.propose(a, "1")
		s.kill("a")
		dir, least := filepath.Join(s.dir, "a"), uint64(0)
		for n := range 3 {
			before, err := Recover(dir, "a", []mesh.NodeID{"a"}, &list{})
			must(t, err)
			if n == 1 { // also where that is done twice
				<-time.After(time.Second)
				before, err = Recover(dir, "a", []mesh.NodeID{"a"}, &list{})
				must(t, err)
			}
			least = max(least, before.Last) + 1<<31
			a = s.open("a")
			s.leader()
			for range 3 {
				index, _, err := a.Propose(soon(t), []byte(fmt.Sprint(n)))
				must(t, err)
				if index <= least || coordinator.Life(index) <= coordinator.Life(before.Last) {
					t.Errorf("recovered at %d, and it goes on at %d", before.Last, index)
				}
				least = index
			}
			s.kill("a")
		}
	})
}

// What is no snapshot is refused, and it is said why.
func TestRestoreOfSomethingElse(t *testing.T) {
	for _, text := range []string{"", "TMSM1", "something else, and long enough"} {
		err := (&fsm{machine: &list{}}).Restore(io.NopCloser(strings.NewReader(text)))
		if !errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), "%!") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
