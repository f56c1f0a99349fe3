package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// keysJob counts the rows of many keys for ever. They come from one source, in
// one order, on which what a running count shows depends.
const keysJob = `name: keys
parallelism: 2
checkpoint: {interval: 10ms}
restart: {strategy: none}
state: %s
sources:
  in: {generate: {rate: 0, keys: 20000, rows: 60000, seed: 5}, parallelism: 1, event_time: ts, watermark: {bounded: 1ms}}
steps:
  - {id: sums, from: in, key_by: [key], select: {n: count(*), total: sum(seq)}}
sinks:
  - {id: out, from: sums, file: {path: %q}}
`

// TestStateOnDisk: a job that keeps nearly all its state on disk gives the rows
// that it gives in memory, also when it is killed, goes on from a checkpoint,
// and changes from one to the other meanwhile.
func TestStateOnDisk(t *testing.T) {
	dir := t.TempDir()
	run := func(name string, crash int, backends ...string) []string {
		out := filepath.Join(dir, name+".jsonl")
		d := newStateful(t, filepath.Join(dir, name))
		for i := 0; ; i++ {
			text := fmt.Sprintf(keysJob, backends[i%len(backends)], out)
			if i < 3 && crash > 0 && d.crash(text, setting{}, crash, nil) {
				continue
			}
			o, err := d.run(text, setting{}, nil)
			if err != nil || o.Status != coordinator.Finished {
				t.Fatalf("%+v, %v\n%s", o, err, d.said)
			}
			break
		}
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		rows := strings.Split(string(text), "\n")
		slices.Sort(rows)
		return rows
	}
	want := run("memory", 0, "{backend: memory}")
	if len(want) != 60_001 {
		t.Fatalf("%d rows", len(want))
	}
	const disk = "{backend: disk, memory: 1MiB}"
	for name, got := range map[string][]string{"disk": run("disk", 0, disk), "either": run("either", 1, disk, "{backend: memory}")} {
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d rows, want %d, or they differ", name, len(got), len(want))
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "jobs", "keys", "scratch", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
