package consensus

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// The voters follow the agents: one, then three, and another for one that dies.
func TestVotersFollowAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		var mu sync.Mutex
		dead := make(map[mesh.NodeID]bool)
		health := func(o *Options) {
			o.Health = func() (all []Candidate) {
				mu.Lock()
				defer mu.Unlock()
				for _, id := range []mesh.NodeID{"a", "b", "c", "d"} {
					all = append(all, Candidate{Node: id, Host: string(id), Alive: !dead[id]})
				}
				return all
			}
		}
		a := s.open("a", founder, health)
		s.leader()
		s.open("b", health)
		must(t, a.AddNonvoter(soon(t), "b"))
		<-time.After(time.Minute)
		if st := a.Stats(); st.Voters != 1 || st.Nonvoters != 1 {
			t.Errorf("two agents: %+v", st)
		}
		s.open("c", health)
		s.open("d", health)
		must(t, a.AddNonvoter(soon(t), "c"))
		must(t, a.AddNonvoter(soon(t), "d"))
		s.until("three voters", func() bool { return a.Stats().Voters == 3 })
		lead := s.leader()
		var victim mesh.NodeID
		for _, m := range lead.Members() {
			if m.Voter && m.Node != lead.Self() {
				victim = m.Node
			}
		}
		s.kill(victim)
		mu.Lock()
		dead[victim] = true
		mu.Unlock()
		s.until("another votes", func() bool {
			voters := 0
			for _, m := range lead.Members() {
				if m.Voter {
					if voters++; m.Node == victim {
						return false
					}
				}
			}
			return voters == 3
		})
		s.propose(s.leader(), "x")
		s.same("x")
	})
}

// A group is founded once, and only in a folder of its own.
func TestFoundOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder)
		s.leader()
		s.propose(a, "1")
		s.kill("a")
		a = s.open("a", founder) // as it was founded here already, it goes on
		s.leader()
		s.propose(a, "2")
		if got := a.list.commands(); len(got) != 2 {
			t.Errorf("%q", got)
		}
		s.open("b")
		must(t, a.AddNonvoter(soon(t), "b"))
		s.same("2")
		s.kill("b")
		if _, err := s.try("b", founder); !errors.Is(err, ErrFounded) {
			t.Errorf("a member founds a group of its own: %v", err)
		}
		if _, err := s.try("c", func(o *Options) { o.Dir = filepath.Join(s.dir, "b") }); !errors.Is(err, ErrForeign) {
			t.Errorf("another node in the same folder: %v", err)
		}
		if _, err := s.try("d", func(o *Options) { o.Dir = filepath.Join(s.dir, "a") }); !errors.Is(err, ErrInUse) {
			t.Errorf("a second process: %v", err)
		}
	})
}

// A crash at any moment of the founding: the next start ends it.
func TestFoundingIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for cut := range 6 {
			s := newAgents(t)
			path := filepath.Join(s.dir, "a", logFile)
			must(t, makeDir(filepath.Dir(path)))
			log := newLog(t, path)
			steps := []func() error{
				func() error { return log.put(ownBucket, []byte(keySelf), []byte("a")) },
				func() error { return log.put(ownBucket, []byte(keyFound), []byte(foundTry)) },
				func() error { return log.SetUint64([]byte(currentTermKey), 0) },
				func() error { return log.SetUint64([]byte(currentTermKey), 1) },
			}
			for _, step := range steps[:min(cut, len(steps))] {
				must(t, step())
			}
			must(t, log.close())
			if cut == 5 {
				s.open("a", founder)
				s.kill("a")
				log = newLog(t, path)
				must(t, log.put(ownBucket, []byte(keyFound), []byte(foundTry)))
				must(t, log.close())
			}
			a := s.open("a", founder)
			s.leader()
			s.propose(a, "x")
			if n := a.Stats().Voters; n != 1 {
				t.Errorf("cut %d: %d voters", cut, n)
			}
			s.kill("a")
		}
	})
}

