package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/vectors"
)

// TestRunVectors runs E01 to E34 as a user would: job, rows and results are
// files; at each parallelism and batch size.
func TestRunVectors(t *testing.T) {
	text, err := os.ReadFile("../../dataflow/window/testdata/semantics-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := vectors.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.ID, func(t *testing.T) {
			if c.Skip != "" {
				t.Skip(c.Skip)
			}
			dir := t.TempDir()
			out, late := filepath.Join(dir, "out.jsonl"), filepath.Join(dir, "late.jsonl")
			sink := "file: {path: %q, timestamps: us}"
			yaml := file(t, "job.yaml", c.YAML(file(t, "in.jsonl", c.Input), fmt.Sprintf(sink, out), fmt.Sprintf(sink, late)))
			for _, p := range []string{"1", "2", "5"} {
				for _, n := range []string{"1", "7", "4096"} {
					r := tidemark(t, "", "run", yaml, "--parallelism", p, "--batch-rows", n, "--overwrite")
					r.want(t, exitDone, fmt.Sprintf("vector-%s: rows in %d, out %d, late %d, rejected 0, markers %d, filtered 0",
						c.ID, c.Rows, len(c.Out)+len(c.Late), len(c.Late), c.Markers))
					if err := c.Check(linesOf(t, out), linesOf(t, late)); err != nil {
						t.Errorf("parallelism %s, batches of %s: %v", p, n, err)
					}
					if none := fmt.Sprintf("in no window %d", c.NoWindow); (c.NoWindow > 0) != strings.Contains(r.err, none) {
						t.Errorf("parallelism %s, batches of %s: %s", p, n, r.err)
					}
				}
			}
		})
	}
}
