package leader_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// The jobs of tests. In the mqtt one nothing fences the sink.
const (
	files = `
name: files
parallelism: 2
checkpoint: {interval: 500ms, timeout: 2s, tolerable_failures: 100}
restart: {strategy: fixed-delay, attempts: 1000, delay: 100ms}
sources: {in: {generate: {rate: 10, keys: 4}}}
steps: [{id: a, from: in, key_by: [key], window: {tumbling: 1s}, select: {n: count(*)}}]
sinks: [{id: out, from: a, file: {path: out.jsonl}}]
`
	acts = `
name: acts
parallelism: 2
checkpoint: {interval: 500ms, timeout: 2s, tolerable_failures: 100}
restart: {strategy: fixed-delay, attempts: 1000, delay: 100ms}
sources: {in: {generate: {rate: 10, keys: 4}}}
steps: [{id: a, from: in, key_by: [key], window: {tumbling: 1s}, select: {n: count(*)}}]
sinks: [{id: pub, from: a, mqtt: {broker: "mqtt://h", topic: t}}]
`
	logged = `
name: logged
parallelism: 1
checkpoint: {interval: 500ms, timeout: 2s, tolerable_failures: 100}
restart: {strategy: fixed-delay, attempts: 1000, delay: 100ms}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t]}, format: json, fields: {key: string}, event_time: ingestion}}
sinks: [{id: out, from: in, file: {path: out.jsonl}}]
`
)

var seeds = flag.Uint64("seeds", 12, "how many random schedules are tried")

// Whatever fails in whatever order: what check, observe and the executors judge
// holds at every step, and after the last fault everything goes on.
func TestAnySchedule(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 3)
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			schedule(t, seed)
		})
	}
}

func schedule(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var history strings.Builder
	var s *site
	failed := false
	s = newSite(rng, func(format string, args ...any) {
		if !failed {
			failed = true
			t.Errorf("seed %d at %d ms: %s\n%s", seed, s.now/ms, fmt.Sprintf(format, args...), tail(history.String()))
		}
	}, func(format string, args ...any) {
		fmt.Fprintf(&history, "%d %s\n", s.now/ms, fmt.Sprintf(format, args...))
	})
	s.level = 1 + uint32(seed%2)*2
	ids := []mesh.NodeID{"n1", "n2", "n3"}
	for _, id := range ids {
		s.add(id, 3).start()
	}
	s.lead("n1")
	s.submit("files", files, "")
	s.submit("acts", acts, "")
	s.submit("logged", logged, "", coordinator.Feed{Name: "in", Config: []byte(`{"lanes":1}`)})
	s.run(4000 * ms)
	for range 12 {
		s.fault(rng, ids)
		s.run(s.now + dataflow.Time(rng.Int64N(int64(4000*ms))))
		if failed {
			return
		}
	}
	s.heal(ids)
	before := make(map[string]string)
	s.run(s.now + 20_000*ms)
	for _, name := range []string{"files", "acts", "logged"} {
		j := s.job(name)
		if j.Status != coordinator.Running || j.Newest() == nil {
			s.fail("job %s is %s (%s), it has a checkpoint: %v", name, j.Status, j.Why, j.Newest() != nil)
			return
		}
		before[name] = j.Newest().Name
	}
	s.run(s.now + 3_000*ms)
	for _, name := range []string{"files", "acts", "logged"} {
		if j := s.job(name); j.Newest() == nil || j.Newest().Name == before[name] {
			s.fail("job %s stands still at %s: %s", name, before[name], j.Why)
		}
	}
}

// tail is the end of a long history.
func tail(s string) string { return s[max(0, len(s)-9000):] }

func (s *site) fault(rng *rand.Rand, ids []mesh.NodeID) {
	id := ids[rng.IntN(len(ids))]
	n := s.nodes[id]
	switch rng.IntN(11) {
	case 0, 1:
		if n.up {
			s.trace("FAULT crash %s", id)
			n.crash()
		}
	case 2, 3:
		if !n.up {
			s.trace("FAULT start %s", id)
			n.start()
		}
	case 4:
		if n.up && !n.frozen {
			s.trace("FAULT freeze %s", id)
			n.freeze()
		}
	case 5:
		if n.up && n.frozen {
			s.trace("FAULT thaw %s", id)
			n.thaw()
		}
	case 6:
		s.trace("FAULT break %s", id)
		n.breakStream()
	case 7:
		other := ids[rng.IntN(len(ids))]
		s.trace("FAULT cut %s %s", id, other)
		if id != other {
			key := [2]mesh.NodeID{id, other}
			s.cuts[key] = !s.cuts[key]
		}
	case 8:
		for _, r := range n.execs() {
			s.trace("FAULT task of %s on %s", refText(r.ref), id)
			n.exec.failed(r, "panic", false)
			break
		}
	case 9: // it says that it ends, and does, early or late
		if n.up && !n.frozen {
			s.trace("FAULT leave %s", id)
			n.leave()
			s.after(dataflow.Time(rng.Int64N(int64(3000*ms))), n.life(func() { s.trace("FAULT end %s", id); n.crash() }))
		}
	case 10:
		if n.up {
			n.exec.alone = !n.exec.alone
			s.trace("FAULT %s sees nobody: %v", id, n.exec.alone)
		}
	}
	if l := s.leads; l == nil || l.node.frozen || rng.IntN(5) == 0 {
		for _, i := range rng.Perm(len(ids)) {
			if n := s.nodes[ids[i]]; n.up && !n.frozen {
				s.trace("FAULT lead %s", n.id)
				s.lead(n.id)
				break
			}
		}
	}
}

func (n *node) execs() (all []*running) {
	if n.up && !n.frozen {
		for _, id := range []string{"files", "acts", "logged"} {
			for _, r := range n.exec.attempts {
				if r.job.Name == id && r.began && !r.closing {
					all = append(all, r)
				}
			}
		}
	}
	return all
}

func (s *site) heal(ids []mesh.NodeID) {
	s.trace("HEAL")
	clear(s.cuts)
	for _, id := range ids {
		n := s.nodes[id]
		if n.up && n.leaving { // it ends anyway
			n.crash()
		}
		switch {
		case !n.up:
			n.start()
		case n.frozen:
			n.thaw()
		}
		n.exec.alone = false
	}
	if s.leads == nil {
		s.lead(ids[0])
	}
}
