package dedupe_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
)

func schema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "sensor", Type: batch.String}, batch.Field{Name: "seq", Type: batch.Bigint}, batch.Field{Name: "v", Type: batch.Double})
}

// reading is a row as it arrived.
type reading struct {
	split   int
	sensor  string // "": null
	seq     int64
	arrival int64
}

func (r reading) String() string {
	return fmt.Sprintf("%d:%s#%d@%d", r.split, r.sensor, r.seq, r.arrival)
}

// model decides a row at a time, by a list of all that it has let pass.
type model struct {
	within  dataflow.Duration
	entries int
	seen    map[int][]reading // by split
	lost    int64
}

func (m *model) fresh(r reading) bool {
	if r.sensor == "" {
		return true
	}
	l := m.seen[r.split]
	if n := len(l); n > 0 {
		r.arrival = max(r.arrival, l[n-1].arrival) // arrivals do not go back
	}
	for len(l) > 0 && dataflow.Time(l[0].arrival).Add(m.within) <= dataflow.Time(r.arrival) {
		l = l[1:]
	}
	isNew := !slices.ContainsFunc(l, func(o reading) bool { return o.sensor == r.sensor && o.seq == r.seq })
	if isNew {
		if len(l) == m.entries {
			l = l[1:]
			m.lost++
		}
		l = append(l, r)
	}
	m.seen[r.split] = l
	return isNew
}

// feed gives rows of one split to the filter and returns those that stay.
func feed(f *dedupe.Filter, pool *batch.Pool, place int, rows []reading) (fresh []reading) {
	bl := batch.NewBuilder(pool, schema())
	arrivals := make([]int64, len(rows))
	for i, r := range rows {
		if r.sensor != "" {
			bl.SetBytes(0, []byte(r.sensor))
		}
		bl.SetInt(1, r.seq)
		bl.EndRow(0)
		arrivals[i] = r.arrival
	}
	b := bl.Take()
	defer b.Release()
	sel, all := f.Fresh(place, b, arrivals)
	if all != (len(sel) == len(rows)) {
		panic("all says one thing and the rows another")
	}
	for _, i := range sel {
		fresh = append(fresh, rows[i])
	}
	return fresh
}

// saved keeps the rows of snapshots as a checkpoint store does: deltas are
// merged into what is there by the table's identity.
type saved struct {
	t    interface{ Fatalf(string, ...any) }
	rows map[[3]int64][2]int64
	told int // rows of the last snapshot
}

func (s *saved) take(f *dedupe.Filter, delta bool) {
	if !delta {
		s.rows = make(map[[3]int64][2]int64)
	}
	told := make(map[[3]int64]bool)
	defer func() { s.told = len(told) }()
	err := f.Snapshot(delta, func(table int, b *batch.Batch) error {
		if table != 0 || !b.Schema.Equal(f.StateTables()[0].Schema) || b.Check() != nil {
			s.t.Fatalf("a batch of (%v): %v", b.Schema, b.Check())
		}
		for k := range b.Len() {
			i := b.Position(k)
			id := [3]int64{b.Cols[0].Ints[i], b.Cols[1].Ints[i], b.Cols[2].Ints[i]}
			if told[id] {
				s.t.Fatalf("%v is there twice", id)
			}
			told[id] = true
			if b.Kinds != nil && b.Kinds[i] == batch.Delete {
				if _, ok := s.rows[id]; !ok || !delta {
					s.t.Fatalf("%v is removed and was never there", id)
				}
				delete(s.rows, id)
				continue
			}
			s.rows[id] = [2]int64{b.Cols[3].Ints[i], b.Cols[4].Ints[i]}
		}
		return nil
	})
	if err != nil {
		s.t.Fatalf("%v", err)
	}
}

