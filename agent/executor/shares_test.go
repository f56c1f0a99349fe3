package executor_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// longJob is countsJob with ten times the rows.
var longJob = strings.Replace(countsJob, "rows: 3000", "rows: 30000", 1)

// alone is a site in which a runs the job, with parts on a disk that a test can fill; b, c
// and so on have such disks too.
func alone(t *testing.T, others ...mesh.NodeID) (s *site, disks map[mesh.NodeID]*storetest.FS) {
	t.Helper()
	s, disks = newSite(t, fmt.Sprintf(longJob, "out.jsonl")), make(map[mesh.NodeID]*storetest.FS)
	for _, id := range append(others, "a") {
		disks[id] = storetest.New()
		s.disks[id] = disks[id]
		s.start(id, t.TempDir())
		t.Cleanup(func() { s.stop(id) })
	}
	if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "a")); f != nil {
		t.Fatal(f.Why)
	}
	<-time.After(500 * time.Millisecond)
	return s, disks
}

// fill leaves no room on a disk.
func fill(t *testing.T, d *storetest.FS) {
	t.Helper()
	var used int64
	for _, f := range d.Files() {
		i, err := d.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		used += i.Size()
	}
	d.SetCapacity(max(1, used))
}

// next takes a checkpoint in which the parts of all shares are to be on some agents.
func (s *site) next(full bool, on ...mesh.NodeID) *coordinator.Snapshot {
	s.t.Helper()
	<-time.After(100 * time.Millisecond)
	snap := s.trigger(full)
	if len(snap.Copies) == 0 {
		s.t.Error("there is no part")
	}
	for _, c := range snap.Copies {
		if !slices.Equal(c.Nodes, on) {
			s.t.Errorf("%s: part %v is on %v, not on %v", snap.Name, c.Part, c.Nodes, on)
		}
	}
	return snap
}

// toldOf takes what was told of something.
func (s *site) toldOf(what string) (lines []string) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if strings.Contains(l, what) {
			lines = append(lines, l)
		}
	}
	s.lines = nil
	return lines
}

// A peer that is out of reach is passed over for another one; with nobody to copy
// to, or with peers that all refuse, a share has one copy, and whether that is enough
// the leader decides.
func TestCopiesGoWhereTheyCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := alone(t, "b", "c")
		s.net.Cut("a", "b")
		s.next(true, "a", "c")
		if lines := s.toldOf("takes no copies"); len(lines) > 0 {
			t.Errorf("there are as many copies as there are to be: %q", lines)
		}
		s.net.Cut("a", "c")
		s.next(false, "a")
		s.next(false, "a")
		if lines := s.toldOf("takes no copies"); len(lines) != 2 || lines[0] == lines[1] || !strings.Contains(lines[0], "counts, attempt 1: ") {
			t.Errorf("each of two is to be told of once: %q", lines)
		}
		s.net.Heal("a", "c")
		for _, p := range partsOf(t, s.next(false, "a", "c")) { // also what it lacked
			if !s.agents["c"].state.Parts().Has(p) {
				t.Errorf("part %v is not on c", p.Digest)
			}
		}
		s.stop("b")
		s.stop("c")
		s.next(false, "a")
		if lines := s.toldOf("takes no copies"); len(lines) > 0 {
			t.Errorf("there is nobody: %q", lines)
		}
		s.closeAll()
	})
}

// A peer whose disk is full takes no copies: that is told once, is no failure of the
// job, and when there is room it gets all that it lacks.
func TestDiskOfAPeerIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disks := alone(t, "b")
		for range 2 {
			fill(t, disks["b"])
			for i := range 3 {
				s.next(i == 0, "a")
			}
			if lines := s.toldOf("takes no copies"); len(lines) != 1 || !strings.Contains(lines[0], "agent b") || !strings.Contains(lines[0], "no space left") {
				t.Errorf("it is to be told once: %q", lines)
			}
			disks["b"].Heal()
			for range 2 {
				for _, p := range partsOf(t, s.next(false, "a", "b")) {
					if err := s.agents["b"].state.Parts().Verify(p); err != nil {
						t.Error(err)
					}
				}
			}
		}
		s.closeAll()
	})
}

// A share that this disk does not take, or does not give back, is none, whoever else
// is there.
func TestShareThatIsNotHere(t *testing.T) {
	for what, breaks := range map[string]func(*testing.T, *storetest.FS){
		"no room":           fill,
		"it cannot be read": func(_ *testing.T, d *storetest.FS) { d.FailReads(syscall.EIO) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, disks := alone(t, "b")
				s.next(true, "a", "b")
				breaks(t, disks["a"])
				s.counts++
				id := dataflow.CheckpointID{Token: s.ref.Token, Counter: s.counts}
				time.Sleep(100 * time.Millisecond)
				s.tellAll(worker.Effect{Trigger: &coordinator.Trigger{AttemptRef: s.ref, Barrier: dataflow.Barrier{ID: id}}})
				e := s.await("NotStored", func(e *happened) bool { return e.NotStored != nil })
				if n := e.NotStored; checkpoint.Failure(n.Kind) != checkpoint.Async || n.ID != id || n.Lost != (what == "no room") {
					t.Errorf("%+v", n)
				}
				time.Sleep(time.Minute) // the others' shares
				s.drain()
				disks["a"].Heal()
				s.next(true, "a", "b")
				s.closeAll()
			})
		})
	}
}

// While no checkpoint completes for long, as copies are missing, shares do not grow: what
// changed is merged all the same. All that the last complete one is made of stays, and all
// that any of the others is, as it may be complete already.
func TestSharesStaySmallWhileCheckpointsAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := oracleOf(t, longJob)
		s, disks := alone(t, "b")
		first := s.next(true, "a", "b")
		s.complete(first, 2)
		s.committed(first.ID)
		fill(t, disks["b"])
		var all []store.Part
		most := 0
		for range 60 {
			snap := s.trigger(false)
			m, err := manifest.Decode(snap.Manifest)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range m.Operators {
				for _, table := range o.Tables {
					for _, shard := range table.Shards {
						most = max(most, len(shard.Parts))
					}
				}
			}
			all = append(all, manifest.Needed(m)...)
			s.keep(first) // and so what nobody needs is collected
			<-time.After(200 * time.Millisecond)
		}
		if most < 4 || most > 40 {
			t.Errorf("the longest chain has %d parts", most)
		}
		a := s.agents["a"]
		for _, p := range append(all, partsOf(t, first)...) {
			if !a.state.Parts().Has(p) {
				t.Fatalf("part %v is gone", p.Digest)
			}
		}
		disks["b"].Heal()
		last := s.next(false, "a", "b")
		s.complete(last, 2)
		s.committed(last.ID)
		<-time.After(10 * time.Second)
		gone := 0
		for _, p := range all {
			if !a.state.Parts().Has(p) {
				gone++
			}
		}
		if gone == 0 {
			t.Error("what was held for those that did not complete is still there")
		}
		s.closeAll()
		if f := s.deploy(at("in", 0, "b"), at("sums", 0, "b"), at("sums", 1, "a")); f != nil {
			t.Fatal(f.Why)
		}
		s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
		s.finish()
		s.closeAll()
		compare(t, linesOf(t, s.agents["a"].dir, s.agents["b"].dir), want)
	})
}
