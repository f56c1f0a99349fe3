package job

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// verbs are the keys that say what a step does.
type verbs struct {
	where, selects, flatMap, keyBy, window, union, exchange value
}

// compileStep makes a step's operator and its edges.
func (l *loader) compileStep(o *op, streams []*stream) {
	v := verbs{
		where: o.obj.take("where"), selects: o.obj.take("select"), flatMap: o.obj.take("flat_map"), keyBy: o.obj.take("key_by"),
		window: o.obj.take("window"), union: o.obj.take("union"), exchange: o.obj.take("exchange"),
	}
	onErrorAt := o.obj.take("on_error")
	onError := operator.RejectRow
	if n, ok := onErrorAt.oneOf("fail", "reject"); ok {
		onError = [...]operator.OnError{operator.FailOnError, operator.RejectRow}[n]
	}
	if onErrorAt.given() && !v.where.given() && !v.flatMap.given() && (!v.selects.given() || v.keyBy.given() || v.window.given()) {
		l.warn(onErrorAt, "has no effect here: only where, flat_map and a select without aggregates reject rows")
	}
	var in *batch.Schema
	if len(streams) > 0 && streams[0] != nil {
		in, o.lost = streams[0].columns, streams[0].lost
	}
	for _, s := range streams {
		if s != nil {
			o.node.Kind = max(o.node.Kind, s.kind)
		}
	}
	if !l.oneVerb(o, v) {
		l.verbAlone(o, v, in)
		return
	}
	switch {
	case v.union.given():
		l.union(o, streams)
	case v.where.given():
		o.columns = in
		if e := l.expression(o, in, v.where, true); e != nil {
			o.node.Describe = "where " + e.Source()
			o.node.Operator = l.factory(v.where)(operator.NewFilter(e, in, onError))
		}
	case v.flatMap.given():
		l.flatMap(o, v.flatMap, in, onError)
	case v.window.given() || v.keyBy.given() && v.selects.given():
		l.aggregate(o, v, streams)
		return // it makes its own edge
	case v.selects.given():
		l.project(o, v.selects, in, onError)
	default: // key_by or exchange alone
		l.pass(o, in)
	}
	l.edges(o, v, streams)
}

// oneVerb checks that the step does one thing.
func (l *loader) oneVerb(o *op, v verbs) bool {
	var names []string
	var second value
	for _, x := range []struct {
		name  string
		value value
	}{{"where", v.where}, {"flat_map", v.flatMap}, {"union", v.union}, {"key_by + window + select", v.group()}} {
		if x.value.given() {
			if names = append(names, x.name); len(names) == 2 {
				second = x.value
			}
		}
	}
	switch {
	case len(names) > 1:
		if names[1] == "key_by + window + select" {
			names[1] = strings.Join(v.groupNames(), " + ")
		}
		second.fail("make a step of each, one reading the other", "a step has one verb, this one has %s", strings.Join(names, " and "))
		return false
	case len(names) == 0 && !v.exchange.given():
		o.obj.fail("one of where, select, flat_map, key_by, window, union, exchange", "the step does nothing")
		return false
	}
	return true
}

// verbAlone keeps an impossible step's columns where they are certain, so that
// what reads it is still checked.
func (l *loader) verbAlone(o *op, v verbs, in *batch.Schema) {
	if !v.selects.given() && !v.flatMap.given() && !v.window.given() && !v.union.given() {
		o.columns = in
	}
}

func (v verbs) group() value {
	for _, x := range []value{v.keyBy, v.window, v.selects} {
		if x.given() {
			return x
		}
	}
	return value{}
}

func (v verbs) groupNames() (names []string) {
	if v.keyBy.given() {
		names = append(names, "key_by")
	}
	if v.window.given() {
		names = append(names, "window")
	}
	if v.selects.given() {
		names = append(names, "select")
	}
	return names
}

// factory reports an operator's own refusal under the verb's key.
func (l *loader) factory(v value) func(operator.Factory, error) operator.Factory {
	return func(f operator.Factory, err error) operator.Factory {
		if err != nil {
			v.fail("", "%s", err)
			return nil
		}
		return f
	}
}

func (l *loader) pass(o *op, in *batch.Schema) {
	if o.columns = in; in != nil {
		o.node.Operator = operator.NewPass(in)
	}
}

// union checks that all streams have the same columns.
func (l *loader) union(o *op, streams []*stream) {
	var first *stream
	var names []string
	for i, s := range streams {
		names = append(names, o.inputs[i].name)
		switch {
		case s == nil || s.columns == nil:
		case first == nil:
			first = s
		case !s.columns.Equal(first.columns):
			o.inputs[i].fail("bring them into line with a select", "its columns differ from those of %q: %s", o.inputs[0].name, difference(first.columns, s.columns))
		}
	}
	o.node.Describe = "union " + strings.Join(names, ", ")
	if first != nil {
		l.pass(o, first.columns)
		o.lost = first.lost
	}
}

// difference says how b's columns differ from a's.
func difference(a, b *batch.Schema) string {
	var diffs []string
	for i, f := range a.Fields() {
		switch j := b.Index(f.Name); {
		case j < 0:
			diffs = append(diffs, fmt.Sprintf("%s is missing", f.Name))
		case b.Field(j).Type != f.Type:
			diffs = append(diffs, fmt.Sprintf("%s is %s, not %s", f.Name, b.Field(j).Type, f.Type))
		case j != i && a.Len() == b.Len():
			diffs = append(diffs, fmt.Sprintf("%s is column %d, not %d", f.Name, j+1, i+1))
		}
	}
	for _, f := range b.Fields() {
		if a.Index(f.Name) < 0 {
			diffs = append(diffs, fmt.Sprintf("%s is additional", f.Name))
		}
	}
	return strings.Join(diffs, ", ")
}

