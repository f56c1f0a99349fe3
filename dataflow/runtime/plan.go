package runtime

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/exchange"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Connectors makes what a plan reads from and writes to. It is asked while the
// plan is made, and opens nothing before the functions it returns are called.
type Connectors interface {
	// Source says how a source's records become rows, and how one of its
	// subtasks is read: exactly one of the two functions is set.
	Source(n *graph.Node, subtask int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error)
	// Sink is the writer of one of a sink's subtasks.
	Sink(n *graph.Node, subtask int, in *batch.Schema) (func() (sensors.Writer, error), error)
}

// NewPlan turns an execution graph into a plan for one process.
func NewPlan(x *graph.ExecutionGraph, c Connectors) (Plan, error) {
	p := Plan{Job: x.Job.Stream.Job}
	first := make(map[*graph.Task]int) // where a task's subtasks begin
	for i := range x.Subtasks {
		if st := &x.Subtasks[i]; st.ID.Index == 0 {
			first[st.Task] = i
		}
	}
	for i := range x.Subtasks {
		st, err := planSubtask(x, &x.Subtasks[i], first, c)
		if err != nil {
			return Plan{}, err
		}
		p.Subtasks = append(p.Subtasks, st)
	}
	return p, nil
}

func planSubtask(x *graph.ExecutionGraph, xs *graph.Subtask, first map[*graph.Task]int, c Connectors) (Subtask, error) {
	t, i := xs.Task, xs.ID.Index
	st := Subtask{
		Config: task.Config{
			ID: xs.ID, Parallelism: t.Parallelism, MaxParallelism: x.Job.Stream.MaxParallelism, Channels: inputChannels(t, i),
			Edges: edges(t, i),
		},
		Writers: make([]func() (sensors.Writer, error), len(t.Links)),
	}
	for l, link := range t.Links {
		lc := task.LinkConfig{ID: link.Node.ID, Parent: link.Parent, Factory: link.Node.Operator, Sink: link.Node.Role == graph.SinkNode}
		st.Config.Links = append(st.Config.Links, lc)
		var err error
		switch link.Node.Role {
		case graph.SourceNode:
			st.Config.Source, st.Reader, st.Columns, err = c.Source(link.Node, i)
		case graph.SinkNode:
			st.Writers[l], err = c.Sink(link.Node, i, x.Job.Stream.SchemaOf(link.Node.Inputs[0]))
		}
		if err != nil {
			return Subtask{}, fmt.Errorf("%s %q: %w", link.Node.Role, link.Node.ID, err)
		}
	}
	for _, conn := range t.Outputs {
		out, targets := planOutput(x, conn, i, first)
		st.Config.Outputs = append(st.Config.Outputs, out)
		st.Targets = append(st.Targets, targets)
	}
	return st, nil
}

// edges are the inputs of subtask i of t. A stream that is read twice has two
// names: its own and one with a number.
func edges(t *graph.Task, i int) []task.Edge {
	var all []task.Edge
	times := make(map[string]int)
	for _, c := range t.Inputs {
		first, n := c.Sources(i)
		e := task.Edge{Stream: c.Edge().Stream(), First: first, Channels: n, Of: c.From.Parallelism, Schema: c.Schema}
		if times[e.Stream]++; times[e.Stream] > 1 {
			e.Stream += fmt.Sprintf("#%d", times[e.Stream])
		}
		all = append(all, e)
	}
	return all
}

// inputChannels is the number of channels into subtask i of t.
func inputChannels(t *graph.Task, i int) int {
	n := 0
	for _, c := range t.Inputs {
		_, k := c.Sources(i)
		n += k
	}
	return n
}

func planOutput(x *graph.ExecutionGraph, c *graph.Connection, i int, first map[*graph.Task]int) (task.OutputConfig, []Target) {
	to, n := c.Targets(i)
	var targets []Target
	for d := to; d < to+n; d++ {
		targets = append(targets, Target{Subtask: first[c.To] + d, Channel: channelOf(c, i, d)})
	}
	out := task.OutputConfig{Link: c.FromLink, Channels: n, Partitioner: exchange.New(exchange.Config{
		Exchange: c.Exchange, Channels: n, Schema: c.Schema, Keys: c.Keys, MaxParallelism: x.Job.Stream.MaxParallelism, Subtask: i,
	})}
	if c.Side != nil {
		out.Side, out.SideStream = true, *c.Side
	}
	return out, targets
}

// channelOf numbers the channels into a subtask: input by input, and within an
// input by the sender.
func channelOf(c *graph.Connection, from, to int) int {
	ch := 0
	for _, in := range c.To.Inputs[:c.Input] {
		_, n := in.Sources(to)
		ch += n
	}
	firstSource, _ := c.Sources(to)
	return ch + from - firstSource
}
