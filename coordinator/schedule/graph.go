package schedule

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Slots are the slots of a job with the constraints of its operators and its
// own; pins and what is near are left to whoever knows them.
func Slots(x *graph.ExecutionGraph, constraints job.Constraints, placement map[dataflow.OperatorID]job.Constraints) []Slot {
	wants := make(map[dataflow.TaskID][]Want)
	for _, t := range x.Job.Tasks {
		w := Wants("", constraints)
		for _, l := range t.Links {
			w = append(w, Wants(l.Node.ID, placement[l.Node.ID])...)
		}
		wants[t.ID] = w
	}
	slots := make([]Slot, len(x.Slots))
	for i, s := range x.Slots {
		for _, id := range s.Subtasks {
			slots[i].Subtasks = append(slots[i].Subtasks, Subtask{ID: id, Wants: wants[id.Task]})
		}
	}
	return slots
}

// Wants are the constraints of an operator, or of the job if it is empty.
func Wants(operator dataflow.OperatorID, c job.Constraints) []Want {
	var w []Want
	if c.Site != "" {
		w = append(w, Want{Operator: operator, Site: mesh.Site(c.Site)})
	}
	for _, l := range c.Labels {
		w = append(w, Want{Operator: operator, Label: l.Name, Value: l.Value})
	}
	return w
}
