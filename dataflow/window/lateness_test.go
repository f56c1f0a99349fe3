package window_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
)

// rowAt is a row of key k at a time.
func rowAt(ts int64) optest.Element {
	return optest.Element{Row: &optest.Row{Values: []any{"k", int64(1), nil, nil, nil, nil}, Time: dataflow.Time(ts)}}
}

func markAt(wm int64) optest.Element {
	return optest.Element{Mark: batch.Mark{Watermark: dataflow.Time(wm), Arrival: dataflow.MinTime}}
}

// A step goes on with another allowed lateness. Windows that were gone have no
// state any more and stay gone; those that have fired do not come twice.
func TestLatenessChanges(t *testing.T) {
	tumbling, sliding := window.Spec{Form: window.Tumbling, Size: 10}, window.Spec{Form: window.Sliding, Size: 10, Slide: 5}
	session := window.Spec{Form: window.Session, Gap: 10}
	for _, c := range []struct {
		spec     window.Spec
		from, to dataflow.Duration
		after    []optest.Element
		want     string // after rows at 1 and 3 and the watermark 13
	}{
		{tumbling, 0, 20, []optest.Element{rowAt(4), rowAt(12), markAt(19), rowAt(14)}, "+I[10 20) 1, +U[10 20) 2"},
		{sliding, 0, 20, []optest.Element{rowAt(4), rowAt(7), markAt(14), rowAt(6)}, "+I[5 15) 1, +U[5 15) 2"},
		{session, 0, 20, []optest.Element{rowAt(3), rowAt(5), markAt(50)}, "+I[5 15) 1"},
		{session, 0, 20, []optest.Element{rowAt(3), markAt(50)}, ""},
		{tumbling, 20, 0, []optest.Element{markAt(14), rowAt(4), markAt(50)}, ""},
		{sliding, 20, 0, []optest.Element{rowAt(4), markAt(14), rowAt(4), markAt(50)}, ""},
		{session, 20, 0, []optest.Element{markAt(14), markAt(50)}, ""},
		{session, 20, 0, []optest.Element{rowAt(6), markAt(50)}, "+I[6 16) 1"},
		{session, 20, 5, []optest.Element{markAt(14), rowAt(4), markAt(50)}, "+U[1 14) 3"},
		{session, 20, 20, []optest.Element{markAt(14), rowAt(4), markAt(50)}, "+U[1 14) 3"},
	} {
		c.spec.Keys, c.spec.Input, c.spec.Aggregates = []int{0}, input(), aggregates(t, input(), "count(*)")
		from, to := c.spec, c.spec
		from.AllowedLateness, to.AllowedLateness = c.from, c.to
		pool := batch.NewPool(0, nil)
		old, next := newFleet(t, example{spec: from}, pool, 1), newFleet(t, example{spec: to}, pool, 1)
		old.feed([]optest.Element{rowAt(1), rowAt(3), markAt(13)}, 10)
		old.evolve(next)
		next.feed(c.after, 10)
		if got := shown(next.out[0]); got != c.want {
			t.Errorf("%s, %v instead of %v: %s, want %s", c.spec.Describe(), c.to, c.from, got, c.want)
		}
	}
}

// shown are the windows of results.
func shown(s optest.Stream) (text string) {
	for i, r := range s.Rows() {
		if i > 0 {
			text += ", "
		}
		n := len(r.Values)
		text += fmt.Sprintf("+%c[%v %v) %v", "IU"[r.Kind&1], r.Values[n-3], r.Values[n-2], r.Values[n-1])
	}
	return text
}

// Random steps go on with other latenesses, and sessions with another firing,
// again and again: the results are those of the reference, which knows what was gone.
func TestLatenessEvolves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawExample(t)
		if !e.spec.Form.Timed() || e.spec.ProcessingTime || rapid.Bool().Draw(t, "session") {
			e.spec.Form, e.spec.Gap, e.spec.ProcessingTime = window.Session, 5, false
			e.spec.Size, e.spec.Slide, e.spec.Offset, e.spec.Rows, e.spec.EachRows = 0, 0, 0, 0, 0
		}
		pool := batch.NewPool(0, nil)
		r := newReference(e.spec, e.exprs, factory(t, e.spec).Output())
		size := rapid.SampledFrom([]int{1, 7, 1000}).Draw(t, "size")
		want, got := map[string][]string{}, map[string][]string{}
		fl := newFleet(t, e, pool, 1)
		session, late, outside := e.spec.Form == window.Session, int64(0), int64(0)
		for rest := e.input.Elements; ; {
			t.Logf("%s\n%s", e.spec.Describe(), optest.Stream{Schema: e.spec.Input, Elements: rest})
			n := rapid.IntRange(0, len(rest)).Draw(t, "part")
			fl.feed(rest[:n], size)
			fl.perKey(got)
			late, outside = late+fl.ctx[0].Counters.Late, outside+fl.ctx[0].Counters.NoWindow
			r.run(optest.Stream{Schema: e.spec.Input, Elements: rest[:n]})
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
			least := 0
			if session {
				e.spec.Firing = window.Firing(rapid.IntRange(0, 1).Draw(t, "firing"))
			} else if e.spec.AllowedLateness > 0 && e.spec.Firing == window.FireAtWatermark {
				least = 1 // at none, what is to fire again is refused
			}
			e.spec.AllowedLateness = dataflow.Duration(max(least, rapid.IntRange(-10, 30).Draw(t, "lateness")))
			next := newFleet(t, e, pool, 1)
			fl.evolve(next)
			fl = next
			r.restored(e.spec.AllowedLateness, e.spec.Firing)
		}
		addPerKey(want, r.out, len(e.spec.Keys))
		for k := range want {
			if !slices.Equal(got[k], want[k]) {
				t.Fatalf("key %s:\n got %q\nwant %q", k, got[k], want[k])
			}
		}
		if late != r.count.Late || outside != r.count.NoWindow {
			t.Fatalf("%d late and %d in no window, want %d and %d", late, outside, r.count.Late, r.count.NoWindow)
		}
		if len(got) > len(want) {
			t.Fatalf("results of %d keys, want those of %d", len(got), len(want))
		}
	})
}

