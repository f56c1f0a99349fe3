package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/sensors/file"
)

// What a start cannot even read is told at once: it would fail again each time.
func TestADamagedAttemptFileIsToldAtOnce(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "out.jsonl")
	put(t, in, events("e1 e2 e3"))
	text := strings.Replace(fmt.Sprintf(sumJob, "attempts", in, out), "strategy: none", "strategy: fixed-delay, attempts: 2, delay: 1ms", 1)
	d := newStateful(t, filepath.Join(dir, "state"))
	if o, err := d.run(text, setting{}, nil); err != nil || o.Status != coordinator.Finished {
		t.Fatalf("%+v, %v", o, err)
	}
	for _, f := range d.disk.Files() {
		switch {
		case filepath.Base(f) == "attempt":
			if err := d.disk.Damage(f, func([]byte) []byte { return []byte("hello") }); err != nil {
				t.Fatal(err)
			}
		case strings.HasSuffix(f, ".manifest"):
			if err := d.disk.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if o, err := d.run(text, setting{}, nil); err == nil || !strings.Contains(err.Error(), "can be deleted") || o.Status != coordinator.Failed || o.Restarts != 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

// A file that is shorter than the job has read is told at the first start: no
// waiting mends it.
func TestAFileThatWasChangedIsToldAtOnce(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	put(t, in, events("e1 e2 e3 e4 e5 e6"))
	text := fmt.Sprintf(lineJob, "changed", in, filepath.Join(dir, "out.jsonl"))
	d := newStateful(t, filepath.Join(dir, "state"))
	g := &gate{stops: []int{4}, more: make(chan struct{}), breaks: func(n int) error {
		if n == 5 { // a checkpoint has the first four
			return errBroken
		}
		return nil
	}}
	local, state := d.begin(text, setting{batchRows: 1}, func(o *agent.LocalOptions) { o.Checkpoints, o.Wrap = g.hear, g.wrap })
	if err := local.Run(context.Background()); !errors.Is(err, errBroken) {
		t.Fatalf("%v\n%s", err, d.said)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(in, 3); err != nil {
		t.Fatal(err)
	}
	text = strings.Replace(text, "strategy: none", "strategy: fixed-delay, attempts: 2, delay: 1ms", 1)
	o, err := d.run(text, setting{}, nil)
	if !errors.Is(err, file.ErrChanged) || o.Status != coordinator.Failed || o.Restarts != 0 {
		t.Errorf("%+v, %v", o, err)
	}
}
