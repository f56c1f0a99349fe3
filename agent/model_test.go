package agent_test

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
)

// The model is the engine as a plain program: a row at a time, a window is the
// list of its rows, an aggregate is worked out from that list. It shares no code
// with the engine.

const (
	minTime = int64(math.MinInt64)
	maxTime = int64(math.MaxInt64)
)

// plus saturates, as times do.
func plus(t, d int64) int64 {
	switch s := t + d; {
	case d > 0 && s < t:
		return maxTime
	case d < 0 && s > t:
		return minTime
	default:
		return s
	}
}

// mrow is a row: nil, int64, float64, string or bool by column.
type mrow struct {
	ts int64
	v  map[string]any
}

// mcol is a column of a stream.
type mcol struct{ name, typ string }

// mexpr is an expression: its text in a job, its type, and what it is for a row.
type mexpr struct {
	text, typ string
	eval      func(r *mrow) any
}

// mcounts are the counters of an operator.
type mcounts struct{ In, Out, Filtered, Late, NoWindow, Rejected, Markers int64 }

// mnode is an operator of the model. Rows and marks are pushed into it.
type mnode struct {
	id    string
	count mcounts
	next  []*medge // of the main stream
	late  []*medge
	bad   []*medge // of the rejected one

	onRow  func(n *mnode, r *mrow)
	onMark func(n *mnode, wm, arrival int64)

	in    []*medge
	lines []string // of a sink
}

// medge is a stream to an operator; a broadcast brings each row several times.
type medge struct {
	to          *mnode
	copies      int
	wm, arrival int64
}

func newEdge(to *mnode, copies int) *medge {
	e := &medge{to: to, copies: copies, wm: minTime, arrival: minTime}
	to.in = append(to.in, e)
	return e
}

// mark brings a mark; behind a union the least of all inputs' counts.
func (e *medge) mark(wm, arrival int64) {
	e.wm, e.arrival = wm, arrival
	for _, o := range e.to.in {
		wm, arrival = min(wm, o.wm), min(arrival, o.arrival)
	}
	e.to.mark(wm, arrival)
}

func (n *mnode) row(r *mrow) {
	n.count.In++
	n.onRow(n, r)
}

func (n *mnode) mark(wm, arrival int64) {
	if n.onMark != nil {
		n.onMark(n, wm, arrival)
	}
	for _, e := range slices.Concat(n.next, n.late, n.bad) {
		e.mark(wm, arrival)
	}
}

// emit sends a row on.
func (n *mnode) emit(r *mrow) {
	n.count.Out++
	send(n.next, r)
}

func send(edges []*medge, r *mrow) {
	for _, e := range edges {
		for range e.copies {
			e.to.row(r)
		}
	}
}

func newPass(id string) *mnode {
	return &mnode{id: id, onRow: func(n *mnode, r *mrow) { n.emit(r) }}
}

func newWhere(id string, cond mexpr) *mnode {
	return &mnode{id: id, onRow: func(n *mnode, r *mrow) {
		switch cond.eval(r) {
		case true:
			n.emit(r)
		case any(errRow{}):
			n.count.Rejected++
			send(n.bad, r)
		default:
			n.count.Filtered++
		}
	}}
}

// errRow is the value of an expression that has none.
type errRow struct{}

func newSelect(id string, names []string, exprs []mexpr) *mnode {
	return &mnode{id: id, onRow: func(n *mnode, r *mrow) {
		out := &mrow{ts: r.ts, v: make(map[string]any)}
		for i, e := range exprs {
			v := e.eval(r)
			if v == any(errRow{}) {
				n.count.Rejected++
				send(n.bad, r)
				return
			}
			out.v[names[i]] = v
		}
		n.emit(out)
	}}
}

// newFlatMap makes a row of each element, with columns of the input beside it.
func newFlatMap(id, name string, set func(r *mrow) []any, columns []string) *mnode {
	return &mnode{id: id, onRow: func(n *mnode, r *mrow) {
		for _, x := range set(r) {
			out := &mrow{ts: r.ts, v: map[string]any{name: x}}
			for _, c := range columns {
				out.v[c] = r.v[c]
			}
			n.emit(out)
		}
	}}
}

// newSink keeps what it is given as text: the columns, in order.
func newSink(id string, columns []mcol) *mnode {
	return &mnode{id: id, onRow: func(n *mnode, r *mrow) {
		n.count.Out++
		var values []string
		for _, c := range columns {
			values = append(values, show(c.typ, r.v[c.name]))
		}
		n.lines = append(n.lines, strings.Join(values, "|"))
	}}
}

