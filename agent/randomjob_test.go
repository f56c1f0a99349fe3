package agent_test

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// randomJob is a job and its model, with what of the order of its results is
// promised.
//
// A strict one has one file and no exchange but by key from one sequencer: so
// late rows, order-dependent aggregates and the order for each key must be the
// same however it runs. A loose one has several files, unions and all exchanges;
// its watermarks make nothing late, and its aggregates depend on no order.
type randomJob struct {
	drawer
	strict  bool
	devices bool
	yaml    strings.Builder
	steps   []string
	sinks   []string
	nodes   []*mnode
	outputs []*output
	streams []*mstream
	source  msource
	ids     int
}

// mstream is a stream of the job being drawn.
type mstream struct {
	name    string // as a job names it
	columns []mcol
	connect func(e *medge)
	read    bool

	sequenced bool     // all its rows come from one subtask
	timely    bool     // results of windows, of which none is late behind them
	behind    bool     // there are windows before it
	upsert    bool     // no aggregate over it
	ordered   bool     // the rows with equal orderBy keep their order
	orderBy   []string // columns
	side      bool
	single    bool // from one subtask whatever the job's parallelism is
}

// output is a sink, told from the others by its tag.
type output struct {
	tag     string
	columns []mcol
	node    *mnode
	ordered bool
	orderBy []int
}

var sourceColumns = []mcol{{"k", "string"}, {"g", "bigint"}, {"v", "bigint"}, {"d", "double"}, {"s", "string"}, {"m", "boolean"},
	{"ts", "timestamp"}, {"wm", "timestamp"}, {"at", "timestamp"}}

func (j *randomJob) id() string {
	j.ids++
	return fmt.Sprint("s", j.ids)
}

func (j *randomJob) newNode(n *mnode) *mnode {
	j.nodes = append(j.nodes, n)
	return n
}

// drawJob draws all of a job but its input. With devices it has one window behind
// a source whose devices come and go.
func drawJob(t *rapid.T, path string, devices bool) *randomJob {
	j := &randomJob{drawer: drawer{t: t}, strict: devices || rapid.Bool().Draw(t, "strict"), devices: devices}
	j.drawSource()
	if devices {
		j.drawWindow(j.streams[0], drawer{t, sourceColumns})
	} else {
		for range j.int("steps", 1, 5) {
			j.drawStep()
		}
	}
	for _, s := range j.streams {
		if !s.read && (!s.side || j.chance("side", 2)) || j.chance("tap", 5) {
			j.sink(s)
		}
	}
	fmt.Fprintf(&j.yaml, "name: random\nsources:\n  in:\n    file: {path: %q}\n    format: json\n", path)
	fmt.Fprintf(&j.yaml, "    fields: {k: string, g: bigint, v: bigint, d: double, s: string, m: boolean, ts: {type: timestamp, unit: us}, wm: {type: timestamp, unit: us}, at: {type: timestamp, unit: us}}\n")
	fmt.Fprintf(&j.yaml, "    event_time: ts\n%ssteps:\n%s\nsinks:\n%s\n", j.time(), strings.Join(j.steps, "\n"), strings.Join(j.sinks, "\n"))
	return j
}

// drawSource draws how the source makes its watermark.
func (j *randomJob) drawSource() {
	s := &j.source
	s.node = j.newNode(&mnode{id: "in"})
	if j.devices {
		s.strategy, s.bound = rapid.SampledFrom([]string{"bounded", "ascending", "punctuated"}).Draw(j.t, "watermark"), int64(j.int("bound", 0, 6))
		s.keep, s.per, s.arrival, s.idle = rapid.Bool().Draw(j.t, "emit"), "g", true, int64(j.int("idle after", 3, 40))
	} else {
		j.drawTime()
	}
	if s.strategy == "ascending" {
		s.bound = 0
	}
	in := &mstream{name: "in", columns: sourceColumns, sequenced: j.strict, ordered: j.strict}
	in.connect = func(e *medge) { s.node.next = append(s.node.next, e) }
	bad := &mstream{name: "in.rejected", columns: []mcol{{"payload", "bytes"}}, side: true}
	bad.connect = func(e *medge) { s.node.bad = append(s.node.bad, e) }
	j.streams = append(j.streams, in, bad)
}

