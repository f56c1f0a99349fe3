package operator_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
)

// readings is the input of most tests.
func readings() *batch.Schema {
	return batch.MustSchema(
		batch.Field{Name: "sensor", Type: batch.String},
		batch.Field{Name: "temp", Type: batch.Double},
		batch.Field{Name: "n", Type: batch.Bigint},
		batch.Field{Name: "raw", Type: batch.String},
	)
}

func compile(t optest.TB, src string, s *batch.Schema) *expr.Expr {
	t.Helper()
	e, err := expr.Compile(src, s)
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	return e
}

func filter(t optest.TB, cond string, s *batch.Schema, p operator.OnError) operator.Factory {
	t.Helper()
	f, err := operator.NewFilter(compile(t, cond, s), s, p)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return f
}

// project makes a select of fields written "name: expression".
func project(t optest.TB, s *batch.Schema, p operator.OnError, fields ...string) operator.Factory {
	t.Helper()
	var named []operator.Named
	for _, f := range fields {
		name, src, _ := strings.Cut(f, ": ")
		named = append(named, operator.Named{Name: name, Expr: compile(t, src, s)})
	}
	f, err := operator.NewProject(named, s, p)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return f
}

func flatMap(t optest.TB, src string, s *batch.Schema, p operator.OnError) operator.Factory {
	t.Helper()
	fm, err := expr.CompileFlatMap(src, s)
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	f, err := operator.NewFlatMap(fm, s, p)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return f
}

// counted compares the counters that these operators keep.
func counted(want operator.Counters) func(operator.Counters) error {
	return func(got operator.Counters) error {
		if (got.FirstRejected != "") != (got.Rejected > 0) {
			return fmt.Errorf("%d rejected, the first for %q", got.Rejected, got.FirstRejected)
		}
		if got.FirstRejected = ""; got != want {
			return fmt.Errorf("got %+v, want %+v", got, want)
		}
		return nil
	}
}

const some = `
	a@1 temp=9 n=1 raw="1"
	b@2 temp=7 n=2 raw="2"
	wm 2 arrival 10
	c@3 n=0 raw=x
	wm 3
	wm 4
	d@4 temp=8.5 n=-4 raw=""
	-D a@5 temp=20 n=5 raw="5"
	wm 5 idle
	end`

func TestFilterFiveWays(t *testing.T) {
	s := readings()
	cases := []struct {
		name, cond, want string
		counters         operator.Counters
	}{
		{"some pass", "temp > 8.0", `
			a@1 temp=9 n=1 raw="1"
			wm 4 arrival 10
			d@4 temp=8.5 n=-4 raw=""
			-D a@5 temp=20 n=5 raw="5"
			end`, operator.Counters{Filtered: 2}},
		{"all pass", "sensor is not null", some, operator.Counters{}},
		{"none passes", "temp > 100", `wm max arrival 10`, operator.Counters{Filtered: 5}},
		{"null is not true", "n > 0 and temp < 100", `
			a@1 temp=9 n=1 raw="1"
			b@2 temp=7 n=2 raw="2"
			wm 4 arrival 10
			-D a@5 temp=20 n=5 raw="5"
			end`, operator.Counters{Filtered: 2}},
		{"division by zero is null, and counted", "10 / n > 1", `
			a@1 temp=9 n=1 raw="1"
			b@2 temp=7 n=2 raw="2"
			wm 4 arrival 10
			-D a@5 temp=20 n=5 raw="5"
			end`, operator.Counters{Filtered: 2, DivByZero: 1}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			optest.Check(t, optest.Case{
				Factory: filter(t, c.cond, s, operator.FailOnError),
				Input:   optest.MustParse(t, s, some), Want: c.want, WantCounters: counted(c.counters),
			})
		})
	}
}

func TestFilterRejects(t *testing.T) {
	s := readings()
	in := optest.MustParse(t, s, some)
	optest.Check(t, optest.Case{
		Factory: filter(t, "cast(raw as bigint) > 1", s, operator.RejectRow), Input: in,
		Want: `b@2 temp=7 n=2 raw="2"; wm 4 arrival 10; -D a@5 temp=20 n=5 raw="5"; end`,
		WantSide: map[operator.Side]string{operator.Rejected: `
			c@3 n=0 raw=x reason="where cast(raw as bigint) > 1: cannot cast \"x\" to bigint"
			d@4 temp=8.5 n=-4 raw="" reason="where cast(raw as bigint) > 1: cannot cast \"\" to bigint"`},
		WantCounters: counted(operator.Counters{Filtered: 1, Rejected: 2}),
	})
	// Nothing but bad rows.
	optest.Check(t, optest.Case{
		Factory: filter(t, "cast(raw as bigint) > 1", s, operator.RejectRow),
		Input:   optest.MustParse(t, s, `a@1 raw=x; wm 1; b@2 raw=y`),
		Want:    `wm 1`, WantCounters: counted(operator.Counters{Rejected: 2}),
	})
}

