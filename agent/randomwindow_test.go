package agent_test

import (
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// drawUnion joins a stream with another of the same columns, or with a part of
// itself.
func (j *randomJob) drawUnion(a *mstream, main []*mstream) {
	b := a
	for _, s := range main {
		if s != a && slices.Equal(s.columns, a.columns) && s.upsert == a.upsert && s.side == a.side {
			b = s
		}
	}
	if b == a {
		cond := drawer{j.t, a.columns}.condition(1)
		b = j.step(a, newWhere(j.id(), cond), a.columns, fmt.Sprintf("where: %q", cond.text), false)
	}
	n := j.newNode(newPass(j.id()))
	for _, s := range []*mstream{a, b} {
		s.read = true
		s.connect(newEdge(n, 1))
	}
	out := &mstream{name: n.id, columns: a.columns, upsert: a.upsert, side: a.side, timely: a.timely && b.timely, behind: a.behind || b.behind}
	out.connect = func(e *medge) { n.next = append(n.next, e) }
	j.steps = append(j.steps, fmt.Sprintf("  - {id: %s, union: [%s, %s]%s}", n.id, a.name, b.name, j.placement()))
	j.streams = append(j.streams, out)
}

// keys draws columns to key by.
func (j *randomJob) keys(d drawer, least int) (keys []mcol) {
	cols := slices.DeleteFunc(slices.Clone(d.columns), func(c mcol) bool { return strings.HasPrefix(c.name, "window_") || c.typ == inexact })
	n := min(len(cols), rapid.SampledFrom([]int{0, 1, 1, 1, 2}).Draw(j.t, "keys"))
	n = max(n, min(least, len(cols)))
	if n == 0 {
		return nil
	}
	return rapid.SliceOfNDistinct(rapid.SampledFrom(cols), n, n, func(c mcol) string { return c.name }).Draw(j.t, "key")
}

func (j *randomJob) drawKeyBy(from *mstream, d drawer) {
	keys := j.keys(d, 1)
	if len(keys) == 0 {
		return
	}
	n := j.newNode(newPass(j.id()))
	from.read = true
	from.connect(newEdge(n, 1))
	out := &mstream{name: n.id, columns: from.columns, upsert: from.upsert, side: from.side, timely: from.timely, behind: from.behind}
	out.connect = func(e *medge) { n.next = append(n.next, e) }
	if from.sequenced {
		out.ordered, out.orderBy = true, names(keys)
	}
	j.steps = append(j.steps, fmt.Sprintf("  - {id: %s, from: %s, key_by: [%s]%s}", n.id, from.name, strings.Join(names(keys), ", "), j.placement()))
	j.streams = append(j.streams, out)
}

// drawWindow adds a window, or running aggregates.
func (j *randomJob) drawWindow(from *mstream, d drawer) {
	exact := j.strict && from.sequenced // late rows and order mean something
	forms := []string{"tumbling", "tumbling", "sliding"}
	if exact {
		forms = append(forms, "count", "slidingcount", "running")
	}
	// A row right at the end of a session touches it, unless the watermark has
	// closed it just before: behind windows that depends on which channel is first.
	if exact || !j.strict && !from.behind {
		forms = append(forms, "session")
	}
	w := &mwindow{form: rapid.SampledFrom(forms).Draw(j.t, "form")}
	least := 0
	if w.form == "running" {
		least = 1
	}
	keys := j.keys(d, least)
	if w.form == "running" && len(keys) == 0 {
		return
	}
	w.keys = names(keys)
	text := j.drawForm(w, exact)

	columns := slices.Clone(keys)
	if w.form != "running" {
		columns = append(columns, mcol{"window_start", "timestamp"}, mcol{"window_end", "timestamp"})
	}
	var list []string
	for range j.int("aggregates", 1, 3) {
		name := "a" + j.id()
		a, source := d.aggregate(name, exact)
		w.aggregates = append(w.aggregates, a)
		columns = append(columns, mcol{name, a.typeOf()})
		list = append(list, fmt.Sprintf("%s: %q", name, source))
	}
	n := j.newNode(newWindow(j.id(), w))
	from.read = true
	from.connect(newEdge(n, 1))
	step := fmt.Sprintf("  - {id: %s, from: %s", n.id, from.name)
	if len(keys) > 0 {
		step += ", key_by: [" + strings.Join(w.keys, ", ") + "]"
	}
	if text != "" {
		step += ", window: {" + text + "}"
	}
	j.steps = append(j.steps, step+", select: {"+strings.Join(list, ", ")+"}"+j.placement()+"}")

	timed := w.form == "tumbling" || w.form == "sliding" || w.form == "session"
	out := &mstream{name: n.id, columns: columns, upsert: w.form == "running" || w.lateness > 0, timely: timed && w.lateness == 0 && !w.processing,
		behind: true, ordered: true, orderBy: w.keys, single: len(keys) == 0}
	out.connect = func(e *medge) { n.next = append(n.next, e) }
	j.streams = append(j.streams, out)
	if timed && !w.processing {
		late := &mstream{name: n.id + ".late", columns: from.columns, side: true, ordered: exact, orderBy: w.keys, single: len(keys) == 0}
		late.connect = func(e *medge) { n.late = append(n.late, e) }
		j.streams = append(j.streams, late)
	}
}

// drawForm draws the numbers of a form and is its `window:`.
func (j *randomJob) drawForm(w *mwindow, exact bool) string {
	var parts []string
	switch w.form {
	case "running":
		return ""
	case "count":
		w.size = int64(j.int("rows", 1, 6))
		return fmt.Sprintf("count: %d", w.size)
	case "slidingcount":
		w.size, w.slide = int64(j.int("rows", 1, 8)), int64(j.int("each", 1, 6))
		return fmt.Sprintf("count: {size: %d, slide: %d}", w.size, w.slide)
	case "tumbling":
		w.size = int64(j.int("size", 1, 15))
		w.offset = int64(j.int("offset", -int(w.size)+1, int(w.size)-1))
		parts = append(parts, fmt.Sprintf("tumbling: %dus, offset: %dus", w.size, w.offset))
	case "sliding":
		w.size, w.slide = int64(j.int("size", 1, 30)), int64(j.int("slide", 1, 9))
		w.offset = int64(j.int("offset", -int(w.slide)+1, int(w.slide)-1))
		parts = append(parts, fmt.Sprintf("sliding: {size: %dus, slide: %dus}, offset: %dus", w.size, w.slide, w.offset))
	case "session":
		w.gap = int64(j.int("gap", 1, 10))
		parts = append(parts, fmt.Sprintf("session: %dus", w.gap))
	}
	if exact && j.source.arrival && j.chance("processing", 6) {
		w.processing, j.source.processing = true, true
		return parts[0] + ", time: processing"
	}
	if j.chance("lateness", 2) {
		w.lateness = int64(j.int("allowed", 1, 20))
		parts = append(parts, fmt.Sprintf("allowed_lateness: %dus", w.lateness))
		if j.chance("at watermark", 2) {
			w.atWatermark = true
			parts = append(parts, "late_firing: at_watermark")
		}
	}
	return strings.Join(parts, ", ")
}

// sink writes a stream to stdout, with a tag that tells it from the others.
func (j *randomJob) sink(s *mstream) {
	s.read = true
	tag := fmt.Sprint("t", len(j.outputs))
	var list []string
	for _, c := range s.columns {
		list = append(list, c.name+": "+c.name)
	}
	id, own := j.id(), ""
	if s.single {
		own = ", parallelism: 1"
	}
	j.steps = append(j.steps, fmt.Sprintf("  - {id: %s, from: %s, select: {tag: \"'%s'\", %s}%s}", id, s.name, tag, strings.Join(list, ", "), own))
	j.sinks = append(j.sinks, fmt.Sprintf("  - {id: %s, from: %s, stdout: {timestamps: us}}", tag, id))
	n := j.newNode(newPass(id))
	s.connect(newEdge(n, 1))
	o := &output{tag: tag, columns: s.columns, node: j.newNode(newSink(tag, s.columns)), ordered: s.ordered}
	n.next = append(n.next, newEdge(o.node, 1))
	for _, name := range s.orderBy {
		o.orderBy = append(o.orderBy, slices.IndexFunc(s.columns, func(c mcol) bool { return c.name == name }))
	}
	j.outputs = append(j.outputs, o)
}