// clockRows are the rows of the clock in the state of a fleet of one.
func clockRows(t *testing.T, f *fleet) (rows [][3]int64) {
	t.Helper()
	tables := f.ops[0].StateTables()
	err := f.ops[0].Snapshot(false, func(table int, b *batch.Batch) error {
		if tables[table].Name == "clock" {
			for r := range b.Rows {
				rows = append(rows, [3]int64{b.Cols[0].Ints[r], b.Cols[1].Ints[r], b.Cols[2].Ints[r]})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// What is gone is said in a row of the clock's table that says nothing to a
// program of before, which takes the least clocks and the greatest seq. Its own
// state has no such row, and the lateness is taken to be what it was.
func TestClockAndEarlierReleases(t *testing.T) {
	s := window.Spec{Form: window.Tumbling, Size: 10, AllowedLateness: 4, Keys: []int{0}, Input: input(), Aggregates: aggregates(t, input(), "count(*)")}
	pool := batch.NewPool(0, nil)
	old := newFleet(t, example{spec: s}, pool, 1)
	old.feed([]optest.Element{rowAt(1), rowAt(3), markAt(13)}, 10)
	rows := clockRows(t, old)
	if len(rows) != 2 || rows[0][0] != 13 || rows[0][2] != 2 || rows[1] != [3]int64{rows[0][0], rows[0][1], -5} {
		t.Fatalf("the clock is %d", rows)
	}
	s.AllowedLateness = 20
	for _, c := range []struct {
		rows [][3]int64
		want string
	}{
		{rows[:1], "+U[0 10) 1"}, {rows, ""}, {[][3]int64{rows[1], rows[0]}, ""},
		{append(rows, [3]int64{13, 0, -3}), ""}, {append(rows, [3]int64{13, 0, -6}), "+U[0 10) 1"}, // of other subtasks: the least
		{append(rows, [3]int64{12, 0, 7}, [3]int64{12, 0, -5}), "+U[0 10) 1"},
	} {
		next := newFleet(t, example{spec: s}, pool, 1)
		tables := next.ops[0].StateTables()
		n := slices.IndexFunc(tables, func(t operator.StateTable) bool { return t.Name == "clock" })
		for _, row := range c.rows { // as of one subtask after the other
			bl := batch.NewBuilder(pool, tables[n].Schema)
			for i, v := range row {
				bl.SetInt(i, v)
			}
			bl.EndRow(0)
			b := bl.Take()
			if err := next.ops[0].Restore(n, b); err != nil {
				t.Fatal(err)
			}
			b.Release()
		}
		next.feed([]optest.Element{rowAt(4)}, 10)
		if got := shown(next.out[0]); got != c.want {
			t.Errorf("clock %d: %q, want %q", c.rows, got, c.want)
		}
	}
	s.Form, s.Rows, s.AllowedLateness = window.Count, 5, 0
	if rows := clockRows(t, newFleet(t, example{spec: s}, pool, 1)); len(rows) != 1 {
		t.Errorf("the clock of windows for which nothing is late is %d", rows)
	}
}

// Sessions that are gone by a lateness that was lowered go with the next mark, also
// where no row comes any more.
func TestSessionsThatAreGoneGo(t *testing.T) {
	s := window.Spec{Form: window.Session, Gap: 10, AllowedLateness: 20, Keys: []int{0}, Input: input(), Aggregates: aggregates(t, input(), "count(*)")}
	pool := batch.NewPool(0, nil)
	old := newFleet(t, example{spec: s}, pool, 1)
	old.feed([]optest.Element{rowAt(1), rowAt(3), markAt(13)}, 10)
	s.AllowedLateness = 0
	next := newFleet(t, example{spec: s}, pool, 1)
	old.evolve(next)
	next.feed([]optest.Element{markAt(14)}, 10)
	if c := next.ctx[0].Counters; c.OpenWindows != 0 || c.KeysLive != 0 {
		t.Errorf("%d windows of %d keys are open", c.OpenWindows, c.KeysLive)
	}
}