func TestRowErrorFails(t *testing.T) {
	s := readings()
	in := optest.MustParse(t, s, some)
	want := "row at 1970-01-01T00:00:00.000003Z (sensor=\"c\", temp=null, n=0, raw=\"x\"): "
	for name, f := range map[string]operator.Factory{
		"where":    filter(t, "cast(raw as bigint) > 1", s, operator.FailOnError),
		"select":   project(t, s, operator.FailOnError, "x: cast(raw as bigint)"),
		"flat_map": flatMap(t, "generate_series(1, cast(raw as bigint)) as i", s, operator.FailOnError),
	} {
		t.Run(name, func(t *testing.T) {
			if f.Side(operator.Rejected) != nil {
				t.Error("there is a side stream rejected though bad rows fail the job")
			}
			optest.Check(t, optest.Case{Factory: f, Input: in, WantErr: want})
			optest.Check(t, optest.Case{Factory: f, Input: in, WantErr: "`on_error: reject` would send"})
		})
	}
}

func TestProjectFiveWays(t *testing.T) {
	s := readings()
	optest.Check(t, optest.Case{
		Factory: project(t, s, operator.FailOnError, "sensor: sensor", "f: temp * 1.8 + 32", "m: n % 3", "hot: temp > 8", "twice: sensor"),
		Input:   optest.MustParse(t, s, some),
		Want: `
			a@1 f=48.2 m=1 hot=true twice=a
			b@2 f=44.6 m=2 hot=false twice=b
			wm 2 arrival 10
			c@3 f=null m=0 hot=null twice=c
			wm 4
			d@4 f=47.3 m=-1 hot=true twice=d
			-D a@5 f=68 m=2 hot=true twice=a
			end`,
		WantCounters: counted(operator.Counters{}),
	})
	optest.Check(t, optest.Case{
		Factory: project(t, s, operator.FailOnError, "k: 'c'", "q: 7 / n"),
		Input:   optest.MustParse(t, s, `a@1 n=2; wm 1; a@2 n=0; a@3 n=null`),
		Want:    `c@1 q=3; wm 1; c@2 q=null; c@3 q=null`, WantCounters: counted(operator.Counters{DivByZero: 1}),
	})
}

func TestProjectRejects(t *testing.T) {
	s := readings()
	optest.Check(t, optest.Case{
		Factory: project(t, s, operator.RejectRow, "sensor: sensor", "x: cast(raw as bigint)", "y: cast(raw as double)"),
		Input:   optest.MustParse(t, s, some),
		Want:    `a@1 x=1 y=1; b@2 x=2 y=2; wm 4 arrival 10; -D a@5 x=5 y=5; end`,
		WantSide: map[operator.Side]string{operator.Rejected: `
			c@3 n=0 raw=x reason="x: cast(raw as bigint): cannot cast \"x\" to bigint"
			d@4 temp=8.5 n=-4 raw="" reason="x: cast(raw as bigint): cannot cast \"\" to bigint"`},
		WantCounters: counted(operator.Counters{Rejected: 2}),
	})
}

// TestRejectedReasonHasAFreeName: the rejected rows of a step that reads
// rejected rows have two reasons.
func TestRejectedReasonHasAFreeName(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "raw", Type: batch.String}, batch.Field{Name: "reason", Type: batch.String})
	side := filter(t, "raw = 'x'", s, operator.RejectRow).Side(operator.Rejected)
	if got, want := side.String(), "raw string, reason string, reason_2 string"; got != want {
		t.Errorf("rejected rows are (%s), want (%s)", got, want)
	}
}

