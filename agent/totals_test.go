package agent_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// The totals of a job that was started again in its process are those since
// then, and say so: its counters begin with its attempt.
func TestTotalsAreSinceTheLastRestart(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	put(t, in, events("e1 e2 e3 e4 e5 e6"))
	text := strings.Replace(fmt.Sprintf(lineJob, "again", in, filepath.Join(dir, "out.jsonl")), "strategy: none", "strategy: fixed-delay, attempts: 1, delay: 1ms", 1)
	d := newStateful(t, filepath.Join(dir, "state"))
	broken := false
	g := &gate{stops: []int{4}, more: make(chan struct{}), breaks: func(n int) error {
		if n == 5 && !broken {
			broken = true
			return errBroken
		}
		return nil
	}}
	local, state := d.begin(text, setting{batchRows: 1}, func(o *agent.LocalOptions) { o.Checkpoints, o.Wrap = g.hear, g.wrap })
	if err := local.Run(context.Background()); err != nil {
		t.Fatalf("%v\n%s", err, d.said)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	// The checkpoint for which the gate waits has the first four.
	if s := local.Totals(); s.Restarts != 1 || s.In != 2 || s.Out != 2 {
		t.Errorf("%+v, want 2 rows since 1 restart", s)
	}
}

// A job that has not run has heard of no time.
func TestTotalsOfAJobThatNeverRan(t *testing.T) {
	dir := t.TempDir()
	d := newStateful(t, filepath.Join(dir, "state"))
	local, state := d.begin(fmt.Sprintf(countJob, 1, filepath.Join(dir, "out.jsonl")), setting{}, nil)
	if s := local.Totals(); s.Watermark != dataflow.MinTime {
		t.Errorf("%+v", s)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
}
