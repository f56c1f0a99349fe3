package graph

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// JobGraph is the stream graph with operators joined into chains. Tasks are in
// topological order.
type JobGraph struct {
	Stream      *StreamGraph
	Tasks       []*Task
	Connections []*Connection
}

// Task is a job vertex: a chain of operators that run together, one batch
// passed from one to the next by a call. The chain is a tree, since several
// operators may follow one.
type Task struct {
	ID          dataflow.TaskID // the head's id
	Links       []Link          // Links[0] is the head; a link stands after its parent
	Parallelism int
	SlotGroup   string
	Inputs      []*Connection // the head's inputs, in the order of its Node.Inputs
	Outputs     []*Connection // of all links, by link
}

// Head is the first operator of the chain, the only one with inputs from other
// tasks.
func (t *Task) Head() *Node { return t.Links[0].Node }

// Link is one operator of a chain.
type Link struct {
	Node   *Node
	Parent int // the link whose main stream it reads; -1: it is the head
}

// Connection is an edge between two tasks.
type Connection struct {
	Index    int // in JobGraph.Connections
	From, To *Task
	FromLink int            // which link of From emits
	Side     *operator.Side // nil: that link's main stream
	Input    int            // which of To's inputs it is
	Exchange Exchange
	Keys     []int
	Schema   *batch.Schema
}

// Edge is the connection's edge in the stream graph.
func (c *Connection) Edge() Edge { return c.To.Head().Inputs[c.Input] }

// Options of making a job graph.
type Options struct {
	NoChaining bool // every operator is a task of its own
}

// Chain makes the job graph of g, which has passed Check.
func Chain(g *StreamGraph, opt Options) *JobGraph {
	jg := &JobGraph{Stream: g}
	tasks := make(map[dataflow.OperatorID]*Task, len(g.Nodes))
	links := make(map[dataflow.OperatorID]int, len(g.Nodes))
	for _, n := range g.Nodes {
		if up := upstream(g, n); up != nil && !opt.NoChaining && Chainable(up, n) {
			t := tasks[up.ID]
			links[n.ID] = len(t.Links)
			t.Links = append(t.Links, Link{Node: n, Parent: links[up.ID]})
			tasks[n.ID] = t
			continue
		}
		t := &Task{ID: dataflow.TaskID(n.ID), Links: []Link{{Node: n, Parent: -1}}, Parallelism: n.Parallelism, SlotGroup: n.SlotGroup}
		tasks[n.ID] = t
		jg.Tasks = append(jg.Tasks, t)
		for i, e := range n.Inputs {
			c := &Connection{
				Index: len(jg.Connections), From: tasks[e.From], To: t, FromLink: links[e.From], Side: e.Side,
				Input: i, Exchange: e.Exchange, Keys: e.Keys, Schema: g.SchemaOf(e),
			}
			jg.Connections = append(jg.Connections, c)
			t.Inputs = append(t.Inputs, c)
		}
	}
	// Outputs by link, then in the order of the job: the order in which a task
	// numbers its writers must not depend on how the tasks were found.
	for _, t := range jg.Tasks {
		for l := range t.Links {
			for _, c := range jg.Connections {
				if c.From == t && c.FromLink == l {
					t.Outputs = append(t.Outputs, c)
				}
			}
		}
	}
	return jg
}

func upstream(g *StreamGraph, n *Node) *Node {
	if len(n.Inputs) != 1 {
		return nil
	}
	return g.Node(n.Inputs[0].From)
}

// Chainable tells whether down, which reads up, runs in up's task: down has
// exactly one input edge (so it is no union), the edge is forward, parallelism
// and slot group are equal, up is not `chain: never`, down neither never nor
// head. The edge must be a main stream: a side stream's marks follow the main
// stream's batch, which a call in the middle of that batch could not keep.
func Chainable(up, down *Node) bool {
	return len(down.Inputs) == 1 &&
		down.Inputs[0].Side == nil &&
		down.Inputs[0].Exchange == Forward &&
		up.Parallelism == down.Parallelism &&
		up.SlotGroup == down.SlotGroup &&
		up.Chaining != ChainNever &&
		down.Chaining == ChainAlways
}

// Task finds the task that runs an operator, and its place in the chain; nil if
// there is no such operator.
func (jg *JobGraph) Task(id dataflow.OperatorID) (*Task, int) {
	for _, t := range jg.Tasks {
		for i, l := range t.Links {
			if l.Node.ID == id {
				return t, i
			}
		}
	}
	return nil, -1
}

// Subtasks is the number of parallel instances of all tasks: what the
// execution graph has as vertices.
func (jg *JobGraph) Subtasks() int {
	n := 0
	for _, t := range jg.Tasks {
		n += t.Parallelism
	}
	return n
}

// Slots is how many slots the job needs with sharing: for each slot group the
// greatest parallelism of its tasks.
func (jg *JobGraph) Slots() int {
	n := 0
	for _, g := range jg.slotGroups() {
		n += g.slots
	}
	return n
}

// SlotsUnshared is how many slots it needs when each holds one subtask.
func (jg *JobGraph) SlotsUnshared() int { return jg.Subtasks() }

type slotGroup struct {
	name  string
	slots int
}

// slotGroups lists the groups in the order in which tasks name them.
func (jg *JobGraph) slotGroups() []slotGroup {
	var groups []slotGroup
next:
	for _, t := range jg.Tasks {
		for i := range groups {
			if groups[i].name == t.SlotGroup {
				groups[i].slots = max(groups[i].slots, t.Parallelism)
				continue next
			}
		}
		groups = append(groups, slotGroup{t.SlotGroup, t.Parallelism})
	}
	return groups
}
