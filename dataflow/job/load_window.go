package job

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
)

// aggregate makes a step of key_by + window + select, or of any of them that
// makes sense: without a key there is one for all, without a window the
// aggregates run.
func (l *loader) aggregate(o *op, v verbs, streams []*stream) {
	before := len(l.errs)
	spec := &window.Spec{Form: window.Running}
	var sources []string
	if v.window.given() {
		l.window(v.window, spec)
	}
	var s *stream
	if len(streams) == 1 {
		s = streams[0]
	}
	var in *batch.Schema
	if s != nil {
		in = s.columns
		if s.kind == graph.Upsert {
			l.refuseUpsert(o, v, s)
		}
	}
	spec.Input = in
	if v.keyBy.given() && in != nil {
		spec.Keys = l.keys(o, v.keyBy, in)
	}
	if !v.selects.given() {
		o.obj.fail("for example select: {n: count(*)}", "a window needs a select of aggregates")
	} else {
		sources = l.aggregates(o, v.selects, in, spec)
	}
	l.aggregateEdge(o, v, s, spec.Keys)
	if in == nil || len(l.errs) > before {
		l.guessOutput(o, in, spec)
		return
	}
	l.finishWindow(o, v, spec, sources)
}

// refuseUpsert says why aggregates over updates would be wrong.
func (l *loader) refuseUpsert(o *op, v verbs, s *stream) {
	at := v.group()
	if v.window.given() {
		at = v.window
	}
	why, hint := "its aggregates are updated with every row", "aggregate what that step reads"
	if src := upsertOrigin(s.from); src != nil && src.windows {
		why, hint = "its windows fire again for late rows (allowed_lateness)", "aggregate what that step reads, or set its allowed_lateness to 0s"
	}
	at.fail(hint, "%q sends updates of earlier rows: %s, so an aggregate over it would count twice", s.from.id, why)
}

// upsertOrigin walks up to the step that made the stream one of updates.
func upsertOrigin(o *op) *op {
	for range maxChain {
		if o.windows || o.obj.has("key_by") && o.obj.has("select") {
			return o
		}
		next := o
		for _, in := range o.inputs {
			id, _, _ := strings.Cut(in.name, ".")
			if up := o.obj.l.ops[id]; up != nil && up.node != nil && up.node.Kind == graph.Upsert {
				next = up
				break
			}
		}
		if next == o {
			return nil
		}
		o = next
	}
	return nil
}

// maxChain bounds walks along inputs; a job of a megabyte has fewer steps.
const maxChain = 1 << 16

// aggregateEdge makes the step's input edge: by key, or all to one subtask.
func (l *loader) aggregateEdge(o *op, v verbs, s *stream, keys []int) {
	if v.exchange.given() {
		v.exchange.fail("put it on a step before", "windows and aggregates deal rows out by their key")
	}
	if !v.keyBy.given() {
		if o.own.given() && o.parallelism > 1 {
			o.own.fail("add key_by, or remove it", "without key_by there is one key for all rows: parallelism is 1, not %d", o.parallelism)
		}
		o.parallelism, o.node.Parallelism = 1, 1
	}
	if s == nil {
		return
	}
	e := graph.Edge{From: s.from.node.ID, Side: s.side}
	switch {
	case v.keyBy.given():
		e.Exchange, e.Keys = graph.Hash, keys
	case s.from.parallelism == 1:
		e.Exchange = graph.Forward
	default:
		e.Exchange = graph.Global
	}
	o.node.Inputs = append(o.node.Inputs, e)
}

// window reads the form and what goes with any.
func (l *loader) window(v value, spec *window.Spec) {
	o := v.object()
	if o == nil {
		return
	}
	forms := []string{"tumbling", "sliding", "session", "count"}
	var form value
	for _, name := range forms {
		f := o.take(name)
		switch {
		case !f.given():
		case form.given():
			f.fail("keep one of them", "a window has one form")
		default:
			form = f
			l.windowForm(name, f, spec)
		}
	}
	if !form.given() {
		o.fail("one of "+strings.Join(forms, ", "), "the window has no form")
	}
	spec.Offset, _ = o.take("offset").duration(-maxOffset)
	late := o.take("allowed_lateness")
	spec.AllowedLateness, _ = late.duration(0)
	n, _ := o.take("late_firing").oneOf("each", "at_watermark")
	spec.Firing = [...]window.Firing{window.FireEach, window.FireAtWatermark}[n]
	n, _ = o.take("time").oneOf("event", "processing")
	spec.ProcessingTime = n == 1
	o.close()
}

const maxOffset = 1 << 62 // any; the window's own check knows the bound

func (l *loader) windowForm(name string, v value, spec *window.Spec) {
	switch name {
	case "tumbling":
		spec.Form = window.Tumbling
		spec.Size, _ = v.duration(dataflow.Microsecond)
	case "session":
		spec.Form = window.Session
		spec.Gap, _ = v.duration(dataflow.Microsecond)
	case "sliding":
		spec.Form = window.Sliding
		o := v.object()
		spec.Size, _ = o.need("size", "sliding: {size: 60s, slide: 10s}").duration(dataflow.Microsecond)
		spec.Slide, _ = o.need("slide", "sliding: {size: 60s, slide: 10s}").duration(dataflow.Microsecond)
		o.close()
	case "count":
		const most = 1 << 31
		if v.node.Kind != yaml.MappingNode {
			spec.Form = window.Count
			spec.Rows, _ = v.integer(1, most)
			return
		}
		spec.Form = window.SlidingCount
		o := v.object()
		spec.Rows, _ = o.need("size", "count: {size: 100, slide: 10}").integer(1, most)
		spec.EachRows, _ = o.need("slide", "count: {size: 100, slide: 10}").integer(1, most)
		o.close()
	}
}

