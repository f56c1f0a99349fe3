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

// Nothing is left of a chain when it is merged, and meanwhile a delta has come:
// the chain still begins with a whole part, as manifests want it.
func TestChainOfWhichNothingIsLeft(t *testing.T) {
	state, err := Open(filepath.Join(t.TempDir(), "state"), storetest.New())
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	job, err := state.OpenJob("j")
	if err != nil {
		t.Fatal(err)
	}
	sub := dataflow.SubtaskID{Task: "t"}
	table := runtime.TableOf{Operator: "op", StateTable: operator.StateTable{Name: "rows", Schema: readColumns, Identity: 2}}
	c := NewCheckpointer(CheckpointerOptions{
		Job: job, MaxParallelism: 1, Clock: sensors.Wall{}, Events: func(s string) { t.Error(s) },
		Config: checkpoint.Config{Subtasks: []dataflow.SubtaskID{sub}},
		Tables: map[dataflow.SubtaskID][]runtime.TableOf{sub: {table}}, Parallelism: map[dataflow.OperatorID]int{"op": 1},
	})
	take := func(full bool, rows ...row) {
		t.Helper()
		b := batchOf(rows, !full)
		s := &share{taken: runtime.SnapshotTaken{
			Subtask: sub, Barrier: dataflow.Barrier{Full: full}, State: []task.StateRows{{Operator: "op", Table: "rows", Batch: b}},
		}}
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
	take(false, row{key: "b"}, row{key: "a", gone: true})
	for _, f := range c.take() {
		f()
	}
	if parts := c.shares.chains[place{"op", "rows", 0}].parts; len(parts) > 2 {
		t.Fatalf("nothing was merged: %d parts", len(parts))
	}
	m, err := c.manifest(dataflow.CheckpointID{Counter: 1}, checkpoint.What{Checkpoint: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := job.checkpoints.Put(m); err != nil {
		t.Error(err)
	}
}
