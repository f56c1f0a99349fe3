package window_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
)

// input has a column of each type.
func input() *batch.Schema {
	return batch.MustSchema(
		batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "v", Type: batch.Bigint},
		batch.Field{Name: "d", Type: batch.Double}, batch.Field{Name: "s", Type: batch.String},
		batch.Field{Name: "b", Type: batch.Boolean}, batch.Field{Name: "t", Type: batch.Timestamp},
	)
}

// aggregates compiles "name=func(arg)" over a schema.
func aggregates(t optest.TB, in *batch.Schema, list ...string) []window.Aggregate {
	t.Helper()
	funcs := map[string]window.Func{"count": window.CountValues, "distinct": window.CountDistinct, "sum": window.Sum, "avg": window.Avg,
		"min": window.Min, "max": window.Max, "first": window.First, "last": window.Last, "stddev": window.Stddev, "var": window.Var}
	var out []window.Aggregate
	for _, text := range list {
		if text == "count(*)" {
			out = append(out, window.Aggregate{Name: "n", Func: window.CountRows})
			continue
		}
		var i int
		for i = range text {
			if text[i] == '(' {
				break
			}
		}
		arg := text[i+1 : len(text)-1]
		e, err := expr.Compile(arg, in)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		f, ok := funcs[text[:i]]
		if !ok {
			t.Fatalf("no aggregate %q", text[:i])
		}
		out = append(out, window.Aggregate{Name: fmt.Sprintf("%s_%d", text[:i], len(out)), Func: f, Arg: e})
	}
	return out
}

func factory(t optest.TB, s window.Spec) *window.Factory {
	t.Helper()
	f, err := window.NewFactory(s)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return f
}

// formCase is a form on an input, with what must come out.
type formCase struct {
	name  string
	spec  window.Spec
	aggs  []string
	input string
	want  string
	late  string
	count func(operator.Counters) error
}

