package executor_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
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