// drawTime draws a source's watermark and clock.
func (j *randomJob) drawTime() {
	s := &j.source
	s.strategy = rapid.SampledFrom([]string{"", "bounded", "ascending", "punctuated", "punctuated"}).Draw(j.t, "watermark")
	if !j.strict && s.strategy == "ascending" {
		s.strategy = "bounded"
	}
	s.bound = int64(j.int("bound", 0, 6))
	s.keep = rapid.Bool().Draw(j.t, "emit")
	if s.strategy != "" && j.chance("per", 3) {
		s.per = rapid.SampledFrom([]string{"k", "g"}).Draw(j.t, "device")
	}
	if j.strict && j.chance("arrival", 2) {
		s.arrival = true
		if s.strategy != "" && j.chance("idle", 2) {
			s.idle = int64(j.int("idle after", 5, 60))
		}
		if s.strategy != "" && j.chance("ahead", 2) {
			s.ahead = int64(j.int("max ahead", 1, 30))
		}
	}
}

// time is the source's event time in the job; the bound is known when the
// input is.
func (j *randomJob) time() string {
	s, text := &j.source, ""
	if s.arrival {
		text += "    arrival: at\n"
	}
	parts := []string{map[string]string{"bounded": "bounded: BOUNDus", "ascending": "ascending: true",
		"punctuated": fmt.Sprintf("punctuated: {when: m, at: wm, emit: %t}", s.keep)}[s.strategy]}
	if s.per != "" {
		parts = append(parts, "per: "+s.per)
	}
	if s.idle > 0 {
		parts = append(parts, fmt.Sprintf("idle_after: %dus", s.idle))
	}
	if s.ahead > 0 {
		parts = append(parts, fmt.Sprintf("max_ahead: %dus", s.ahead))
	}
	if s.strategy != "" {
		text += "    watermark: {" + strings.Join(parts, ", ") + "}\n"
	}
	return text
}

// drawStep adds a step that reads one of the streams.
func (j *randomJob) drawStep() {
	var main []*mstream
	for _, s := range j.streams {
		if !strings.HasSuffix(s.name, ".rejected") {
			main = append(main, s)
		}
	}
	from := main[len(main)-1]
	if j.chance("branch", 3) {
		from = rapid.SampledFrom(main).Draw(j.t, "from")
	}
	d := drawer{j.t, from.columns}
	switch kind := j.int("verb", 0, 11); {
	case kind == 0:
		cond := d.condition(2)
		if e, ok := d.cast(); ok && j.chance("cast", 2) {
			cond = binary("<", "boolean", e, literal(5), func(x, y any) any {
				if x == any(errRow{}) {
					return x
				}
				return x.(int64) < y.(int64)
			})
		}
		j.step(from, newWhere(j.id(), cond), from.columns, fmt.Sprintf("where: %q", cond.text), true)
	case kind == 1:
		j.drawSelect(from, d)
	case kind == 2 && len(d.of("string")) > 0:
		j.drawSplit(from, d)
	case kind == 3 && len(d.of("bigint")) > 0:
		j.drawSeries(from, d)
	case kind == 4:
		j.drawUnion(from, main)
	case kind == 5:
		j.drawKeyBy(from, d)
	case j.windowed(from):
		j.drawWindow(from, d)
	default:
		j.step(from, newPass(j.id()), from.columns, "", false)
	}
}

// windowed tells whether an aggregate may read a stream.
func (j *randomJob) windowed(s *mstream) bool {
	return !s.upsert && (s.sequenced || !s.side && (!j.strict || s.timely))
}

// step adds a step without a key.
func (j *randomJob) step(from *mstream, n *mnode, columns []mcol, verb string, rejects bool) *mstream {
	j.newNode(n)
	from.read = true
	e := newEdge(n, 1)
	from.connect(e)
	out := &mstream{name: n.id, columns: columns, upsert: from.upsert, timely: from.timely, behind: from.behind, side: from.side}
	out.connect = func(e *medge) { n.next = append(n.next, e) }
	text := fmt.Sprintf("  - {id: %s, from: %s", n.id, from.name)
	if verb != "" {
		text += ", " + verb
	}
	exchange := ""
	if !j.strict && j.chance("exchange", 3) || verb == "" {
		exchange = "forward"
		if from.single {
			exchange = "rebalance"
		}
		if !j.strict {
			exchange = rapid.SampledFrom([]string{"rebalance", "shuffle", "broadcast", "rescale", "global"}).Draw(j.t, "how")
		}
	}
	if exchange != "" {
		text += ", exchange: " + exchange
	}
	if exchange == "broadcast" {
		e.copies = j.int("parallelism", 1, 3)
		text += fmt.Sprint(", parallelism: ", e.copies)
	} else if !j.strict && exchange != "forward" && j.chance("own parallelism", 4) {
		text += fmt.Sprint(", parallelism: ", j.int("parallelism", 1, 3))
		exchange = "rebalance"
	}
	if exchange == "" || exchange == "forward" {
		out.sequenced = from.sequenced
		out.ordered, out.orderBy = from.ordered && !from.single && survive(from.orderBy, columns), from.orderBy
	}
	j.steps = append(j.steps, text+j.placement()+"}")
	j.streams = append(j.streams, out)
	if rejects {
		bad := &mstream{name: n.id + ".rejected", columns: from.columns, side: true, sequenced: out.sequenced}
		bad.connect = func(e *medge) { n.bad = append(n.bad, e) }
		if j.chance("rejected", 2) {
			j.streams = append(j.streams, bad)
			return out
		}
		var exprs []mexpr // without the reason, which no model knows
		for _, c := range from.columns {
			exprs = append(exprs, column(c))
		}
		j.step(bad, newSelect(j.id(), names(from.columns), exprs), from.columns, "select: {"+items(from.columns, exprs)+"}", false)
	}
	return out
}

