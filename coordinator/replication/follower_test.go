package replication_test

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// What one job brings about looks at that job, however many are kept.
func TestAStepLooksAtItsJobs(t *testing.T) {
	var jobs []coordinator.JobID
	all, looks := make(map[coordinator.JobID]*coordinator.Replica), 0
	for i := range 1000 {
		id := coordinator.JobID(fmt.Sprintf("j%04d-a", i))
		jobs = append(jobs, id)
		all[id] = &coordinator.Replica{From: "a", Epoch: 1, Job: coordinator.MovingJob{ID: id}, Next: &coordinator.Snapshot{Name: "c1"}}
	}
	records := replication.Records{
		Of: func(id coordinator.JobID) replication.Record {
			looks++
			return replication.Record{Replica: all[id], Copied: id == jobs[7], Whole: true}
		},
		Kept: func() []coordinator.JobID { return jobs },
	}
	f := replication.NewFollower(replication.Config{}, "b", "a")
	f.Step(records, replication.Event{All: true}) // it asks, and waits for an answer
	for name, e := range map[string]replication.Event{"a tick": {}, "a job": {Jobs: jobs[:1]}, "another one": {Jobs: jobs[7:8]}, "refused": {Rejected: &replication.Rejected{Job: jobs[7]}}} {
		looks, e.Now = 0, 1
		if f.Step(records, e); looks > 1 {
			t.Errorf("%s: %d records are looked at", name, looks)
		}
	}
	looks = 0
	if got := f.Step(records, replication.Event{Now: dataflow.Time(3 * dataflow.Second)}); looks != 1 || len(got) != 1 || got[0].Propose.ReplicaAdvanced.Job != jobs[7] {
		t.Errorf("what was refused is not tried again alone: %d records, %+v", looks, got)
	}
}