// show is a value as text. Doubles are compared to nine digits; what lies
// between two of them is pushed off the edge first.
func show(typ string, v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case float64:
		if math.Abs(v) < 1e-12 { // what a variance of equal values is short of zero
			return "0"
		}
		return fmt.Sprintf("%.9g", v*(1+1e-11))
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case string:
		if typ == "bytes" {
			return base64.StdEncoding.EncodeToString([]byte(v))
		}
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprint(v)
}

// maggregate is an aggregate of a window.
type maggregate struct {
	name, fn string // fn: count, sum, …; "rows" is count(*)
	arg      mexpr
}

// mwindow is a window step.
type mwindow struct {
	form                     string // tumbling, sliding, session, count, slidingcount, running
	size, slide, offset, gap int64
	lateness                 int64
	atWatermark, processing  bool
	keys                     []string
	aggregates               []maggregate

	wm, arrival int64
	seen        int
	order       []string
	byKey       map[string]*mkey
}

type mkey struct {
	values  []any
	windows []*mpane
	rows    []*mseen // count windows and running aggregates
}

// mpane is one window of a key.
type mpane struct {
	start, end int64
	rows       []*mseen
	pending    bool // it fires again at the next watermark
}

// mseen is a row and when it came.
type mseen struct {
	*mrow
	number int
}

func newWindow(id string, w *mwindow) *mnode {
	w.wm, w.arrival, w.byKey = minTime, minTime, make(map[string]*mkey)
	return &mnode{id: id, onRow: w.row, onMark: w.mark}
}

func (w *mwindow) row(n *mnode, r *mrow) {
	w.seen++
	x := &mseen{r, w.seen}
	var values []any
	for _, k := range w.keys {
		values = append(values, r.v[k])
	}
	id := fmt.Sprintf("%#v", values)
	k := w.byKey[id]
	if k == nil {
		k = &mkey{values: values}
		w.byKey[id] = k
		w.order = append(w.order, id)
	}
	t := r.ts
	if w.processing {
		t = w.arrival
	}
	switch w.form {
	case "running":
		k.rows = append(k.rows, x)
		w.fire(n, k, nil, k.rows, r.ts)
	case "count":
		if k.rows = append(k.rows, x); int64(len(k.rows)) == w.size {
			w.fire(n, k, nil, k.rows, r.ts)
			k.rows = nil
		}
	case "slidingcount":
		k.rows = append(k.rows, x)
		if c := int64(len(k.rows)); c%w.slide == 0 {
			w.fire(n, k, nil, k.rows[max(0, c-w.size):], r.ts)
		}
	case "session":
		w.session(n, k, x, t)
	default:
		w.timed(n, k, x, t)
	}
}

// assigned are the windows of a time, from the first to the last.
func (w *mwindow) assigned(t int64) (spans [][2]int64) {
	every := w.size
	if w.form == "sliding" {
		every = w.slide
	}
	last := t - (((t-w.offset)%every)+every)%every
	for s := last; s > t-w.size; s -= every {
		spans = append([][2]int64{{s, s + w.size}}, spans...)
	}
	return spans
}

func (w *mwindow) gone(end int64) bool { return plus(end-1, w.lateness) <= w.wm }

func (w *mwindow) timed(n *mnode, k *mkey, x *mseen, t int64) {
	taken := false
	for _, span := range w.assigned(t) {
		if w.gone(span[1]) {
			continue
		}
		taken = true
		var pane *mpane
		for _, p := range k.windows {
			if p.start == span[0] {
				pane = p
			}
		}
		if pane == nil {
			pane = &mpane{start: span[0], end: span[1]}
			k.windows = append(k.windows, pane)
		}
		pane.rows = append(pane.rows, x)
		w.again(n, k, pane)
	}
	if !taken {
		w.refuse(n, x, t)
	}
}

func (w *mwindow) refuse(n *mnode, x *mseen, t int64) {
	if plus(t, w.lateness) > w.wm {
		n.count.NoWindow++
		return
	}
	n.count.Late++
	send(n.late, x.mrow)
}

// again answers a row in a window that has fired already.
func (w *mwindow) again(n *mnode, k *mkey, p *mpane) {
	switch {
	case p.end-1 > w.wm:
	case w.atWatermark:
		p.pending = true
	default:
		w.fire(n, k, p, p.rows, p.end-1)
	}
}

