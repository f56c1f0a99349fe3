package durable

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// baseWorld is a subtask that goes on from a base of three parts.
type baseWorld struct {
	t      *testing.T
	disk   *storetest.FS
	state  *State
	base   []manifest.PartUse
	shares *Shares
	said   []string
	stored Stored
}

func newBaseWorld(t *testing.T) *baseWorld {
	f := newReadFolder(t)
	w := &baseWorld{t: t, disk: f.disk, state: f.State}
	h := avro.Header{Table: "rows", Schema: readColumns}
	w.base = append(w.base, f.part([]row{{key: "a", mean: 1}, {key: "b", mean: 1}}, h))
	h.Delta = true
	w.base = append(w.base, f.part([]row{{key: "a", mean: 2}}, h), f.part([]row{{key: "b", mean: 3}}, h))
	for _, u := range w.base {
		w.state.parts.Unpin(u.Part)
	}
	return w
}

// again is the next process.
func (w *baseWorld) again() {
	w.t.Helper()
	dir := w.state.dir
	err := w.state.Close()
	if err == nil {
		w.state, err = Open(dir, w.disk)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = w.state.Close() })
}

// begin is an attempt that is restored.
func (w *baseWorld) begin() {
	w.said = nil
	at := place{"op", "rows", 0}
	table := runtime.TableOf{Operator: "op", StateTable: operator.StateTable{Name: "rows", Schema: readColumns, Identity: 2}}
	w.shares = NewShares(SharesOptions{
		State: w.state, Tables: map[dataflow.SubtaskID][]runtime.TableOf{{Task: "t"}: {table}}, Parallelism: map[dataflow.OperatorID]int{"op": 1},
		Base:   &Base{parts: map[place][]manifest.PartUse{at: w.base}},
		Post:   func(f func()) bool { f(); return true },
		Stored: func(s Stored) { w.stored = s },
		Events: func(line string) { w.said = append(w.said, line) },
	})
}

// take is a share, and the parts that a checkpoint would have of it.
func (w *baseWorld) take(full bool, rows ...row) []manifest.PartUse {
	w.t.Helper()
	w.shares.Take(runtime.SnapshotTaken{Subtask: dataflow.SubtaskID{Task: "t"}, Barrier: dataflow.Barrier{Full: full},
		State: []task.StateRows{{Operator: "op", Table: "rows", Batch: batchOf(rows, !full)}}})
	w.shares.Quiet()
	if w.stored.Err != nil {
		return nil
	}
	return w.shares.Operators(dataflow.SubtaskID{Task: "t"})[0].Tables[0].Shards[0].Parts
}

func (w *baseWorld) end() {
	w.t.Helper()
	w.shares.Close()
	if n := w.state.parts.Pinned(); n > 0 {
		w.t.Errorf("%d parts are still pinned", n)
	}
}

// A part of the base that is gone when the attempt begins, the first or one in the
// middle, is told, and no checkpoint is made that lacks it: the first share fails, as
// if deltas were lost, whether it has rows or not, and a whole one comes after it.
func TestABaseOfWhichAPartIsGone(t *testing.T) {
	for i, name := range []string{"the first", "one in the middle", "the last"} {
		t.Run(name, func(t *testing.T) {
			w := newBaseWorld(t)
			if _, err := w.state.parts.Remove(w.base[i].Part); err != nil {
				t.Fatal(err)
			}
			w.begin()
			if len(w.said) != 1 {
				t.Errorf("it told %q", w.said)
			}
			for range 2 {
				if parts := w.take(false, row{key: "a", mean: 4}); parts != nil || w.stored.Failure != checkpoint.Async {
					t.Fatalf("a checkpoint is made of %v; %+v", parts, w.stored)
				}
			}
			parts := w.take(true, row{key: "a", mean: 4}, row{key: "b", mean: 3})
			if len(parts) != 1 || parts[0].Delta || parts[0].Rows != 2 {
				t.Errorf("a whole one has %v; %+v", parts, w.stored)
			}
			if parts = w.take(false, row{key: "b", mean: 5}); len(parts) != 2 || !parts[1].Delta {
				t.Errorf("and the next %v; %+v", parts, w.stored)
			}
			w.end()
		})
	}
}

// The names of a base's parts may not be durable, if the process that put them was
// killed before it synced them. They are, once a checkpoint has them.
func TestABaseIsDurable(t *testing.T) {
	for seed := range uint64(20) {
		w := newBaseWorld(t)
		var names []string
		for _, name := range w.disk.Files() {
			if !strings.Contains(name, "/parts/") {
				continue
			}
			names = append(names, name)
			if err := errors.Join(w.disk.Rename(name, name+".x"), w.disk.Rename(name+".x", name)); err != nil {
				t.Fatal(err)
			}
		}
		w.again()
		w.begin()
		if named := w.take(false, row{key: "a", mean: 4}); len(names) != len(w.base) || len(named) != len(names)+1 {
			t.Fatalf("a checkpoint is made of %v, and there were %q", named, names)
		}
		left := w.disk.Crash(seed).Files()
		for _, name := range names {
			if !slices.Contains(left, name) {
				t.Errorf("seed %d: power is lost, and so is %s of the checkpoint; left are %q", seed, name, left)
			}
		}
		w.end()
	}
}

// The base's parts stay while the attempt has them in its chains, whoever lets go
// what named them, and go when a whole share takes their place.
func TestABaseOutlivesItsManifest(t *testing.T) {
	w := newBaseWorld(t)
	w.begin()
	there := func() (n int) {
		if _, err := w.state.Collect(); err != nil {
			t.Fatal(err)
		}
		for _, u := range w.base {
			if w.state.parts.Has(u.Part) {
				n++
			}
		}
		return n
	}
	if n := there(); n != len(w.base) {
		t.Fatalf("%d of %d parts are left before the first checkpoint", n, len(w.base))
	}
	parts := w.take(false, row{key: "a", mean: 4})
	same := func(a, b manifest.PartUse) bool { return a.Digest == b.Digest }
	if len(parts) != 4 || !slices.EqualFunc(parts[:3], w.base, same) || len(w.said) > 0 {
		t.Errorf("the first checkpoint has %v; told %q", parts, w.said)
	}
	if n := there(); n != len(w.base) {
		t.Errorf("%d of %d parts are left behind it", n, len(w.base))
	}
	w.take(true, row{key: "a", mean: 4}, row{key: "b", mean: 3})
	if n := there(); n != 0 {
		t.Errorf("%d parts are left of what nobody names", n)
	}
	w.end()
}

// A nil Base has nothing that an operator could go on from.
func TestNoBase(t *testing.T) {
	var b *Base
	if b.GoesOn(dataflow.SubtaskID{Task: "sums"}, "sums") {
		t.Error("it goes on from nothing")
	}
}
