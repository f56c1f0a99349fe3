package agent_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

const looseJob = `name: loose
checkpoint: {interval: 1ms, mode: at-least-once}
restart: {strategy: none}
sources:
  in: {generate: {rate: 0, keys: 7, rows: %d, seed: 5}, event_time: ts, watermark: {bounded: 1ms}}
steps:
  - {id: each, from: in, key_by: [seq], window: {tumbling: 1ms}, select: {n: count(*)}}
sinks:
  - {id: out, from: each, file: {path: %q}}
`

// At least once: a job that crashes again and again, and goes on with another
// parallelism, may count rows twice, and misses none.
func TestAtLeastOnceLosesNothing(t *testing.T) {
	const rows = 40_000
	dir := t.TempDir()
	out := filepath.Join(dir, "out.jsonl")
	text := fmt.Sprintf(looseJob, rows, out)
	d := newStateful(t, filepath.Join(dir, "state"))
	crashes := 0
	for _, parallelism := range []int{3, 4, 2, 3} {
		if !d.crash(text, setting{parallelism: parallelism, batchRows: 16}, 2, nil) {
			break
		}
		crashes++
	}
	_, state := d.begin(text, setting{}, nil)
	kept, err := state.Store().Checkpoints("loose")
	if err != nil || len(kept) == 0 || slices.ContainsFunc(kept, func(e part.Entry) bool { return e.Manifest.Mode != manifest.AtLeastOnce }) {
		t.Errorf("checkpoints that say what they are: %v (%v)", kept, err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	if o, err := d.run(text, setting{parallelism: 2}, nil); err != nil || o.Status != coordinator.Finished {
		t.Fatalf("%+v, %v\n%s", o, err, d.said)
	}
	seen := make([]bool, rows)
	for _, n := range values(t, out, "seq") {
		seen[n] = true
	}
	if i := slices.Index(seen, false); i >= 0 {
		t.Errorf("after %d crashes row %d is missing", crashes, i)
	}
	if n := total(t, out, "n"); n < rows {
		t.Errorf("%d rows counted of %d", n, rows)
	}
	if crashes == 0 {
		t.Error("it ended before it could crash")
	}
}
