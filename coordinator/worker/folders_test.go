package worker

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// foldersBench is a worker of a process that found folders on its disk.
func foldersBench(t *testing.T, folders ...string) *bench {
	b := newBench(t)
	b.w = New(Config{Agent: coordinator.Agent{Node: "n1", Name: "n1"}, Site: "s", Boot: 2, Timing: DefaultTiming(), Folders: folders})
	b.st.Level = coordinator.SitesLevel
	return b
}

// A job was forgotten while the agent was off: that nothing is kept of it is said as soon
// as the state here is as new as the leader's, once. What the site has, and what is no
// job's, stays.
func TestFoldersOfForgottenJobs(t *testing.T) {
	b := foldersBench(t, "j7", "j8-b", "j9-s", "j10-b", "counts", "j", "j07", "j7-", "7", "")
	b.st.Jobs["j9-s"] = &coordinator.Job{ID: "j9-s", Status: coordinator.Stopped}
	b.st.Replicas = map[coordinator.JobID]*coordinator.Replica{"j10-b": {Next: &coordinator.Snapshot{Name: "c1"}}}
	b.step(Event{State: true})
	b.step(Event{Leader: new(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: new(true)}, "hello", "beat 1")
	granted := func(seq, index uint64) Event {
		return b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: seq, Index: index}})
	}
	b.step(granted(1, 11)) // an old state: the job may be here by now
	b.st.Index = 11
	b.step(Event{State: true}, "kept 0", "kept j10-b1", "kept j9-s0", "kept j70", "kept j8-b0")
	b.step(Event{State: true})
	delete(b.st.Jobs, "j9-s")
	delete(b.st.Replicas, "j10-b")
	b.step(Event{State: true}, "kept j10-b0", "kept j9-s0")
	b.step(Event{State: true})
}

// While a job is on its way here nothing of it is let go, also where nobody says that
// the move has changed anything of the job.
func TestFolderOfAJobThatComesBack(t *testing.T) {
	for what, ends := range map[string]func(b *bench){
		"it is dropped":   func(b *bench) { b.st.Moves.Arrivals["m40-b"].Phase = coordinator.ArrivalDropped },
		"it is forgotten": func(b *bench) { delete(b.st.Moves.Arrivals, "m40-b") },
		"it came, and was forgotten": func(b *bench) {
			b.st.Moves.Arrivals["m40-b"].Phase = coordinator.ArrivalActive
		},
	} {
		t.Run(what, func(t *testing.T) {
			b := foldersBench(t, "j7-b")
			arr := &coordinator.Arrival{ID: "m40-b", From: "b", Epoch: 2, Phase: coordinator.ArrivalReceiving, Job: coordinator.MovingJob{ID: "j7-b"}}
			b.st.Moves.Arrivals = map[coordinator.MoveID]*coordinator.Arrival{"m40-b": arr}
			b.step(Event{Leader: new(mesh.NodeID("n2"))}, "connect n2")
			b.step(Event{Connected: new(true)}, "hello", "beat 1")
			b.step(b.tell(5, coordinator.ToAgent{Granted: &coordinator.Granted{Seq: 1, Index: 10, Lease: dataflow.Second}}), "kept 0", "lease 1002")
			arr.Phase = coordinator.ArrivalPrepared
			b.step(Event{State: true})
			ends(b)
			b.now++
			var got []string
			for _, f := range b.w.Step(b.st, jobmanager.Changed{Names: []jobmanager.Change{{What: jobmanager.Move, Name: "m40-b"}}}, Event{Now: b.now, State: true}) {
				got = append(got, short(f))
			}
			if len(got) != 1 || got[0] != "kept j7-b0" {
				t.Errorf("%q", got)
			}
		})
	}
}