func forms() []formCase {
	return []formCase{
		{
			name:  "tumbling, two keys, a big jump (E31)",
			spec:  window.Spec{Form: window.Tumbling, Size: 10},
			aggs:  []string{"sum(v)", "count(*)"},
			input: `a@5 v=5; b@7 v=1; a@15 v=15; a@35 v=35; wm 40; a@40 v=1; end`,
			want: `a@9 window_start=0 window_end=10 sum_0=5 n=1; b@9 window_start=0 window_end=10 sum_0=1 n=1
				a@19 window_start=10 window_end=20 sum_0=15 n=1
				a@39 window_start=30 window_end=40 sum_0=35 n=1
				wm 40
				a@49 window_start=40 window_end=50 sum_0=1 n=1
				end`,
		},
		{
			name:  "marks keep their places between late firings (E10)",
			spec:  window.Spec{Form: window.Tumbling, Size: 10, AllowedLateness: 5},
			aggs:  []string{"sum(v)"},
			input: `a@1 v=1; wm 3; a@4 v=4; wm 9; wm 10; a@3 v=3; wm 11; b@5 v=7; wm 12; wm 13; a@5 v=5; wm 14; a@6 v=6; end`,
			want: `wm 3; a@9 window_start=0 window_end=10 sum_0=5; wm 10
				+U a@9 window_start=0 window_end=10 sum_0=8; wm 11
				+U b@9 window_start=0 window_end=10 sum_0=7; wm 13
				+U a@9 window_start=0 window_end=10 sum_0=13; wm 14; end`,
			late: `a@6 v=6`,
		},
		{
			name:  "late firing at the next watermark, once",
			spec:  window.Spec{Form: window.Tumbling, Size: 10, AllowedLateness: 5, Firing: window.FireAtWatermark},
			aggs:  []string{"sum(v)"},
			input: `a@1 v=1; wm 9; a@2 v=2; b@3 v=3; a@4 v=4; wm 9; wm 10; wm 11; a@5 v=5; wm 20; a@6 v=6; end`,
			want: `a@9 window_start=0 window_end=10 sum_0=1; wm 9
				+U a@9 window_start=0 window_end=10 sum_0=7; +U b@9 window_start=0 window_end=10 sum_0=3; wm 11
				+U a@9 window_start=0 window_end=10 sum_0=12; wm 20; end`,
			late: `a@6 v=6`,
		},
		{
			name:  "sliding that does not divide (E06)",
			spec:  window.Spec{Form: window.Sliding, Size: 10, Slide: 3},
			aggs:  []string{"sum(v)"},
			input: `a@12 v=12; a@13 v=1; wm 12; a@14 v=100; end`,
			want: `a@12 window_start=3 window_end=13 sum_0=12; wm 12
				a@15 window_start=6 window_end=16 sum_0=113
				a@18 window_start=9 window_end=19 sum_0=113
				a@21 window_start=12 window_end=22 sum_0=113
				end`,
		},
		{
			name:  "sliding with gaps (E07)",
			spec:  window.Spec{Form: window.Sliding, Size: 5, Slide: 10, AllowedLateness: 2},
			aggs:  []string{"sum(v)"},
			input: `a@3 v=3; a@7 v=7; wm 8; a@7 v=7; wm 9; a@7 v=7; a@12 v=12; end`,
			want: `a@4 window_start=0 window_end=5 sum_0=3; wm 9
				a@14 window_start=10 window_end=15 sum_0=12; end`,
			late: `a@7 v=7`,
			count: func(c operator.Counters) error {
				if c.NoWindow != 2 || c.Late != 1 {
					return fmt.Errorf("%d in no window, %d late", c.NoWindow, c.Late)
				}
				return nil
			},
		},
		{
			name:  "late for one pane only (E12), and fired again for others",
			spec:  window.Spec{Form: window.Sliding, Size: 10, Slide: 5, AllowedLateness: 5},
			aggs:  []string{"sum(v)", "first(v)", "distinct(v)"},
			input: `a@7 v=7; wm 9; a@8 v=8; wm 14; a@6 v=6; end`,
			want: `a@9 window_start=0 window_end=10 sum_0=7 first_1=7 distinct_2=1; wm 9
				+U a@9 window_start=0 window_end=10 sum_0=15 first_1=7 distinct_2=2
				a@14 window_start=5 window_end=15 sum_0=15 first_1=7 distinct_2=2; wm 14
				+U a@14 window_start=5 window_end=15 sum_0=21 first_1=6 distinct_2=3
				end`,
		},
		{
			name:  "sessions that a late row joins (E18)",
			spec:  window.Spec{Form: window.Session, Gap: 10, AllowedLateness: 20},
			aggs:  []string{"count(*)", "distinct(v)", "last(v)"},
			input: `a@0 v=1; a@15 v=1; wm 24; a@8 v=2; wm 30; end`,
			want: `a@9 window_start=0 window_end=10 n=1 distinct_1=1 last_2=1
				a@24 window_start=15 window_end=25 n=1 distinct_1=1 last_2=1; wm 24
				+U a@24 window_start=0 window_end=25 n=3 distinct_1=2 last_2=1; end`,
		},
		{
			name:  "sessions fired again at the watermark",
			spec:  window.Spec{Form: window.Session, Gap: 10, AllowedLateness: 20, Firing: window.FireAtWatermark},
			aggs:  []string{"count(*)"},
			input: `a@0; a@15; wm 24; a@8; b@3; wm 25; b@4; b@30; a@30; wm 40; end`,
			want: `a@9 window_start=0 window_end=10 n=1; a@24 window_start=15 window_end=25 n=1; wm 24
				+U b@12 window_start=3 window_end=13 n=1; +U a@24 window_start=0 window_end=25 n=3; wm 25
				+U b@13 window_start=3 window_end=14 n=2
				b@39 window_start=30 window_end=40 n=1; a@39 window_start=30 window_end=40 n=1; wm 40; end`,
		},
		{
			name:  "session end and timer within one batch",
			spec:  window.Spec{Form: window.Session, Gap: 5},
			aggs:  []string{"count(*)"},
			input: `a@1; wm 5; b@2; wm 6; wm 7; a@7; wm 19; c@16; c@10; d@40; c@19; wm 25; d@41; end`,
			want: `a@5 window_start=1 window_end=6 n=1; wm 5; b@6 window_start=2 window_end=7 n=1; wm 7
				a@11 window_start=7 window_end=12 n=1; wm 19
				c@23 window_start=16 window_end=24 n=2; wm 25; d@45 window_start=40 window_end=46 n=2; end`,
			late: `c@10`,
		},
		{
			name:  "count windows (E20)",
			spec:  window.Spec{Form: window.Count, Rows: 4},
			aggs:  []string{"sum(v)", "distinct(v)"},
			input: `a@1 v=1; a@2 v=2; wm 2; a@9 v=3; b@1 v=1; a@4 v=3; wm 5; a@5 v=5; a@6 v=6; a@7 v=7; a@8 v=8; wm 9; a@9 v=9; a@10 v=10; end`,
			want: `wm 2; a@4 window_start=null window_end=null sum_0=9 distinct_1=3; wm 5
				a@8 window_start=null window_end=null sum_0=26 distinct_1=4; end`,
		},
		{
			name:  "sliding count windows (E21)",
			spec:  window.Spec{Form: window.SlidingCount, Rows: 5, EachRows: 2},
			aggs:  []string{"sum(v)", "min(v)", "distinct(v)"},
			input: `a@1 v=1; a@2 v=2; wm 2; a@3 v=3; b@1 v=1; a@4 v=4; a@5 v=5; a@6 v=6; wm 7; a@7 v=7; a@8 v=8; end`,
			want: `a@2 window_start=null window_end=null sum_0=3 min_1=1 distinct_2=2; wm 2
				a@4 window_start=null window_end=null sum_0=10 min_1=1 distinct_2=4
				a@6 window_start=null window_end=null sum_0=20 min_1=2 distinct_2=5; wm 7
				a@8 window_start=null window_end=null sum_0=30 min_1=4 distinct_2=5; end`,
		},
		{
			name:  "running aggregates",
			spec:  window.Spec{Form: window.Running},
			aggs:  []string{"sum(v)", "max(d)", "distinct(s)"},
			input: `a@5 v=1 d=2 s=x; a@3 v=2 d=1 s=x; wm 4; b@9 v=3; a@1 v=null s=y; end`,
			want: `+U a@5 sum_0=1 max_1=2 distinct_2=1; +U a@3 sum_0=3 max_1=2 distinct_2=1; wm 4
				+U b@9 sum_0=3 max_1=null distinct_2=0; +U a@1 sum_0=3 max_1=2 distinct_2=2; end`,
		},
		{
			name:  "processing time goes by the arrival clock, to the end of input",
			spec:  window.Spec{Form: window.Tumbling, Size: 10, ProcessingTime: true},
			aggs:  []string{"sum(v)"},
			input: `arrival 3; a@1000 v=1; arrival 9; a@-1000 v=2; arrival 10; a@5 v=4; arrival 25; a@5 v=8; end`,
			want: `wm min arrival 9; a@9 window_start=0 window_end=10 sum_0=3; wm min arrival 10
				a@19 window_start=10 window_end=20 sum_0=4; wm min arrival 25
				a@29 window_start=20 window_end=30 sum_0=8; wm max arrival 25`,
		},
		{
			name:  "processing time without an arrival clock stands at 1970",
			spec:  window.Spec{Form: window.Tumbling, Size: 10, ProcessingTime: true},
			aggs:  []string{"sum(v)"},
			input: `a@1000 v=1; wm 3; a@-1000 v=2; end`,
			want:  `wm 3; a@9 window_start=0 window_end=10 sum_0=3; end`,
		},
		{
			name: "every aggregate, with nulls",
			spec: window.Spec{Form: window.Tumbling, Size: 10},
			aggs: []string{"count(*)", "count(v)", "sum(v)", "avg(v)", "min(d)", "max(d)", "first(s)", "last(s)", "min(s)", "max(s)",
				"stddev(v)", "var(d)", "distinct(b)", "min(b)", "max(t)", "first(b)", "last(d)"},
			input: `a@1 v=null d=1.5 s=x b=true t=5; a@0 v=3 d=null s=null b=null t=null; a@1 v=5 d=2.5 s=y b=true t=4; b@5; end`,
			want: `a@9 window_start=0 window_end=10 n=3 count_1=2 sum_2=8 avg_3=4 min_4=1.5 max_5=2.5 first_6=x last_7=y min_8=x max_9=y stddev_10=1.4142135623730951 var_11=0.5 distinct_12=1 min_13=true max_14=5 first_15=true last_16=2.5
				b@9 window_start=0 window_end=10 n=1 count_1=0 sum_2=null avg_3=null min_4=null max_5=null first_6=null last_7=null min_8=null max_9=null stddev_10=null var_11=null distinct_12=0 min_13=null max_14=null first_15=null last_16=null
				end`,
		},
		{
			name:  "a sum that does not fit is null, whatever the order",
			spec:  window.Spec{Form: window.Tumbling, Size: 10},
			aggs:  []string{"sum(v)", "avg(v)"},
			input: `a@1 v=9223372036854775807; a@1 v=9223372036854775807; a@2 v=-9223372036854775807; b@1 v=9223372036854775807; b@1 v=1; c@1 v=-9223372036854775808; c@1 v=-1; end`,
			want: `a@9 window_start=0 window_end=10 sum_0=9223372036854775807 avg_1=3074457345618258602
				b@9 window_start=0 window_end=10 sum_0=null avg_1=4611686018427387904
				c@9 window_start=0 window_end=10 sum_0=null avg_1=-4611686018427387904; end`,
			count: func(c operator.Counters) error {
				if c.Overflow != 2 {
					return fmt.Errorf("%d overflows", c.Overflow)
				}
				return nil
			},
		},
		{
			name:  "rows at both ends of time",
			spec:  window.Spec{Form: window.Sliding, Size: 10, Slide: 4, AllowedLateness: 7},
			aggs:  []string{"count(*)"},
			input: `a@min; a@max; wm 0; a@min; end; a@max`,
			want: `a@-9223372036854775807 window_start=min window_end=-9223372036854775806 n=1
				a@-9223372036854775803 window_start=min window_end=-9223372036854775802 n=1
				a@-9223372036854775799 window_start=min window_end=-9223372036854775798 n=1; wm 0
				a@9223372036854775806 window_start=9223372036854775800 window_end=max n=1
				a@9223372036854775806 window_start=9223372036854775804 window_end=max n=1; end`,
			late: `a@min; a@max`,
		},
	}
}

