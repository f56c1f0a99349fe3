package graph

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// Builder makes a stream graph in code. Mistakes are kept and returned by
// Build, so that calls can be strung together:
//
//	b := graph.NewBuilder("alarms", 2)
//	hot := b.Source("in", src).Then("hot", where)
//	hot.KeyBy("sensor").Then("per_sensor", window).Parallelism(4).Sink("out", sink)
//	g, err := b.Build()
type Builder struct {
	g    *StreamGraph
	errs []error
}

// Stream is a stream of the graph being built, and how it will be dealt out to
// the operator that reads it next. Parallelism, Chain, SlotGroup and Describe
// speak of the node that made the stream: call them before the next operator
// reads it.
type Stream struct {
	b        *Builder
	node     *Node
	side     *operator.Side
	exchange *Exchange
	keys     []int
}

// NewBuilder starts a graph whose operators have the given parallelism unless
// they say otherwise.
func NewBuilder(job string, parallelism int) *Builder {
	return &Builder{g: &StreamGraph{Job: job, Parallelism: parallelism}}
}

// MaxParallelism sets the number of key groups; unset it follows from the
// greatest parallelism.
func (b *Builder) MaxParallelism(n int) *Builder {
	b.g.MaxParallelism = n
	return b
}

// Source adds a source.
func (b *Builder) Source(id dataflow.OperatorID, s Source) *Stream {
	return b.add(&Node{ID: id, Role: SourceNode, Describe: s.Connector(), Source: s, Output: s.Schema()})
}

// Union adds a step that reads several streams of one schema.
func (b *Builder) Union(id dataflow.OperatorID, pass operator.Factory, streams ...*Stream) *Stream {
	n := &Node{ID: id, Role: StepNode, Describe: "union", Operator: pass, Output: pass.Output()}
	for _, s := range streams {
		if got := s.node.Stream(s.side); got == nil || !got.Equal(n.Output) {
			b.errs = append(b.errs, fmt.Errorf("graph: union %q: stream %q has other columns (%v)", id, s.node.ID, got))
		}
	}
	return b.add(n, streams...)
}

func (b *Builder) add(n *Node, from ...*Stream) *Stream {
	n.Parallelism, n.SlotGroup = b.g.Parallelism, DefaultSlotGroup
	if n.Role == SinkNode {
		n.Parallelism = 1
	}
	for _, s := range from {
		e := Edge{From: s.node.ID, Side: s.side, Keys: s.keys}
		if s.exchange != nil {
			e.Exchange = *s.exchange
		} else {
			e.Exchange = undecided
		}
		n.Inputs = append(n.Inputs, e)
		n.Kind = max(n.Kind, s.node.Kind)
	}
	b.g.Nodes = append(b.g.Nodes, n)
	return &Stream{b: b, node: n}
}

// undecided marks an edge whose exchange follows from the parallelism of its
// ends, which is known when Build is called. No graph leaves here with it.
const undecided Exchange = 255

// Then adds a step that reads the stream.
func (s *Stream) Then(id dataflow.OperatorID, f operator.Factory) *Stream {
	return s.b.add(&Node{ID: id, Role: StepNode, Operator: f, Output: f.Output()}, s)
}

// Sink adds a sink that reads the stream; its parallelism is 1 unless the
// returned stream's Parallelism says otherwise.
func (s *Stream) Sink(id dataflow.OperatorID, k Sink) *Stream {
	return s.b.add(&Node{ID: id, Role: SinkNode, Describe: k.Connector(), Sink: k}, s)
}

// Side is a side stream of the operator that made s.
func (s *Stream) Side(side operator.Side) *Stream {
	return &Stream{b: s.b, node: s.node, side: &side}
}

// KeyBy deals the stream out by the hash of the named columns.
func (s *Stream) KeyBy(columns ...string) *Stream {
	x := Hash
	t := &Stream{b: s.b, node: s.node, side: s.side, exchange: &x}
	schema := s.node.Stream(s.side)
	for _, c := range columns {
		if k := index(schema, c); k >= 0 {
			t.keys = append(t.keys, k)
		} else {
			s.b.errs = append(s.b.errs, fmt.Errorf("graph: key by %q after %q: no such column", c, s.node.ID))
		}
	}
	return t
}

func index(s *batch.Schema, name string) int {
	if s == nil {
		return -1
	}
	return s.Index(name)
}

// Exchange deals the stream out in the given way instead of the default one.
func (s *Stream) Exchange(x Exchange) *Stream {
	return &Stream{b: s.b, node: s.node, side: s.side, exchange: &x}
}

// Parallelism is that of the operator that made s.
func (s *Stream) Parallelism(n int) *Stream { s.node.Parallelism = n; return s }

// Chain is the chaining strategy of the operator that made s.
func (s *Stream) Chain(c Chaining) *Stream { s.node.Chaining = c; return s }

// SlotGroup is that of the operator that made s.
func (s *Stream) SlotGroup(name string) *Stream { s.node.SlotGroup = name; return s }

// Kind says what the rows of s mean to each other; streams made from it
// inherit that.
func (s *Stream) Kind(k StreamKind) *Stream { s.node.Kind = k; return s }

// Describe is the line explain shows for the operator that made s.
func (s *Stream) Describe(line string) *Stream { s.node.Describe = line; return s }

// Schema is the stream's schema.
func (s *Stream) Schema() *batch.Schema { return s.node.Stream(s.side) }

// Build returns the graph, or all that is wrong with it.
func (b *Builder) Build() (*StreamGraph, error) {
	g := b.g
	most := g.Parallelism
	for _, n := range g.Nodes {
		most = max(most, n.Parallelism)
		for i := range n.Inputs {
			if e := &n.Inputs[i]; e.Exchange == undecided {
				e.Exchange = DefaultExchange(g.Node(e.From).Parallelism, n.Parallelism)
			}
		}
	}
	if g.MaxParallelism == 0 {
		g.MaxParallelism = dataflow.DefaultMaxParallelism(most)
	}
	if len(b.errs) > 0 {
		return nil, b.errs[0]
	}
	return g, g.Check()
}