func (l *loader) flatMap(o *op, v value, in *batch.Schema, onError operator.OnError) {
	text, ok := v.text()
	if !ok || in == nil {
		return
	}
	f, err := expr.CompileFlatMap(text, in)
	if err != nil {
		l.exprError(o.lost, v, text, err, "")
		return
	}
	o.node.Describe = "flat_map " + f.Source()
	o.node.Operator = l.factory(v)(operator.NewFlatMap(f, in, onError))
	if o.node.Operator != nil {
		o.columns, o.lost = o.node.Operator.Output(), nil
	}
}

// item is one column of a select.
type item struct {
	name string
	value
	source string // the expression's text
}

// items reads a select: a map of names to expressions, or a list of columns.
func (l *loader) items(v value) []item {
	var items []item
	if v.node.Kind == yaml.SequenceNode {
		names, where := v.texts()
		seen := make(map[string]bool, len(names))
		for i, n := range names {
			if seen[n] {
				where[i].fail("", "the column %q is there twice", n)
				continue
			}
			seen[n] = true
			items = append(items, item{n, where[i], n})
		}
		return items
	}
	o := v.object()
	keys, vals := o.entries()
	for i, k := range keys {
		if isEmpty(vals[i].node) {
			vals[i].fail(fmt.Sprintf("write %s: %s, or a list [%[1]s, …] of columns", k.node.Value, "EXPRESSION"), "the column %q has no expression", k.node.Value)
			continue
		}
		text, ok := vals[i].text()
		if !ok {
			continue
		}
		items = append(items, item{k.node.Value, vals[i], text})
	}
	if o != nil && len(keys) == 0 {
		v.fail("", "a select needs at least one column")
	}
	return items
}

// project makes a select without aggregates.
func (l *loader) project(o *op, v value, in *batch.Schema, onError operator.OnError) {
	items := l.items(v)
	if in == nil {
		return
	}
	lost := make(map[string]bool)
	var fields []operator.Named
	var columns []batch.Field
	var shown []string
	for _, it := range items {
		e, err := expr.Compile(it.source, in)
		if err != nil {
			hint := ""
			if isAggregate(it.source) {
				hint = "aggregates need key_by or window in the same step"
			}
			l.exprError(o.lost, it.value, it.source, err, hint)
			lost[it.name] = true
			continue
		}
		fields = append(fields, operator.Named{Name: it.name, Expr: e})
		columns = append(columns, batch.Field{Name: it.name, Type: e.Type()})
		shown = append(shown, assignment(it))
	}
	o.lost = lost
	o.columns, _ = batch.NewSchema(columns...)
	o.node.Describe = "select " + strings.Join(shown, ", ")
	if len(lost) == 0 && len(fields) > 0 {
		o.node.Operator = l.factory(v)(operator.NewProject(fields, in, onError))
		if o.node.Operator != nil {
			o.columns = o.node.Operator.Output()
		}
	}
}

func assignment(it item) string {
	if it.name == it.source {
		return it.name
	}
	return it.name + " = " + it.source
}

// isAggregate tells whether the text looks like a call of an aggregate.
func isAggregate(source string) bool {
	name, _, called := strings.Cut(source, "(")
	if !called {
		return false
	}
	for _, n := range []string{"count", "sum", "avg", "min", "max", "first", "last", "stddev", "var"} {
		if strings.EqualFold(strings.TrimSpace(name), n) {
			return true
		}
	}
	return false
}

// edges gives the step its inputs, with the exchange it names or the default.
func (l *loader) edges(o *op, v verbs, streams []*stream) {
	exchange := l.exchange(o, v)
	var keys []int
	if v.keyBy.given() && len(streams) == 1 && streams[0] != nil && streams[0].columns != nil {
		keys = l.keys(o, v.keyBy, streams[0].columns)
		exchange = &hashExchange{keys}
	}
	for _, s := range streams {
		if s == nil {
			continue
		}
		e := graph.Edge{From: s.from.node.ID, Side: s.side}
		switch x := exchange.(type) {
		case *hashExchange:
			e.Exchange, e.Keys = graph.Hash, x.keys
		case graph.Exchange:
			e.Exchange = x
			if x == graph.Forward && s.from.parallelism != o.parallelism {
				v.exchange.fail("leave it out", "forward needs equal parallelism, not %d and %d", s.from.parallelism, o.parallelism)
			}
		default:
			e.Exchange = graph.DefaultExchange(s.from.parallelism, o.parallelism)
		}
		o.node.Inputs = append(o.node.Inputs, e)
	}
}

type hashExchange struct{ keys []int }

// exchange reads `exchange:`: a graph.Exchange, or nil if there is none.
func (l *loader) exchange(o *op, v verbs) any {
	n, ok := v.exchange.oneOf("rebalance", "shuffle", "broadcast", "rescale", "global", "forward")
	if !ok {
		return nil
	}
	if v.keyBy.given() {
		v.exchange.fail("keep one of them", "key_by deals rows out by their key already")
		return nil
	}
	return [...]graph.Exchange{graph.Rebalance, graph.Shuffle, graph.BroadcastAll, graph.Rescale, graph.Global, graph.Forward}[n]
}

// keys are the columns of a key_by.
func (l *loader) keys(o *op, v value, in *batch.Schema) []int {
	names, where := v.texts()
	var keys []int
	seen := make(map[int]bool, len(names))
	for i, n := range names {
		c := l.column(o, in, where[i], n)
		if c < 0 {
			continue
		}
		if seen[c] {
			where[i].fail("", "the key %q is there twice", n)
			continue
		}
		seen[c] = true
		keys = append(keys, c)
	}
	return keys
}
