package worker

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// TestReplicaIsKept: what is kept of another site's job is kept here, once each
// name, and copied as other snapshots are; when it is dropped it is let go.
func TestReplicaIsKept(t *testing.T) {
	b := newBench(t)
	snap := func(name string, n uint64) *coordinator.Snapshot {
		return &coordinator.Snapshot{Name: name, Job: "j9-b", ID: dataflow.CheckpointID{Counter: n}}
	}
	first, next := snap("c1", 1), snap("c2", 2)
	b.st.Level, b.st.Replicas = coordinator.SitesLevel, map[coordinator.JobID]*coordinator.Replica{"j9-b": {Next: first}}
	b.step(Event{Leader: ptr(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: ptr(true)}, "hello", "beat 1")
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Granted: &coordinator.Granted{Seq: 1, Lease: 1000, Index: 10}}}, "kept 0", "kept j9-b1")
	order := &coordinator.Copy{Order: 3, Index: 10, Name: "c1", Job: "j9-b"}
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Copy: order}}, "copy 1 of c1")
	b.st.Replicas["j9-b"] = &coordinator.Replica{Snapshot: first, Next: next}
	b.step(Event{State: true}, "kept j9-b2")
	b.st.Jobs["j9-b"] = &coordinator.Job{ID: "j9-b", Status: coordinator.Stopped, Checkpoints: []*coordinator.Snapshot{first}}
	b.step(Event{State: true}) // one of each name
	delete(b.st.Replicas, "j9-b")
	b.step(Event{State: true}, "kept j9-b1")
	delete(b.st.Jobs, "j9-b")
	b.step(Event{State: true}, "kept j9-b0")
	b.step(Event{State: true})
}

// A change of a replica alone is seen.
func TestReplicaChanges(t *testing.T) {
	b := newBench(t)
	b.step(Event{Leader: ptr(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: ptr(true)}, "hello", "beat 1")
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Granted: &coordinator.Granted{Seq: 1, Lease: 1000, Index: 10}}}, "kept 0")
	b.st.Replicas = map[coordinator.JobID]*coordinator.Replica{"j9-b": {Next: &coordinator.Snapshot{Name: "c1"}}}
	for _, f := range b.w.Step(b.st, jobmanager.Changed{Names: []jobmanager.Change{{What: jobmanager.Replica, Name: "j9-b"}}}, Event{Now: b.now, State: true}) {
		if f.Kept != nil && f.Kept.Job == "j9-b" {
			return
		}
	}
	t.Error("nobody was told what is kept")
}
