package expr

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// TestNoAllocations: once the scratch memory is there, nothing is allocated.
func TestNoAllocations(t *testing.T) {
	for _, nulls := range []float64{0, 0.1} {
		for _, b := range []*batch.Batch{sensorBatch(nulls), everyOther(sensorBatch(nulls))} {
			for _, src := range []string{
				"temp > 8.0", "temp > 8.0 and hum < 50 and n <> 3", "temp > 8 or n / 7 = 1", "not ok", "n in (1, 2, n - 1)", "n between 5 and hum",
				"temp * 1.8 + 32 - hum / 2", "n * n % 7 + 1", "round(temp, 1)", "abs(n - 500)", "power(temp, 2)", "cast(temp as bigint)",
				"case when temp > 8 then 'high' when temp > 4 then sensor else upper(sensor) end", "case n when 1 then temp else hum end",
				"coalesce(sensor, 'none')", "nullif(sensor, 'truck-3')", "greatest(sensor, 'm')", "least(temp, hum, n)",
				"sensor || '/' || n || '/' || ts || '/' || temp", "concat(sensor, ok)", "lower(substr(sensor, 2, 3))", "split_part(sensor, '/', 2)",
				"replace(sensor, '-', '__')", "sensor like '%store%1_'", "starts_with(sensor, 'cold')", "length(trim(sensor))",
				"cast(cast(n as string) as bigint)", "cast(cast(temp as string) as double)", "cast(cast(ts as string) as timestamp)", "cast(cast(ok as string) as boolean)",
				"date_trunc('month', ts) + interval '1' day", "extract(week from ts)", "1 / (n - n)", "(sensor is not null) = ok",
			} {
				if compiled(t, src, b).expr.Type() == batch.Boolean {
					ev, sel := compiled(t, src, b), []int32(nil)
					if n := testing.AllocsPerRun(10, func() { sel = ev.Select(b, sel[:0]) }); n != 0 {
						t.Errorf("Select of %s allocates %v times", src, n)
					}
				}
				ev := compiled(t, src, b)
				var dst batch.Column
				if n := testing.AllocsPerRun(10, func() { ev.Into(b, &dst) }); n != 0 {
					t.Errorf("Into of %s allocates %v times", src, n)
				}
			}
		}
	}
}

func TestProperties(t *testing.T) {
	s := testSchema()
	for _, c := range []struct {
		src     string
		column  int
		columns []int
		konst   bool
	}{
		{"i2", s.Index("i2"), []int{s.Index("i2")}, false},
		{"(i2)", s.Index("i2"), []int{s.Index("i2")}, false},
		{"i2 + 0", -1, []int{s.Index("i2")}, false},
		{"s2 || i1 || s2 || b1", -1, []int{s.Index("b1"), s.Index("i1"), s.Index("s2")}, false},
		{"1 + 2 * length('abc')", -1, nil, true},
		{"1 / 0", -1, nil, false},
		{"cast(null as string)", -1, nil, true},
	} {
		e, err := Compile(c.src, s)
		if err != nil {
			t.Fatal(err)
		}
		col, is := e.Column()
		if col != c.column || is != (c.column >= 0) || !slices.Equal(e.Columns(), c.columns) || e.IsConst() != c.konst || e.Source() != c.src {
			t.Errorf("%s: column %d %v, columns %v, constant %v, source %q", c.src, col, is, e.Columns(), e.IsConst(), e.Source())
		}
	}
}