func TestFlatMapFiveWays(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "line", Type: batch.String}, batch.Field{Name: "n", Type: batch.Bigint})
	optest.Check(t, optest.Case{
		Factory: flatMap(t, "split(line, ' ') as word", s, operator.FailOnError),
		Input:   optest.MustParse(t, s, `"to be or"@1; wm 1; @2 line=null; wm 2; ""@3; "x"@4; wm 4; -D "a b"@5; end`),
		Want:    `to@1; be@1; or@1; wm 2; ""@3; x@4; wm 4; -D a@5; -D b@5; end`,
	})
	optest.Check(t, optest.Case{
		Factory: flatMap(t, "line, generate_series(1, n) as i, n * 2 as twice", s, operator.FailOnError),
		Input:   optest.MustParse(t, s, `a@1 n=2; wm 1; b@2 n=0; wm 2; c@3 n=1; wm 3; wm 4; d@4; e@5 n=3`),
		Want:    `a@1 i=1 twice=4; a@1 i=2 twice=4; wm 2; c@3 i=1 twice=2; wm 4; e@5 i=1 twice=6; e@5 i=2 twice=6; e@5 i=3 twice=6`,
	})
	// The largest bigint ends a series and does not wrap.
	optest.Check(t, optest.Case{
		Factory: flatMap(t, "generate_series(n, 9223372036854775807) as i", s, operator.FailOnError),
		Input:   optest.MustParse(t, s, `a@1 n=9223372036854775806`),
		Want:    `@1 i=9223372036854775806; @1 i=9223372036854775807`,
	})
}

// TestFlatMapResumesInARow: one row makes more rows than a batch holds, beside
// a long text, with marks around it.
func TestFlatMapResumesInARow(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "line", Type: batch.String}, batch.Field{Name: "n", Type: batch.Bigint})
	in := optest.Stream{Schema: s, Elements: []optest.Element{
		{Row: &optest.Row{Time: 1, Values: []any{"short", int64(3 * batch.MaxRows)}}},
		{Mark: batch.Mark{Watermark: 1, Arrival: dataflow.MinTime}},
		{Row: &optest.Row{Time: 2, Values: []any{strings.Repeat("long", 20_000), int64(100)}}},
		{Mark: batch.Mark{Watermark: 2, Arrival: dataflow.MinTime}},
		{Row: &optest.Row{Time: 3, Values: []any{"last", int64(1)}}},
	}}
	r := optest.Check(t, optest.Case{Factory: flatMap(t, "generate_series(1, n) as i, length(line) as l", s, operator.FailOnError), Input: in})
	if got, want := len(r.Main.Rows()), 3*batch.MaxRows+101; got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
	big := 0
	f := flatMap(t, "line, generate_series(1, n) as i", s, operator.FailOnError)
	run(t, f, in.Batches(batch.NewPool(0, nil), 100), func(b *batch.Batch) bool {
		big = max(big, len(b.Cols[0].Data))
		return true
	})
	if big > 2<<20 {
		t.Errorf("a batch of %d bytes, for a limit of one MiB and a row", big)
	}
}

func TestFlatMapRejects(t *testing.T) {
	s := readings()
	optest.Check(t, optest.Case{
		Factory: flatMap(t, "sensor, generate_series(1, cast(raw as bigint)) as i", s, operator.RejectRow),
		Input:   optest.MustParse(t, s, `a@1 raw=2; wm 1; b@2 raw=x; wm 2; c@3 raw=1; wm 3`),
		Want:    `a@1 i=1; a@1 i=2; wm 2; c@3 i=1; wm 3`,
		WantSide: map[operator.Side]string{operator.Rejected: `
			b@2 raw=x reason="i: sensor, generate_series(1, cast(raw as bigint)) as i: cannot cast \"x\" to bigint"`},
		WantCounters: counted(operator.Counters{Rejected: 1}),
	})
}

func TestPassFiveWays(t *testing.T) {
	s := readings()
	optest.Check(t, optest.Case{Factory: operator.NewPass(s), Input: optest.MustParse(t, s, some), Want: some, WantCounters: counted(operator.Counters{})})
}

