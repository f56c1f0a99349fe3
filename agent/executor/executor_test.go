package executor_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	local "github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// countsJob counts rows that come in virtual time.
const countsJob = `name: counts
parallelism: 2
checkpoint: {interval: 1s}
sources:
  in: {generate: {rate: 1000, keys: 20, rows: 3000, seed: 5}, parallelism: 1, event_time: ts, watermark: {bounded: 10ms}}
steps:
  - {id: sums, from: in, key_by: [key], window: {tumbling: 100ms}, select: {n: count(*), total: sum(seq)}}
sinks:
  - {id: out, from: sums, parallelism: 2, file: {path: %q}}
`

// oracle is the rows of the job in one process.
func oracle(t *testing.T) []string { return oracleOf(t, countsJob) }

func oracleOf(t *testing.T, text string) []string {
	t.Helper()
	dir := t.TempDir()
	j, err := job.Load("counts", fmt.Appendf(nil, text, filepath.Join(dir, "out", "out.jsonl")), job.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := local.NewLocal(j, local.LocalOptions{})
	if err == nil {
		err = l.Run(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return linesOf(t, dir)
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%d rows, want %d; the first that differ:", len(got), len(want))
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Fatalf("%d: %v, want %v", i, got[min(i, len(got)):min(i+3, len(got))], want[min(i, len(want)):min(i+3, len(want))])
			}
		}
	}
}

// A job runs on two agents to its end.
func TestJobOnTwoAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := oracle(t)
		s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a", "b")
		if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")); f != nil {
			t.Fatal(f.Why)
		}
		time.Sleep(time.Second)
		snap := s.trigger(true)
		s.complete(snap, 2)
		s.committed(snap.ID)
		for _, c := range snap.Copies {
			if len(c.Nodes) != 2 {
				t.Errorf("part %v is on %v", c.Part, c.Nodes)
			}
		}
		s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
		s.finish()
		in := int64(0)
		for _, a := range s.agents {
			for _, st := range a.x.Status() {
				if st.Subtask.Task == "in" {
					in += st.Operators[0].In
				}
			}
		}
		if in != 3000 {
			t.Errorf("the status says %d rows", in)
		}
		s.closeAll()
		compare(t, linesOf(t, s.agents["a"].dir, s.agents["b"].dir), want)
	})
}

// An agent is lost between checkpoints: the next attempt goes on from the last
// one, on another agent, which has none of its parts; the lost one's file keeps
// what was committed, and nothing is there twice or not at all.
func TestLostAgent(t *testing.T) {
	for _, kill := range []string{"before any commit", "after a commit", "after a commit that nobody heard of"} {
		t.Run(kill, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := oracle(t)
				s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a", "b", "c")
				dirs := []string{s.agents["a"].dir, s.agents["b"].dir, s.agents["c"].dir}
				if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")); f != nil {
					t.Fatal(f.Why)
				}
				time.Sleep(time.Second)
				snap := s.trigger(true)
				s.complete(snap, 2)
				s.committed(snap.ID)
				time.Sleep(500 * time.Millisecond)
				if kill != "before any commit" {
					snap = s.trigger(false)
					s.complete(snap, 2)
					if kill == "after a commit" {
						s.committed(snap.ID)
					} else {
						s.drain()
					}
				}
				time.Sleep(300 * time.Millisecond)
				lost := s.agents["b"]
				s.stop("b")
				failed := s.await("Failed", func(e *happened) bool { return e.Failed != nil })
				if failed.node != "a" || failed.Failed.Peer != "b" || failed.Failed.Final {
					t.Errorf("%s: %+v", failed.node, failed.Failed)
				}
				if f := s.deploy(at("in", 0, "a"), at("sums", 0, "c"), at("sums", 1, "a")); f != nil {
					t.Fatal(f.Why)
				}
				snap = s.trigger(true)
				s.complete(snap, 2)
				s.committed(snap.ID)
				s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
				s.finish()
				s.closeAll()
				back := s.start("b", lost.dir) // and what it has that does not count is cut
				back.x.Do(worker.Effect{Lost: s.job})
				synctest.Wait()
				compare(t, linesOf(t, dirs...), want)
			})
		})
	}
}

