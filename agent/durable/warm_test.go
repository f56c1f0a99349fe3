package durable

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sort"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// tasks are one subtask with a table of numbers by key.
type tasks struct {
	table operator.StateTable
	rows  map[int64]int64
	given int // rows
	told  []int64
}

var sub0 = dataflow.SubtaskID{Task: "t"}

func warmTable() operator.StateTable {
	s := batch.MustSchema(batch.Field{Name: "k", Type: batch.Bigint}, batch.Field{Name: "v", Type: batch.Bigint})
	return operator.StateTable{Name: "rows", Schema: s, Keyed: true, Identity: 1}
}

func newTasks() *tasks {
	return &tasks{table: warmTable(), rows: make(map[int64]int64)}
}

func (t *tasks) Tables() map[dataflow.SubtaskID][]runtime.TableOf {
	return map[dataflow.SubtaskID][]runtime.TableOf{sub0: {{Operator: "op", StateTable: t.table}}}
}

func (t *tasks) Expect(_ dataflow.SubtaskID, _ dataflow.OperatorID, _ string, rows int64) {
	t.told = append(t.told, rows)
}

func (t *tasks) Restore(id dataflow.SubtaskID, op dataflow.OperatorID, table string, b *batch.Batch) error {
	for k := range b.Len() {
		if _, twice := t.rows[b.Cols[0].Ints[b.Position(k)]]; twice {
			return errors.New("a row is there twice")
		}
	}
	return t.Amend(id, op, table, b)
}

func (t *tasks) Amend(id dataflow.SubtaskID, op dataflow.OperatorID, table string, b *batch.Batch) error {
	if id != sub0 || op != "op" || table != "rows" {
		return fmt.Errorf("rows for %v %v %v", id, op, table)
	}
	t.given += b.Len()
	for k := range b.Len() {
		p := b.Position(k)
		if b.Kinds != nil && b.Kinds[p] == batch.Delete {
			delete(t.rows, b.Cols[0].Ints[p])
		} else {
			t.rows[b.Cols[0].Ints[p]] = b.Cols[1].Ints[p]
		}
	}
	return nil
}

// warmWorld is a table and what was saved of it.
type warmWorld struct {
	t     *testing.T
	state *State
	table operator.StateTable
	rows  map[int64]int64
	chain []manifest.PartUse
}

// save writes a part: all rows, or some that change.
func (w *warmWorld) save(whole bool, changed map[int64]int64, gone []int64) {
	w.t.Helper()
	for k, v := range changed {
		w.rows[k] = v
	}
	for _, k := range gone {
		delete(w.rows, k)
	}
	if whole {
		w.chain, changed, gone = nil, w.rows, nil
	}
	b := batch.NewPool(0, nil).Get(w.table.Schema)
	var keys []int64
	for k := range changed {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b.Rows = len(keys) + len(gone)
	k, v, kinds := b.Own(0, b.Rows), b.Own(1, b.Rows), b.OwnKinds(b.Rows)
	for i, key := range keys {
		k.Ints[i], v.Ints[i], kinds[i] = key, changed[key], batch.Insert
	}
	for i, key := range gone {
		k.Ints[len(keys)+i], kinds[len(keys)+i] = key, batch.Delete
	}
	if whole {
		b.Kinds = nil
	}
	clear(b.OwnTimes(b.Rows))
	state.HashKeys(b, []int{0})
	use := manifest.PartUse{Rows: int64(b.Rows), Delta: !whole}
	var err error
	use.Part, err = w.state.parts.Put(func(to io.Writer) error {
		aw := avro.NewWriter(to, avro.Header{Table: w.table.Name, Schema: w.table.Schema, Keyed: true, Delta: !whole})
		return errors.Join(aw.Append(b), aw.Close())
	})
	b.Release()
	if err != nil {
		w.t.Fatal(err)
	}
	w.chain = append(slices.Clone(w.chain), use)
}

func (w *warmWorld) merge(n int) {
	w.t.Helper()
	use, err := w.state.merge(w.table, w.chain[:n], nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.chain = append([]manifest.PartUse{use}, w.chain[n:]...)
}

func (w *warmWorld) plan() *restore.Plan {
	w.t.Helper()
	saved := manifest.Table{Name: w.table.Name, Schema: avro.SchemaOf(w.table.Name, w.table.Schema, true), Keyed: true, Identity: 1}
	if len(w.chain) > 0 {
		saved.Shards = []manifest.Shard{{Parts: w.chain}}
	}
	m := &manifest.Manifest{Kind: manifest.Checkpoint, Name: "c", Job: "j", ID: dataflow.CheckpointID{Counter: 1}, Mode: manifest.ExactlyOnce, MaxParallelism: 128,
		Operators: []manifest.Operator{{ID: "op", Parallelism: 1, Tables: []manifest.Table{saved}}}}
	report := restore.Check(m, restore.Job{Name: "j", MaxParallelism: 128, Operators: []restore.Operator{{ID: "op", Parallelism: 1, Tables: []restore.Table{{StateTable: w.table}}}}}, restore.Options{})
	if err := report.Err(); err != nil {
		w.t.Fatal(err)
	}
	return report.Plan()
}

func newWarmWorld(t *testing.T) *warmWorld {
	folder, err := Open(filepath.Join(t.TempDir(), "state"), storetest.New())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := folder.Close(); err != nil {
			t.Error(err)
		}
	})
	return &warmWorld{t: t, state: folder, table: warmTable(), rows: make(map[int64]int64)}
}

