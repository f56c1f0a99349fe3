package window

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// TestNothingAllocated: in the steady state a batch of 4,096 rows, with firings
// and new slices among them, allocates nothing.
func TestNothingAllocated(t *testing.T) {
	for _, c := range []struct {
		name string
		spec Spec
		load load
	}{
		{"tumbling", Spec{Form: Tumbling, Size: 20 * dataflow.Millisecond}, load{keys: 500, perMilli: 100}},
		{"tumbling, a mark after every row", Spec{Form: Tumbling, Size: 20 * dataflow.Millisecond}, load{keys: 500, perMilli: 100, every: 1}},
		{"tumbling, disorder", Spec{Form: Tumbling, Size: 20 * dataflow.Millisecond}, load{keys: 500, perMilli: 100, spread: 50000}},
		{"sliding", Spec{Form: Sliding, Size: 100 * dataflow.Millisecond, Slide: 7 * dataflow.Millisecond}, load{keys: 500, perMilli: 100}},
		{"session", Spec{Form: Session, Gap: 8 * dataflow.Millisecond}, load{keys: 500, perMilli: 100}},
		{"count", Spec{Form: Count, Rows: 10}, load{keys: 500, perMilli: 100}},
		{"sliding count", Spec{Form: SlidingCount, Rows: 10, EachRows: 4}, load{keys: 500, perMilli: 100}},
		{"running", Spec{Form: Running}, load{keys: 500, perMilli: 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			op, ctx := openOp(t, benchSpec(t, c.spec))
			f := newFeeder(ctx.Pool, c.load, 8)
			out := &nowhere{}
			i := 0
			step := func() {
				if _, err := op.Process(f.next(i), out); err != nil {
					t.Fatal(err)
				}
				i++
			}
			for range 400 {
				step()
			}
			if n := testing.AllocsPerRun(200, step); n > 0 {
				t.Errorf("%v allocations a batch", n)
			}
		})
	}
}

// TestStateIsBounded: keys that come once and never again leave nothing behind.
func TestStateIsBounded(t *testing.T) {
	for _, s := range []Spec{
		{Form: Tumbling, Size: 1000}, {Form: Sliding, Size: 5000, Slide: 1000}, {Form: Session, Gap: 1000}, {Form: Count, Rows: 1},
	} {
		s.Input, s.Keys = keyed(), []int{0}
		s.Aggregates = []Aggregate{agg(t, Sum, "v"), agg(t, CountDistinct, "v"), agg(t, Max, "k")}
		t.Run(s.Describe(), func(t *testing.T) {
			op, ctx := openOp(t, s)
			out := &nowhere{}
			most := int64(0)
			for round := range 200 {
				bl := batch.NewBuilder(ctx.Pool, keyed())
				for i := range 2000 {
					bl.SetString(0, fmt.Sprintf("once and never again %d", round*2000+i))
					bl.SetInt(1, int64(round*2000+i))
					bl.EndRow(dataflow.Time(round*1000 + i/2))
				}
				bl.Mark(batch.Mark{Watermark: dataflow.Time(round*1000 + 999)})
				process(t, op, bl.Take(), out)
				most = max(most, ctx.Counters.StateBytes)
			}
			if ctx.Counters.KeysLive > 12000 || most > 32<<20 {
				t.Errorf("%d keys live, %d bytes at most", ctx.Counters.KeysLive, most)
			}
			bl := batch.NewBuilder(ctx.Pool, keyed())
			bl.Mark(batch.Mark{Watermark: dataflow.MaxTime})
			process(t, op, bl.Take(), out)
			if c := ctx.Counters; c.KeysLive != 0 || c.OpenWindows != 0 || ctx.Pool.Out() != 0 {
				t.Errorf("at the end %d keys, %d windows, %d batches", c.KeysLive, c.OpenWindows, ctx.Pool.Out())
			}
		})
	}
}

// TestFarMark: a mark far ahead costs what lives, not the time it passes.
func TestFarMark(t *testing.T) {
	for _, s := range []Spec{
		{Form: Tumbling, Size: 1}, {Form: Sliding, Size: 3, Slide: 1}, {Form: Sliding, Size: 5, Slide: 2}, {Form: Session, Gap: 1},
	} {
		s.Input, s.Keys, s.Aggregates = keyed(), []int{0}, []Aggregate{agg(t, Sum, "v")}
		op, ctx := openOp(t, s)
		out := &nowhere{}
		bl := batch.NewBuilder(ctx.Pool, keyed())
		for i := range 10 {
			bl.SetString(0, "a")
			bl.SetInt(1, 1)
			bl.EndRow(dataflow.Time(i) * (1 << 55))
			bl.Mark(batch.Mark{Watermark: dataflow.Time(i) * (1 << 54)})
		}
		bl.Mark(batch.Mark{Watermark: dataflow.MaxTime})
		process(t, op, bl.Take(), out)
		want := int64(10)
		if s.Form == Sliding {
			want = 10 * int64(s.Size) / int64(s.Slide) // sizes 3 and 5: 3 and 2 or 3 windows a row
		}
		if out.rows < want || out.rows > want+10 {
			t.Errorf("%s: %d results", s.Describe(), out.rows)
		}
	}
}

