package window

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// vector is an example of the semantics; its unit of time is one microsecond
// here.
type vector struct {
	ID, Kind string
	Assigner struct {
		Type                     string
		Size, Slide, Offset, Gap int64
	}
	Lateness int64 `json:"allowed_lateness"`
	Purging  bool
	Steps    []struct {
		E, V, Wm *int64
		K        string
	}
	Expected []struct {
		Element *string
		Outputs []struct {
			Key    string
			Window [2]int64
			Sum    int64
			Ts     int64
		}
	}
	Late  [][]any
	Open  [][2]int64 `json:"open_windows_at_end"`
	Cases []struct {
		Ts      int64
		Windows [][2]int64
	}
}

func vectors(t *testing.T, kind string) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/semantics-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	var out []vector
	for _, r := range raw {
		var head struct{ Kind string }
		if err := json.Unmarshal(r, &head); err != nil {
			t.Fatal(err)
		}
		if head.Kind != kind {
			continue
		}
		var v vector
		if err := json.Unmarshal(r, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	if len(out) == 0 {
		t.Fatalf("no vectors of kind %s", kind)
	}
	return out
}

func (v *vector) spec(t *testing.T) Spec {
	t.Helper()
	s := Spec{
		Size: dataflow.Duration(v.Assigner.Size), Slide: dataflow.Duration(v.Assigner.Slide),
		Offset: dataflow.Duration(v.Assigner.Offset), Gap: dataflow.Duration(v.Assigner.Gap),
		AllowedLateness: dataflow.Duration(v.Lateness),
		Keys:            []int{0}, Input: keyed(),
		Aggregates: []Aggregate{agg(t, Sum, "v")},
	}
	switch v.Assigner.Type {
	case "tumbling":
		s.Form = Tumbling
	case "sliding":
		s.Form = Sliding
	case "session":
		s.Form = Session
	default:
		t.Fatalf("assigner %q", v.Assigner.Type)
	}
	return s
}

// keyed is the input of most tests: a key and a value.
func keyed() *batch.Schema { return keyedSchema }

var keyedSchema = batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "v", Type: batch.Bigint})

func agg(t testing.TB, f Func, arg string) Aggregate {
	t.Helper()
	a := Aggregate{Func: f, Name: fmt.Sprintf("a%d", f)}
	if f != CountRows {
		e, err := expr.Compile(arg, keyed())
		if err != nil {
			t.Fatal(err)
		}
		a.Arg = e
	}
	return a
}

// taker is an Output that keeps everything as text.
type taker struct {
	t    testing.TB
	rows []string // "key [start,end) value @time", "late key time value", "wm N"
}

func (o *taker) Emit(b *batch.Batch) bool {
	if err := b.Check(); err != nil {
		o.t.Fatal(err)
	}
	m := 0
	for r := 0; r <= b.Rows; r++ {
		for ; m < len(b.Marks) && int(b.Marks[m].Row) == r; m++ {
			o.rows = append(o.rows, fmt.Sprintf("wm %d", b.Marks[m].Watermark))
		}
		if r < b.Rows {
			o.rows = append(o.rows, fmt.Sprintf("%s [%d,%d) %d @%d", b.Cols[0].At(r), b.Cols[1].Ints[r], b.Cols[2].Ints[r], b.Cols[3].Ints[r], b.Times[r]))
		}
	}
	return true
}

func (o *taker) EmitSide(_ operator.Side, b *batch.Batch) bool {
	for k := range b.Len() {
		p := b.Position(k)
		o.rows = append(o.rows, fmt.Sprintf("late %s %d %d", b.Cols[0].At(p), b.Times[p], b.Cols[1].Ints[p]))
	}
	return true
}

func (o *taker) Wanted(operator.Side) bool { return true }

func (o *taker) take() (rows []string) {
	for _, r := range o.rows {
		if !strings.HasPrefix(r, "wm ") {
			rows = append(rows, r)
		}
	}
	o.rows = nil
	return rows
}

func openOp(t testing.TB, s Spec) (operator.Operator, *operator.Context) {
	t.Helper()
	f, err := NewFactory(s)
	if err != nil {
		t.Fatal(err)
	}
	ctx := &operator.Context{
		Operator: "w", Parallelism: 1, MaxParallelism: 128, KeyGroups: dataflow.RangeOf(0, 1, 128),
		Pool: batch.NewPool(0, nil), Counters: &operator.Counters{},
	}
	op := f.New()
	if err := op.Open(ctx); err != nil {
		t.Fatal(err)
	}
	return op, ctx
}