// give restores f, in batches of a few rows, in the order of a map: any.
func (s *saved) give(f *dedupe.Filter, pool *batch.Pool) {
	bl := batch.NewBuilder(pool, f.StateTables()[0].Schema)
	put := func() {
		if b := bl.Take(); b != nil {
			if err := f.Restore(0, b); err != nil {
				s.t.Fatalf("%v", err)
			}
			b.Release()
		}
	}
	for id, v := range s.rows {
		for c, x := range []int64{id[0], id[1], id[2], v[0], v[1]} {
			bl.SetInt(c, x)
		}
		if bl.EndRow(0); bl.Len() == 4 {
			put()
		}
	}
	put()
}

// Rows that come again in all ways, in batches of any size, with snapshots and
// restores in the middle, also by readers that share the splits out in another
// way: the same rows stay as a model says that decides a row at a time.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := dedupe.Config{By: []int{0, 1}, Within: dataflow.Duration(rapid.IntRange(1, 60).Draw(t, "within")), Entries: rapid.IntRange(1, 12).Draw(t, "entries")}
		m := &model{within: cfg.Within, entries: cfg.Entries, seen: make(map[int][]reading)}
		pool := batch.NewPool(0, nil)
		const splits = 3
		readers := rapid.IntRange(1, 3).Draw(t, "readers")
		var filters []*dedupe.Filter
		var store saved
		open := func() {
			filters = nil
			for i := range readers {
				var own []int
				for s := i; s < splits; s += readers {
					own = append(own, s)
				}
				f := dedupe.New(cfg, schema(), own, pool)
				if store.rows != nil {
					store.give(f, pool)
				}
				filters = append(filters, f)
			}
		}
		open()
		store.t = t
		clock := make([]int64, splits)
		var lost int64
		parts := make([]saved, splits) // each subtask has its own chain
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0: // a checkpoint, whole or not
				delta := rapid.Bool().Draw(t, "delta")
				for i, f := range filters {
					parts[i].t = t
					parts[i].take(f, delta && parts[i].rows != nil)
					whole := saved{t: t}
					again := saved{t: t, rows: maps.Clone(parts[i].rows)}
					again.take(f, true) // nothing has changed
					whole.take(f, false)
					if again.told != 0 || !maps.Equal(whole.rows, parts[i].rows) {
						t.Fatalf("deltas say %v, all there is %v; another delta has %d rows", parts[i].rows, whole.rows, again.told)
					}
				}
			case 1: // a savepoint, and a restart from it with other parallelism
				store.rows = make(map[[3]int64][2]int64)
				for i, f := range filters {
					parts[i].t = t
					parts[i].take(f, parts[i].rows != nil)
					for id, v := range parts[i].rows {
						store.rows[id] = v
					}
					lost += f.Forgotten()
					parts[i] = saved{}
				}
				readers = rapid.IntRange(1, 3).Draw(t, "readers")
				open()
			default:
				s := rapid.IntRange(0, splits-1).Draw(t, "split")
				rows := make([]reading, rapid.IntRange(1, 12).Draw(t, "rows"))
				for i := range rows {
					clock[s] += int64(rapid.IntRange(-3, 20).Draw(t, "pause"))
					rows[i] = reading{split: s, sensor: rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(t, "sensor"), seq: int64(rapid.IntRange(0, 4).Draw(t, "seq")), arrival: clock[s]}
				}
				var want []reading
				for _, r := range rows {
					if m.fresh(r) {
						want = append(want, r)
					}
				}
				if got := feed(filters[s%readers], pool, s/readers, rows); !slices.Equal(got, want) {
					t.Fatalf("of %v\nstay   %v\nshould %v", rows, got, want)
				}
			}
		}
		for _, f := range filters {
			lost += f.Forgotten()
		}
		if lost != m.lost || pool.Out() != 0 {
			t.Fatalf("%d ids were forgotten, the model forgot %d; %d batches are left", lost, m.lost, pool.Out())
		}
	})
}

