package executor_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// manyJob keeps a row of state for each of many keys.
const manyJob = `name: counts
parallelism: 2
checkpoint: {interval: 1s}
sources:
  in: {generate: {rate: 1000, keys: 2000, rows: 4000, seed: 5}, parallelism: 1, event_time: ts, watermark: {bounded: 10ms}}
steps:
  - {id: sums, from: in, key_by: [key], window: {tumbling: 24h}, select: {n: count(*), total: sum(seq)}}
sinks:
  - {id: out, from: sums, parallelism: 2, file: {path: %q}}
`

// keyedParts are the sizes of the parts of all keyed tables of a snapshot.
func keyedParts(t *testing.T, s *coordinator.Snapshot) map[store.Digest]int64 {
	t.Helper()
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	parts := make(map[store.Digest]int64)
	for _, o := range m.Operators {
		for _, tab := range o.Tables {
			for _, sh := range tab.Shards {
				for _, p := range sh.Parts {
					if tab.Keyed {
						parts[p.Digest] = p.Size
					}
				}
			}
		}
	}
	return parts
}

// A job that goes on where it was, on the same agents or on others, writes with its
// first checkpoint what changed since the one that it was restored from, and what
// it had before is still in it.
func TestFirstCheckpointGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := oracleOf(t, manyJob)
		s := newSite(t, fmt.Sprintf(manyJob, "out.jsonl"), "a", "b", "c")
		var before map[store.Digest]int64
		for i, places := range [][]coordinator.Place{
			{at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")},
			{at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")},
			{at("in", 0, "c"), at("sums", 0, "c"), at("sums", 1, "a")},
		} {
			if f := s.deploy(places...); f != nil {
				t.Fatal(f.Why)
			}
			if i == 0 {
				time.Sleep(2 * time.Second)
			} else {
				time.Sleep(50 * time.Millisecond)
			}
			snap := s.trigger(false)
			s.complete(snap, 2)
			s.committed(snap.ID)
			parts := keyedParts(t, snap)
			var all, fresh int64
			kept := 0
			for d, size := range parts {
				all += size
				if _, there := before[d]; there {
					kept++
				} else {
					fresh += size
				}
			}
			if i > 0 && (kept != len(before) || fresh == 0 || fresh > all/5) {
				t.Errorf("attempt %d: %d of %d parts are kept, and %d of %d bytes are new", i+1, kept, len(before), fresh, all)
			}
			for _, c := range snap.Copies {
				if len(c.Nodes) != 2 {
					t.Errorf("attempt %d: part %v is on %v", i+1, c.Part, c.Nodes)
				}
			}
			before = parts
			if i < 2 {
				s.closeAll()
			}
		}
		s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
		s.finish()
		s.closeAll()
		compare(t, linesOf(t, s.agents["a"].dir, s.agents["b"].dir, s.agents["c"].dir), want)
	})
}

// goneOn takes the first checkpoint of an attempt, which is to go on from all parts
// that there were before, in copies that are whole, and hold much less that is new.
func (s *site) goneOn(before *coordinator.Snapshot) *coordinator.Snapshot {
	s.t.Helper()
	snap := s.trigger(false)
	was, is := keyedParts(s.t, before), keyedParts(s.t, snap)
	var all, fresh int64
	kept := 0
	for d, size := range is {
		if all += size; was[d] != 0 {
			kept++
		} else {
			fresh += size
		}
	}
	if kept != len(was) || fresh == 0 || fresh > all/4 {
		s.t.Errorf("of %d parts %d are kept, and %d of %d bytes are new", len(was), kept, fresh, all)
	}
	sizes := make(map[store.Digest]store.Part)
	for _, p := range partsOf(s.t, snap) {
		sizes[p.Digest] = p
	}
	for _, c := range snap.Copies {
		if len(c.Nodes) != 2 {
			s.t.Errorf("part %v is on %v", c.Part, c.Nodes)
		}
		for _, n := range c.Nodes {
			if err := s.agents[n].state.Parts().Verify(sizes[c.Part]); err != nil {
				s.t.Errorf("part %v on %s: %v", c.Part, n, err)
			}
		}
	}
	return snap
}

// What an attempt was restored from is let go everywhere before its first
// checkpoint, as a savepoint is that is deleted: who has it in its chains keeps the
// parts, and who else is to have copies gets them again.
func TestFirstCheckpointOfWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := oracleOf(t, manyJob)
		s := newSite(t, fmt.Sprintf(manyJob, "out.jsonl"), "a", "b", "c")
		dirs := []string{s.agents["a"].dir, s.agents["b"].dir, s.agents["c"].dir}
		if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")); f != nil {
			t.Fatal(f.Why)
		}
		time.Sleep(2 * time.Second)
		from := s.trigger(false)
		s.complete(from, 1)
		s.committed(from.ID)
		s.closeAll()
		if f := s.deploy(at("in", 0, "c"), at("sums", 0, "c"), at("sums", 1, "a")); f != nil {
			t.Fatal(f.Why)
		}
		s.keep()
		time.Sleep(50 * time.Millisecond)
		for id, a := range s.agents {
			got, err := a.state.Collect()
			if err != nil {
				t.Fatal(err)
			}
			left := 0
			for _, p := range partsOf(t, from) {
				if a.state.Parts().Has(p) {
					left++
				}
			}
			if runs := id != "b"; left > 0 != runs {
				t.Errorf("%s has %d of its parts: %+v", id, left, got)
			}
		}
		snap := s.goneOn(from)
		s.complete(snap, 1)
		s.committed(snap.ID)
		time.Sleep(100 * time.Millisecond)
		s.stop("c") // the copies are what there is
		s.await("Failed", func(e *happened) bool { return e.Failed != nil })
		s.closeRest()
		if f := s.deploy(at("in", 0, "b"), at("sums", 0, "b"), at("sums", 1, "a")); f != nil {
			t.Fatal(f.Why)
		}
		s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
		s.finish()
		s.closeAll()
		back := s.start("c", dirs[2])
		back.x.Do(worker.Effect{Lost: s.job})
		synctest.Wait()
		compare(t, linesOf(t, dirs...), want)
	})
}

