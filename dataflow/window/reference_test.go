package window_test

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"sort"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
)

// reference is the rules R1 to R10 written down as they stand: one row at a
// time, a window is a list of its rows in a map, an aggregate is computed from
// that list whenever it is asked for.
type reference struct {
	spec  window.Spec
	exprs []string // of the aggregates: the argument's text
	out   optest.Stream
	late  []string
	count operator.Counters

	wm, arrival int64
	before      int64 // windows that end before it are gone, whatever the lateness
	arrived     int   // rows so far
	keys        map[string]*refKey
	order       []string // keys in order of appearance
}

type refRow struct {
	row    *optest.Row
	number int
}

type refWindow struct {
	start, end int64
	rows       []refRow
	pending    int // FireAtWatermark: when it asked, 0: not
}

type refKey struct {
	values  []any
	windows []*refWindow
	rows    []refRow // count windows: not fired yet, or all; running: all
}

func newReference(s window.Spec, exprs []string, out *batch.Schema) *reference {
	return &reference{spec: s, exprs: exprs, out: optest.Stream{Schema: out}, wm: math.MinInt64, arrival: math.MinInt64, before: math.MinInt64, keys: map[string]*refKey{}}
}

func (r *reference) run(in optest.Stream) {
	for _, e := range in.Elements {
		if e.Row != nil {
			r.arrived++
			r.row(refRow{e.Row, r.arrived})
			continue
		}
		w := int64(e.Mark.Watermark)
		if r.spec.ProcessingTime && e.Mark.Watermark != dataflow.MaxTime {
			w = int64(e.Mark.Arrival.Add(-1))
		}
		r.arrival = int64(e.Mark.Arrival)
		if w > r.wm {
			r.watermark(w)
		}
		r.out.Elements = append(r.out.Elements, optest.Element{Mark: e.Mark})
	}
}

func (r *reference) key(row *optest.Row) *refKey {
	var id strings.Builder
	var values []any
	for _, k := range r.spec.Keys {
		v := row.Values[k]
		values = append(values, v)
		fmt.Fprintf(&id, "%T %v|", v, v)
	}
	k := r.keys[id.String()]
	if k == nil {
		k = &refKey{values: values}
		r.keys[id.String()] = k
		r.order = append(r.order, id.String())
	}
	return k
}

// modulo is t-offset modulo n, never negative.
func modulo(t, offset, n int64) int64 { return (((t - offset) % n) + n) % n }

// assign is the table of SEMANTICS 2.1.
func (r *reference) assign(t int64) (w [][2]int64) {
	size, slide, offset := int64(r.spec.Size), int64(r.spec.Slide), int64(r.spec.Offset)
	if r.spec.Form == window.Tumbling {
		start := t - modulo(t, offset, size)
		return [][2]int64{{start, start + size}}
	}
	for s := t - modulo(t, offset, slide); s > t-size; s -= slide {
		w = append([][2]int64{{s, s + size}}, w...)
	}
	return w
}

// gone is R6: the cleanup time of a window that ends then has come, or had come
// with the lateness that there was before.
func (r *reference) gone(end int64) bool {
	return int64(dataflow.Time(end-1).Add(r.spec.AllowedLateness)) <= r.wm || end-1 < r.before
}

// restored goes on with another lateness. What is gone by it goes, but for what
// is to fire again, which goes when it has.
func (r *reference) restored(lateness dataflow.Duration, firing window.Firing) {
	if r.wm == math.MaxInt64 {
		r.before = math.MaxInt64
	} else if r.wm > math.MinInt64 {
		r.before = max(r.before, r.wm-int64(r.spec.AllowedLateness)+1)
	}
	r.spec.AllowedLateness, r.spec.Firing = lateness, firing
	for _, k := range r.keys {
		k.windows = slices.DeleteFunc(k.windows, func(m *refWindow) bool { return r.gone(m.end) && m.pending == 0 })
	}
}