// What is not needed any more is collected on every agent, and what is needed is
// not.
func TestPartsAreCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, strings.Replace(fmt.Sprintf(countsJob, "out.jsonl"), "rows: 3000", "rows: 30000", 1), "a", "b", "c")
		if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")); f != nil {
			t.Fatal(f.Why)
		}
		for i := range 12 {
			time.Sleep(time.Second)
			snap := s.trigger(i == 0)
			s.complete(snap, 1)
			s.committed(snap.ID)
		}
		time.Sleep(10 * time.Second)
		s.closeAll()
		time.Sleep(10 * time.Second)
		for id, a := range s.agents {
			list, err := a.state.Checkpoints("j7")
			if err != nil || len(list) != 1 {
				t.Errorf("%s: %d manifests, %v", id, len(list), err)
			}
			if n := a.state.Parts().Pinned(); n > 0 {
				t.Errorf("%s: %d parts are pinned", id, n)
			}
		}
		// From what is left the job goes on elsewhere.
		if f := s.deploy(at("in", 0, "c"), at("sums", 0, "c"), at("sums", 1, "c")); f != nil {
			t.Fatal(f.Why)
		}
		s.trigger(true)
		s.closeAll()
	})
}

// A job that cannot be opened says so, for good if it never ran.
func TestCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for spec, want := range map[string]string{
			"name: counts\nsources: 7\n": "sources",
			"name: counts\nsources:\n  in: {file: {path: /nowhere/at-all.jsonl}, format: json, fields: {v: double}}\nsinks:\n  - {id: out, from: in, blackhole: {}}\n": "/nowhere/at-all.jsonl",
			fmt.Sprintf(countsJob, "out.jsonl"): "has no place",
		} {
			s := newSite(t, spec, "a")
			f := s.deploy(at("in", 0, "a"))
			if f == nil || !f.Final || !strings.Contains(f.Why, want) {
				t.Errorf("%+v, want %q", f, want)
			}
			s.stop("a")
		}
	})
}

// An attempt that is not there is closed at once.
func TestCloseOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "", "a")
		s.agents["a"].x.Do(worker.Effect{Close: &s.ref})
		s.await("Closed", func(e *happened) bool { return e.Closed != nil })
	})
}

// A part that was damaged on the disk is found when a job is restored from it;
// the attempt after that fetches it anew.
func TestDamagedPartIsFetchedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := oracle(t)
		s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a", "b")
		places := []coordinator.Place{at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")}
		if f := s.deploy(places...); f != nil {
			t.Fatal(f.Why)
		}
		time.Sleep(time.Second)
		snap := s.trigger(true)
		s.complete(snap, 2)
		s.committed(snap.ID)
		s.closeAll()
		damage(t, s.agents["b"], snap)
		f := s.deploy(places...)
		if f == nil || f.Final || !strings.Contains(f.Why, "damaged") {
			t.Fatalf("%+v", f)
		}
		s.closeRest()
		if f := s.deploy(places...); f != nil {
			t.Fatal(f.Why)
		}
		snap = s.trigger(true)
		s.complete(snap, 2)
		s.committed(snap.ID)
		s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
		s.finish()
		s.closeAll()
		compare(t, linesOf(t, s.agents["a"].dir, s.agents["b"].dir), want)
	})
}

// Who reads a snapshot reads another agent's copy where the one here is damaged,
// which is whole then; with no other it is told what is damaged.
func TestOpenDamagedPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t)
		time.Sleep(time.Second)
		snap := s.trigger(true)
		s.complete(snap, 2)
		s.committed(snap.ID)
		b := s.agents["b"]
		damage(t, b, snap)
		alone := []coordinator.PartCopies{{Part: snap.Copies[0].Part, Nodes: []mesh.NodeID{"b"}}}
		for _, p := range partsOf(t, snap) {
			if p.Digest == alone[0].Part {
				if _, err := b.x.OpenPart(t.Context(), p, alone); !errors.Is(err, store.ErrCorrupt) {
					t.Errorf("nobody else has it: %v", err)
				}
			}
			r, err := b.x.OpenPart(t.Context(), p, snap.Copies)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = io.Copy(io.Discard, r); err == nil {
				err = b.state.Parts().Verify(p)
			}
			if err = errors.Join(err, r.Close()); err != nil {
				t.Error(err)
			}
		}
		s.closeAll()
	})
}

