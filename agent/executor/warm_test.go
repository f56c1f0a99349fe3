package executor_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	local "github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// sumsJob keeps something of each key.
const sumsJob = `name: counts
parallelism: 2
checkpoint: {interval: 1s}
sources:
  in: {generate: {rate: 1000, keys: 500, rows: 4000, seed: 5}, parallelism: 1, event_time: ts, watermark: {bounded: 10ms}}
steps:
  - {id: sums, from: in, key_by: [key], %s}
sinks:
  - {id: out, from: sums, parallelism: 2, file: {path: %q}}
`

// What sumsJob keeps: sums for ever, with and without sets, and windows.
const (
	sumsEver     = "select: {n: count(*), total: sum(seq), least: min(seq)}"
	sumsSets     = "select: {n: count(*), kinds: count(distinct seq % 7)}"
	sumsTumbling = "window: {tumbling: 300ms}, select: {n: count(*), total: sum(seq), kinds: count(distinct seq % 7)}"
	sumsSliding  = "window: {sliding: {size: 900ms, slide: 100ms}}, select: {n: count(*), last: last(seq)}"
	sumsSession  = "window: {session: 200ms}, select: {n: count(*), first: first(seq)}"
	sumsCount    = "window: {count: 3}, select: {n: count(*), total: sum(seq)}"
)

func sumsOracle(t *testing.T, step string) []string {
	t.Helper()
	dir := t.TempDir()
	j, err := job.Load("counts", fmt.Appendf(nil, sumsJob, step, filepath.Join(dir, "out", "out.jsonl")), job.Options{})
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

// warm asks an agent to restore the newest checkpoint early, for where the job is
// going to be.
func (s *site) warm(places ...coordinator.Place) {
	j := *s.job
	j.Places = places
	s.agents[places[0].Node].x.Do(worker.Effect{Warm: &worker.Warm{Job: &j, From: j.Newest()}})
	synctest.Wait()
}

// said tells whether an agent has told of something.
func (s *site) said(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(strings.Join(s.lines, "\n"), what)
}

// A job whose state was restored where it goes, before it went, makes the same
// rows; and so does one of which it was restored for something else.
func TestRestoredEarly(t *testing.T) {
	on := []coordinator.Place{at("in", 0, "b"), at("sums", 0, "b"), at("sums", 1, "b")}
	for _, c := range []struct {
		name  string
		step  string
		warm  func(s *site) // after the second checkpoint
		early bool
	}{
		{"of the last checkpoint but one", sumsEver, func(*site) {}, true},
		{"of the last", sumsEver, nil, true},
		{"sets", sumsSets, func(*site) {}, true},
		{"tumbling windows", sumsTumbling, func(*site) {}, true},
		{"sliding windows", sumsSliding, func(*site) {}, true},
		{"sessions", sumsSession, func(*site) {}, true},
		{"count windows", sumsCount, func(*site) {}, true},
		{"for other places", sumsEver, func(s *site) { s.warm(at("in", 0, "b"), at("sums", 0, "b"), at("sums", 1, "c")) }, false},
		{"and dropped", sumsEver, func(s *site) { id := s.job.ID; s.agents["b"].x.Do(worker.Effect{Cool: &id}) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := sumsOracle(t, c.step)
				s := newSite(t, fmt.Sprintf(sumsJob, c.step, "out.jsonl"), "a", "b", "c")
				dirs := []string{s.agents["a"].dir, s.agents["b"].dir}
				if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "a")); f != nil {
					t.Fatal(f.Why)
				}
				take := func(full bool) {
					time.Sleep(600 * time.Millisecond)
					snap := s.trigger(full)
					s.complete(snap, 2)
					s.committed(snap.ID)
				}
				take(true)
				s.warm(on...)
				if !s.said(" rows of chk-") {
					t.Error("nothing was restored early")
				}
				take(false)
				s.warm(on...)
				take(false)
				if c.warm == nil {
					s.warm(on...)
				} else {
					c.warm(s)
				}
				s.closeAll()
				if f := s.deploy(on...); f != nil {
					t.Fatal(f.Why)
				}
				synctest.Wait()
				if got := s.said("restored early"); got != c.early {
					t.Errorf("restored early: %v, want %v", got, c.early)
				}
				take(true)
				s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
				s.finish()
				s.closeAll()
				compare(t, linesOf(t, dirs...), want)
			})
		})
	}
}

// warming is how many jobs are being restored early, here and in whatever else runs
// in this process.
func warming() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "executor.(*warming).run(")
}

// What was restored early goes with the attempt that it is for, also when that ends
// before it has taken it.
func TestRestoredEarlyInVain(t *testing.T) {
	on := []coordinator.Place{at("in", 0, "b"), at("sums", 0, "b"), at("sums", 1, "b")}
	prepare := func(s *site) {
		s.job.Attempt++
		j := *s.job
		j.Places = on
		s.job, s.ref = &j, coordinator.AttemptRef{Job: j.ID, Token: j.Token("home")}
		s.tellAll(worker.Effect{Prepare: &worker.Prepare{AttemptRef: s.ref, Job: &j, From: j.Newest()}})
	}
	fails := func(s *site, why string) {
		if f := s.deploy(on...); f == nil || !strings.Contains(f.Why, why) {
			s.t.Errorf("%+v, want %q", f, why)
		}
	}
	for _, c := range []struct {
		name string
		end  func(s *site)
	}{
		{"its text cannot be read", func(s *site) {
			s.job.Spec = []byte("name: counts\nsources: 7\n")
			fails(s, "sources")
		}},
		{"nobody has its parts", func(s *site) {
			s.net.Cut("b", "a")
			s.net.Cut("b", "c")
			fails(s, "chk-")
		}},
		{"it is closed at once", func(s *site) {
			prepare(s)
			s.closeAll()
		}},
		{"it is closed while it waits for parts", func(s *site) {
			s.net.Cut("b", "a")
			s.net.Cut("b", "c")
			prepare(s)
			synctest.Wait()
			s.closeAll()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, fmt.Sprintf(sumsJob, sumsEver, "out.jsonl"), "a", "b", "c")
				if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "a")); f != nil {
					t.Fatal(f.Why)
				}
				time.Sleep(600 * time.Millisecond)
				snap := s.trigger(true)
				s.complete(snap, 2)
				s.committed(snap.ID)
				s.warm(on...)
				s.net.Cut("a", "b") // the next is on others
				time.Sleep(600 * time.Millisecond)
				snap = s.trigger(false)
				s.complete(snap, 2)
				s.committed(snap.ID)
				s.net.Heal("a", "b")
				s.closeAll()
				if n := warming(); n != 1 {
					t.Fatalf("%d are restored early", n)
				}
				c.end(s)
				synctest.Wait()
				if n := warming(); n != 0 {
					t.Errorf("%d are restored early for an attempt that is gone", n)
				}
				s.closeRest()
			})
		})
	}
}
