package consensus

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/mesh"
)

func TestFoundAndPropose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder)
		if l := <-a.Leadership(); !l.Leader || l.Term == 0 {
			t.Errorf("told %+v", l)
		}
		index, result, err := a.Propose(soon(t), []byte("x"))
		if err != nil || result != "did x" || index != a.Applied() {
			t.Errorf("%d, %v, %v; applied %d", index, result, err, a.Applied())
		}
		must(t, a.Barrier(soon(t)))
		must(t, a.Verify(soon(t)))
		if _, _, err := a.Propose(soon(t), make([]byte, codec.MaxCommand+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}
		if who, term := a.Leader(); who != "a" || term == 0 {
			t.Errorf("%s leads in %d", who, term)
		}
		synctest.Wait()
		if st := a.Stats(); st.Commands != 1 || st.Changes == 0 || !st.Contact.IsZero() {
			t.Errorf("%+v", st)
		}
		must(t, a.Close())
		must(t, a.Close())
		if _, _, err := a.Propose(soon(t), []byte("y")); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Commands enter in the order of the calls, whatever is waited for first.
func TestEnterKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder)
		s.leader()
		first, second := a.Enter([]byte("1")), a.Enter([]byte("2"))
		at2, _, err := second(soon(t))
		must(t, err)
		at1, result, err := first(soon(t))
		must(t, err)
		if at2 != at1+1 || result != "did 1" {
			t.Errorf("at %d and %d, %v", at1, at2, result)
		}
	})
}

// A new leader has all that the one before committed, and the last life of each
// agent is not missed by it.
func TestLeaderIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.voters("a", "b", "c")
		s.propose(s.leader(), "1", "2")
		for round := range 4 {
			old := s.leader().Self()
			s.kill(old)
			start := time.Now()
			next := s.leader()
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v until %s led", took, next.Self())
			}
			s.propose(next, fmt.Sprintf("round %d", round))
			s.open(old)
			s.same(fmt.Sprintf("round %d", round))
		}
	})
}

func TestAllRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.voters("a", "b", "c")
		s.propose(s.leader(), "1", "2", "3")
		term := s.leader().Stats().Term
		for _, id := range []mesh.NodeID{"a", "b", "c"} {
			s.kill(id)
		}
		for _, id := range []mesh.NodeID{"a", "b", "c"} {
			s.open(id)
		}
		next := s.leader()
		s.same("3")
		if next.Stats().Term <= term {
			t.Errorf("term %d after %d", next.Stats().Term, term)
		}
	})
}

// An agent that comes when the log has been cut gets a snapshot.
func TestSnapshotForANewNonvoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		few := func(o *Options) { o.Trailing = 1; o.SnapshotEntries = 10 }
		a := s.open("a", founder, few)
		s.leader()
		for i := range 100 {
			s.propose(a, fmt.Sprint(i))
		}
		must(t, a.Snapshot(soon(t)))
		must(t, a.Snapshot(soon(t))) // nothing new
		if first, err := a.log.FirstIndex(); err != nil || first < 90 {
			t.Fatalf("the log begins at %d, %v", first, err)
		}
		b := s.open("b", few)
		must(t, a.AddNonvoter(soon(t), "b"))
		s.same("99")
		if b.Applied() != a.Applied() {
			t.Errorf("applied %d and %d", a.Applied(), b.Applied())
		}
		s.propose(a, "after")
		s.same("after")
		s.kill("b")
		s.kill("a")
		a = s.open("a", few) // it has a snapshot, and what came after
		s.open("b", few)
		s.leader()
		s.same("after")
		if m := a.Members(); len(m) != 2 || !m[0].Voter || m[1].Voter {
			t.Errorf("members %+v", m)
		}
		must(t, a.Remove(soon(t), "b"))
		if m := a.Members(); len(m) != 1 {
			t.Errorf("members %+v", m)
		}
	})
}

// By bytes, too: large commands do not fill the disk before there are many.
func TestSnapshotByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder, func(o *Options) { o.SnapshotBytes = 100; o.Trailing = 1 })
		s.leader()
		for i := range 20 {
			s.propose(a, fmt.Sprint("command ", i))
		}
		s.until("a snapshot", func() bool {
			first, err := a.log.FirstIndex()
			return err == nil && first > 15
		})
	})
}

// An old leader that reaches nobody commits nothing, and forgets what it tried.
func TestPartitionedLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.voters("a", "b", "c")
		old := s.leader()
		s.propose(old, "before")
		s.same("before")
		if l := <-old.Leadership(); !l.Leader {
			t.Fatalf("told %+v", l)
		}
		s.net.Isolate(old.Self())
		if _, _, err := old.Propose(soon(t), []byte("lost")); !errors.Is(err, ErrUnknown) {
			t.Errorf("without a majority: %v", err)
		}
		if l := <-old.Leadership(); l.Leader {
			t.Errorf("told %+v", l)
		}
		if err := old.Verify(soon(t)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("verify: %v", err)
		}
		var others []mesh.NodeID
		for id := range s.all {
			if id != old.Self() {
				others = append(others, id)
			}
		}
		next := s.leader(others...)
		s.propose(next, "during")
		<-time.After(10 * time.Second)
		term := next.Stats().Term
		s.net.HealAll()
		s.same("during")
		if got := old.list.commands(); strings.Contains(strings.Join(got, " "), "lost") {
			t.Errorf("it was applied: %q", got)
		}
		// Thanks to the pre-vote the one that comes back disturbs nobody.
		if now := s.leader(); now != next || now.Stats().Term != term {
			t.Errorf("%s leads in term %d, before %s in %d", now.Self(), now.Stats().Term, next.Self(), term)
		}
	})
}

func TestFollowerSaysWhoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder)
		b := s.open("b")
		if _, _, err := b.Propose(soon(t), nil); !errors.Is(err, ErrNotLeader) {
			t.Errorf("before anybody leads: %v", err)
		}
		s.leader()
		must(t, a.AddNonvoter(soon(t), "b"))
		<-b.Changed()
		_, _, err := b.Propose(soon(t), nil)
		var no *NotLeader
		if !errors.Is(err, ErrNotLeader) || !errors.As(err, &no) || no.Leader != "a" {
			t.Errorf("%v", err)
		}
		for what, f := range map[string]func() error{
			"barrier": func() error { return b.Barrier(soon(t)) }, "remove": func() error { return b.Remove(soon(t), "a") },
			"add": func() error { return b.AddNonvoter(soon(t), "c") }, "transfer": func() error { return b.Transfer(soon(t), "") },
		} {
			if err := f(); !errors.Is(err, ErrNotLeader) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.voters("a", "b", "c")
		old := s.leader()
		to := mesh.NodeID("b")
		if old.Self() == "b" {
			to = "c"
		}
		must(t, old.Transfer(soon(t), to))
		s.until("it leads", func() bool { return s.all[to].Verify(soon(t)) == nil })
		must(t, s.all[to].Transfer(soon(t), ""))
		s.propose(s.leader(), "x")
		s.same("x")
	})
}