func process(t testing.TB, op operator.Operator, b *batch.Batch, out operator.Output) {
	t.Helper()
	p, err := op.Process(b, out)
	for err == nil && p == operator.More {
		p, err = op.Resume(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.Release()
}

// TestVectors runs E08 to E34 as far as our forms can say them, in batches of
// 1, of 7 and in one: the outputs of each step, the late rows and what is open
// at the end. E11 is left out: it purges the window at each firing, which no
// form of a job says.
func TestVectors(t *testing.T) {
	ran := 0
	for _, v := range vectors(t, "window") {
		if v.Purging {
			continue
		}
		ran++
		for _, size := range []int{1, 7, batch.MaxRows} {
			t.Run(fmt.Sprintf("%s/%d", v.ID, size), func(t *testing.T) { runVector(t, &v, size) })
		}
	}
	if ran != 17 {
		t.Errorf("%d vectors ran, there are 17", ran)
	}
}

func runVector(t *testing.T, v *vector, size int) {
	op, ctx := openOp(t, v.spec(t))
	out := &taker{t: t}
	bl := batch.NewBuilder(ctx.Pool, keyed())
	var want, late []string
	wm := dataflow.MinTime
	flush := func() {
		if b := bl.Take(); b != nil {
			process(t, op, b, out)
		}
		var rows []string
		for _, r := range out.take() {
			if strings.HasPrefix(r, "late ") {
				late = append(late, r)
			} else {
				rows = append(rows, r)
			}
		}
		if fmt.Sprint(rows) != fmt.Sprint(want) {
			t.Fatalf("got %q, want %q", rows, want)
		}
		want = nil
	}
	for i, s := range v.Steps {
		if s.E != nil {
			key, value := s.K, *s.E
			if key == "" {
				key = "k"
			}
			if s.V != nil {
				value = *s.V
			}
			bl.SetString(0, key)
			bl.SetInt(1, value)
			bl.EndRow(dataflow.Time(*s.E))
		}
		if s.Wm != nil {
			wm = max(wm, dataflow.Time(*s.Wm))
			bl.Mark(batch.Mark{Watermark: wm})
		}
		for _, o := range v.Expected[i].Outputs {
			want = append(want, fmt.Sprintf("%s [%d,%d) %d @%d", o.Key, o.Window[0], o.Window[1], o.Sum, o.Ts))
		}
		if i%size == size-1 {
			flush()
		}
	}
	flush()
	var wantLate []string
	for _, l := range v.Late {
		wantLate = append(wantLate, fmt.Sprintf("late %v %v %v", l...))
	}
	if fmt.Sprint(late) != fmt.Sprint(wantLate) {
		t.Errorf("late %q, want %q", late, wantLate)
	}
	if n := ctx.Counters.Late; n != int64(len(wantLate)) {
		t.Errorf("%d late rows counted, want %d", n, len(wantLate))
	}
	if n := ctx.Counters.OpenWindows; v.Assigner.Type != "sliding" && n != int64(len(v.Open)) {
		t.Errorf("%d windows open, want %v", n, v.Open)
	}
	if ctx.Pool.Out() != 0 {
		t.Errorf("%d batches are not released", ctx.Pool.Out())
	}
}

// TestE01toE07Assign asks the operator itself: a row and the end of input give
// the windows that the row is in.
func TestE01toE07Assign(t *testing.T) {
	for _, v := range vectors(t, "assign") {
		for _, c := range v.Cases {
			t.Run(fmt.Sprintf("%s/%d", v.ID, c.Ts), func(t *testing.T) {
				op, ctx := openOp(t, v.spec(t))
				got := windowsOf(t, op, ctx, c.Ts)
				var want []string
				for _, w := range c.Windows {
					want = append([]string{fmt.Sprintf("k [%d,%d) 1 @%d", w[0], w[1], w[1]-1)}, want...)
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("got %q, want %q", got, want)
				}
				if none := int64(1 - min(1, len(want))); ctx.Counters.NoWindow != none || ctx.Counters.Late != 0 {
					t.Errorf("%d rows in no window, %d late; want %d and 0", ctx.Counters.NoWindow, ctx.Counters.Late, none)
				}
			})
		}
	}
}

func windowsOf(t testing.TB, op operator.Operator, ctx *operator.Context, ts int64) []string {
	t.Helper()
	bl := batch.NewBuilder(ctx.Pool, keyed())
	bl.SetString(0, "k")
	bl.SetInt(1, 1)
	bl.EndRow(dataflow.Time(ts))
	bl.Mark(batch.Mark{Watermark: dataflow.MaxTime})
	out := &taker{t: t}
	process(t, op, bl.Take(), out)
	return out.take()
}

// TestE03LocalDays: days of UTC+8.
func TestE03LocalDays(t *testing.T) {
	const ms = 1000
	for ts, start := range map[int64]int64{1609430400000: 1609430400000, 1609430399999: 1609344000000} {
		s := Spec{Form: Tumbling, Size: dataflow.Day, Offset: -8 * dataflow.Hour, Keys: []int{0}, Input: keyed(), Aggregates: []Aggregate{agg(t, Sum, "v")}}
		op, ctx := openOp(t, s)
		got := windowsOf(t, op, ctx, ts*ms)
		end := (start + 86400000) * ms
		if want := fmt.Sprintf("[k [%d,%d) 1 @%d]", start*ms, end, end-1); fmt.Sprint(got) != want {
			t.Errorf("%d: got %v, want %s", ts, got, want)
		}
	}
}

// TestE04Offsets: offsets with the same effect, and one as large as the size
// refused.
func TestE04Offsets(t *testing.T) {
	const minute = int64(dataflow.Minute)
	ts := int64(1625011204000000) // 2021-06-30 00:00:04
	for offset, start := range map[int64]int64{-6: -6, 4: -6, 6: -4, -4: -4, 0: 0} {
		s := Spec{Form: Tumbling, Size: 10 * dataflow.Minute, Offset: dataflow.Duration(offset * minute), Keys: []int{0}, Input: keyed(), Aggregates: []Aggregate{agg(t, Sum, "v")}}
		op, ctx := openOp(t, s)
		got := windowsOf(t, op, ctx, ts)
		from := ts - 4000000 + start*minute
		if want := fmt.Sprintf("[k [%d,%d) 1 @%d]", from, from+10*minute, from+10*minute-1); fmt.Sprint(got) != want {
			t.Errorf("offset %d: got %v, want %s", offset, got, want)
		}
	}
	for _, offset := range []int64{-16, 10, 16} {
		s := Spec{Form: Tumbling, Size: 10 * dataflow.Minute, Offset: dataflow.Duration(offset * minute), Keys: []int{0}, Input: keyed()}
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "offset") {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
}
