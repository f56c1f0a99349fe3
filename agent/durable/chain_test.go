package durable

import (
	"path/filepath"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// mergedToNothing is a chain of deltas of which nothing is left, whose merge has ended
// and was not heard yet. take stores a share.
func mergedToNothing(t *testing.T) (c *Checkpointer, sub dataflow.SubtaskID, take func(full bool, rows ...row)) {
	t.Helper()
	state, err := Open(filepath.Join(t.TempDir(), "state"), storetest.New())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	job, err := state.OpenJob("j")
	if err != nil {
		t.Fatal(err)
	}
	sub = dataflow.SubtaskID{Task: "t"}
	table := runtime.TableOf{Operator: "op", StateTable: operator.StateTable{Name: "rows", Schema: readColumns, Identity: 2}}
	c = NewCheckpointer(CheckpointerOptions{
		Job: job, MaxParallelism: 1, Clock: sensors.Wall{}, Events: func(s string) { t.Error(s) },
		Config: checkpoint.Config{Subtasks: []dataflow.SubtaskID{sub}},
		Tables: map[dataflow.SubtaskID][]runtime.TableOf{sub: {table}}, Parallelism: map[dataflow.OperatorID]int{"op": 1},
	})
	c.shares.o.Stored = func(s Stored) { // nobody decides here
		if s.Err != nil {
			t.Error(s.Err)
		}
	}
	take = func(full bool, rows ...row) {
		t.Helper()
		s := &share{taken: snapshot(sub, full, rows...)}
		s.parts = c.shares.partsOf(s)
		if c.shares.store(s); s.err != nil || c.shares.link(s) {
			t.Fatal(s.err)
		}
	}
	take(true, row{key: "a"})
	take(false, row{key: "a", gone: true})
	take(false, row{key: "b"})
	take(false, row{key: "b", gone: true})
	c.shares.Merge()
	c.shares.work.Wait()
	return c, sub, take
}

// snapshot is what a subtask hands over at a barrier.
func snapshot(sub dataflow.SubtaskID, full bool, rows ...row) runtime.SnapshotTaken {
	return runtime.SnapshotTaken{
		Subtask: sub, Barrier: dataflow.Barrier{Full: full}, State: []task.StateRows{{Operator: "op", Table: "rows", Batch: batchOf(rows, !full)}},
	}
}

// hear does what was posted.
func hear(c *Checkpointer) {
	for _, f := range c.take() {
		f()
	}
}

// saves makes a checkpoint of the chains.
func saves(t *testing.T, c *Checkpointer, counter uint64) {
	t.Helper()
	m, err := c.manifest(dataflow.CheckpointID{Counter: counter}, checkpoint.What{Checkpoint: true})
	if err == nil {
		err = c.o.Job.checkpoints.Put(m)
	}
	if err != nil {
		t.Errorf("checkpoint %d: %v", counter, err)
	}
}

// Nothing is left of a chain when it is merged, and meanwhile a delta has come:
// the chain still begins with a whole part, as manifests want it.
func TestChainOfWhichNothingIsLeft(t *testing.T) {
	c, _, take := mergedToNothing(t)
	take(false, row{key: "b"}, row{key: "a", gone: true})
	hear(c)
	if parts := c.shares.chains[place{"op", "rows", 0}].parts; len(parts) > 2 {
		t.Fatalf("nothing was merged: %d parts", len(parts))
	}
	saves(t, c, 1)
}

// The same, and the delta is only being stored when the merge is heard of: it is a
// delta already, and needs the part before it.
func TestChainOfWhichNothingIsLeftWhileADeltaIsStored(t *testing.T) {
	c, sub, take := mergedToNothing(t)
	at := place{"op", "rows", 0}
	c.shares.Take(snapshot(sub, false, row{key: "b"}, row{key: "a", gone: true}))
	hear(c) // first the merge
	c.shares.work.Wait()
	hear(c)
	if parts := c.shares.chains[at].parts; len(parts) != 2 || parts[0].Delta || !parts[1].Delta {
		t.Errorf("the chain is %v", parts)
	}
	saves(t, c, 1)
	take(false, row{key: "c"})
	saves(t, c, 2)
}

// Nothing is left of a chain, and nothing is being stored: it has no part any more.
func TestChainOfWhichNothingIsLeftGoes(t *testing.T) {
	c, _, take := mergedToNothing(t)
	hear(c)
	if parts := c.shares.chains[place{"op", "rows", 0}].parts; len(parts) > 0 {
		t.Errorf("the chain is %v", parts)
	}
	take(false, row{key: "b"})
	saves(t, c, 1)
}