// survive tells whether columns are still there.
func survive(names []string, columns []mcol) bool {
	for _, name := range names {
		found := false
		for _, c := range columns {
			found = found || c.name == name
		}
		if !found {
			return false
		}
	}
	return true
}

// placement is chaining and slots, which change no result.
func (j *randomJob) placement() string {
	text := ""
	if j.chance("chain", 4) {
		text += ", chain: " + rapid.SampledFrom([]string{"never", "head"}).Draw(j.t, "chaining")
	}
	if j.chance("slots", 6) {
		text += ", slot_group: other"
	}
	return text
}

// drawSelect keeps columns under their names and adds new ones.
func (j *randomJob) drawSelect(from *mstream, d drawer) {
	var columns []mcol
	var exprs []mexpr
	for _, c := range d.columns {
		if j.int("keep", 0, 3) > 0 {
			columns, exprs = append(columns, c), append(exprs, column(c))
		}
	}
	for range j.int("new columns", 1, 2) {
		e := d.any()
		columns, exprs = append(columns, mcol{"c" + j.id(), e.typ}), append(exprs, e)
	}
	if e, ok := d.cast(); ok && j.chance("cast", 3) {
		columns, exprs = append(columns, mcol{"c" + j.id(), e.typ}), append(exprs, e)
	}
	j.step(from, newSelect(j.id(), names(columns), exprs), columns, "select: {"+items(columns, exprs)+"}", true)
}

func names(columns []mcol) (names []string) {
	for _, c := range columns {
		names = append(names, c.name)
	}
	return names
}

func items(columns []mcol, exprs []mexpr) string {
	var list []string
	for i, e := range exprs {
		list = append(list, fmt.Sprintf("%s: %q", columns[i].name, e.text))
	}
	return strings.Join(list, ", ")
}

// beside are the columns of a flat_map beside its set.
func (j *randomJob) beside(set string, d drawer) (columns []mcol) {
	for _, c := range d.columns {
		if c.name != set && j.int("beside", 0, 2) > 0 {
			columns = append(columns, c)
		}
	}
	return columns
}

func (j *randomJob) drawSplit(from *mstream, d drawer) {
	text := rapid.SampledFrom(d.of("string")).Draw(j.t, "text").name
	name, beside := "w"+j.id(), j.beside("", d)
	n := newFlatMap(j.id(), name, func(r *mrow) (set []any) {
		if s, ok := r.v[text].(string); ok {
			for _, part := range strings.Split(s, " ") {
				set = append(set, part)
			}
		}
		return set
	}, names(beside))
	verb := strings.Join(append([]string{"split(" + text + ", ' ') as " + name}, names(beside)...), ", ")
	j.step(from, n, append([]mcol{{name, "string"}}, beside...), fmt.Sprintf("flat_map: %q", verb), true)
}

func (j *randomJob) drawSeries(from *mstream, d drawer) {
	to := rapid.SampledFrom(d.of("bigint")).Draw(j.t, "to").name
	name, beside := "i"+j.id(), j.beside("", d)
	low := int64(j.int("low", -1, 2))
	n := newFlatMap(j.id(), name, func(r *mrow) (set []any) {
		if high, ok := r.v[to].(int64); ok {
			for i := low; i <= min(high, low+40); i++ {
				set = append(set, i)
			}
		}
		return set
	}, names(beside))
	verb := strings.Join(append([]string{fmt.Sprintf("generate_series(%d, least(%s, %d)) as %s", low, to, low+40, name)}, names(beside)...), ", ")
	// least leaves nulls out; without this a null would be a long series.
	guard := mexpr{"(" + to + " is not null)", "boolean", func(r *mrow) any { return r.v[to] != nil }}
	from = j.step(from, newWhere(j.id(), guard), from.columns, fmt.Sprintf("where: %q", guard.text), false)
	j.step(from, n, append([]mcol{{name, "bigint"}}, beside...), fmt.Sprintf("flat_map: %q", verb), true)
}