func (r *reference) row(x refRow) {
	k := r.key(x.row)
	t := int64(x.row.Time)
	if r.spec.ProcessingTime {
		if t = r.arrival; t == math.MinInt64 { // no arrival clock
			t = 0
		}
	}
	switch r.spec.Form {
	case window.Running:
		k.rows = append(k.rows, x)
		r.emit(k, nil, k.rows, int64(x.row.Time), batch.UpdateAfter)
	case window.Count:
		k.rows = append(k.rows, x)
		if int64(len(k.rows)) == r.spec.Rows {
			r.emit(k, nil, k.rows, int64(x.row.Time), batch.Insert)
			k.rows = nil
		}
	case window.SlidingCount:
		k.rows = append(k.rows, x)
		if n := int64(len(k.rows)); n%r.spec.EachRows == 0 {
			r.emit(k, nil, k.rows[max(0, n-r.spec.Rows):], int64(x.row.Time), batch.Insert)
		}
	case window.Session:
		r.session(k, x, t)
	default:
		r.timed(k, x, t)
	}
}

func (r *reference) timed(k *refKey, x refRow, t int64) {
	added := false
	windows := r.assign(t)
	for _, w := range windows {
		if r.gone(w[1]) { // R7
			continue
		}
		added = true
		m := k.window(w)
		m.rows = append(m.rows, x)
		if w[1]-1 <= r.wm { // R9
			r.again(k, m, x)
		}
	}
	for _, m := range k.windows { // gone with a smaller lateness, but for an update that is due
		if added && m.pending > 0 && r.gone(m.end) && slices.Contains(windows, [2]int64{m.start, m.end}) {
			m.rows = append(m.rows, x)
		}
	}
	r.skipped(x, t, added)
}

func (k *refKey) window(w [2]int64) *refWindow {
	for _, m := range k.windows {
		if m.start == w[0] && m.end == w[1] {
			return m
		}
	}
	m := &refWindow{start: w[0], end: w[1]}
	k.windows = append(k.windows, m)
	return m
}

// skipped is R8, and E07 as we decided it.
func (r *reference) skipped(x refRow, t int64, added bool) {
	switch {
	case added:
	case r.gone(t + 1):
		r.count.Late++
		r.late = append(r.late, optest.Stream{Schema: r.spec.Input, Elements: []optest.Element{{Row: x.row}}}.String())
	default:
		r.count.NoWindow++
	}
}

func (r *reference) again(k *refKey, m *refWindow, x refRow) {
	if r.spec.Firing == window.FireAtWatermark || r.gone(m.end) { // the latter since it was restored
		if m.pending == 0 {
			m.pending = x.number
		}
		return
	}
	r.fire(k, m, batch.UpdateAfter)
}

func (r *reference) session(k *refKey, x refRow, t int64) {
	n := &refWindow{start: t, end: int64(dataflow.Time(t).Add(r.spec.Gap))}
	var rest []*refWindow
	for _, m := range k.windows {
		if n.start <= m.end && n.end >= m.start {
			continue
		}
		rest = append(rest, m)
	}
	for _, m := range k.windows {
		if t <= m.end && int64(dataflow.Time(t).Add(r.spec.Gap)) >= m.start {
			n.start, n.end = min(n.start, m.start), max(n.end, m.end)
			n.rows = append(n.rows, m.rows...)
		}
	}
	if len(n.rows) == 0 && r.gone(n.end) {
		r.skipped(x, t, false)
		return
	}
	n.rows = append(n.rows, x)
	k.windows = append(rest, n)
	if n.end-1 <= r.wm {
		r.again(k, n, x)
	}
}

// watermark is R3: what waits for it, then the timers in order, then cleanup.
func (r *reference) watermark(w int64) {
	was := r.wm
	r.wm = w
	type due struct {
		k *refKey
		w *refWindow
	}
	var again, first []due
	for _, id := range r.order {
		k := r.keys[id]
		for _, m := range k.windows {
			switch {
			case m.pending > 0:
				again = append(again, due{k, m})
			case m.end-1 > was && m.end-1 <= w:
				first = append(first, due{k, m})
			}
		}
	}
	for i, l := range [][]due{again, first} {
		sort.SliceStable(l, func(a, b int) bool { return l[a].w.end < l[b].w.end })
		for _, d := range l {
			d.w.pending = 0
			r.fire(d.k, d.w, [...]batch.Kind{batch.UpdateAfter, batch.Insert}[i])
		}
	}
	for _, k := range r.keys {
		var kept []*refWindow
		for _, m := range k.windows {
			if !r.gone(m.end) {
				kept = append(kept, m)
			}
		}
		k.windows = kept
	}
}

