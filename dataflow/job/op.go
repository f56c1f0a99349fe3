package job

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// op is a source, step or sink while it is checked.
type op struct {
	id          string
	role        graph.Role
	at          value   // all of it
	obj         *object // its keys; nil: it is no mapping, which was said
	parallelism int
	own         value // where it names its parallelism; not given: the job's
	was         value // where it names the id it had; not given: it has not been renamed
	inputs      []input
	node        *graph.Node // from compile on
	stage       stage

	columns *batch.Schema   // the main stream; nil: not known, because of an error
	lost    map[string]bool // columns that are there, but whose type is not known because of an error
	windows bool            // it is meant to be a window step, whether or not it is right
	source  *Source
	sink    *Sink

	processing bool // its windows are in processing time: nothing comes late
}

// stage is how far an op has come.
type stage uint8

const (
	named     stage = iota // its keys were read, names are known
	compiling              // its inputs are being compiled: meeting it again is a cycle
	compiled               // node, or errors
)

// input is one `from`, or one element of a `union:`.
type input struct {
	value
	name string
}

// stream is what an input turned out to be.
type stream struct {
	from    *op
	side    *operator.Side
	columns *batch.Schema // nil: not known, because of an error
	lost    map[string]bool
	kind    graph.StreamKind
}

// collectSources reads the names and common keys of the sources.
func (l *loader) collectSources(v value) {
	if !v.given() {
		return
	}
	keys, vals := v.object().entries()
	if len(keys) == 0 && v.node.Kind != yaml.ScalarNode {
		v.fail("", "needs at least one source")
	}
	for i, k := range keys {
		id, _ := value{l, k.node, k.path}.identifier("a source's name")
		l.collect(&op{id: id, role: graph.SourceNode, at: vals[i], obj: vals[i].object()}, k)
	}
}

// collectList reads the ids and common keys of steps or sinks.
func (l *loader) collectList(v value, role graph.Role) {
	if !v.given() || v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!null" {
		return
	}
	if v.node.Kind != yaml.SequenceNode {
		v.fail(fmt.Sprintf("write - {id: …, from: …} for each %s", role), "must be a list, not %s", kindOf(v.node))
		return
	}
	for i, n := range v.node.Content {
		e := value{l, n, fmt.Sprintf("%s[%d]", v.path, i)}
		if id := findChild(n, "id"); id != nil && (*id).Kind == yaml.ScalarNode && isIdentifier((*id).Value) {
			e.path = join(v.path, (*id).Value)
		}
		o := &op{role: role, at: e, obj: e.object()}
		if o.obj == nil {
			continue
		}
		at := o.obj.need("id", "the id names the operator's state and is never optional")
		if at.given() {
			o.id, _ = at.identifier("an id")
		} else {
			at = e
		}
		l.collect(o, at)
	}
}

func (l *loader) collect(o *op, at value) {
	l.order = append(l.order, o)
	unset := l.job.Graph.Parallelism
	if o.role == graph.SinkNode {
		unset = 1
	}
	if o.role != graph.SourceNode {
		l.readInputs(o)
	}
	o.windows = o.role == graph.StepNode && o.obj.has("window")
	o.parallelism, o.own = unset, o.obj.take("parallelism")
	if n, ok := o.own.integer(1, dataflow.MaxMaxParallelism); ok {
		o.parallelism = int(n)
	} else {
		o.own = value{}
	}
	if o.id == "" {
		return
	}
	if was := l.ops[o.id]; was != nil {
		at.fail("give each its own: state is kept under it", "the id %q is taken by a %s%s", o.id, was.role, lineSuffix(was.at.line()))
		return
	}
	l.ops[o.id] = o
}

func (l *loader) readInputs(o *op) {
	union := o.role == graph.StepNode && o.obj.has("union")
	if union {
		v := o.obj.take("union")
		vs, ok := v.list()
		if ok && len(vs) < 2 {
			v.fail("write union: [a, b]", "a union reads at least two streams")
		}
		seen := make(map[string]bool, len(vs))
		for _, e := range vs {
			name, ok := e.text()
			if ok && seen[name] {
				e.fail("", "the stream %q is in the union twice", name)
				continue
			}
			if ok {
				seen[name] = true
				o.inputs = append(o.inputs, input{e, name})
			}
		}
		if from := o.obj.take("from"); from.given() {
			from.fail("remove it: union names the streams", "a union has no from")
		}
		return
	}
	v := o.obj.need("from", "name the stream it reads")
	if !v.given() {
		return
	}
	if v.node.Kind == yaml.SequenceNode {
		v.fail("make a step of it: - {id: both, union: [a, b]}", "from is one stream")
		return
	}
	if name, ok := v.text(); ok {
		o.inputs = append(o.inputs, input{v, name})
	}
}

// compile makes the node of o, its inputs' first.
func (l *loader) compile(o *op) {
	if o.stage == compiled {
		return
	}
	o.node = &graph.Node{ID: dataflow.OperatorID(o.id), Role: o.role, Parallelism: o.parallelism, SlotGroup: graph.DefaultSlotGroup}
	if o.obj == nil || len(l.errs) >= maxErrors {
		o.stage = compiled
		return
	}
	o.stage = compiling
	l.stack = append(l.stack, o)
	streams := make([]*stream, len(o.inputs))
	for i, in := range o.inputs {
		streams[i] = l.resolve(o, in)
	}
	l.stack = l.stack[:len(l.stack)-1]
	before := len(l.errs)
	l.common(o)
	switch o.role {
	case graph.SourceNode:
		l.compileSource(o)
	case graph.StepNode:
		l.compileStep(o, streams)
	case graph.SinkNode:
		l.compileSink(o, streams)
	}
	o.obj.close()
	o.node.Output = o.columns
	o.stage = compiled
	if len(l.errs) == before {
		l.graph = append(l.graph, o.node)
	}
}

