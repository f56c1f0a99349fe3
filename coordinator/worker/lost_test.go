package worker

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A job that is elsewhere now, and of which a file is here: once an attempt.
func TestLostFiles(t *testing.T) {
	w := New(Config{Agent: coordinator.Agent{Node: "n1"}, Site: "s", Boot: 1, Timing: DefaultTiming()})
	job := func(attempt uint64, node string, sinks ...coordinator.SinkCommit) *coordinator.State {
		j := &coordinator.Job{ID: "j1", Status: coordinator.Running, Epoch: 1, Attempt: attempt, Sinks: sinks}
		j.Places = []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "a"}, Node: "n2"}, {Subtask: dataflow.SubtaskID{Task: "a", Index: 1}, Node: "n2"}}
		if node == "n1" {
			j.Places[1].Node = "n1"
		}
		return &coordinator.State{Index: 5, Jobs: map[coordinator.JobID]*coordinator.Job{"j1": j}}
	}
	granted := func(st *coordinator.State) (n int) {
		w.behind = false
		for _, f := range w.Step(st, jobmanager.Changed{All: true}, Event{State: true}) {
			if f.Lost != nil {
				n++
			}
		}
		return n
	}
	mine := coordinator.SinkCommit{Node: "n1", Target: "n1:out", Length: 5}
	for i, c := range []struct {
		st   *coordinator.State
		want int
	}{
		{job(1, "n1", mine), 0}, // it is here
		{job(2, "n2"), 0},       // nothing of it is
		{job(2, "n2", mine), 1},
		{job(2, "n2", mine), 0}, // said already
		{job(3, "n2", mine), 1},
	} {
		if got := granted(c.st); got != c.want {
			t.Errorf("%d: said %d times, want %d", i, got, c.want)
		}
	}
}

// saysLost is how often it is said that files of job j1 are here, when its state is this one.
func saysLost(w *Worker, j *coordinator.Job) (n int) {
	w.behind = false
	for _, f := range w.Step(&coordinator.State{Index: 5, Jobs: map[coordinator.JobID]*coordinator.Job{"j1": j}}, jobmanager.Changed{All: true}, Event{State: true}) {
		if f.Lost != nil {
			n++
		}
	}
	return n
}

// A job that moves away, comes home to this agent, and moves away again: each time its
// files here are to be looked at.
func TestFilesOfAJobThatMovesTwice(t *testing.T) {
	w := New(Config{Agent: coordinator.Agent{Node: "n1"}, Site: "s", Boot: 1, Timing: DefaultTiming()})
	job := func(epoch, attempt uint64, st coordinator.Status) *coordinator.Job {
		j := &coordinator.Job{ID: "j1", Status: st, Epoch: epoch, Attempt: attempt, Sinks: []coordinator.SinkCommit{{Node: "n1", Target: "n1:out", Length: 5}}}
		if !st.Ended() {
			j.Places = []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "a"}, Node: "n1"}}
		}
		return j
	}
	for epoch := uint64(1); epoch < 6; epoch += 2 {
		if n := saysLost(w, job(epoch, epoch, coordinator.Restoring)); n != 0 {
			t.Errorf("epoch %d: it is here, and that was said %d times", epoch, n)
		}
		for i, want := range []int{1, 0} {
			if n := saysLost(w, job(epoch+1, epoch, coordinator.Moved)); n != want {
				t.Errorf("epoch %d, look %d: said %d times, want %d", epoch, i, n, want)
			}
		}
		ref := coordinator.AttemptRef{Job: "j1", Token: dataflow.FencingToken{Epoch: epoch, Site: "s", Attempt: epoch}}
		w.Step(&coordinator.State{Index: 5, Jobs: map[coordinator.JobID]*coordinator.Job{"j1": job(epoch+1, epoch, coordinator.Moved)}}, jobmanager.Changed{}, Event{Attempt: &AttemptEvent{Closed: &ref}})
	}
}

// Less of a file is on record than was: that is said wherever the job runs.
func TestFilesOfWhichLessCounts(t *testing.T) {
	w := New(Config{Agent: coordinator.Agent{Node: "n1"}, Site: "s", Boot: 1, Timing: DefaultTiming()})
	for i, c := range []struct {
		attempt uint64
		place   mesh.NodeID
		length  int64
		want    int
	}{
		{1, "n1", 100, 0},
		{1, "n1", 200, 0},
		{1, "n1", 70, 1},
		{1, "n1", 70, 0}, // said already
		{1, "n1", 90, 0},
		{2, "n2", 90, 1}, // it is elsewhere
		{2, "n2", 60, 1},
		{2, "n2", 60, 0},
	} {
		j := &coordinator.Job{ID: "j1", Status: coordinator.Running, Epoch: 1, Attempt: c.attempt, Places: []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "a"}, Node: c.place}}}
		j.Sinks = []coordinator.SinkCommit{{Node: "n1", Target: "n1:out", Length: c.length}, {Node: "n2", Target: "n2:out", Length: int64(100 - i)}}
		if n := saysLost(w, j); n != c.want {
			t.Errorf("%d: said %d times, want %d", i, n, c.want)
		}
	}
}
