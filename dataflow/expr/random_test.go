package expr

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// testSchema has two columns of each type, "b1", "b2" and so on.
func testSchema() *batch.Schema {
	var fields []batch.Field
	for _, t := range batch.Types() {
		for _, k := range []string{"1", "2"} {
			fields = append(fields, batch.Field{Name: columnLetter(t) + k, Type: t})
		}
	}
	return batch.MustSchema(fields...)
}

func columnLetter(t batch.Type) string {
	return [...]string{batch.Boolean: "b", batch.Bigint: "i", batch.Double: "d", batch.String: "s", batch.Bytes: "y", batch.Timestamp: "t"}[t]
}

var (
	edgeInts    = []int64{0, 1, -1, 2, 3, 7, 10, -10, 15, 25, 1000, 3037000500, -3037000500, 1 << 53, 1<<53 + 1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1}
	edgeDoubles = []float64{0, math.Copysign(0, -1), 1, -1, 0.5, 2.5, -2.5, 8, 7.999, 1e-7, 1e15, 1 << 53, 1e19, -1e19, 9223372036854775807, -9223372036854775808, 1e300, math.Inf(1), math.Inf(-1), math.NaN(), math.SmallestNonzeroFloat64}
	edgeTexts   = []string{"", " ", "a", "ab", "abc", "aXb", "a b c", " trim me ", "Äpfel und Öl", "日本語", "日bc", "%", "_", "a%b", "a\\b", "a\nb", "42", " -7 ", "9223372036854775808", "1.5", "1e3", "-Inf", "NaN", ".5", "0x10", "1_0", "true", "NO", "2026-01-31T12:00:00Z", "2026-02-30T00:00:00Z", "2026-01-31 12:00:00.123456+02:00", "1969-12-31", "t"}
	edgeBytes   = []string{"", "a", "abc", "\xff\xfe", "日", "\x00"}
	edgeTimes   = []int64{0, -1, 1, 999_999, 1_767_225_600_000_000, 1_772_323_199_999_999, 1_769_860_800_123_456, -2_208_988_800_000_001, 951_782_400_000_000, math.MinInt64, math.MaxInt64, math.MinInt64 + 86_400_000_000, 1 << 60}
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// randomBatch has rows random rows. Of each column nothing, some or all is null,
// and all, few, most or no rows are selected.
func randomBatch(r *rand.Rand, pool *batch.Pool, s *batch.Schema, rows int) *batch.Batch {
	bl := batch.NewBuilder(pool, s)
	nulls := make([]float64, s.Len())
	for i := range nulls {
		nulls[i] = []float64{0, 0, 0.1, 0.5, 1}[r.IntN(5)]
	}
	for range rows {
		for i, f := range s.Fields() {
			if r.Float64() < nulls[i] {
				continue
			}
			switch f.Type {
			case batch.Boolean:
				bl.SetBool(i, r.IntN(2) == 0)
			case batch.Bigint:
				bl.SetInt(i, edgeInts[r.IntN(len(edgeInts))])
			case batch.Double:
				bl.SetDouble(i, edgeDoubles[r.IntN(len(edgeDoubles))])
			case batch.String:
				bl.SetString(i, edgeTexts[r.IntN(len(edgeTexts))])
			case batch.Bytes:
				bl.SetString(i, edgeBytes[r.IntN(len(edgeBytes))])
			case batch.Timestamp:
				bl.SetInt(i, edgeTimes[r.IntN(len(edgeTimes))])
			}
		}
		bl.EndRow(dataflow.Time(0))
	}
	b := bl.Take()
	if b == nil { // no rows: a batch of nothing
		b = pool.Get(s)
		for i := range s.Len() {
			b.Own(i, 0)
		}
		b.OwnTimes(0)
	}
	switch r.IntN(4) {
	case 0:
	case 1:
		b.Sel = b.OwnSel(rows)
	default:
		keep := []float64{0.05, 0.5, 0.95, 1}[r.IntN(4)]
		b.Sel = b.OwnSel(rows)
		for p := range rows {
			if r.Float64() < keep {
				b.Sel = append(b.Sel, int32(p))
			}
		}
	}
	return b
}

// writer makes random sources that are well typed.
type writer struct{ t *rapid.T }

func (w writer) pick(of ...string) string { return rapid.SampledFrom(of).Draw(w.t, "form") }

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (w writer) leaf(t batch.Type) string {
	col := columnLetter(t) + w.pick("1", "2")
	if rapid.IntRange(0, 2).Draw(w.t, "leaf") > 0 {
		return col
	}
	if rapid.IntRange(0, 9).Draw(w.t, "null") == 0 {
		return fmt.Sprintf("cast(null as %v)", t)
	}
	switch t {
	case batch.Boolean:
		return w.pick("true", "false")
	case batch.Bigint:
		return fmt.Sprint(rapid.SampledFrom(edgeInts).Draw(w.t, "int"))
	case batch.Double:
		return w.pick("0.0", "8.0", "-2.5", "1e300", "0.1", "(1e300*1e300)", "cast('nan' as double)", "(0.0 - 1e300*1e300)", "9.3e18")
	case batch.String:
		return quote(rapid.SampledFrom(edgeTexts).Draw(w.t, "text"))
	case batch.Timestamp:
		return w.pick("timestamp '2026-01-31T12:00:00Z'", "timestamp '1969-12-31'", "'2026-01-31T12:00:00Z'::timestamp")
	}
	return "cast(" + quote(rapid.SampledFrom(edgeTexts).Draw(w.t, "bytes")) + " as bytes)"
}

// any writes an expression of type t.
func (w writer) any(t batch.Type, depth int) string {
	if depth <= 0 {
		return w.leaf(t)
	}
	d := depth - 1
	x := func() string { return w.any(t, d) }
	cond := func() string { return w.any(batch.Boolean, d) }
	switch form := rapid.IntRange(0, 11).Draw(w.t, "kind"); form {
	case 0:
		return w.leaf(t)
	case 1:
		return fmt.Sprintf("case when %s then %s when %s then %s else %s end", cond(), x(), cond(), x(), x())
	case 2:
		o := rapid.SampledFrom(batch.Types()).Draw(w.t, "of")
		return fmt.Sprintf("case %s when %s then %s when %s then %s end", w.any(o, d), w.any(o, d), x(), w.any(o, d), x())
	case 3:
		return fmt.Sprintf("coalesce(%s, %s, %s)", x(), x(), x())
	case 4:
		return fmt.Sprintf("nullif(%s, %s)", x(), x())
	case 5:
		return fmt.Sprintf("%s(%s, %s, %s)", w.pick("least", "greatest"), x(), x(), x())
	}
	switch t {
	case batch.Boolean:
		return w.boolean(d)
	case batch.Bigint:
		return w.bigint(d)
	case batch.Double:
		return w.double(d)
	case batch.String:
		return w.text(d)
	case batch.Bytes:
		return fmt.Sprintf("cast(%s as bytes)", w.any(batch.String, d))
	}
	ts := func() string { return w.any(batch.Timestamp, d) }
	switch w.pick("trunc", "millis", "shift", "cast") {
	case "trunc":
		return fmt.Sprintf("date_trunc('%s', %s)", rapid.SampledFrom(truncUnits()).Draw(w.t, "unit").name(), ts())
	case "millis":
		return fmt.Sprintf("from_millis(%s)", w.any(batch.Bigint, d))
	case "shift":
		return fmt.Sprintf("(%s %s interval '%s' %s)", ts(), w.pick("+", "-"), w.pick("1", "-5", "100000"), rapid.SampledFrom(intervalUnits()).Draw(w.t, "unit").name())
	}
	return fmt.Sprintf("cast(%s as timestamp)", w.any(batch.String, d))
}

func (u unit) name() string { return unitNames[u] }

func (w writer) boolean(d int) string {
	b := func() string { return w.any(batch.Boolean, d) }
	s := func() string { return w.any(batch.String, d) }
	not := w.pick("", "not ")
	t := rapid.SampledFrom(batch.Types()).Draw(w.t, "of")
	x := func() string { return w.any(t, d) }
	switch rapid.IntRange(0, 10).Draw(w.t, "boolean") {
	case 10:
		return fmt.Sprintf("cast(%s as boolean)", w.any(rapid.SampledFrom([]batch.Type{batch.String, batch.Bigint}).Draw(w.t, "of"), d))
	case 0:
		return fmt.Sprintf("(%s and %s and %s)", b(), b(), b())
	case 1:
		return fmt.Sprintf("(%s or %s)", b(), b())
	case 2:
		return fmt.Sprintf("(not %s)", b())
	case 3:
		return fmt.Sprintf("(%s is %s%s)", b(), not, w.pick("true", "false"))
	case 4:
		return fmt.Sprintf("(%s is %snull)", x(), not)
	case 5:
		return fmt.Sprintf("(%s %sbetween %s and %s)", x(), not, x(), x())
	case 6:
		list := []string{}
		for range rapid.SampledFrom([]int{1, 3, 20, 80}).Draw(w.t, "list") {
			list = append(list, w.leaf(t))
		}
		return fmt.Sprintf("(%s %sin (%s))", x(), not, strings.Join(list, ", "))
	case 7:
		pattern := w.pick("'a%'", "'%b'", "'%a%'", "'abc'", "'_b%'", "'%a_b%'", "'a\\%b'", "'a#%b' escape '#'", "'%\\\\%' escape ''", "s2", "s1 escape '%'", "'%'", "'Ä%l'", "'%_語'")
		return fmt.Sprintf("(%s %slike %s)", s(), not, pattern)
	case 8:
		return fmt.Sprintf("starts_with(%s, %s)", s(), s())
	}
	if t == batch.Bigint && w.pick("same", "mixed") == "mixed" {
		return fmt.Sprintf("(%s %s %s)", x(), w.pick("=", "<>", "<", "<=", ">", ">="), w.any(batch.Double, d))
	}
	return fmt.Sprintf("(%s %s %s)", x(), w.pick("=", "<>", "<", "<=", ">", ">="), x())
}

func (w writer) bigint(d int) string {
	i := func() string { return w.any(batch.Bigint, d) }
	s := func() string { return w.any(batch.String, d) }
	switch rapid.IntRange(0, 10).Draw(w.t, "bigint") {
	case 0:
		return fmt.Sprintf("(-%s)", i())
	case 1:
		return fmt.Sprintf("abs(%s)", i())
	case 2:
		return fmt.Sprintf("round(%s, %s)", i(), w.pick("0", "2", "-1", "-2", "-18"))
	case 3:
		return fmt.Sprintf("length(%s)", w.any(rapid.SampledFrom([]batch.Type{batch.String, batch.Bytes}).Draw(w.t, "of"), d))
	case 4:
		return fmt.Sprintf("extract(%s from %s)", rapid.SampledFrom(extractUnits()).Draw(w.t, "unit").name(), w.any(batch.Timestamp, d))
	case 5:
		return fmt.Sprintf("to_millis(%s)", w.any(batch.Timestamp, d))
	case 6:
		return fmt.Sprintf("%s::bigint", w.any(batch.Boolean, d))
	case 7:
		return fmt.Sprintf("cast(%s as bigint)", w.any(batch.Double, d))
	case 8:
		return fmt.Sprintf("cast(%s as bigint)", s())
	}
	return fmt.Sprintf("(%s %s %s)", i(), w.pick("+", "-", "*", "/", "%"), i())
}

func (w writer) double(d int) string {
	f := func() string { return w.any(batch.Double, d) }
	switch rapid.IntRange(0, 6).Draw(w.t, "double") {
	case 0:
		return fmt.Sprintf("%s(%s)", w.pick("abs", "floor", "ceil", "sqrt", "ln", "exp", "-"), f())
	case 1:
		return fmt.Sprintf("round(%s, %s)", f(), w.pick("0", "2", "-1", "18"))
	case 2:
		return fmt.Sprintf("power(%s, %s)", f(), w.any(batch.Bigint, d))
	case 3:
		return fmt.Sprintf("cast(%s as double)", w.any(rapid.SampledFrom([]batch.Type{batch.Bigint, batch.String}).Draw(w.t, "of"), d))
	case 4:
		return fmt.Sprintf("(%s %s %s)", w.any(batch.Bigint, d), w.pick("+", "-", "*", "/", "%"), f())
	}
	return fmt.Sprintf("(%s %s %s)", f(), w.pick("+", "-", "*", "/", "%"), f())
}

func (w writer) text(d int) string {
	s := func() string { return w.any(batch.String, d) }
	i := func() string { return w.any(batch.Bigint, d) }
	switch rapid.IntRange(0, 6).Draw(w.t, "string") {
	case 0:
		return fmt.Sprintf("%s(%s)", w.pick("lower", "upper", "trim"), s())
	case 1:
		return fmt.Sprintf("substr(%s, %s)", s(), i())
	case 2:
		return fmt.Sprintf("substr(%s, %s, %s)", s(), i(), i())
	case 3:
		return fmt.Sprintf("split_part(%s, %s, %s)", s(), s(), w.pick("1", "2", "-1", "i1", "i2"))
	case 4:
		return fmt.Sprintf("replace(%s, %s, %s)", s(), s(), s())
	case 5:
		t := rapid.SampledFrom(batch.Types()).Draw(w.t, "of")
		return fmt.Sprintf("cast(%s as string)", w.any(t, d))
	}
	t := rapid.SampledFrom([]batch.Type{batch.Boolean, batch.Bigint, batch.Double, batch.Timestamp, batch.String}).Draw(w.t, "of")
	return fmt.Sprintf(w.pick("concat(%s, %s, %s)", "(%s || %s || %s)"), s(), w.any(t, d), s())
}

// typedTree is the tree of src as the checker leaves it: nothing folded,
// nothing prepared.
func typedTree(t interface{ Fatalf(string, ...any) }, src string, s *batch.Schema) *node {
	tree, err := parse(src)
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	n, err := (&checker{src: src, schema: s}).expr(tree.Items[0].Expr)
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	return n
}

// compareWithInterpreter runs e over b both ways.
func compareWithInterpreter(t interface{ Fatalf(string, ...any) }, src string, tree *node, ev *Eval, b *batch.Batch) {
	var want interpreter
	want.b = b
	wantErrs := []RowError{}
	values := make([]any, b.Rows)
	trues := []int32{}
	for k := range b.Len() {
		p := b.Position(k)
		want.row, want.errs = p, nil
		values[p] = want.eval(tree)
		if values[p] == true {
			trues = append(trues, int32(p))
		}
		if len(want.errs) > 0 {
			wantErrs = append(wantErrs, RowError{int32(p), want.errs[0]})
		}
	}
	ev.DivByZero, ev.Overflow = 0, 0
	var got batch.Column
	ev.Into(b, &got)
	faults := func(how string) {
		if ev.DivByZero != want.div || ev.Overflow != want.over {
			t.Fatalf("%s (%s): %d divisions by zero and %d overflows, the interpreter counts %d and %d", src, how, ev.DivByZero, ev.Overflow, want.div, want.over)
		}
		if !slices.Equal(ev.Errors(), wantErrs) {
			got, i := append(ev.Errors(), RowError{}), 0
			for wanted := append(wantErrs, RowError{}); got[i] == wanted[i]; {
				i++
			}
			t.Fatalf("%s (%s): %d row errors, the interpreter has %d; the first that differs is %v and %v", src, how, len(ev.Errors()), len(wantErrs), got[i:][:1], append(wantErrs, RowError{})[i:][:1])
		}
	}
	faults("Into")
	whole := &batch.Batch{Schema: batch.MustSchema(batch.Field{Name: "x", Type: tree.typ}), Rows: b.Rows, Cols: []*batch.Column{&got}, Times: make([]int64, b.Rows)}
	if err := whole.Check(); err != nil {
		t.Fatalf("%s: the result is not well formed: %v", src, err)
	}
	there := make([]bool, b.Rows)
	for k := range b.Len() {
		p := b.Position(k)
		there[p] = true
		if v := goValue(tree.typ, valueAt(&got, p)); !sameValue(v, values[p]) {
			t.Fatalf("%s: row %d is %#v, the interpreter says %#v", src, p, v, values[p])
		}
	}
	if got.Type.Variable() {
		for p := range b.Rows {
			if (!there[p] || got.IsNull(p)) && len(got.At(p)) != 0 {
				t.Fatalf("%s: row %d has bytes but no value", src, p)
			}
		}
	}
	if tree.typ == batch.Boolean {
		ev.DivByZero, ev.Overflow = 0, 0
		sel := ev.Select(b, []int32{-1})
		faults("Select")
		if sel[0] != -1 || !slices.Equal(sel[1:], trues) {
			t.Fatalf("%s: Select appends %v, the interpreter %v", src, sel[1:], trues)
		}
	}
}

func sameValue(a, b any) bool {
	x, isDouble := a.(float64)
	y, alsoDouble := b.(float64)
	if isDouble && alsoDouble {
		return math.Float64bits(x) == math.Float64bits(y) || x != x && y != y
	}
	return a == b
}

// known are the reasons for which a random expression may be refused: a
// constant part of it cannot be cast.
func known(err error) bool {
	return strings.Contains(err.Error(), "cannot cast") || strings.Contains(err.Error(), "there is no part 0")
}

func TestKernelsAgreeWithInterpreter(t *testing.T) {
	schema := testSchema()
	pool := batch.NewPool(0, nil)
	rapid.Check(t, func(t *rapid.T) {
		typ := rapid.SampledFrom(batch.Types()).Draw(t, "type")
		src := writer{t}.any(typ, rapid.IntRange(1, 3).Draw(t, "depth"))
		e, err := Compile(src, schema)
		if err != nil {
			if !known(err) {
				t.Fatalf("%s: %v", src, err)
			}
			return
		}
		if e.Type() != typ {
			t.Fatalf("%s is %v, not %v", src, e.Type(), typ)
		}
		tree := typedTree(t, src, schema)
		ev := e.NewEval()
		r := newRand(rapid.Uint64().Draw(t, "seed"))
		for _, rows := range rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 7, 64, 65, 300}), 1, 4).Draw(t, "rows") {
			b := randomBatch(r, pool, schema, rows)
			before := snapshot(b)
			compareWithInterpreter(t, src, tree, ev, b)
			if !reflect.DeepEqual(before, snapshot(b)) {
				t.Fatalf("%s wrote to its input", src)
			}
			b.Release()
		}
	})
}