// TestValidate: every mistake at once, each with what is wrong and a way out.
func TestValidate(t *testing.T) {
	sum := agg(t, Sum, "v")
	for _, c := range []struct {
		spec Spec
		want []string
	}{
		{Spec{}, []string{"no input schema"}},
		{Spec{Input: keyed()}, []string{"unknown form 0"}},
		{Spec{Input: keyed(), Form: Tumbling, Size: 0}, []string{"tumbling size must be greater than 0, it is 0s"}},
		{Spec{Input: keyed(), Form: Tumbling, Size: 10, Offset: 10}, []string{"offset 10µs must be smaller than the size 10µs"}},
		{Spec{Input: keyed(), Form: Tumbling, Size: 10, Offset: -9}, nil},
		{Spec{Input: keyed(), Form: Sliding, Size: 10, Slide: 5, Offset: -5}, []string{"offset -5µs must be smaller than the slide 5µs"}},
		{Spec{Input: keyed(), Form: Sliding, Size: -1, Slide: 0}, []string{"sliding size must be greater", "slide must be greater"}},
		{Spec{Input: keyed(), Form: Session}, []string{"session gap"}},
		{Spec{Input: keyed(), Form: Session, Gap: 1, Offset: 1}, []string{"only tumbling and sliding windows have an offset"}},
		{Spec{Input: keyed(), Form: Count}, []string{"count must be from 1"}},
		{Spec{Input: keyed(), Form: SlidingCount, Rows: 4}, []string{"slide of a count window"}},
		{Spec{Input: keyed(), Form: Count, Rows: 4, AllowedLateness: 1}, []string{"allowed_lateness needs"}},
		{Spec{Input: keyed(), Form: Running, ProcessingTime: true}, []string{"only tumbling, sliding and session windows can run in processing time"}},
		{Spec{Input: keyed(), Form: Tumbling, Size: 1, AllowedLateness: 1, ProcessingTime: true}, []string{"no meaning in processing time"}},
		{Spec{Input: keyed(), Form: Tumbling, Size: 1, AllowedLateness: -1, Firing: 7}, []string{"must not be negative", "unknown late_firing 7"}},
		{Spec{Input: keyed(), Form: Tumbling, Size: 1 << 62}, []string{"size must be at most"}},
		{Spec{Input: keyed(), Form: Running, Keys: []int{0, 0, 5}}, []string{`"k" is named twice`, "column 5 of an input with 2"}},
		{Spec{Input: keyed(), Form: Running, Aggregates: []Aggregate{sum, sum}}, []string{"already the name of another column"}},
		{Spec{Input: keyed(), Form: Running, Keys: []int{1}, Aggregates: []Aggregate{{Name: "v", Func: CountRows}}}, []string{"already the name of a key"}},
		{Spec{Input: keyed(), Form: Count, Rows: 1, Aggregates: []Aggregate{{Name: StartColumn, Func: CountRows}}}, []string{"a column that the window adds"}},
		{Spec{Input: keyed(), Form: Running, Aggregates: []Aggregate{agg(t, Avg, "k"), {Name: "x", Func: Max}, {Name: "y"}, {Name: "z", Func: CountRows, Arg: sum.Arg}}},
			[]string{"avg needs a bigint or a double, k is string", "x: max needs an argument", "y: unknown aggregate 0", "count(*) takes no argument"}},
	} {
		err := c.spec.Validate()
		if len(c.want) == 0 && err != nil {
			t.Errorf("%s: %v", c.spec.Describe(), err)
		}
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("want %q, got %v", w, err)
			}
		}
		if _, ferr := NewFactory(c.spec); (ferr == nil) != (err == nil) {
			t.Errorf("the factory says %v, Validate %v", ferr, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	a := []Aggregate{{Name: "n", Func: CountRows}, agg(t, CountDistinct, "v + 1"), agg(t, Avg, "v")}
	for want, s := range map[string]Spec{
		"tumbling 10s offset -2s allowed lateness 5s firing at the watermark by k: n = count(*), a3 = count(distinct v + 1), a5 = avg(v)": {Form: Tumbling,
			Size: 10 * dataflow.Second, Offset: -2 * dataflow.Second, AllowedLateness: 5 * dataflow.Second, Firing: FireAtWatermark, Keys: []int{0}, Aggregates: a},
		"sliding 1m0s every 1s in processing time by k, v": {Form: Sliding, Size: dataflow.Minute, Slide: dataflow.Second, ProcessingTime: true, Keys: []int{0, 1}},
		"session gap 5s":             {Form: Session, Gap: 5 * dataflow.Second},
		"count 4":                    {Form: Count, Rows: 4},
		"count 5 every 2":            {Form: SlidingCount, Rows: 5, EachRows: 2},
		"running by k: n = count(*)": {Form: Running, Keys: []int{0}, Aggregates: a[:1]},
	} {
		s.Input = keyed()
		if got := s.Describe(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if s.Upsert() != (s.Form == Running || s.AllowedLateness > 0) {
			t.Errorf("%s: upsert %v", want, s.Upsert())
		}
	}
}