func sortedRows(rows map[int64]int64) (all []string) {
	for k, v := range rows {
		all = append(all, fmt.Sprint(k, "=", v))
	}
	sort.Strings(all)
	return all
}

// Whatever is saved between two steps, the tables have what is saved, or say that
// they cannot.
func TestWarmedFollowsAnyChain(t *testing.T) {
	others, further := 0, 0
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		w := newWarmWorld(t)
		to := newTasks()
		warm := w.state.Warm(to)
		for range 40 {
			changed, gone := make(map[int64]int64), []int64(nil)
			for range rng.IntN(5) {
				changed[rng.Int64N(30)] = rng.Int64N(1000)
			}
			for k := range int64(30) {
				if _, is := w.rows[k]; is && rng.IntN(12) == 0 {
					if _, both := changed[k]; !both {
						gone = append(gone, k)
					}
				}
			}
			switch n := rng.IntN(12); {
			case len(w.chain) == 0 || n == 0:
				w.save(true, changed, gone)
			case n == 1 && len(w.chain) > 1:
				w.merge(2 + rng.IntN(len(w.chain)-1))
			default:
				w.save(false, changed, gone)
			}
			if rng.IntN(3) == 0 {
				continue
			}
			before := sortedRows(to.rows)
			_, err := warm.Advance(t.Context(), w.plan())
			switch {
			case errors.Is(err, ErrOtherState):
				others++
				if !slices.Equal(sortedRows(to.rows), before) {
					t.Fatalf("seed %d: something was given all the same", seed)
				}
				to = newTasks()
				warm = w.state.Warm(to)
				_, err = warm.Advance(t.Context(), w.plan())
			case err == nil && len(before) > 0:
				further++
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if got, want := sortedRows(to.rows), sortedRows(w.rows); !slices.Equal(got, want) {
				t.Fatalf("seed %d: %v, want %v", seed, got, want)
			}
		}
	}
	if others < 30 || further < 150 {
		t.Errorf("%d times another state, %d times on: nothing was tested", others, further)
	}
}