// TestFullBatches does the same with batches of the largest size, which need
// more memory than a test that shrinks can afford.
func TestFullBatches(t *testing.T) {
	schema := testSchema()
	pool := batch.NewPool(0, nil)
	rapid.Check(t, func(t *rapid.T) {
		if rapid.IntRange(0, 4).Draw(t, "one in five") > 0 {
			return
		}
		src := writer{t}.any(rapid.SampledFrom(batch.Types()).Draw(t, "type"), 2)
		e, err := Compile(src, schema)
		if err != nil {
			return
		}
		tree, ev := typedTree(t, src, schema), e.NewEval()
		r := newRand(rapid.Uint64().Draw(t, "seed"))
		for range 2 {
			b := randomBatch(r, pool, schema, batch.MaxRows)
			compareWithInterpreter(t, src, tree, ev, b)
			b.Release()
		}
	})
}

// snapshot copies the columns of b.
func snapshot(b *batch.Batch) []batch.Column {
	var out []batch.Column
	for _, c := range b.Cols {
		out = append(out, batch.Column{
			Type: c.Type, Valid: slices.Clone(c.Valid), Ints: slices.Clone(c.Ints), Bits: slices.Clone(c.Bits),
			Offsets: slices.Clone(c.Offsets), Data: slices.Clone(c.Data),
		})
		for _, d := range c.Doubles {
			out[len(out)-1].Ints = append(out[len(out)-1].Ints, int64(math.Float64bits(d)))
		}
	}
	return out
}