// The bounds, with numbers.
func TestWithin(t *testing.T) {
	pool := batch.NewPool(0, nil)
	f := dedupe.New(dedupe.Config{By: []int{0, 1}, Within: 10, Entries: 2}, schema(), []int{0}, pool)
	a := reading{sensor: "a", seq: 1}
	for _, c := range []struct {
		arrival int64
		row     reading
		fresh   bool
	}{
		{0, a, true},
		{9, a, false},
		{10, a, true}, // the first is 10 old
		{19, a, false},
		{19, reading{sensor: "a", seq: 2}, true},
		{19, reading{sensor: "", seq: 2}, true}, // an id that is not known is nobody's
		{19, reading{sensor: "", seq: 2}, true},
		{19, reading{sensor: "b", seq: 1}, true}, // no room: a#1 is forgotten
		{19, a, true},                            // and passes
		{19, reading{sensor: "b", seq: 1}, false},
	} {
		c.row.arrival = c.arrival
		if got := len(feed(f, pool, 0, []reading{c.row})) == 1; got != c.fresh {
			t.Errorf("%v: fresh is %v", c.row, got)
		}
	}
	if f.Forgotten() != 2 || f.Bytes() == 0 {
		t.Errorf("%d forgotten, want 2; %d bytes", f.Forgotten(), f.Bytes())
	}
}

// Without an arrival clock no time passes.
func TestNoClock(t *testing.T) {
	pool := batch.NewPool(0, nil)
	f := dedupe.New(dedupe.Config{By: []int{1}, Within: 1, Entries: 100}, schema(), []int{0}, pool)
	bl := batch.NewBuilder(pool, schema())
	for i := range 6 {
		bl.SetInt(1, int64(i%3))
		bl.EndRow(0)
	}
	b := bl.Take()
	defer b.Release()
	if rows, all := f.Fresh(0, b, nil); all || !slices.Equal(rows, []int32{0, 1, 2}) {
		t.Errorf("rows %v", rows)
	}
}

// Fewer entries than were saved: the oldest go, in order.
func TestLessRoomAfterRestore(t *testing.T) {
	pool := batch.NewPool(0, nil)
	cfg := dedupe.Config{By: []int{1}, Within: dataflow.Hour, Entries: 100}
	f := dedupe.New(cfg, schema(), []int{0}, pool)
	var rows []reading
	for i := range 50 {
		rows = append(rows, reading{sensor: "a", seq: int64(i)})
	}
	feed(f, pool, 0, rows)
	s := saved{t: t}
	s.take(f, false)
	cfg.Entries = 10
	f = dedupe.New(cfg, schema(), []int{0}, pool)
	s.give(f, pool)
	s.take(f, true)
	if len(s.rows) != 10 || s.told != 40 {
		t.Errorf("%d are saved, want 10; a delta of %d rows said so, want 40", len(s.rows), s.told)
	}
	if got := feed(f, pool, 0, rows[40:]); len(got) != 0 {
		t.Errorf("%v are new, and were there", got)
	}
	if got := feed(f, pool, 0, rows[39:40]); len(got) != 1 {
		t.Error("the 40th was to be forgotten")
	}
}

// Nothing is allocated per row once there is room.
func BenchmarkFresh(b *testing.B) {
	pool := batch.NewPool(0, nil)
	f := dedupe.New(dedupe.Config{By: []int{0, 1}, Within: 10 * dataflow.Second, Entries: 100_000}, schema(), []int{0}, pool)
	bl := batch.NewBuilder(pool, schema())
	for i := range batch.MaxRows {
		bl.SetBytes(0, fmt.Appendf(nil, "sensor-%04d", i%1000))
		bl.SetInt(1, int64(i))
		bl.EndRow(0)
	}
	rows := bl.Take()
	arrivals := make([]int64, rows.Rows)
	at := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		for i := range arrivals {
			at += 100
			arrivals[i] = at
		}
		for i := range rows.Cols[1].Ints {
			rows.Cols[1].Ints[i] += batch.MaxRows
		}
		f.Fresh(0, rows, arrivals)
	}
	b.ReportMetric(float64(b.N)*float64(rows.Rows)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}
