package window_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
)

// evolve gives the state of a fleet of one to another whose aggregates differ,
// through parts and Avro's rules, as a restore does.
func (f *fleet) evolve(to *fleet) {
	for n, want := range to.ops[0].StateTables() {
		at := slices.IndexFunc(f.ops[0].StateTables(), func(t operator.StateTable) bool { return t.Name == want.Name })
		if at < 0 {
			continue // starts empty
		}
		had := f.ops[0].StateTables()[at]
		var part bytes.Buffer
		w := avro.NewWriter(&part, avro.Header{Table: had.Name, Schema: had.Schema, Keyed: had.Keyed})
		err := f.ops[0].Snapshot(false, func(table int, b *batch.Batch) error {
			if table == at {
				return w.Append(b)
			}
			return nil
		})
		r, errR := avro.NewReader(&part, f.pool)
		if err = errors.Join(err, w.Close()); err == nil {
			if r, errR = avro.NewReader(&part, f.pool); errR == nil {
				errR = r.ResolveTo(avro.SchemaOf(want.Name, want.Schema, want.Keyed), want.Schema)
			}
		}
		for err = errors.Join(err, errR); err == nil; {
			var b *batch.Batch
			if b, err = r.Next(); err == nil {
				err = to.ops[0].Restore(n, b)
				b.Release()
			}
		}
		if !errors.Is(err, io.EOF) {
			f.t.Fatalf("table %q: %v", want.Name, err)
		}
	}
}

// columnsOf are the state columns of a step, with their tables.
func columnsOf(t optest.TB, s window.Spec) map[string]bool {
	all := make(map[string]bool)
	for _, tab := range factory(t, s).New().StateTables() {
		for _, f := range tab.Schema.Fields() {
			all[tab.Name+"."+f.Name] = true
		}
	}
	return all
}

// with is the example with other aggregates.
func (e example) with(t optest.TB, exprs ...string) example {
	e.exprs, e.spec.Aggregates = nil, aggregates(t, e.spec.Input, exprs...)
	for _, x := range exprs {
		e.exprs = append(e.exprs, strings.TrimSuffix(x[strings.Index(x, "(")+1:], ")"))
	}
	return e
}

// A step gets other aggregates, in another order and with other names, while
// windows are open. No result is ever wrong: it is that of a step that had them
// all along, or null, and the latter only for aggregates of which something was
// not kept, in windows that were open.
func TestAggregatesEvolve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		had := drawExample(t)
		exprs := rapid.SliceOfNDistinct(rapid.SampledFrom(someAggregates), 1, 6, rapid.ID[string]).Draw(t, "now")
		now := had.with(t, exprs...)
		n := rapid.IntRange(0, len(had.input.Elements)).Draw(t, "cut")
		t.Logf("%s\n%s\n%d of %s", had.spec.Describe(), now.spec.Describe(), n, had.input)
		pool := batch.NewPool(0, nil)
		size := rapid.SampledFrom([]int{1, 7, 1000}).Draw(t, "size")
		old, next := newFleet(t, had, pool, 1), newFleet(t, now, pool, 1)
		old.feed(had.input.Elements[:n], size)
		old.evolve(next)
		if rapid.Bool().Draw(t, "once more") { // what is not known stays so
			again := newFleet(t, now, pool, 1)
			next.evolve(again)
			next = again
		}
		next.feed(had.input.Elements[n:], size)

		whole := newReference(now.spec, now.exprs, factory(t, now.spec).Output())
		whole.run(had.input)
		nkeys := len(now.spec.Keys)
		before, want, got := map[string][]string{}, map[string][]optest.Row{}, map[string][]optest.Row{}
		addPerKey(before, old.out[0], nkeys)
		byKey(want, whole.out, nkeys)
		byKey(got, next.out[0], nkeys)
		keeps := make([]bool, len(exprs))
		kept := columnsOf(t, had.spec)
		for i, x := range exprs {
			keeps[i] = true
			for c := range columnsOf(t, now.with(t, x).spec) {
				keeps[i] = keeps[i] && kept[c]
			}
		}
		for k, all := range want {
			all = all[len(before[k]):]
			if len(all) != len(got[k]) {
				t.Fatalf("key %s: %d results, want %d", k, len(got[k]), len(all))
			}
			for i, row := range got[k] {
				open := wasOpen(now.spec, had.input.Elements[:n], row)
				for a := range exprs {
					c := len(row.Values) - len(exprs) + a
					v, w := rounded(row.Values[c:c+1]), rounded(all[i].Values[c:c+1])
					if v != w && (row.Values[c] != nil || keeps[a] || !open) {
						t.Fatalf("key %s, result %d: %s is %s, want %s; kept %v, open %v", k, i, exprs[a], v, w, keeps[a], open)
					}
				}
			}
		}
	})
}

