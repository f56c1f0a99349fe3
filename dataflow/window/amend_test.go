package window_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
)

// taken are the batches of one snapshot, by table.
type taken [][]*batch.Batch

func takeAll(t optest.TB, op operator.Operator, delta bool) taken {
	s := make(taken, len(op.StateTables()))
	err := op.Snapshot(delta, func(table int, b *batch.Batch) error {
		s[table] = append(s[table], b.Retain())
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// lines are the rows of each table.
func (s taken) lines(tables []operator.StateTable) (all [][]string) {
	for i, batches := range s {
		rows := optest.Stream{Schema: tables[i].Schema}
		for _, b := range batches {
			rows.Flatten(b)
		}
		var lines []string
		for _, r := range rows.Rows() {
			lines = append(lines, fmt.Sprintf("%d %#v", r.Kind, r.Values))
		}
		sort.Strings(lines)
		all = append(all, lines)
	}
	return all
}

// TestAmended has random steps on random input take snapshots, while another
// operator takes each of them on those before, at times several at once. It ends
// with the same state, knows what of it is saved, and goes on the same.
func TestAmended(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawExample(t)
		t.Logf("%s\n%s", e.spec.Describe(), e.input)
		pool := batch.NewPool(0, nil)
		from := newFleet(t, e, pool, 1)
		tables := from.ops[0].StateTables()
		var to *fleet
		var chain []taken // those that to lacks
		first := true     // it has none
		amends := func(table int) bool { return to.ops[0].(operator.Amender).Amends(table) }
		follow := func() {
			for table := range tables {
				for i, s := range chain {
					for _, b := range s[table] {
						err := error(nil)
						switch {
						case !amends(table):
						case i == 0 && first:
							err = to.ops[0].Restore(table, b)
						default:
							err = to.ops[0].(operator.Amender).Amend(table, b)
						}
						if err != nil {
							t.Fatalf("%v", err)
						}
					}
				}
			}
			chain, first = nil, false
		}
		rest := e.input.Elements
		size := rapid.SampledFrom([]int{1, 7, 1000}).Draw(t, "size")
		for len(rest) > 1 {
			n := rapid.IntRange(1, min(len(rest)-1, 40)).Draw(t, "part")
			from.feed(rest[:n], size)
			rest = rest[n:]
			if to == nil {
				to, chain = newFleet(t, e, pool, 1), []taken{takeAll(t, from.ops[0], false)}
			} else {
				chain = append(chain, takeAll(t, from.ops[0], true))
			}
			if rapid.Bool().Draw(t, "follow") {
				follow()
			}
			if rapid.IntRange(0, 4).Draw(t, "stop") == 0 {
				break
			}
		}
		if to == nil {
			return
		}
		follow()
		full := takeAll(t, from.ops[0], false)
		for table := range tables {
			for _, b := range full[table] {
				if !amends(table) {
					if err := to.ops[0].Restore(table, b); err != nil {
						t.Fatalf("%v", err)
					}
				}
			}
		}
		compareWith := func(what string, delta bool, want [][]string) {
			for i, got := range takeAll(t, to.ops[0], delta).lines(tables) {
				if amends(i) && !slices.Equal(got, want[i]) {
					t.Fatalf("%s of %s:\n got %q\nwant %q", what, tables[i].Name, got, want[i])
				}
			}
		}
		compareWith("what changed", true, make([][]string, len(tables)))
		compareWith("all", false, full.lines(tables))
		if e.spec.Form != window.SlidingCount && from.ctx[0].Counters.OpenWindows != to.ctx[0].Counters.OpenWindows {
			t.Fatalf("%d windows are open, want %d", to.ctx[0].Counters.OpenWindows, from.ctx[0].Counters.OpenWindows)
		}
		got, want := map[string][]string{}, map[string][]string{}
		from.out[0].Elements = nil
		from.feed(rest, size)
		to.feed(rest, size)
		from.perKey(want)
		to.perKey(got)
		for k := range want {
			if fmt.Sprint(got[k]) != fmt.Sprint(want[k]) {
				t.Fatalf("key %s:\n got %q\nwant %q", k, got[k], want[k])
			}
		}
		if len(got) > len(want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	})
}

// reread are the batches that come of the parts of a delta: what is removed and
// what is new in one, as many rows as fit.
func (s taken) reread(t optest.TB, tables []operator.StateTable, pool *batch.Pool) taken {
	again := make(taken, len(s))
	for i, batches := range s {
		var part bytes.Buffer
		w := avro.NewWriter(&part, avro.Header{Table: tables[i].Name, Schema: tables[i].Schema, Keyed: tables[i].Keyed, Delta: true})
		for _, b := range batches {
			if err := w.Append(b); err != nil {
				t.Fatalf("%v", err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatalf("%v", err)
		}
		rd, err := avro.NewReader(&part, pool)
		for err == nil {
			var b *batch.Batch
			if b, err = rd.Next(); err == nil {
				again[i] = append(again[i], b)
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Fatalf("%v", err)
		}
	}
	return again
}

// TestAmendedSets is TestAmended for one key whose sets of values become large, and
// of which a delta has many that are gone and many that are new.
func TestAmendedSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := input()
		const size = 100 // of a window
		e := example{spec: window.Spec{Form: window.Count, Rows: size, Input: in, Keys: []int{0}, Aggregates: aggregates(t, in, "distinct(v)")}}
		pool := batch.NewPool(0, nil)
		from, to := newFleet(t, e, pool, 1), newFleet(t, e, pool, 1)
		amender, tables := to.ops[0].(operator.Amender), from.ops[0].StateTables()
		values, fed := rapid.IntRange(60, 300).Draw(t, "values"), 0
		for step := range rapid.IntRange(2, 12).Draw(t, "steps") {
			n := rapid.SampledFrom([]int{0, 0, 5, 10, 35, 50, 70}).Draw(t, "n")
			if n == 0 || rapid.Bool().Draw(t, "ends") {
				n += size - fed%size
			}
			fed += n
			v, by := rapid.IntRange(0, values).Draw(t, "from"), rapid.SampledFrom([]int{1, 7}).Draw(t, "by")
			var rows []optest.Element
			for i := range n {
				rows = append(rows, optest.Element{Row: &optest.Row{Values: []any{"k", int64((v + i*by) % values), 0.0, "", true, nil}}})
			}
			from.feed(rows, 1000)
			s := takeAll(t, from.ops[0], step > 0)
			if step > 0 {
				s = s.reread(t, tables, pool)
			}
			for table := range tables {
				for _, b := range s[table] {
					err := error(nil)
					switch {
					case !amender.Amends(table):
					case step == 0:
						err = to.ops[0].Restore(table, b)
					default:
						err = amender.Amend(table, b)
					}
					if err != nil {
						t.Fatalf("%v", err)
					}
				}
			}
			got, want := takeAll(t, to.ops[0], false).lines(tables), takeAll(t, from.ops[0], false).lines(tables)
			for i := range tables {
				if amender.Amends(i) && !slices.Equal(got[i], want[i]) {
					t.Fatalf("step %d, all of %s:\n got %q\nwant %q", step, tables[i].Name, got[i], want[i])
				}
			}
		}
	})
}

// TestExpected: what is said of rows to come changes nothing but how often memory
// is made for them.
func TestExpected(t *testing.T) {
	in := input()
	for _, form := range []window.Spec{{Form: window.Running}, {Form: window.Count, Rows: 3}, {Form: window.Session, Gap: 10}} {
		form.Input, form.Keys, form.Aggregates = in, []int{1}, aggregates(t, in, "count(*)", "max(d)", "first(s)", "sum(v)")
		const keys = 20000
		rows := optest.Stream{Schema: in}
		for i := range int64(keys) {
			rows.Elements = append(rows.Elements, optest.Element{Row: &optest.Row{Values: []any{"k", i, float64(i), "s", true, nil}}})
		}
		e := example{spec: form, input: rows}
		pool := batch.NewPool(0, nil)
		from := newFleet(t, e, pool, 1)
		from.feed(rows.Elements, 1000)
		tables, state := from.ops[0].StateTables(), takeAll(t, from.ops[0], false)
		want := state.lines(tables)
		made := make(map[int64]float64)
		for _, expect := range []int64{0, keys, 3 * keys, 10} {
			var to *fleet
			made[expect] = testing.AllocsPerRun(1, func() {
				to = newFleet(t, e, pool, 1)
				to.ops[0].(operator.Expecter).Expect(0, expect)
				for i := range tables {
					for _, b := range state[i] {
						if err := to.ops[0].Restore(i, b); err != nil {
							t.Fatal(err)
						}
					}
				}
			})
			for i, lines := range takeAll(t, to.ops[0], false).lines(tables) {
				if !slices.Equal(lines, want[i]) {
					t.Errorf("%v, %d expected: %d rows, want %d", form.Form, expect, len(lines), len(want[i]))
				}
			}
		}
		if made[keys] >= made[0] {
			t.Errorf("%v: %v allocations with what comes known, %v without", form.Form, made[keys], made[0])
		}
	}
}