// The first barrier of an attempt finds rows in its sinks that nothing has committed,
// and is not full: they are in its checkpoint, all of them, so that the next attempt
// commits them if this one could not.
func TestFirstCheckpointOfPendingRows(t *testing.T) {
	for _, commits := range []string{"never", "before it ends", "when it is told"} {
		t.Run(commits, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := sumsOracle(t, sumsEver)
				s := newSite(t, fmt.Sprintf(sumsJob, sumsEver, "out.jsonl"), "a", "b", "c")
				dirs := []string{s.agents["a"].dir, s.agents["b"].dir, s.agents["c"].dir}
				for i, on := range []mesh.NodeID{"b", "b", "c", "a"} {
					if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, on)); f != nil {
						t.Fatal(f.Why)
					}
					for _, a := range s.agents { // who had a sink lets go what nobody has heard of
						a.x.Do(worker.Effect{Lost: s.job})
					}
					for range 2 - i%2 { // of the second kind the first is all that there is
						time.Sleep(400 * time.Millisecond)
						snap := s.trigger(false)
						s.keep(snap)
						if commits == "never" {
							continue
						}
						s.tellAll(worker.Effect{Complete: &worker.Complete{AttemptRef: s.ref, Snapshot: snap}})
						if commits == "when it is told" {
							s.committed(snap.ID)
						}
					}
					time.Sleep(100 * time.Millisecond)
					s.drain()
					s.closeAll()
				}
				if f := s.deploy(at("in", 0, "c"), at("sums", 0, "b"), at("sums", 1, "c")); f != nil {
					t.Fatal(f.Why)
				}
				for _, a := range s.agents {
					a.x.Do(worker.Effect{Lost: s.job})
				}
				s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
				s.finish()
				s.closeAll()
				compare(t, linesOf(t, dirs...), want)
			})
		})
	}
}

// An attempt whose state was restored early goes on from the parts of what it was
// restored from, not of what came early; what it has then, deltas on it, and who goes
// on from these, have the rows that a job has which was never moved.
func TestRestoredEarlyGoesOn(t *testing.T) {
	on := []coordinator.Place{at("in", 0, "b"), at("sums", 0, "b"), at("sums", 1, "b")}
	away := []coordinator.Place{at("in", 0, "c"), at("sums", 0, "c"), at("sums", 1, "c")}
	for _, c := range []struct {
		name string
		step string
		last bool // what is taken last is restored early
		next []coordinator.Place
	}{
		{"of the last, then where it is", sumsEver, true, on}, {"then where it is", sumsEver, false, on},
		{"of the last, then elsewhere", sumsEver, true, away}, {"then elsewhere", sumsEver, false, away},
		{"sets", sumsSets, false, away}, {"tumbling", sumsTumbling, false, away}, {"sliding", sumsSliding, false, away},
		{"sessions", sumsSession, false, away}, {"counts", sumsCount, false, away},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := sumsOracle(t, c.step)
				s := newSite(t, fmt.Sprintf(sumsJob, c.step, "out.jsonl"), "a", "b", "c")
				dirs := []string{s.agents["a"].dir, s.agents["b"].dir, s.agents["c"].dir}
				if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "a")); f != nil {
					t.Fatal(f.Why)
				}
				var snap *coordinator.Snapshot
				take := func() {
					if c.step == sumsEver && s.job.Attempt > 1 { // else much of the state goes, and chains are merged
						snap = s.goneOn(snap)
					} else {
						snap = s.trigger(false)
					}
					s.complete(snap, 2)
					s.committed(snap.ID)
				}
				for i := range 3 {
					time.Sleep([]time.Duration{900, 100, 60}[i] * time.Millisecond)
					if take(); i < 2 || c.last {
						s.warm(on...)
					}
				}
				s.closeAll()
				if f := s.deploy(on...); f != nil {
					t.Fatal(f.Why)
				}
				synctest.Wait()
				if !s.said("restored early") {
					t.Error("nothing was restored early")
				}
				for range 2 {
					time.Sleep(60 * time.Millisecond)
					take()
				}
				time.Sleep(200 * time.Millisecond)
				s.drain()
				s.closeAll()
				if f := s.deploy(c.next...); f != nil {
					t.Fatal(f.Why)
				}
				time.Sleep(60 * time.Millisecond)
				take()
				s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
				s.finish()
				s.closeAll()
				compare(t, linesOf(t, dirs...), want)
			})
		})
	}
}