func (w *mwindow) session(n *mnode, k *mkey, x *mseen, t int64) {
	p := &mpane{start: t, end: plus(t, w.gap)}
	own := *p
	var apart []*mpane
	for _, o := range k.windows {
		if own.start > o.end || own.end < o.start {
			apart = append(apart, o)
			continue
		}
		p.start, p.end = min(p.start, o.start), max(p.end, o.end)
		p.rows = append(p.rows, o.rows...)
		p.pending = p.pending || o.pending
	}
	if w.gone(p.end) {
		w.refuse(n, x, t)
		return
	}
	// Merged into one that fires again by itself, if it is due at all.
	p.pending = p.pending && p.end-1 <= w.wm
	p.rows = append(p.rows, x)
	k.windows = append(apart, p)
	w.again(n, k, p)
}

func (w *mwindow) mark(n *mnode, wm, arrival int64) {
	w.arrival = max(w.arrival, arrival)
	if w.processing && wm != maxTime {
		wm = plus(w.arrival, -1)
	}
	if wm <= w.wm {
		return
	}
	was := w.wm
	w.wm = wm
	for _, id := range w.order {
		k := w.byKey[id]
		var again, first, kept []*mpane
		for _, p := range k.windows {
			switch {
			case p.pending:
				again = append(again, p)
			case p.end-1 > was && p.end-1 <= wm:
				first = append(first, p)
			}
		}
		for _, due := range [][]*mpane{again, first} {
			sort.Slice(due, func(i, j int) bool { return due[i].end < due[j].end })
			for _, p := range due {
				p.pending = false
				w.fire(n, k, p, p.rows, p.end-1)
			}
		}
		for _, p := range k.windows {
			if !w.gone(p.end) {
				kept = append(kept, p)
			}
		}
		k.windows = kept
	}
}

func (w *mwindow) fire(n *mnode, k *mkey, p *mpane, rows []*mseen, ts int64) {
	out := &mrow{ts: ts, v: make(map[string]any)}
	for i, name := range w.keys {
		out.v[name] = k.values[i]
	}
	if p != nil {
		out.v["window_start"], out.v["window_end"] = p.start, p.end
	}
	for _, a := range w.aggregates {
		out.v[a.name] = a.of(rows)
	}
	n.emit(out)
}

func (a *maggregate) of(rows []*mseen) any {
	if a.fn == "rows" {
		return int64(len(rows))
	}
	rows = slices.Clone(rows)
	sort.Slice(rows, func(i, j int) bool {
		if rows[i].ts != rows[j].ts {
			return rows[i].ts < rows[j].ts
		}
		return rows[i].number < rows[j].number
	})
	var values []any
	distinct := make(map[any]bool)
	for _, r := range rows {
		if v := a.arg.eval(r.mrow); v != nil {
			values = append(values, v)
			distinct[v] = true
		}
	}
	switch {
	case a.fn == "count":
		return int64(len(values))
	case a.fn == "distinct":
		return int64(len(distinct))
	case len(values) == 0:
		return nil
	}
	switch a.fn {
	case "first":
		return values[0]
	case "last":
		return values[len(values)-1]
	case "min", "max":
		best := values[0]
		for _, v := range values[1:] {
			if c := compare(v, best); a.fn == "min" && c < 0 || a.fn == "max" && c > 0 {
				best = v
			}
		}
		return best
	}
	return a.number(values)
}

func (a *maggregate) number(values []any) any {
	whole, sum, n := int64(0), 0.0, float64(len(values))
	for _, v := range values {
		if i, ok := v.(int64); ok {
			whole += i
		}
		sum += double(v)
	}
	switch a.fn {
	case "sum":
		if a.arg.typ == "bigint" {
			return whole
		}
		return sum
	case "avg":
		return sum / n
	}
	if n < 2 {
		return nil
	}
	squares := 0.0
	for _, v := range values {
		squares += (double(v) - sum/n) * (double(v) - sum/n)
	}
	if a.fn == "var" {
		return squares / (n - 1)
	}
	return math.Sqrt(squares / (n - 1))
}

func double(v any) float64 {
	if i, ok := v.(int64); ok {
		return float64(i)
	}
	return v.(float64)
}

// compare orders values of one type, and bigint with double.
func compare(a, b any) int {
	switch x := a.(type) {
	case string:
		return strings.Compare(x, b.(string))
	case bool:
		return strings.Compare(fmt.Sprint(x), fmt.Sprint(b))
	}
	if x, ok := a.(int64); ok {
		if y, ok := b.(int64); ok {
			switch {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return 0
		}
	}
	switch x, y := double(a), double(b); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}