// TestBounds: what is too large is refused with a position, quickly.
func TestBounds(t *testing.T) {
	s := testSchema()
	for name, c := range map[string]struct{ src, want string }{
		"empty":       {"", "the expression is empty"},
		"blank":       {" \t\n", "the expression is empty"},
		"bytes":       {"i1 = " + strings.Repeat(" ", maxSource), "at most 65536 are allowed"},
		"parentheses": {strings.Repeat("(", 65) + "1", "column 65: too deeply nested; at most 64 levels"},
		"cases":       {strings.Repeat("case ", 65), "column 321: too deeply nested; at most 64 levels"},
		"calls":       {strings.Repeat("abs(", 1000) + "1", "too deeply nested"},
		"operations":  {"i1" + strings.Repeat(" + i1", 1001), "too many operations; at most 1000"},
		"or":          {"b1" + strings.Repeat(" and b1", 2000), ""},
		"nots":        {strings.Repeat("not ", 10_001) + "b1", ""},
		"signs":       {strings.Repeat("-", 30_000) + "i1", ""},
		"deep enough": {strings.Repeat("(", 64) + "i1" + strings.Repeat(")", 64), ""},
		"long list":   {"i1 in (1" + strings.Repeat(",2", 10_000) + ")", ""},
		"memory":      {"replace(replace(replace(replace('aaaaaaaa','a','aaaaaaaaaaaaaaaa'),'a','aaaaaaaaaaaaaaaa'),'a','aaaaaaaaaaaaaaaa'),'a','aaaaaaaaaaaaaaaa')", tooLong},
		"unicode":     {"'日本語' = 日本語", `column 9: no column "日本語"`},
		"broken utf8": {"s1 = \xff", "unexpected character"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(c.src, s)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestLongTexts: a text beyond the limit is a row error and costs no memory to
// speak of; one at the limit is not.
func TestLongTexts(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "s", Type: batch.String})
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	for _, n := range []int{maxText / 2, maxText/2 + 1, maxText, maxText + 1} {
		bl.SetString(0, strings.Repeat("a", n))
		bl.EndRow(dataflow.Time(0))
	}
	b := bl.Take()
	for src, want := range map[string][]int32{
		"s":                     nil,
		"s || s":                {1, 2, 3},
		"concat(s, s)":          {1, 2, 3},
		"upper(s)":              {3},
		"replace(s, 'a', 'bb')": {1, 2, 3},
		"replace(s, 'a', '" + strings.Repeat("b", 60_000) + "')": {0, 1, 2, 3},
		"coalesce(s, 'x')":                   {3},
		"case when true then s else 'x' end": {3},
		"substr(s, 2)":                       nil,
		"length(s || s) > 0 or true":         {1, 2, 3},
	} {
		ev := compiled(t, src, b)
		var dst batch.Column
		ev.Into(b, &dst)
		var rows []int32
		for _, e := range ev.Errors() {
			rows = append(rows, e.Row)
			if e.Reason != tooLong {
				t.Errorf("%.30s: row %d: %s", src, e.Row, e.Reason)
			}
		}
		if !slices.Equal(rows, want) {
			t.Errorf("%.30s: rows %v are too long, want %v", src, rows, want)
		}
	}
}

// TestOneErrorPerRow: a row with two casts that cannot be done is listed once,
// with the first of them, and rows come in order.
func TestOneErrorPerRow(t *testing.T) {
	b := sensorBatch(0)
	ev := compiled(t, "cast(sensor as bigint) + cast(sensor || '!' as bigint) + case when ok then cast(upper(sensor) as bigint) end", b)
	var dst batch.Column
	for range 2 { // the second call starts afresh
		ev.Into(b, &dst)
		if len(ev.Errors()) != b.Rows {
			t.Fatalf("%d errors for %d rows", len(ev.Errors()), b.Rows)
		}
		for i, e := range ev.Errors() {
			if want := cannotCast(b.Cols[0].At(i), batch.Bigint); int(e.Row) != i || e.Reason != want {
				t.Fatalf("error %d is of row %d: %s", i, e.Row, e.Reason)
			}
		}
	}
}

// TestTextsThatAreNotUTF8: such bytes come from sources as they are, and no
// function may fail over them.
func TestTextsThatAreNotUTF8(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "s", Type: batch.String})
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	bl.SetBytes(0, []byte("A\xffé\xc3"))
	bl.EndRow(dataflow.Time(0))
	b := bl.Take()
	for src, want := range map[string]string{
		"lower(s)": "a\xffé\xc3", "upper(s)": "A\xffÉ\xc3", "substr(s, 2, 2)": "\xffé", "replace(s, 'A', '')": "\xffé\xc3", "cast(length(s) as string)": "4",
		"case when s like 'A_é_' then 'y' end": "y", "split_part(s, 'é', 2)": "\xc3",
	} {
		ev := compiled(t, src, b)
		var dst batch.Column
		ev.Into(b, &dst)
		if got := string(dst.At(0)); got != want {
			t.Errorf("%s is %q, want %q", src, got, want)
		}
	}
}

func TestPart(t *testing.T) {
	for text, want := range map[string][]string{"": {""}, "a": {"a"}, "a, b": {"a", "b"}, ", ": {"", ""}, "a, , b,": {"a", "", "b,"}} {
		var got []string
		rest, more := []byte(text), true
		for more {
			var part []byte
			part, rest, more = Part(rest, []byte(", "))
			got = append(got, string(part))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q has the parts %q, want %q", text, got, want)
		}
	}
}

// TestSharedExpr: evaluators of one expression do not disturb each other.
func TestSharedExpr(t *testing.T) {
	b := sensorBatch(0.1)
	e, err := Compile("case when n in (1, 2, 3) or sensor like 'c%' then upper(sensor) || n else 'none' end", b.Schema)
	if err != nil {
		t.Fatal(err)
	}
	var want batch.Column
	e.NewEval().Into(b, &want)
	done := make(chan batch.Column)
	for range 4 {
		go func() {
			var c batch.Column
			ev := e.NewEval()
			for range 20 {
				ev.Into(b, &c)
			}
			done <- c
		}()
	}
	for range 4 {
		if c := <-done; !bytes.Equal(c.Data, want.Data) || !slices.Equal(c.Offsets, want.Offsets) {
			t.Error("another goroutine's evaluation differs")
		}
	}
}

// FuzzCompile: no source makes the compiler panic or fail without a position;
// what compiles, evaluates, and agrees with the interpreter.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		"d1 > 8.0", "not b1 and i1 / i2 = 3 or s1 like '%a_' escape '#'", "case i1 when 1 then s1 else s2 || 'x' end", "cast(s1 as bigint)::double between 1 and 2",
		"split(s1, ' ') as word, s2", "count(distinct i1 * 2)", "extract(hour from t1 + interval '5' second)", "\"d1\" in (1, null, 'x')", "((((", "'", "-9223372036854775808",
		"substr(s1, -1, 9223372036854775807)", "least(t1, '2026-01-01')", "coalesce(null, b1) is not true", "round(i1, -18)", "y1 = cast('x' as bytes)",
	} {
		f.Add(s)
	}
	schema := testSchema()
	pool := batch.NewPool(0, nil)
	b := randomBatch(newRand(7), pool, schema, 9)
	f.Fuzz(func(t *testing.T, src string) {
		positioned := func(err error) {
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.Source != src || e.Pos < 0 || e.Pos > len(src) || e.Msg == "" || err.Error() == "") {
				t.Fatalf("%q: %#v", src, err)
			}
		}
		_, err := CompileAggregate(src, schema)
		positioned(err)
		_, err = CompileFlatMap(src, schema)
		positioned(err)
		_, err = Identifiers(src)
		positioned(err)
		e, err := Compile(src, schema)
		positioned(err)
		if err == nil && len(src) < 2000 {
			compareWithInterpreter(t, src, typedTree(t, src, schema), e.NewEval(), b)
		}
	})
}
