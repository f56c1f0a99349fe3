package graph

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// StreamGraph is the job as the user wrote it: a node for each source, step
// and sink, an edge for each `from`. Nodes are in topological order.
type StreamGraph struct {
	Job            string
	Parallelism    int
	MaxParallelism int
	Nodes          []*Node
}

// Node is one operator of the stream graph.
type Node struct {
	ID          dataflow.OperatorID
	Role        Role
	Describe    string // one line for explain: "tumbling 10s: avg_temp = avg(temp)"
	Parallelism int
	Chaining    Chaining
	SlotGroup   string // "default" unless the step says otherwise
	Inputs      []Edge
	Output      *batch.Schema // schema of the main stream; nil for sinks
	Kind        StreamKind

	// Exactly one of the three is set, by Role.
	Source   any              // a *job.Source; the agent makes the reader, the task the head of the chain
	Operator operator.Factory // a step
	Sink     any              // a *job.Sink
}

// Role tells sources, steps and sinks apart.
type Role uint8

// The roles.
const (
	SourceNode Role = iota
	StepNode
	SinkNode
)

// Chaining is what a step says about being chained.
type Chaining uint8

// The strategies of `chain:`.
const (
	ChainAlways Chaining = iota
	ChainHead            // starts a chain, others may follow
	ChainNever
)

// StreamKind is what the rows of a stream mean to each other.
type StreamKind uint8

// The kinds. A window over an upsert stream is refused.
const (
	Append StreamKind = iota // each row stands for itself
	Upsert                   // a row replaces the earlier row with its key
)

// Edge says where a node's rows come from and how they are dealt out.
type Edge struct {
	From     dataflow.OperatorID
	Side     *operator.Side // nil: the main stream
	Exchange Exchange
	Keys     []int // columns of the hash exchange
}

// Exchange is how rows get from the subtasks of one task to those of the next.
type Exchange uint8

// The exchanges.
const (
	Forward      Exchange = iota // subtask i to subtask i; equal parallelism
	Hash                         // by key group
	Rebalance                    // round robin to all
	Rescale                      // round robin within a fixed share
	Shuffle                      // at random, seeded
	BroadcastAll                 // a copy to each
	Global                       // everything to subtask 0
)
