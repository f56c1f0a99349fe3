package agent_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
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
