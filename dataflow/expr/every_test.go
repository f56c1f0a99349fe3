package expr

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// constantsOf are literals of a type that are worth a comparison of their own:
// those at the ends of its range above all.
func constantsOf(t batch.Type) []string {
	switch t {
	case batch.Boolean:
		return []string{"true", "false", "cast(null as boolean)"}
	case batch.Bigint:
		return []string{"0", "7", "-1", "9223372036854775807", "-9223372036854775808", "cast(null as bigint)"}
	case batch.Double:
		return []string{"0.0", "-0.0", "8.0", "1e300", "cast('inf' as double)", "cast('-inf' as double)", "cast('nan' as double)", "cast(null as double)"}
	case batch.String:
		return []string{"''", "'abc'", "'日本語'", "cast(null as string)"}
	case batch.Bytes:
		return []string{"cast('abc' as bytes)", "cast(null as bytes)"}
	}
	return []string{"timestamp '1970-01-01'", "from_millis(-9223372036854775)", "cast(null as timestamp)"}
}

// everyOperation lists each operation over columns, over a column and each
// constant, and the other way round.
func everyOperation() (list []string) {
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, t := range batch.Types() {
		x, y := columnLetter(t)+"1", columnLetter(t)+"2"
		consts := constantsOf(t)
		for _, o := range append([]string{y}, consts...) {
			for _, op := range []string{"=", "<>", "<", "<=", ">", ">="} {
				add("%s %s %s", x, op, o)
				add("%s %s %s", o, op, x)
			}
			for _, high := range append([]string{y}, consts...) {
				add("%s between %s and %s", x, o, high)
			}
			add("%s in (%s, %s)", x, o, consts[0])
			add("%s not in (%s, %s, %s)", x, o, consts[1], y)
			add("nullif(%s, %s)", x, o)
			add("least(%s, %s)", x, o)
			add("greatest(%s, %s, %s)", o, x, y)
			add("coalesce(%s, %s, %s)", x, o, y)
			add("case when b1 then %s when b2 then %s end", x, o)
			add("case %s when %s then %s else %s end", x, o, y, o)
		}
		add("%s in (%s)", x, strings.Repeat(consts[0]+", ", 20)+consts[1])
		add("%s is null", x)
		add("%s is not null", x)
		for _, to := range batch.Types() {
			if to != t && castable(t, to) {
				add("cast(%s as %v)", x, to)
			}
		}
	}
	for _, op := range []string{"+", "-", "*", "/", "%"} {
		for _, x := range append([]string{"i1", "d1"}, append(constantsOf(batch.Bigint), constantsOf(batch.Double)...)...) {
			add("i2 %s %s", op, x)
			add("%s %s i2", x, op)
			add("d2 %s %s", op, x)
			add("%s %s d2", x, op)
		}
	}
	for _, a := range []string{"b1", "true", "false", "cast(null as boolean)", "i1 / i2 > 0", "cast(s1 as boolean)"} {
		for _, b := range []string{"b2", "true", "false", "cast(null as boolean)", "d1 > 1", "1 / i1 = 0", "cast(s2 as bigint) > 0"} {
			add("%s and %s", a, b)
			add("%s or %s", a, b)
			add("not (%s and %s and d2 < 5)", a, b)
			add("(%s or %s) is true", a, b)
			add("case when %s then 1 when %s then i2 / i1 else cast(s1 as bigint) end", a, b)
		}
		add("(%s) is false", a)
	}
	return append(list, everyFunction()...)
}

func everyFunction() (list []string) {
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, f := range []string{"lower", "upper", "trim", "length"} {
		add("%s(s1)", f)
	}
	for _, i := range []string{"i1", "0", "1", "2", "-1", "9223372036854775807", "-9223372036854775808"} {
		add("substr(s1, %s)", i)
		add("substr(s1, %s, i2)", i)
		add("substr(s1, i2, %s)", i)
		if i != "0" {
			add("split_part(s1, ' ', %s)", i)
			add("split_part(s1, s2, %s)", i)
			add("split_part('a b c b a', s2, %s)", i)
		}
	}
	add("length(y1)")
	add("replace(s1, 'a', s2)")
	add("replace(s1, s2, 'xyz')")
	add("s1 || s2 || i1 || d1 || t1 || b1")
	add("concat(s1, i1, 'x', s2)")
	add("starts_with(s1, s2)")
	add("starts_with(s1, 'a')")
	for _, p := range []string{"s2", "''", "'%'", "'a%'", "'%b'", "'%b%'", "'ab'", "'_b%'", "'%_語'", "'%__bc'", "'a\\%b'", "'%a%b%'", "'_'", "'__'", "'%__%'", "s2 escape ''", "s2 escape '%'", "s2 escape 'a'"} {
		add("s1 like %s", p)
	}
	for _, f := range []string{"-", "abs", "floor", "ceil", "round", "sqrt", "ln", "exp"} {
		add("%s(d1)", f)
		add("%s(i1)", f)
	}
	for d := -18; d <= 18; d++ {
		add("round(i1, %d)", d)
		add("round(d1, %d)", d)
	}
	add("power(d1, d2)")
	for _, u := range truncUnits() {
		add("date_trunc('%s', t1)", u.name())
	}
	for _, u := range extractUnits() {
		add("extract(%s from t1)", u.name())
	}
	add("to_millis(t1)")
	add("from_millis(i1)")
	add("t1 + interval '1' week")
	add("t1 - interval '1' microsecond")
	return list
}

// TestEveryOperation compares each with the interpreter over batches of every
// size that matters to a loop over words, and over one that has most pairs of
// edge values.
func TestEveryOperation(t *testing.T) {
	schema := testSchema()
	pool := batch.NewPool(0, nil)
	r := newRand(1)
	var batches []*batch.Batch
	for _, rows := range []int{0, 1, 7, 64, 65, 300, 300, 500} {
		batches = append(batches, randomBatch(r, pool, schema, rows))
	}
	full := randomBatch(r, pool, schema, batch.MaxRows)
	full.Sel = nil
	for i, src := range everyOperation() {
		tree := typedTree(t, src, schema)
		e, err := Compile(src, schema)
		if err != nil {
			t.Fatalf("%s: %v", src, err)
		}
		ev := e.NewEval()
		if i%50 == 0 {
			compareWithInterpreter(t, src, tree, ev, full)
		}
		for _, b := range batches {
			compareWithInterpreter(t, src, tree, ev, b)
		}
	}
}