func byKey(rows map[string][]optest.Row, s optest.Stream, nkeys int) {
	for _, r := range s.Rows() {
		k := fmt.Sprintf("%#v", r.Values[:nkeys])
		rows[k] = append(rows[k], r)
	}
}

// wasOpen tells whether the window of a result may have had rows among those.
func wasOpen(s window.Spec, elements []optest.Element, result optest.Row) bool {
	for _, e := range elements {
		if e.Row == nil {
			continue
		}
		same := true
		for i, k := range s.Keys {
			same = same && e.Row.Values[k] == result.Values[i]
		}
		if !same {
			continue
		}
		if !s.Form.Timed() || s.ProcessingTime {
			return true
		}
		start, end := result.Values[len(s.Keys)].(int64), result.Values[len(s.Keys)+1].(int64)
		if at := int64(e.Row.Time); start <= at && at < end {
			return true
		}
	}
	return false
}

// State does not depend on what a job calls its aggregates, how it writes
// them, and in which order.
func TestStateIsNamedAfterWhatIsKept(t *testing.T) {
	e := example{spec: window.Spec{Form: window.Tumbling, Size: 10 * dataflow.Second, Keys: []int{0}, Input: input()}}
	a := schemas(t, e.with(t, "avg(v)", "max(d * 2.0)", "distinct(s)", "count(v)").spec)
	b := schemas(t, e.with(t, "distinct(s)", "sum(v)", "max( d*(1.0+1.0) )").spec)
	if a != b {
		t.Errorf("the same is kept in other tables:\n%s\n%s", a, b)
	}
}

func schemas(t optest.TB, s window.Spec) string {
	var b strings.Builder
	for _, tab := range factory(t, s).New().StateTables() {
		fmt.Fprintf(&b, "  %s (%d): %s\n", tab.Name, tab.Identity, tab.Schema)
	}
	return b.String()
}

// The tables of all forms and accumulators are those of the page, by which
// savepoints are read for years.
func TestStateTablesOfThePage(t *testing.T) {
	in := input()
	all := aggregates(t, in, "count(*)", "count(v)", "sum(v)", "sum(d)", "avg(v)", "min(s)", "max(d)", "first(v)", "last(s)", "stddev(d)", "distinct(s)", "sum(v * 2)")
	var b strings.Builder
	for _, s := range []window.Spec{
		{Form: window.Tumbling, Size: 90 * dataflow.Second, Offset: -dataflow.Second, AllowedLateness: 1, Firing: window.FireAtWatermark, Aggregates: all},
		{Form: window.Sliding, Size: dataflow.Hour, Slide: 10 * dataflow.Minute},
		{Form: window.Tumbling, Size: dataflow.Day, ProcessingTime: true},
		{Form: window.Session, Gap: 1500},
		{Form: window.Count, Rows: 10},
		{Form: window.SlidingCount, Rows: 10, EachRows: 5},
		{Form: window.Running},
	} {
		if s.Input, s.Keys = in, []int{0}; s.Aggregates == nil {
			s.Aggregates = aggregates(t, in, "sum(d)")
		}
		fmt.Fprintf(&b, "%s\n%s", s.Describe(), schemas(t, s))
	}
	page, err := os.ReadFile("../../docs/STATE_TABLES.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```\n"+b.String()+"```\n") {
		t.Errorf("docs/STATE_TABLES.md has not these tables:\n%s", b.String())
	}
}