// aggregates compiles the select of a window or running aggregation, and
// returns the texts.
func (l *loader) aggregates(o *op, v value, in *batch.Schema, spec *window.Spec) (sources []string) {
	if v.node.Kind == yaml.SequenceNode {
		v.fail("write select: {n: count(*)}", "aggregates need names: a mapping, not a list")
		return nil
	}
	items := l.items(v)
	if in == nil {
		return nil
	}
	for _, it := range items {
		a, err := expr.CompileAggregate(it.source, in)
		if err != nil {
			hint := ""
			if name := strings.TrimSpace(it.source); in.Index(name) >= 0 {
				hint = "key columns are in the output anyway; of other columns take first(" + name + ") or last(" + name + ")"
			}
			l.exprError(o.lost, it.value, it.source, err, hint)
			continue
		}
		spec.Aggregates = append(spec.Aggregates, window.Aggregate{Name: it.name, Func: aggregateFunc(a), Arg: a.Arg})
		sources = append(sources, it.source)
	}
	return sources
}

func aggregateFunc(a expr.Aggregate) window.Func {
	switch {
	case a.Star:
		return window.CountRows
	case a.Distinct:
		return window.CountDistinct
	}
	switch a.Func {
	case "count":
		return window.CountValues
	case "sum":
		return window.Sum
	case "avg":
		return window.Avg
	case "min":
		return window.Min
	case "max":
		return window.Max
	case "first":
		return window.First
	case "last":
		return window.Last
	case "stddev":
		return window.Stddev
	}
	return window.Var
}

// guessOutput gives a wrong step the columns that are certain, so that what
// reads it is still checked; the others are lost.
func (l *loader) guessOutput(o *op, in *batch.Schema, spec *window.Spec) {
	if in == nil {
		return
	}
	var columns []batch.Field
	for _, k := range spec.Keys {
		columns = append(columns, in.Field(k))
	}
	if spec.Form != window.Running {
		columns = append(columns, batch.Field{Name: window.StartColumn, Type: batch.Timestamp}, batch.Field{Name: window.EndColumn, Type: batch.Timestamp})
	}
	known := make(map[string]bool, len(columns))
	for _, a := range spec.Aggregates {
		columns = append(columns, batch.Field{Name: a.Name, Type: a.Type()})
		known[a.Name] = true
	}
	if schema, err := batch.NewSchema(columns...); err == nil {
		o.columns = schema
	}
	o.lost = make(map[string]bool)
	for _, key := range []string{"select", "key_by"} {
		v := o.obj.take(key)
		if !v.given() {
			continue
		}
		for i, c := range v.node.Content {
			if isName := v.node.Kind == yaml.SequenceNode || i%2 == 0; isName && !known[c.Value] && (o.columns == nil || o.columns.Index(c.Value) < 0) {
				o.lost[c.Value] = true
			}
		}
	}
}

// finishWindow asks the window for what only it can check, and takes its
// factory.
func (l *loader) finishWindow(o *op, v verbs, spec *window.Spec, sources []string) {
	if err := spec.Validate(); err != nil {
		l.windowErrors(v, err)
		l.guessOutput(o, spec.Input, spec)
		return
	}
	f, err := window.NewFactory(*spec)
	if err != nil {
		v.group().fail("", "%s", err)
		return
	}
	o.node.Operator, o.columns, o.lost = f, f.Output(), nil
	o.node.Describe = describeWindow(spec, sources)
	if spec.Upsert() {
		o.node.Kind = graph.Upsert
	}
	if o.processing = spec.ProcessingTime; o.processing {
		l.markArrivals(o)
	}
}

// windowErrors puts each of a joined error under the key it is about.
func (l *loader) windowErrors(v verbs, err error) {
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for _, e := range list {
		at := v.group()
		msg := e.Error()
		for _, x := range []struct {
			prefix string
			value  value
		}{{"window: ", v.window}, {"select: ", v.selects}, {"key_by: ", v.keyBy}} {
			if rest, ok := strings.CutPrefix(msg, x.prefix); ok && x.value.given() {
				at, msg = x.value, rest
			}
		}
		if key, _, _ := strings.Cut(msg, " "); at.path == v.window.path && findChild(at.node, key) != nil {
			at = value{at.l, *findChild(at.node, key), join(at.path, key)}
		}
		at.fail("", "%s", msg)
	}
}

// markArrivals tells every source above a processing-time window that each
// row's arrival matters.
func (l *loader) markArrivals(o *op) {
	seen := make(map[*op]bool)
	todo := []*op{o}
	for len(todo) > 0 {
		x := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[x] {
			continue
		}
		seen[x] = true
		if x.source != nil {
			x.source.Time.Config.MarkArrivals = true
		}
		for _, in := range x.inputs {
			id, _, _ := strings.Cut(in.name, ".")
			if up := l.ops[id]; up != nil {
				todo = append(todo, up)
			}
		}
	}
}