// damage changes a byte near the end of all parts of a snapshot on an agent.
func damage(t *testing.T, a *agent, snap *coordinator.Snapshot) {
	t.Helper()
	n := 0
	for _, c := range snap.Copies {
		name := filepath.Join(a.dir, "parts", c.Part.String()[:2], c.Part.String()+".avro")
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		n++
		b[len(b)-17] ^= 1 // in the last row, before the marker
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 {
		t.Fatal("no part is there")
	}
}

// An attempt that is closed while it waits for parts ends at once, and an older
// one's parts are not taken any more.
func TestCloseWhileFetching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a", "b", "c")
		if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")); f != nil {
			t.Fatal(f.Why)
		}
		time.Sleep(500 * time.Millisecond)
		snap := s.trigger(true)
		s.complete(snap, 2)
		s.committed(snap.ID)
		s.closeAll()
		s.net.Cut("c", "a")
		s.net.Cut("c", "b")
		s.job.Attempt++
		j := *s.job
		j.Places = []coordinator.Place{at("in", 0, "c"), at("sums", 0, "c"), at("sums", 1, "c")}
		s.job, s.ref = &j, coordinator.AttemptRef{Job: j.ID, Token: j.Token("home")}
		s.tellAll(worker.Effect{Prepare: &worker.Prepare{AttemptRef: s.ref, Job: &j, From: j.Newest()}})
		time.Sleep(time.Second)
		began := time.Now()
		s.closeAll()
		if d := time.Since(began); d > 0 {
			t.Errorf("it took %v", d)
		}
		if n := s.agents["c"].state.Parts().Pinned(); n > len(snap.Copies) {
			t.Errorf("%d parts are pinned", n)
		}
	})
}

// An attempt whose channels are never taken to their end can be closed.
func TestCloseWhileFlushing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a", "b")
		s.wires.stuck = true
		if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")); f != nil {
			t.Fatal(f.Why)
		}
		s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
		s.tellAll(worker.Effect{Finish: &coordinator.Finish{AttemptRef: s.ref}})
		synctest.Wait()
		s.closeAll()
	})
}

// A part that is brought in is on two agents, can be read from a third, and is
// let go after a while.
func TestPartsThatAreBroughtIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "", "a", "b", "c")
		p, nodes, err := s.agents["a"].x.PutPart(t.Context(), func(w io.Writer) error { _, err := io.WriteString(w, "rows"); return err })
		if err != nil || len(nodes) != 2 || nodes[0] != "a" {
			t.Fatalf("%v, %v", nodes, err)
		}
		third := s.agents["b"]
		if nodes[1] == "b" {
			third = s.agents["c"]
		}
		r, err := third.x.OpenPart(t.Context(), p, []coordinator.PartCopies{{Part: p.Digest, Nodes: nodes}})
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r); err != nil || string(text) != "rows" {
			t.Errorf("%q, %v", text, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		pinned := func(want int) {
			t.Helper()
			for _, a := range s.agents {
				a.x.Do(worker.Effect{Kept: &worker.Kept{}})
			}
			time.Sleep(10 * time.Second)
			n := 0
			for _, a := range s.agents {
				n += a.state.Parts().Pinned()
			}
			if n != want {
				t.Errorf("%d are held, want %d", n, want)
			}
		}
		pinned(2)
		time.Sleep(59 * time.Minute)
		pinned(2)
		time.Sleep(2 * time.Minute)
		pinned(0)
		if a := s.agents["a"]; a.state.Parts().Has(p) {
			t.Error("it is still there")
		}
	})
}