// common reads the keys that every operator may have.
func (l *loader) common(o *op) {
	if v := o.obj.take("slot_group"); v.given() {
		if s, ok := v.identifier("a slot group"); ok {
			o.node.SlotGroup = s
		}
	}
	if v := o.obj.take("constraints"); v.given() {
		if c := l.constraints(v); !c.Empty() {
			l.job.Placement[o.node.ID] = c
		}
	}
	if v := o.obj.take("was"); v.given() {
		if s, ok := v.identifier("an id"); ok {
			o.node.Was, o.was = dataflow.OperatorID(s), v
		}
	}
	if n, ok := o.obj.take("chain").oneOf("never", "head"); ok {
		o.node.Chaining = [...]graph.Chaining{graph.ChainNever, graph.ChainHead}[n]
	}
}

// resolve finds the stream an input names. It is nil after an error.
func (l *loader) resolve(o *op, in input) *stream {
	id, suffix, sided := strings.Cut(in.name, ".")
	from := l.ops[id]
	if from == nil {
		in.fail(didYouMean(in.name, l.streamNames(o)), "there is no stream %q", in.name)
		return nil
	}
	if from.role == graph.SinkNode {
		in.fail("read what it reads", "%q is a sink: nothing comes out of it", id)
		return nil
	}
	if from.stage == compiling {
		l.cycle(in, from)
		return nil
	}
	l.compile(from)
	s := &stream{from: from, columns: from.columns, lost: from.lost, kind: from.node.Kind}
	if !sided {
		return s
	}
	return l.resolveSide(in, s, suffix)
}

func (l *loader) resolveSide(in input, s *stream, suffix string) *stream {
	var side operator.Side
	switch suffix {
	case "late":
		side, s.kind = operator.Late, graph.Append
	case "rejected":
		side = operator.Rejected
	default:
		in.fail(didYouMean(suffix, []string{"late", "rejected"}), "%q has no side stream %q", s.from.id, suffix)
		return nil
	}
	s.side, s.columns, s.lost = &side, nil, nil
	switch {
	case side == operator.Late && (!s.from.windows || s.from.processing):
		in.fail("only windows in event time have late rows", "%q has no late rows", s.from.id)
		return nil
	case s.from.role == graph.SourceNode && s.from.source != nil:
		s.columns = s.from.source.Side(side)
	case s.from.role == graph.StepNode && s.from.node.Operator != nil:
		s.columns = s.from.node.Operator.Side(side)
	default:
		return s // an error of s.from hides what the side stream looks like
	}
	if s.columns == nil {
		hint := "only where, flat_map and a select without aggregates reject rows"
		switch {
		case side == operator.Late:
			hint = "only windows in event time have late rows"
		case s.from.role == graph.SourceNode:
			hint = "its rows are made here and always good"
		case s.from.obj.has("on_error"):
			hint = "write on_error: reject there"
		}
		in.fail(hint, "%q has no %s rows", s.from.id, suffix)
		return nil
	}
	return s
}

// cycle reports a loop once, at the input that closes it.
func (l *loader) cycle(in input, from *op) {
	var names []string
	for _, o := range l.stack {
		if len(names) > 0 || o == from {
			names = append(names, o.id)
		}
	}
	// The stack runs from reader to read; the loop is told along the data.
	var b strings.Builder
	b.WriteString(from.id)
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(" -> " + names[i])
	}
	in.fail("", "the steps form a cycle: %s", b.String())
}

// streamNames lists what o may read, for suggestions.
func (l *loader) streamNames(o *op) []string {
	var names []string
	for _, x := range l.order {
		if x == o || x.id == "" || x.role == graph.SinkNode {
			continue
		}
		names = append(names, x.id)
		if x.windows {
			names = append(names, x.id+".late")
		}
	}
	return names
}

// renamed refuses two operators that want one state.
func (l *loader) renamed() {
	claimed := make(map[string]string)
	for _, o := range l.order {
		if !o.was.given() || o.node.Was == "" {
			continue
		}
		id := string(o.node.Was)
		switch other := l.ops[id]; {
		case id == o.id:
			o.was.fail("remove it", "%q is the id it has", id)
		case other != nil:
			o.was.fail("state goes to the operator that has the id now", "%q is the id of a %s%s", id, other.role, lineSuffix(other.at.line()))
		case claimed[id] != "":
			o.was.fail("keep one of them", "%q says that it was %q too", claimed[id], id)
		}
		claimed[id] = o.id
	}
}

// unread warns of streams that nobody reads.
func (l *loader) unread() {
	read := make(map[string]bool)
	for _, o := range l.order {
		for _, in := range o.inputs {
			id, _, _ := strings.Cut(in.name, ".")
			read[id] = true
		}
	}
	for _, o := range l.order {
		if o.role != graph.SinkNode && o.id != "" && !read[o.id] {
			l.warn(o.at, "nobody reads this %s", o.role)
		}
	}
}