// Windows are told apart by a column that names their shape: another shape is
// another column, and never taken for the same.
func TestShapes(t *testing.T) {
	seen := make(map[string]string)
	for _, s := range []window.Spec{
		{Form: window.Tumbling, Size: 10 * dataflow.Second}, {Form: window.Tumbling, Size: 20 * dataflow.Second},
		{Form: window.Tumbling, Size: 10 * dataflow.Second, Offset: 3}, {Form: window.Tumbling, Size: 10 * dataflow.Second, ProcessingTime: true},
		{Form: window.Sliding, Size: 20 * dataflow.Second, Slide: 10 * dataflow.Second}, {Form: window.Sliding, Size: 20 * dataflow.Second, Slide: 5 * dataflow.Second},
		{Form: window.Session, Gap: 10 * dataflow.Second}, {Form: window.Session, Gap: 11 * dataflow.Second},
		{Form: window.SlidingCount, Rows: 10, EachRows: 5}, {Form: window.SlidingCount, Rows: 10, EachRows: 2},
	} {
		s.Input, s.Keys, s.Aggregates = input(), []int{0}, aggregates(t, input(), "count(*)")
		name := factory(t, s).New().StateTables()[0].Schema.Field(1).Name
		if was := seen[name]; was != "" {
			t.Errorf("%s and %s have one column %s", was, s.Describe(), name)
		}
		seen[name] = s.Describe()
	}
	a := window.Spec{Form: window.Tumbling, Size: 10, Offset: -3, Input: input(), Aggregates: aggregates(t, input(), "count(*)")}
	b := a
	b.Offset = 7
	if schemas(t, a) != schemas(t, b) {
		t.Error("two ways of writing one offset differ")
	}
}

// evolved feeds rows to a step, gives its state to another, feeds that one more
// rows, and returns the last column of its results.
func evolved(t *testing.T, from, to window.Spec, before, after []optest.Element) (got []any) {
	t.Helper()
	pool := batch.NewPool(0, nil)
	old, next := newFleet(t, example{spec: from}, pool, 1), newFleet(t, example{spec: to}, pool, 1)
	old.feed(before, 10)
	old.evolve(next)
	next.feed(after, 10)
	for _, r := range next.out[0].Rows() {
		got = append(got, r.Values[len(r.Values)-1])
	}
	return got
}

// rowsOf are rows of key k with these values of v; nil is null.
func rowsOf(values ...any) (rows []optest.Element) {
	for _, v := range values {
		rows = append(rows, optest.Element{Row: &optest.Row{Values: []any{"k", v, nil, nil, nil, nil}}})
	}
	return rows
}

// Windows that had no value lack nothing of an aggregate that is new.
func TestAddedAggregateOfNulls(t *testing.T) {
	s := window.Spec{Form: window.Running, Keys: []int{0}, Input: input(), Aggregates: aggregates(t, input(), "count(v)")}
	to := s
	to.Aggregates = aggregates(t, input(), "max(v)")
	for _, c := range []struct{ before, after, want []any }{
		{[]any{nil, nil}, []any{nil, int64(5)}, []any{nil, int64(5)}},
		{[]any{nil, int64(9)}, []any{int64(5)}, []any{nil}},
	} {
		if got := evolved(t, s, to, rowsOf(c.before...), rowsOf(c.after...)); !slices.Equal(got, c.want) {
			t.Errorf("%v, then %v: %v, want %v", c.before, c.after, got, c.want)
		}
	}
}

// A count window that has begun goes on to the new size.
func TestCountWindowsOfAnotherSize(t *testing.T) {
	s := window.Spec{Form: window.Count, Rows: 5, Keys: []int{0}, Input: input(), Aggregates: aggregates(t, input(), "sum(v)")}
	var one any = int64(1)
	for size, want := range map[int64][]any{2: {int64(5), int64(2)}, 5: {int64(5)}, 6: {int64(6)}} {
		to := s
		to.Rows = size
		if got := evolved(t, s, to, rowsOf(one, one, one, one), rowsOf(one, one, one)); !slices.Equal(got, want) {
			t.Errorf("to %d: %v, want %v", size, got, want)
		}
	}
}
