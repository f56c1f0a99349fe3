package graph

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// StreamGraph is the job as the user wrote it: a node for each source, step
// and sink, an edge for each `from`. Nodes are in topological order.
type StreamGraph struct {
	Job            string
	Parallelism    int
	MaxParallelism int  // key groups
	MaxNamed       bool // the job names them: what was saved must have as many
	Nodes          []*Node
}

// Node is one operator of the stream graph.
type Node struct {
	ID          dataflow.OperatorID
	Was         dataflow.OperatorID // the id it had when its state was saved, if it has been renamed
	Role        Role
	Describe    string // one line for explain: "tumbling 10s: avg_temp = avg(temp)"
	Parallelism int
	Chaining    Chaining
	SlotGroup   string // DefaultSlotGroup unless the step says otherwise
	Inputs      []Edge
	Output      *batch.Schema // schema of the main stream; nil for sinks
	Kind        StreamKind

	// Exactly one of the three is set, by Role.
	Source   Source           // the agent makes the reader from it, the task the head of the chain
	Operator operator.Factory // a step
	Sink     Sink             // the agent makes the writer from it
}

// DefaultSlotGroup is the slot group of whatever names none.
const DefaultSlotGroup = "default"

// Source is what a source node says to the graph about itself. Whoever builds
// the reader knows the concrete type (*job.Source, or one of a test's own).
type Source interface {
	Connector() string // "mqtt", "file"
	Schema() *batch.Schema
	Side(s operator.Side) *batch.Schema // nil: there is no such side stream
}

// Sink is what a sink node says to the graph about itself. Whoever builds the
// writer knows the concrete type.
type Sink interface {
	Connector() string // "file", "stdout"
}

// Role tells sources, steps and sinks apart.
type Role uint8

// The roles.
const (
	SourceNode Role = iota
	StepNode
	SinkNode
)

// String is the role's name.
func (r Role) String() string { return [...]string{"source", "step", "sink"}[r] }

// Chaining is what a step says about being chained.
type Chaining uint8

// The strategies of `chain:`.
const (
	ChainAlways Chaining = iota
	ChainHead            // starts a chain, others may follow
	ChainNever
)

// String is the strategy's name in a job; "always" is what a job leaves out.
func (c Chaining) String() string { return [...]string{"always", "head", "never"}[c] }

// StreamKind is what the rows of a stream mean to each other.
type StreamKind uint8

// The kinds. A window over an upsert stream is refused.
const (
	Append StreamKind = iota // each row stands for itself
	Upsert                   // a row replaces the earlier row with its key
)

// String is the kind's name.
func (k StreamKind) String() string { return [...]string{"append", "upsert"}[k] }

// Edge says where a node's rows come from and how they are dealt out.
type Edge struct {
	From     dataflow.OperatorID
	Side     *operator.Side // nil: the main stream
	Exchange Exchange
	Keys     []int // columns of the hash exchange
}

// Stream is the name a job gives the edge's stream: STEP, or STEP.late.
func (e Edge) Stream() string {
	if e.Side == nil {
		return string(e.From)
	}
	return string(e.From) + "." + e.Side.String()
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

// String is the exchange's name in a job.
func (x Exchange) String() string {
	return [...]string{"forward", "hash", "rebalance", "rescale", "shuffle", "broadcast", "global"}[x]
}

// DefaultExchange is the one an edge gets that names none and has no key.
func DefaultExchange(from, to int) Exchange {
	if from == to {
		return Forward
	}
	return Rebalance
}

// Node finds a node by id, or is nil.
func (g *StreamGraph) Node(id dataflow.OperatorID) *Node {
	for _, n := range g.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// SchemaOf is the schema of the stream that an edge carries, nil if there is no
// such stream.
func (g *StreamGraph) SchemaOf(e Edge) *batch.Schema {
	n := g.Node(e.From)
	if n == nil {
		return nil
	}
	return n.Stream(e.Side)
}

// Stream is the schema of the node's main stream (nil) or of a side stream; it
// is nil if there is no such stream.
func (n *Node) Stream(side *operator.Side) *batch.Schema {
	switch {
	case side == nil:
		return n.Output
	case n.Role == SourceNode:
		return n.Source.Side(*side)
	case n.Role == StepNode:
		return n.Operator.Side(*side)
	}
	return nil
}

// Check asserts what every later picture relies on, and reports all that is
// wrong. Graphs that dataflow/job made have passed it.
func (g *StreamGraph) Check() error {
	var errs []error
	if g.MaxParallelism < 1 || g.MaxParallelism > dataflow.MaxMaxParallelism {
		errs = append(errs, fmt.Errorf("graph: max parallelism %d is not in 1..%d", g.MaxParallelism, dataflow.MaxMaxParallelism))
	}
	seen := make(map[dataflow.OperatorID]*Node, len(g.Nodes))
	for _, n := range g.Nodes {
		if seen[n.ID] != nil {
			errs = append(errs, fmt.Errorf("graph: two operators have the id %q: ids name state, give each its own", n.ID))
		}
		errs = append(errs, g.checkNode(n)...)
		for _, e := range n.Inputs {
			errs = append(errs, checkEdge(n, e, seen[e.From])...)
		}
		seen[n.ID] = n
	}
	return errors.Join(errs...)
}

func (g *StreamGraph) checkNode(n *Node) (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("graph: %s %q: %s", n.Role, n.ID, fmt.Sprintf(format, args...)))
	}
	if n.ID == "" {
		bad("needs an id")
	}
	if n.Parallelism < 1 || n.Parallelism > g.MaxParallelism {
		bad("parallelism %d is not in 1..%d (max_parallelism)", n.Parallelism, g.MaxParallelism)
	}
	if (n.Source != nil) != (n.Role == SourceNode) || (n.Operator != nil) != (n.Role == StepNode) || (n.Sink != nil) != (n.Role == SinkNode) {
		bad("a %s carries exactly its own kind of behaviour", n.Role)
	}
	if (n.Output == nil) != (n.Role == SinkNode) {
		bad("sources and steps have an output schema, sinks none")
	}
	if (len(n.Inputs) == 0) != (n.Role == SourceNode) {
		bad("has %d inputs", len(n.Inputs))
	}
	if n.SlotGroup == "" {
		bad("needs a slot group")
	}
	return errs
}

func checkEdge(n *Node, e Edge, from *Node) (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("graph: %s %q from %q: %s", n.Role, n.ID, e.Stream(), fmt.Sprintf(format, args...)))
	}
	if from == nil {
		bad("no operator of that name stands before it")
		return errs
	}
	schema := from.Stream(e.Side)
	if schema == nil {
		bad("there is no such stream")
		return errs
	}
	if e.Exchange == Forward && from.Parallelism != n.Parallelism {
		bad("forward needs equal parallelism, not %d and %d", from.Parallelism, n.Parallelism)
	}
	if (len(e.Keys) > 0) != (e.Exchange == Hash) {
		bad("a hash exchange has keys, no other has")
	}
	for _, k := range e.Keys {
		if k < 0 || k >= schema.Len() {
			bad("key column %d of %d", k, schema.Len())
		}
	}
	return errs
}