// A leader with a full disk steps down, and another leads; when there is room
// again it takes part.
func TestFullDiskOfLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.voters("a", "b", "c")
		old := s.leader()
		synctest.Wait()
		old.log.write.Lock()
		old.log.room.short, old.log.room.allocated = true, 0
		old.log.room.allocate = func(*os.File, int64) error { return syscall.ENOSPC }
		old.log.write.Unlock()
		if _, _, err := old.Propose(soon(t), []byte("x")); !errors.Is(err, ErrNoRoom) {
			t.Errorf("a full disk: %v", err)
		}
		var others []mesh.NodeID
		for id := range s.all {
			if id != old.Self() {
				others = append(others, id)
			}
		}
		next := s.leader(others...)
		s.propose(next, "y")
		old.log.write.Lock()
		old.log.room.allocate = allocate
		old.log.write.Unlock()
		s.same("y")
	})
}

// Streams of another site are no business of this one's.
func TestOtherSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.open("a", founder)
		s.leader()
		stranger := s.net.New("x", "harbour")
		stranger.Start()
		st, err := stranger.Open(soon(t), "a", mesh.Raft)
		must(t, err)
		must(t, st.SetDeadline(time.Now().Add(time.Minute)))
		if _, err := st.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the stream stays open: %v", err)
		}
		must(t, st.Close())
		must(t, stranger.Close())
	})
}

// What a crash left of a snapshot is gone after the next start.
func TestHalfSnapshotIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		half := filepath.Join(s.dir, "a", snapshotFolder, "1-2-3"+snapshotTemp)
		must(t, os.MkdirAll(half, 0o700))
		s.open("a", founder)
		if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is there: %v", err)
		}
	})
}

// The only voter leaves: the other agent gets a vote, leads, and removes it.
func TestOnlyVoterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder, healthy("a", "b"))
		s.leader()
		b := s.open("b", healthy("a", "b"))
		must(t, a.AddNonvoter(soon(t), "b"))
		s.propose(a, "1")
		if err := a.Remove(soon(t), "a"); !errors.Is(err, ErrNotLeader) {
			t.Errorf("it removes itself: %v", err)
		}
		s.leader("b")
		must(t, a.Resign(soon(t))) // it does not lead
		must(t, b.Remove(soon(t), "a"))
		must(t, b.Remove(soon(t), "a")) // again
		s.kill("a")
		s.propose(s.leader(), "2")
		if st := b.Stats(); st.Voters != 1 || st.Nonvoters != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Nobody is there to take over: the leader goes on.
func TestNobodyTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		a := s.open("a", founder, healthy("a"))
		s.leader()
		if err := a.Resign(soon(t)); !errors.Is(err, ErrNoHeir) {
			t.Errorf("%v", err)
		}
		s.propose(s.leader(), "1")
	})
}

// One of three voters is removed, and its process ends; soon the other does. What is
// left leads on: the removal has made a group of one voter.
func TestRemovalLeavesAnOddGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.voters("a", "b", "c")
		lead := s.leader()
		others := slices.DeleteFunc([]mesh.NodeID{"a", "b", "c"}, func(id mesh.NodeID) bool { return id == lead.Self() })
		_, term := lead.Leader()
		must(t, lead.Remove(soon(t), others[0]))
		if st := lead.Stats(); st.Voters != 1 || st.Nonvoters != 1 {
			t.Errorf("removed: %+v", lead.Members())
		}
		s.kill(others[0])
		s.kill(others[1])
		<-time.After(time.Minute)
		s.propose(lead, "1")
		if _, now := lead.Leader(); now != term {
			t.Errorf("it led in term %d, and does in term %d", term, now)
		}
	})
}

// One of three voters is away when another one is removed, that is there: its answers
// are needed until the one that is away has no vote any more.
func TestRemovalWithAnotherAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAgents(t)
		s.voters("a", "b", "c")
		lead := s.leader()
		others := slices.DeleteFunc([]mesh.NodeID{"a", "b", "c"}, func(id mesh.NodeID) bool { return id == lead.Self() })
		s.kill(others[0])
		must(t, lead.Remove(soon(t), others[1]))
		s.kill(others[1])
		s.propose(s.leader(), "1")
		if st := lead.Stats(); st.Voters != 1 || st.Nonvoters != 1 {
			t.Errorf("%+v", lead.Members())
		}
	})
}
