package eventtime

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

const (
	minT = dataflow.MinTime
	maxT = dataflow.MaxTime
)

// combineVector is an example of kind "combine".
type combineVector struct {
	ID       string  `json:"id"`
	Kind     string  `json:"kind"`
	Inputs   int     `json:"inputs"`
	Flush    string  `json:"flush_on_all_idle"`
	Ops      [][]any `json:"ops"`
	Expected []any   `json:"expected"`
}

// TestE40toE43Vectors runs the examples of watermark combination. E43's variant
// "only_if_last_was_min" is the older rule, by which the result depends on the
// order in which inputs went idle; it is for information and not ours.
func TestE40toE43Vectors(t *testing.T) {
	text, err := os.ReadFile("testdata/semantics-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []combineVector
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, v := range all {
		if v.Kind != "combine" || v.Flush != "always" {
			continue
		}
		ran++
		t.Run(v.ID, func(t *testing.T) {
			if got := combine(v.Inputs, v.Ops); !reflect.DeepEqual(got, v.Expected) {
				t.Errorf("got %v, want %v", got, v.Expected)
			}
		})
	}
	if ran != 4 {
		t.Errorf("ran %d vectors, want E40, E41, E42, E43", ran)
	}
}

// combine applies the operations and lists what came out: each new watermark,
// and "IDLE" when the output went idle.
func combine(inputs int, ops [][]any) []any {
	m := NewMerge(inputs)
	var got []any
	for _, op := range ops {
		i := int(op[1].(float64))
		in := m.Input(i)
		mk := batch.Mark{Watermark: in.Watermark, Arrival: in.Arrival, Idle: in.Idle}
		switch op[0] {
		case "wm":
			mk.Watermark = dataflow.Time(op[2].(float64))
		case "idle":
			mk.Idle = true
		case "active":
			mk.Idle = false
		}
		before := m.Out()
		out, _ := m.Mark(i, mk)
		if out.Watermark != before.Watermark {
			got = append(got, float64(out.Watermark))
		}
		if out.Idle && !before.Idle {
			got = append(got, "IDLE")
		}
	}
	return got
}

func wm(t dataflow.Time) batch.Mark { return batch.Mark{Watermark: t, Arrival: minT} }
func idle(t dataflow.Time) batch.Mark {
	return batch.Mark{Watermark: t, Arrival: minT, Idle: true}
}

// step is a mark on an input and the merged watermark that it leads to.
type step struct {
	input int
	mark  batch.Mark
	want  dataflow.Time
	idle  bool
}

func runSteps(t *testing.T, m *Merge, steps []step) {
	t.Helper()
	for i, s := range steps {
		out, _ := m.Mark(s.input, s.mark)
		if out.Watermark != s.want || out.Idle != s.idle {
			t.Errorf("step %d: %v idle=%v, want %v idle=%v", i, out.Watermark, out.Idle, s.want, s.idle)
		}
	}
}

func TestE35TwoInputsOneNeverMarked(t *testing.T) {
	const a, b = 0, 1
	runSteps(t, NewMerge(2), []step{
		{input: a, mark: wm(100), want: minT},
		{input: b, mark: idle(minT), want: 100},
		{input: b, mark: wm(90), want: 100},
		{input: b, mark: wm(120), want: 100},
		{input: a, mark: wm(110), want: 110},
	})
}

func TestE36MarkerFromOneOfTwoSubtasks(t *testing.T) {
	runSteps(t, NewMerge(2), []step{
		{input: 0, mark: wm(10), want: minT},
		{input: 1, mark: wm(7), want: 7},
		{input: 1, mark: wm(12), want: 10},
		{input: 0, mark: wm(11), want: 11},
	})
}

// TestE42EitherOrder: the flush does not depend on who goes idle first.
func TestE42EitherOrder(t *testing.T) {
	for _, first := range []int{0, 1} {
		m := NewMerge(2)
		m.Mark(0, wm(10))
		m.Mark(1, wm(5))
		own := []dataflow.Time{10, 5}
		m.Mark(first, idle(own[first]))
		out, _ := m.Mark(1-first, idle(own[1-first]))
		if out.Watermark != 10 || !out.Idle {
			t.Errorf("first %d: %v idle=%v, want 10 idle", first, out.Watermark, out.Idle)
		}
	}
}

func TestMergeEnds(t *testing.T) {
	runSteps(t, NewMerge(3), []step{
		{input: 0, mark: wm(5), want: minT},
		{input: 1, mark: wm(7), want: minT},
		{input: 2, mark: wm(9), want: 5},
		{input: 0, mark: wm(maxT), want: 7},
		{input: 1, mark: idle(7), want: 9},
		// All that have not ended are idle: flush, but not to the end.
		{input: 2, mark: idle(9), want: 9, idle: true},
		{input: 1, mark: wm(maxT), want: 9, idle: true},
		{input: 1, mark: wm(11), want: 9, idle: true},
		{input: 2, mark: wm(maxT), want: maxT},
	})
}

// TestMergeMarkOfTwo: a mark that raises the watermark and goes idle is the one
// and then the other.
func TestMergeMarkOfTwo(t *testing.T) {
	behind := func() *Merge { // input 1 is active and not aligned, at 3; output 10
		m := NewMerge(2)
		m.Mark(1, wm(3))
		m.Mark(1, idle(3))
		m.Mark(0, wm(10))
		m.Mark(1, wm(3))
		return m
	}
	one, two := behind(), behind()
	one.Mark(0, idle(20))
	two.Mark(0, wm(20))
	two.Mark(0, idle(20))
	if one.Out() != two.Out() || one.Out().Watermark != 20 {
		t.Errorf("as one %v, as two %v, want 20", one.Out(), two.Out())
	}
}

func TestMergeArrival(t *testing.T) {
	at := func(a dataflow.Time, idle bool) batch.Mark {
		return batch.Mark{Watermark: minT, Arrival: a, Idle: idle}
	}
	m := NewMerge(3)
	for i, s := range []struct {
		input int
		mark  batch.Mark
		want  dataflow.Time
	}{
		{0, at(10, false), 10}, // the others have none
		{1, at(5, false), 10},  // never back
		{0, at(20, false), 10},
		{1, at(15, false), 15},
		{1, at(15, true), 20}, // idle: left out
		{0, at(25, true), 25}, // none left that has one: the greatest
		{1, at(30, true), 30},
		{0, at(26, false), 30},
		{0, wm(maxT), 30},
		{1, wm(maxT), 30},
		{2, wm(maxT), 30},
	} {
		if out, _ := m.Mark(s.input, s.mark); out.Arrival != s.want {
			t.Errorf("step %d: arrival %v, want %v", i, int64(out.Arrival), int64(s.want))
		}
	}
}

// mergeModel says the rules once more, slowly.
type mergeModel struct {
	in []mergeModelInput
	wm dataflow.Time
	ar dataflow.Time
	id bool
}

type mergeModelInput struct {
	wm, ar               dataflow.Time
	idle, aligned, ended bool
}

func newMergeModel(n int) *mergeModel {
	m := &mergeModel{wm: minT, ar: minT}
	for range n {
		m.in = append(m.in, mergeModelInput{wm: minT, ar: minT, aligned: true})
	}
	return m
}

func (m *mergeModel) mark(i int, mk batch.Mark) {
	in := &m.in[i]
	if in.ended {
		return
	}
	in.ar = max(in.ar, mk.Arrival)
	if mk.Watermark == maxT {
		in.ended = true
		m.settle()
		return
	}
	if in.idle && !mk.Idle {
		in.idle = false
		in.aligned = in.wm >= m.wm
		m.settle()
	}
	if mk.Watermark > in.wm {
		in.wm = mk.Watermark
		in.aligned = !in.idle && (in.aligned || in.wm >= m.wm)
		m.settle()
	}
	if mk.Idle && !in.idle {
		in.idle, in.aligned = true, false
	}
	m.settle()
}

func (m *mergeModel) settle() {
	live, active, aligned := 0, 0, false
	least, most := maxT, minT
	leastA, mostA := maxT, minT
	for _, in := range m.in {
		most, mostA = max(most, in.wm), max(mostA, in.ar)
		if in.ended {
			continue
		}
		live++
		if in.idle {
			continue
		}
		active++
		if in.aligned {
			aligned, least = true, min(least, in.wm)
		}
		if in.ar != minT {
			leastA = min(leastA, in.ar)
		}
	}
	if leastA == maxT {
		leastA = mostA
	}
	m.ar = max(m.ar, leastA)
	m.id = false
	switch {
	case live == 0:
		m.wm = maxT
	case active == 0:
		m.id = true
		m.wm = max(m.wm, most)
	case aligned:
		m.wm = max(m.wm, least)
	}
}

func drawMark(t *rapid.T, old batch.Mark) batch.Mark {
	if old.Watermark == maxT {
		return old
	}
	m := batch.Mark{
		Watermark: max(old.Watermark, dataflow.Time(rapid.Int64Range(0, 30).Draw(t, "wm"))),
		Arrival:   max(old.Arrival, dataflow.Time(rapid.Int64Range(0, 30).Draw(t, "arrival"))),
		Idle:      rapid.IntRange(0, 3).Draw(t, "idle") == 0,
	}
	switch rapid.IntRange(0, 24).Draw(t, "kind") {
	case 0:
		m.Watermark, m.Idle = maxT, false
	case 1:
		m.Arrival = old.Arrival
	}
	return m
}

func TestMergeIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "inputs")
		m, model := NewMerge(n), newMergeModel(n)
		last := make([]batch.Mark, n)
		for i := range last {
			last[i] = wm(minT)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "input")
			before := m.Out()
			last[i] = drawMark(t, last[i])
			out, changed := m.Mark(i, last[i])
			model.mark(i, last[i])
			if out.Watermark != model.wm || out.Idle != model.id || out.Arrival != model.ar {
				t.Fatalf("%+v, model %+v", out, model)
			}
			if changed != (out != before) || out.Watermark < before.Watermark || out.Arrival < before.Arrival {
				t.Fatalf("changed=%v from %+v to %+v", changed, before, out)
			}
			if rapid.IntRange(0, 9).Draw(t, "restore") == 0 {
				in := make([]Input, n)
				for i := range in {
					in[i] = m.Input(i)
				}
				m = RestoreMerge(m.Out(), in)
			}
		}
	})
}