// TestForms runs every form in the harness's ways: row by row, in full
// batches, restored after each element, from deltas, refused, with selections.
func TestForms(t *testing.T) {
	for _, c := range forms() {
		t.Run(c.name, func(t *testing.T) {
			in := input()
			c.spec.Input, c.spec.Keys = in, []int{0}
			c.spec.Aggregates = aggregates(t, in, c.aggs...)
			k := optest.Case{
				Factory: factory(t, c.spec), Input: optest.MustParse(t, in, c.input), Want: c.want,
				WantCounters: c.count, OrderBy: []string{"k"}, HashBy: []int{0},
			}
			if c.late != "" {
				k.WantSide = map[operator.Side]string{operator.Late: c.late}
			}
			optest.Check(t, k)
		})
	}
}

// TestSessionComesBack: between two snapshots a session ends, and a late row
// carries the key's next one back to its start. A delta names it once; what it
// no longer counts is deleted.
func TestSessionComesBack(t *testing.T) {
	in := input()
	s := window.Spec{Form: window.Session, Gap: 10, Input: in, Keys: []int{0}, Aggregates: aggregates(t, in, "count(*)", "distinct(v)")}
	for seed := range uint64(30) { // of the random cuts
		optest.Check(t, optest.Case{
			Factory: factory(t, s), OrderBy: []string{"k"}, HashBy: []int{0}, Seed: seed,
			Input: optest.MustParse(t, in, strings.Repeat("c@90 v=0;", 9)+`wm 0; a@2 v=1; a@2 v=2; wm 12; a@7 v=2; a@2 v=3; wm 13; a@9 v=4;`+strings.Repeat("c@90 v=0;", 9)+"end"),
			Want: `wm 0; a@11 window_start=2 window_end=12 n=2 distinct_1=2; wm 12; wm 13
				a@18 window_start=2 window_end=19 n=3 distinct_1=3; c@99 window_start=90 window_end=100 n=18 distinct_1=1; end`,
		})
	}
}

