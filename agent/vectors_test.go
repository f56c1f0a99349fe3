package agent_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/vectors"
)

// vectorFile holds the numbered examples.
const vectorFile = "../dataflow/window/testdata/semantics-vectors.json"

func cases(t *testing.T) []vectors.Case {
	t.Helper()
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	all, err := vectors.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 24 {
		t.Fatalf("%d examples of windows, there are 24", len(all))
	}
	return all
}

// TestVectors runs E01 to E34 as whole jobs, at each parallelism and batch
// size: equal rows, in equal order for each key, and equal to the example.
func TestVectors(t *testing.T) {
	for _, c := range cases(t) {
		t.Run(c.ID, func(t *testing.T) {
			if c.Skip != "" {
				t.Skip(c.Skip)
			}
			in := write(t, "in.jsonl", c.Input)
			text := c.YAML(in, "stdout: {timestamps: us}", "stdout: {timestamps: us}")
			for _, s := range settings() {
				r := run(t, text, s)
				if err := c.Check(r.rows("window_start", true), r.rows("window_start", false)); err != nil {
					t.Errorf("%v: %v", s, err)
				}
				if err := totals(&c, r); err != nil {
					t.Errorf("%v: %v", s, err)
				}
			}
		})
	}
}

// totals checks that every row was one of what it can be.
func totals(c *vectors.Case, r *ran) error {
	got := [...]int64{r.totals.In, r.totals.Markers, r.totals.Late, r.totals.NoWindow, r.totals.Rejected, r.operators["w"].In}
	want := [...]int64{c.Rows, c.Markers, int64(len(c.Late)), c.NoWindow, 0, c.Rows - c.Markers}
	if got != want {
		return fmt.Errorf("rows in, markers, late, in no window, rejected, into the window: got %v, want %v", got, want)
	}
	return nil
}