// Of parts that were merged nothing is given again, also if they were merged twice.
func TestWarmedKnowsWhatWasMerged(t *testing.T) {
	w := newWarmWorld(t)
	to := newTasks()
	warm := w.state.Warm(to)
	w.save(true, map[int64]int64{1: 1, 2: 2, 3: 3}, nil)
	w.save(false, map[int64]int64{2: 20}, []int64{3})
	advance := func(want int) {
		t.Helper()
		before := to.given
		if _, err := warm.Advance(t.Context(), w.plan()); err != nil {
			t.Fatal(err)
		}
		if n := to.given - before; n != want {
			t.Fatalf("%d rows were given, want %d", n, want)
		}
		if got, want := sortedRows(to.rows), sortedRows(w.rows); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	advance(5)
	w.merge(2)
	advance(0)
	w.save(false, map[int64]int64{4: 4}, nil)
	advance(1)
	w.merge(2)
	w.save(false, map[int64]int64{1: 10}, []int64{2})
	advance(2)
	w.save(false, map[int64]int64{7: 7}, nil)
	w.merge(len(w.chain)) // 7 is only in what was merged
	if _, err := warm.Advance(t.Context(), w.plan()); !errors.Is(err, ErrOtherState) {
		t.Fatalf("%v", err)
	}
}

// The rest is what was not given early, and only that.
func TestWarmedRest(t *testing.T) {
	w := newWarmWorld(t)
	to := newTasks()
	warm := w.state.Warm(to)
	w.save(true, map[int64]int64{1: 1}, nil)
	if _, err := warm.Advance(t.Context(), w.plan()); err != nil {
		t.Fatal(err)
	}
	other := dataflow.SubtaskID{Task: "u"}
	l := Layout{Tables: map[dataflow.SubtaskID][]runtime.TableOf{sub0: to.Tables()[sub0], other: to.Tables()[sub0]}}
	rest := warm.Rest(w.plan(), l)
	for id, want := range map[dataflow.SubtaskID]int{sub0: 0, other: 1} {
		rows := 0
		if err := rest(id, runtime.Restored{Give: func(_ dataflow.OperatorID, _ string, b *batch.Batch) error { rows += b.Len(); return nil }}); err != nil || rows != want {
			t.Errorf("%v: %d rows, %v; want %d", id, rows, err, want)
		}
	}
}

// Of a part no more rows are expected than fit in it as it is, whatever a manifest
// says: of one that tells the truth all that there are.
func TestExpectedRowsFitInTheParts(t *testing.T) {
	const rows, late = 5000, 1000
	w := newWarmWorld(t)
	all, some := make(map[int64]int64), make(map[int64]int64)
	for k := range int64(rows) {
		all[k] = 0
	}
	for k := range int64(late) {
		some[rows+k] = 0
	}
	w.save(true, all, nil)
	w.save(false, some, nil)
	whole := w.chain
	for name, c := range map[string]struct {
		lie         func(*manifest.PartUse)
		least, most int64 // of the base
	}{
		"nothing":           {func(*manifest.PartUse) {}, rows, rows},
		"many rows":         {func(u *manifest.PartUse) { u.Rows = 100_000_000 }, rows, 2 * rows},
		"rows and rows":     {func(u *manifest.PartUse) { u.Rows = math.MaxInt64 }, rows, 2 * rows},
		"less than none":    {func(u *manifest.PartUse) { u.Rows = math.MinInt64 }, 0, 0},
		"a large part":      {func(u *manifest.PartUse) { u.Rows, u.Part.Size = math.MaxInt64, math.MaxInt64 }, 0, 0},
		"a part of no size": {func(u *manifest.PartUse) { u.Part.Size = math.MinInt64 }, 0, 0},
	} {
		w.chain = slices.Clone(whole)
		for i := range w.chain {
			c.lie(&w.chain[i])
		}
		to := newTasks()
		_, _ = w.state.Warm(to).Advance(t.Context(), w.plan()) // may fail where the part is another
		if len(to.told) != 1 || to.told[0] < c.least || to.told[0] > c.most {
			t.Errorf("%s, early: %d rows are expected, want %d to %d", name, to.told, c.least, c.most)
		}
		var told []int64
		_ = w.state.Restore(w.plan(), Layout{Tables: to.Tables()})(sub0, runtime.Restored{
			Expect: func(_ dataflow.OperatorID, _ string, rows int64) { told = append(told, rows) },
			Give:   func(dataflow.OperatorID, string, *batch.Batch) error { return nil },
		})
		if len(told) != 1 || told[0] < c.least || told[0] > c.most+c.most/4 {
			t.Errorf("%s: %d rows are expected, want %d to %d", name, told, c.least, c.most+c.most/4)
		}
	}
}