// TestE14Chain: the results of a window line up with the next window over them.
func TestE14Chain(t *testing.T) {
	in := input()
	first := factory(t, window.Spec{Form: window.Tumbling, Size: 5 * dataflow.Second, Input: in, Keys: []int{0}, Aggregates: aggregates(t, in, "sum(v)")})
	r := optest.Check(t, optest.Case{
		Factory: first, OrderBy: []string{"k"},
		Input: optest.MustParse(t, in, `a@1000 v=1; b@4999999 v=2; a@5000000 v=4; wm 4999999; b@5000000 v=0; end`),
	})
	all := factory(t, window.Spec{Form: window.Tumbling, Size: 5 * dataflow.Second, Input: first.Output(), Aggregates: aggregates(t, first.Output(), "sum(sum_0)")})
	optest.Check(t, optest.Case{
		Factory: all, Input: r.Main,
		Want: `@4999999 window_start=0 window_end=5000000 sum_0=3; wm 4999999; @9999999 window_start=5000000 window_end=10000000 sum_0=4; wm max`,
	})
}

// TestRestoredClock: an operator that descends from several goes on from the
// least of their watermarks, in whatever order they come.
func TestRestoredClock(t *testing.T) {
	in := input()
	f := factory(t, window.Spec{Form: window.Tumbling, Size: 10, Input: in, Keys: []int{0}, Aggregates: aggregates(t, in, "count(*)")})
	for _, order := range [][]int64{{9, 19}, {19, 9}} {
		pool := batch.NewPool(0, nil)
		ctx := &operator.Context{Parallelism: 1, MaxParallelism: 128, KeyGroups: dataflow.RangeOf(0, 1, 128), Pool: pool, Counters: &operator.Counters{}}
		op := f.New()
		if err := op.Open(ctx); err != nil {
			t.Fatal(err)
		}
		tables := op.StateTables()
		clock := len(tables) - 1
		if tables[clock].Keyed || tables[clock].Spread != operator.Union {
			t.Fatalf("the clock goes to everybody: %+v", tables[clock])
		}
		for _, wm := range order {
			bl := batch.NewBuilder(pool, tables[clock].Schema)
			bl.SetInt(0, wm)
			bl.SetInt(1, 0)
			bl.SetInt(2, 0)
			bl.EndRow(0)
			b := bl.Take()
			if err := op.Restore(clock, b); err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		for _, b := range optest.MustParse(t, in, `a@9; a@10`).Batches(pool, 10) {
			if _, err := op.Process(b, silent{}); err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		if n := ctx.Counters.Late; n != 1 {
			t.Errorf("watermarks %v: %d late, want the row at 9 only", order, n)
		}
	}
}

type silent struct{}

func (silent) Emit(*batch.Batch) bool                    { return true }
func (silent) EmitSide(operator.Side, *batch.Batch) bool { return true }
func (silent) Wanted(operator.Side) bool                 { return false }
