package agent_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// drainedOnce drains a job after so many reads, and fails it between the two
// checkpoints with which it would have ended.
func (d *stateful) drainedOnce(text, job string, reads int) {
	d.Helper()
	disk := &manifestDisk{FS: d.disk}
	d.fs = disk
	defer func() { d.fs = nil }()
	g := &gate{crashAt: reads, more: make(chan struct{})}
	var state *agent.State
	var local *agent.Local
	local, state = d.begin(text, setting{batchRows: 1}, func(o *agent.LocalOptions) {
		o.Wrap = g.wrap
		o.Checkpoints = func(c durable.Completed) {
			m, err := state.Store().Manifest(job + "/" + c.Name)
			if err != nil {
				d.Errorf("%v", err)
			}
			disk.mu.Lock()
			disk.refuse = disk.refuse || m.Drained
			disk.mu.Unlock()
		}
	})
	g.crash = func() { local.Drain() }
	if err := local.Run(context.Background()); err == nil || local.Outcome().Status != coordinator.Failed {
		d.Fatalf("%+v, %v\n%s", local.Outcome(), err, d.said)
	}
	if err := state.Close(); err != nil {
		d.Errorf("%v", err)
	}
}

// E65: a job that was drained, and failed before its last checkpoint, does its last
// commit when it is started again, and has ended then as one that was drained. What
// there is to read by now, of what it has begun to read or new, is not read.
func TestE65_ADrainThatFailedIsEnded(t *testing.T) {
	for name, c := range map[string]struct {
		job, in, column string
		want            []int64
	}{
		"windows":        {sumJob, "in.jsonl", "total", []int64{5, 12}},
		"rows":           {lineJob, "in.jsonl", "v", []int64{1, 4, 12}},
		"rows of a glob": {lineJob, "in*.jsonl", "v", []int64{1, 4, 12}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "out.jsonl")
			put(t, filepath.Join(dir, "in.jsonl"), events("e1 e4 e12 e8 e15 w9 w19 e21"))
			text := fmt.Sprintf(c.job, "e65", filepath.Join(dir, c.in), out)
			d := newStateful(t, filepath.Join(dir, "state"))
			d.drainedOnce(text, "e65", 3)
			put(t, filepath.Join(dir, "in2.jsonl"), events("e31 e32 e33"))
			o, err := d.run(text, setting{batchRows: 1}, nil)
			if err != nil || o.Status != coordinator.Stopped || !o.Drained || o.Before || o.Savepoint == "" {
				t.Fatalf("%+v, %v\n%s", o, err, d.said)
			}
			if got := values(t, out, c.column); !slices.Equal(got, c.want) {
				t.Errorf("%v came out, want %v\n%s", got, c.want, d.said)
			}
			if _, err := d.run(text, setting{}, nil); !errors.Is(err, agent.ErrDrained) {
				t.Errorf("started once more: %v", err)
			}
		})
	}
}