// TestRandomStreams runs every operator on random input in all ways.
func TestRandomStreams(t *testing.T) {
	s := readings()
	factories := []operator.Factory{
		filter(t, "temp > 0.5 and n % 2 = 0", s, operator.FailOnError),
		filter(t, "cast(raw as bigint) >= n", s, operator.RejectRow),
		project(t, s, operator.RejectRow, "a: sensor", "b: cast(raw as bigint) + n", "c: coalesce(temp, 1.5)", "d: upper(raw)"),
		flatMap(t, "split(raw, ',') as part, sensor, n + 1 as m", s, operator.FailOnError),
		flatMap(t, "generate_series(n, cast(raw as bigint)) as i", s, operator.RejectRow),
		operator.NewPass(s),
	}
	rapid.Check(t, func(t *rapid.T) {
		in := optest.Stream{Schema: s}
		m := batch.Mark{Watermark: 0, Arrival: dataflow.MinTime}
		for range rapid.IntRange(0, 30).Draw(t, "elements") {
			if rapid.IntRange(0, 2).Draw(t, "mark") == 0 {
				m.Watermark = m.Watermark.Add(dataflow.Duration(rapid.IntRange(0, 5).Draw(t, "later")))
				m.Idle = rapid.Bool().Draw(t, "idle")
				in.Elements = append(in.Elements, optest.Element{Mark: m})
				continue
			}
			in.Elements = append(in.Elements, optest.Element{Row: &optest.Row{Time: dataflow.Time(rapid.IntRange(0, 99).Draw(t, "time")), Values: []any{
				rapid.SampledFrom([]any{nil, "a", "b", "ü"}).Draw(t, "sensor"),
				rapid.SampledFrom([]any{nil, 0.25, 0.75, -1.0}).Draw(t, "temp"),
				rapid.SampledFrom([]any{nil, int64(0), int64(1), int64(2), int64(-3)}).Draw(t, "n"),
				rapid.SampledFrom([]any{nil, "", "3", "a,b,,c", "x", "1"}).Draw(t, "raw"),
			}}})
		}
		f := rapid.SampledFrom(factories).Draw(t, "operator")
		optest.Check(t, optest.Case{Factory: f, Input: in, Seed: rapid.Uint64().Draw(t, "seed")})
	})
}

// TestNothingIsCopied: a filter hands on its input's columns, a projection the
// columns it only names, and where nothing is filtered the batch itself.
func TestNothingIsCopied(t *testing.T) {
	s := readings()
	in := func() []*batch.Batch { return optest.MustParse(t, s, some).Batches(batch.NewPool(0, nil), 100) }
	b := in()
	run(t, filter(t, "temp > 8.0", s, operator.FailOnError), b, func(out *batch.Batch) bool {
		for i := range out.Cols {
			if out.Cols[i] != b[0].Cols[i] {
				t.Errorf("where copied column %d", i)
			}
		}
		return true
	})
	b = in()
	run(t, filter(t, "sensor is not null", s, operator.FailOnError), b, func(out *batch.Batch) bool {
		if out != b[0] {
			t.Error("where made a new batch though nothing was filtered")
		}
		return true
	})
	b = in()
	run(t, project(t, s, operator.FailOnError, "x: n", "y: n + 1", "z: sensor"), b, func(out *batch.Batch) bool {
		if out.Cols[0] != b[0].Cols[2] || out.Cols[2] != b[0].Cols[0] {
			t.Error("select copied a column that it only names")
		}
		return true
	})
}

// run drives an operator with the given output.
func run(t testing.TB, f operator.Factory, in []*batch.Batch, emit func(*batch.Batch) bool) {
	t.Helper()
	op := f.New()
	if err := op.Open(&operator.Context{Pool: in[0].Pool(), Counters: &operator.Counters{}}); err != nil {
		t.Fatal(err)
	}
	for _, b := range in {
		p, err := op.Process(b, output(emit))
		for p == operator.More && err == nil {
			p, err = op.Resume(output(emit))
		}
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
}

type output func(*batch.Batch) bool

func (o output) Emit(b *batch.Batch) bool                  { return o(b) }
func (o output) EmitSide(operator.Side, *batch.Batch) bool { return true }
func (o output) Wanted(operator.Side) bool                 { return true }

func BenchmarkFilter(b *testing.B) {
	benchmark(b, filter(b, "temp > 8.0", readings(), operator.FailOnError))
}
func BenchmarkProject(b *testing.B) {
	benchmark(b, project(b, readings(), operator.FailOnError, "sensor: sensor", "f: temp * 1.8 + 32", "n: n"))
}
func BenchmarkFlatMap(b *testing.B) {
	benchmark(b, flatMap(b, "split(raw, ' ') as word", readings(), operator.FailOnError))
}

func benchmark(b *testing.B, f operator.Factory) {
	pool := batch.NewPool(0, nil)
	bl := batch.NewBuilder(pool, readings())
	for i := range batch.MaxRows {
		bl.SetString(0, fmt.Sprint("s-", i%1000))
		bl.SetDouble(1, float64(i%200)/10)
		bl.SetInt(2, int64(i))
		bl.SetString(3, "the quick brown fox")
		bl.EndRow(dataflow.Time(i))
	}
	in := bl.Take()
	op := f.New()
	if err := op.Open(&operator.Context{Pool: pool, Counters: &operator.Counters{}}); err != nil {
		b.Fatal(err)
	}
	var out operator.Output = output(func(*batch.Batch) bool { return true })
	if _, err := op.Process(in, out); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := op.Process(in, out); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch.MaxRows, "ns/row")
}