// stream is what a batch says, flat: "row 3", or a mark where it differs from
// the one before. Marks with no row between them count as the last of them.
func stream(b *batch.Batch, last *batch.Mark, rowName func(i int) string, arrivals bool) []string {
	var s []string
	marks := b.Marks
	tell := func(upTo int) {
		now, any := *last, false
		for len(marks) > 0 && int(marks[0].Row) <= upTo {
			now, any = marks[0], true
			marks = marks[1:]
		}
		now.Row = 0
		if !any || now == *last || !arrivals && now.Watermark == last.Watermark && now.Idle == last.Idle {
			if any {
				last.Arrival = now.Arrival
			}
			return
		}
		*last = now
		s = append(s, markName(now, arrivals))
	}
	for k := range b.Len() {
		i := b.Position(k)
		tell(i)
		s = append(s, rowName(i))
	}
	tell(b.Rows)
	return s
}

func markName(m batch.Mark, arrivals bool) string {
	name := fmt.Sprintf("wm %d", int64(m.Watermark))
	if m.Idle {
		name += " idle"
	}
	if arrivals {
		name += fmt.Sprintf(" arrival %d", int64(m.Arrival))
	}
	return name
}

// TestRewriteIsMarkByMark: a rewritten batch says the same as if each row and
// mark had come alone; the rows are shared and the batch is in order.
func TestRewriteIsMarkByMark(t *testing.T) {
	schema := batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})
	pool := batch.NewPool(0, nil)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(t, "inputs")
		m, slow := NewMerge(n), NewMerge(n)
		lastIn := make([]batch.Mark, n)
		for i := range lastIn {
			lastIn[i] = wm(minT)
		}
		said, want := wm(minT), wm(minT)
		for range rapid.IntRange(1, 8).Draw(t, "batches") {
			i := rapid.IntRange(0, n-1).Draw(t, "input")
			bl := batch.NewBuilder(pool, schema)
			for range rapid.IntRange(1, 12).Draw(t, "elements") {
				if rapid.Bool().Draw(t, "row") {
					bl.SetInt(0, 1)
					bl.EndRow(0)
					continue
				}
				lastIn[i] = drawMark(t, lastIn[i])
				bl.Mark(lastIn[i])
			}
			b := bl.Take()
			if b.Rows > 0 && rapid.Bool().Draw(t, "filter") {
				sel := b.OwnSel(b.Rows)
				for k := range b.Rows {
					if rapid.Bool().Draw(t, "keep") {
						sel = append(sel, int32(k))
					}
				}
				b.Sel = sel
			}
			r := m.Rewrite(i, b, pool)
			if err := r.Check(); err != nil {
				t.Fatal(err)
			}
			var merged []batch.Mark
			for _, mk := range b.Marks {
				if out, changed := slow.Mark(i, mk); changed {
					out.Row = mk.Row
					merged = append(merged, out)
				}
			}
			name := func(i int) string { return fmt.Sprint("row ", i) }
			got := stream(r, &said, name, true)
			own := b.Marks
			b.Marks = merged
			wantS := stream(b, &want, name, true)
			b.Marks = own
			if !reflect.DeepEqual(got, wantS) {
				t.Fatalf("got  %v\nwant %v", got, wantS)
			}
			if slow.Out() != m.Out() {
				t.Fatalf("out %+v, want %+v", m.Out(), slow.Out())
			}
			r.Release()
			b.Release()
		}
		if pool.Used() != 0 {
			t.Fatalf("%d bytes still out", pool.Used())
		}
	})
}