func (r *reference) fire(k *refKey, m *refWindow, kind batch.Kind) {
	r.emit(k, []any{m.start, m.end}, m.rows, m.end-1, kind)
}

func (r *reference) emit(k *refKey, bounds []any, rows []refRow, t int64, kind batch.Kind) {
	r.count.Fired++
	v := append([]any(nil), k.values...)
	if r.spec.Form != window.Running {
		if bounds == nil {
			bounds = []any{nil, nil}
		}
		v = append(v, bounds...)
	}
	for i, a := range r.spec.Aggregates {
		v = append(v, r.aggregate(a, r.exprs[i], rows))
	}
	r.out.Elements = append(r.out.Elements, optest.Element{Row: &optest.Row{Time: dataflow.Time(t), Kind: kind, Values: v}})
}

// argument is the value of an aggregate's argument for a row.
func (r *reference) argument(text string, row *optest.Row) any {
	switch text {
	case "v + 1":
		if v := row.Values[1]; v != nil {
			return v.(int64) + 1
		}
		return nil
	case "d * 2.0":
		if v := row.Values[2]; v != nil {
			return v.(float64) * 2
		}
		return nil
	}
	return row.Values[r.spec.Input.Index(text)]
}

func (r *reference) aggregate(a window.Aggregate, text string, rows []refRow) any {
	if a.Func == window.CountRows {
		return int64(len(rows))
	}
	rows = append([]refRow(nil), rows...)
	sort.Slice(rows, func(i, j int) bool {
		if x, y := rows[i].row.Time, rows[j].row.Time; x != y {
			return x < y
		}
		return rows[i].number < rows[j].number
	})
	var values []any
	set := map[any]bool{}
	for _, x := range rows {
		if v := r.argument(text, x.row); v != nil {
			values = append(values, v)
			set[v] = true
		}
	}
	switch {
	case a.Func == window.CountValues:
		return int64(len(values))
	case a.Func == window.CountDistinct:
		return int64(len(set))
	case len(values) == 0:
		return nil
	}
	switch a.Func {
	case window.First:
		return values[0]
	case window.Last:
		return values[len(values)-1]
	case window.Min, window.Max:
		sort.SliceStable(values, func(i, j int) bool { return less(values[i], values[j]) })
		if a.Func == window.Max {
			return values[len(values)-1]
		}
		return values[0]
	}
	return numeric(a.Func, values)
}

func less(a, b any) bool {
	switch a := a.(type) {
	case int64:
		return a < b.(int64)
	case float64:
		return a < b.(float64)
	case string:
		return a < b.(string)
	}
	return !a.(bool) && b.(bool)
}

func numeric(f window.Func, values []any) any {
	sum, exact := 0.0, new(big.Int)
	_, whole := values[0].(int64)
	var x []float64
	for _, v := range values {
		if whole {
			exact.Add(exact, big.NewInt(v.(int64)))
			x = append(x, float64(v.(int64)))
		} else {
			x = append(x, v.(float64))
		}
		sum += x[len(x)-1]
	}
	n := float64(len(x))
	switch {
	case f == window.Sum && whole:
		if !exact.IsInt64() {
			return nil
		}
		return exact.Int64()
	case f == window.Sum:
		return sum
	case f == window.Avg && whole:
		q, _ := new(big.Float).SetInt(exact).Float64()
		return q / n
	case f == window.Avg:
		return sum / n
	}
	if len(x) < 2 {
		return nil
	}
	m2 := 0.0
	for _, v := range x {
		m2 += (v - sum/n) * (v - sum/n)
	}
	if f == window.Var {
		return m2 / (n - 1)
	}
	return math.Sqrt(m2 / (n - 1))
}
