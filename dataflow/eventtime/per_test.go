package eventtime

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// seen is a row of a device.
type seen struct {
	device string
	at     dataflow.Time
}

// assignSeen gives a split rows that arrive at one time.
func assignSeen(s *Source, split int, pool *batch.Pool, arrival int64, rows ...seen) {
	bl := batch.NewBuilder(pool, batch.MustSchema(batch.Field{Name: "d", Type: batch.String}))
	var in Rows
	for _, r := range rows {
		bl.SetString(0, r.device)
		bl.EndRow(r.at)
		in.Arrivals = append(in.Arrivals, arrival)
	}
	b := bl.Take()
	defer b.Release()
	in.Device = b.Cols[0]
	s.Assign(split, b, in)
}

// handOn gives the state of a source to another; releases of before
// had no word of what names the devices.
func handOn(t *testing.T, from, to *Source, pool *batch.Pool, word bool) {
	t.Helper()
	err := from.Snapshot(false, func(table int, b *batch.Batch) error {
		if table == deviceTable && !word {
			b.Sel = b.OwnSel(b.Rows)
			for i := range b.Rows {
				if b.Cols[deviceSplit].Ints[i] >= 0 {
					b.Sel = append(b.Sel, int32(i))
				}
			}
		}
		return to.Restore(table, b)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Devices by another name are none that there were: those are not waited for. The
// source stays where it stood until each split has shown who is there now.
func TestPerAnotherColumn(t *testing.T) {
	pool := batch.NewPool(0, nil)
	for _, idle := range []dataflow.Duration{0, 50} {
		cfg := Config{Strategy: Ascending, PerDevice: true, Per: "sensor string", IdleAfter: idle}
		a := NewSource(cfg, []int{0, 1}, pool)
		assignSeen(a, 0, pool, 100, seen{"s1", 10}, seen{"s2", 12}, seen{"s1", 15})
		assignSeen(a, 1, pool, 100, seen{"s3", 14})
		cfg.Per = "site string"
		b := NewSource(cfg, []int{0, 1}, pool)
		handOn(t, a, b, pool, true)
		want := func(s *Source, what string, w dataflow.Time, devices int) {
			t.Helper()
			if got := s.Now(); got.Watermark != w || s.Devices() != devices || got.Idle {
				t.Errorf("idle after %d, %s: %+v with %d devices, want %d with %d", idle, what, got, s.Devices(), w, devices)
			}
		}
		want(a, "as it was", 11, 3)
		want(b, "restored", 11, 0)
		assignSeen(b, 0, pool, 110, seen{"east", 20}, seen{"west", 21}, seen{"east", 25})
		want(b, "split 1 has shown none", 11, 2)
		c := NewSource(cfg, []int{0, 1}, pool)
		handOn(t, b, c, pool, true) // the same name from here on
		want(c, "restored once more", 11, 2)
		if idle > 0 {
			c.Tick(1, 151)
			want(c, "split 1 has shown none for long", 20, 2)
			continue
		}
		assignSeen(c, 1, pool, 110, seen{"north", 30})
		want(c, "each split has one", 20, 3)
	}
}

// The state of a release that did not say what names its devices is taken to be
// of the present ones.
func TestPerOfEarlierReleases(t *testing.T) {
	pool := batch.NewPool(0, nil)
	cfg := Config{Strategy: Ascending, PerDevice: true, Per: "sensor string"}
	a, b := NewSource(cfg, []int{0}, pool), NewSource(cfg, []int{0}, pool)
	assignSeen(a, 0, pool, 100, seen{"s1", 10}, seen{"s2", 12})
	handOn(t, a, b, pool, false)
	if b.Devices() != 2 {
		t.Errorf("%d devices, want 2", b.Devices())
	}
	assignSeen(b, 0, pool, 100, seen{"s1", 15}, seen{"s2", 17})
	if w := b.Now().Watermark; w != 14 {
		t.Errorf("at %d, want 14", w)
	}
}

// What names the devices is said once: a source to which nothing came has no changes.
func TestPerIsNoChange(t *testing.T) {
	pool := batch.NewPool(0, nil)
	s := NewSource(Config{Strategy: Ascending, PerDevice: true, Per: "sensor string"}, []int{0}, pool)
	assignSeen(s, 0, pool, 100, seen{"s1", 10})
	for _, want := range []int{2, 0, 0} {
		rows := 0
		err := s.Snapshot(want == 0, func(table int, b *batch.Batch) error {
			if table == deviceTable {
				rows += b.Len()
			}
			return nil
		})
		if err != nil || rows != want {
			t.Errorf("%d rows, want %d, %v", rows, want, err)
		}
	}
}