func TestRewriteOfOneInputSharesTheBatch(t *testing.T) {
	pool := batch.NewPool(0, nil)
	bl := batch.NewBuilder(pool, batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint}))
	bl.SetInt(0, 1)
	bl.EndRow(0)
	bl.Mark(wm(7))
	b := bl.Take()
	m := NewMerge(1)
	r := m.Rewrite(0, b, pool)
	if r != b || m.Out().Watermark != 7 {
		t.Errorf("same batch: %v, out %v; want true, 7", r == b, m.Out().Watermark)
	}
	r.Release()
	b.Release()
}

// TestRewriteKeepsIdleAndActiveApart: marks with no row between them become one,
// but not if the input was idle in between.
func TestRewriteKeepsIdleAndActiveApart(t *testing.T) {
	pool := batch.NewPool(0, nil)
	bl := batch.NewBuilder(pool, batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint}))
	for _, mk := range []batch.Mark{wm(3), wm(4), idle(4), wm(4), wm(5)} {
		bl.SetInt(0, 1)
		bl.EndRow(0)
		bl.Mark(mk)
	}
	b := bl.Take()
	b.Sel = b.OwnSel(1) // a filter took all rows
	m := NewMerge(2)
	m.Mark(1, idle(minT))
	r := m.Rewrite(0, b, pool)
	var got []string
	for _, mk := range r.Marks {
		got = append(got, fmt.Sprintf("%d: %s", mk.Row, markName(mk, false)))
	}
	if want := []string{"2: wm 4", "3: wm 4 idle", "5: wm 5"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Release()
	b.Release()
}
