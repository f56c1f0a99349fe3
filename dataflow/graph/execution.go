package graph

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// ExecutionGraph is the job graph split into subtasks. Channels are not listed,
// there can be a million: Targets and Sources of a Connection name them.
type ExecutionGraph struct {
	Job      *JobGraph
	Subtasks []Subtask // by task, then index
	Slots    []Slot
}

// Subtask is one parallel instance of a task.
type Subtask struct {
	ID        dataflow.SubtaskID
	Task      *Task
	KeyGroups dataflow.KeyGroupRange // what it owns of keyed state
}

// Slot is what one slot holds: at most one subtask of each task of its group.
type Slot struct {
	Group    string
	Index    int
	Subtasks []dataflow.SubtaskID
}

// Expand makes the execution graph of a job graph.
func Expand(jg *JobGraph) *ExecutionGraph {
	x := &ExecutionGraph{Job: jg}
	for _, t := range jg.Tasks {
		for i := range t.Parallelism {
			x.Subtasks = append(x.Subtasks, Subtask{
				ID:        dataflow.SubtaskID{Task: t.ID, Index: i},
				Task:      t,
				KeyGroups: dataflow.RangeOf(i, t.Parallelism, jg.Stream.MaxParallelism),
			})
		}
	}
	for _, g := range jg.slotGroups() {
		for i := range g.slots {
			s := Slot{Group: g.name, Index: i}
			for _, t := range jg.Tasks {
				if t.SlotGroup == g.name && i < t.Parallelism {
					s.Subtasks = append(s.Subtasks, dataflow.SubtaskID{Task: t.ID, Index: i})
				}
			}
			x.Slots = append(x.Slots, s)
		}
	}
	return x
}

// Channels is the number of channels between subtasks.
func (x *ExecutionGraph) Channels() int {
	n := 0
	for _, c := range x.Job.Connections {
		n += c.Channels()
	}
	return n
}

// Targets is the run of subtasks of To that subtask from of From has a channel
// to: first, first+1, … n of them. Only forward and rescale leave any out; all
// other exchanges connect everything, since marks go to every channel.
func (c *Connection) Targets(from int) (first, n int) {
	up, down := c.From.Parallelism, c.To.Parallelism
	switch c.Exchange {
	case Forward:
		return from, 1
	case Rescale:
		if up >= down {
			return from * down / up, 1
		}
		// Downstream j is fed by j*up/down: those j with that value.
		first = (from*down + up - 1) / up
		return first, ((from+1)*down+up-1)/up - first
	}
	return 0, down
}

// Sources is the run of subtasks of From that subtask to of To has a channel
// from; the mirror image of Targets.
func (c *Connection) Sources(to int) (first, n int) {
	up, down := c.From.Parallelism, c.To.Parallelism
	switch c.Exchange {
	case Forward:
		return to, 1
	case Rescale:
		if up < down {
			return to * up / down, 1
		}
		first = (to*up + down - 1) / down
		return first, ((to+1)*up+down-1)/down - first
	}
	return 0, up
}

// Channels is the number of channels of the connection.
func (c *Connection) Channels() int {
	up, down := c.From.Parallelism, c.To.Parallelism
	switch c.Exchange {
	case Forward:
		return up
	case Rescale:
		return max(up, down)
	}
	return up * down
}
