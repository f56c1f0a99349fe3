package worker

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
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
