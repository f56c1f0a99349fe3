package worker

import (
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A savepoint and the checkpoint behind it come in one step: what is kept of savepoints is
// said first. That of the job lets go what is held for checkpoints up to it, which the
// savepoint's manifest must name by then.
func TestSavepointsAreKeptFirst(t *testing.T) {
	b := newBench(t)
	b.step(Event{Leader: ptr(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: ptr(true)}, "hello", "beat 1")
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: dataflow.Second, Index: 10}}), "kept 0", "lease 1002")
	b.st.Index = 12
	b.st.Savepoints["sp"] = &coordinator.Snapshot{Name: "sp", ID: dataflow.CheckpointID{Counter: 4}}
	b.st.Jobs["j"] = &coordinator.Job{ID: "j", Status: coordinator.Stopped, Checkpoints: []*coordinator.Snapshot{{Name: "c5", ID: dataflow.CheckpointID{Counter: 5}}}}
	b.step(Event{State: true}, "kept 1", "kept j1")
}

// Of what is kept all but the last of a step says that more follows: nothing is collected
// in between. Here a savepoint is deleted, and a checkpoint that is new names its parts.
func TestMoreIsKept(t *testing.T) {
	b := newBench(t)
	b.st.Savepoints["sp"] = &coordinator.Snapshot{Name: "sp"}
	b.step(Event{Leader: ptr(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: ptr(true)}, "hello", "beat 1")
	b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Lease: dataflow.Second, Index: 10}}), "kept 1", "lease 1002")
	delete(b.st.Savepoints, "sp")
	for _, id := range []coordinator.JobID{"i", "j"} {
		b.st.Jobs[id] = &coordinator.Job{ID: id, Status: coordinator.Stopped, Checkpoints: []*coordinator.Snapshot{{Name: "c5"}}}
	}
	var got []bool
	for _, f := range b.w.Step(b.st, jobmanager.Changed{All: true}, Event{Now: b.now, State: true}) {
		got = append(got, f.Kept.More)
	}
	if want := []bool{true, true, false}; !slices.Equal(got, want) {
		t.Errorf("more follows: %v, want %v", got, want)
	}
}
