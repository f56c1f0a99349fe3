package durable

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// other is a folder at another site that keeps the newest checkpoint of one here.
type other struct {
	*State
	fetched, remade int64 // bytes
}

// keep gets what is missing of a checkpoint, and lets the one before go.
func (o *other) keep(t *testing.T, from *State, m manifest.Manifest) {
	t.Helper()
	var got []store.Part
	for _, op := range m.Operators {
		for _, table := range op.Tables {
			for _, shard := range table.Shards {
				for _, use := range shard.Parts {
					got = append(got, use.Part)
					if o.parts.Pin(use.Part) == nil {
						continue
					}
					err := o.Remake(table, use, nil)
					switch {
					case err == nil:
						o.remade += use.Size
						continue
					case !errors.Is(err, store.ErrMissing):
						t.Fatal(err)
					}
					r, err := from.parts.Open(use.Part)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := o.parts.Put(func(w io.Writer) error { _, err := io.Copy(w, r); return err }); err != nil {
						t.Fatal(err)
					}
					_ = r.Close()
					o.fetched += use.Size
				}
			}
		}
	}
	if _, err := o.SyncKept("j", []manifest.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	o.parts.Unpin(got...)
	if _, err := o.Collect(); err != nil {
		t.Fatal(err)
	}
	for _, p := range got {
		if err := o.parts.Verify(p); err != nil {
			t.Fatal(err)
		}
	}
}

// What a site fetches for each checkpoint of another one is what changed, though
// the parts are merged again and again: merges are made there anew. 1 % of the
// keys change between two checkpoints; a checkpoint costs 3 % of the state at most,
// over all merges that come.
func TestAnotherSiteFetchesWhatChanged(t *testing.T) {
	const keys, dirty, rounds = 60_000, 600, 50
	open := func() *State {
		s, err := Open(filepath.Join(t.TempDir(), "state"), storetest.New())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	here, there := open(), &other{State: open()}
	job, err := here.OpenJob("j")
	if err != nil {
		t.Fatal(err)
	}
	sub := dataflow.SubtaskID{Task: "t"}
	table := runtime.TableOf{Operator: "op", StateTable: operator.StateTable{Name: "rows", Schema: readColumns, Identity: 2}}
	c := NewCheckpointer(CheckpointerOptions{
		Job: job, MaxParallelism: 1, Clock: sensors.Wall{}, Events: func(s string) { t.Error(s) },
		Config: checkpoint.Config{Subtasks: []dataflow.SubtaskID{sub}},
		Tables: map[dataflow.SubtaskID][]runtime.TableOf{sub: {table}}, Parallelism: map[dataflow.OperatorID]int{"op": 1},
	})
	seeded := rand.New(rand.NewPCG(1, 2))
	rowOf := func(k int) row {
		return row{key: fmt.Sprintf("sensor-%07d", k), at: float64(k), mean: seeded.Float64()}
	}
	var size int64
	merges, longest := 0, 0
	for n := range rounds {
		var rows []row
		if n == 0 {
			for k := range keys {
				rows = append(rows, rowOf(k))
			}
		}
		for range dirty * min(n, 1) {
			rows = append(rows, rowOf(seeded.IntN(keys)))
		}
		s := &share{taken: runtime.SnapshotTaken{Subtask: sub, Barrier: dataflow.Barrier{Full: n == 0},
			State: []task.StateRows{{Operator: "op", Table: "rows", Batch: batchOf(rows, n > 0)}}}}
		s.parts = c.shares.partsOf(s)
		if c.shares.store(s); s.err != nil || c.shares.link(s) {
			t.Fatal(s.err)
		}
		m, err := c.manifest(dataflow.CheckpointID{Counter: uint64(n) + 1}, checkpoint.What{Checkpoint: true})
		if err != nil {
			t.Fatal(err)
		}
		there.keep(t, here, m)
		if n == 0 {
			size, there.fetched = there.fetched, 0
		}
		longest = max(longest, len(c.shares.chains[place{"op", "rows", 0}].parts))
		c.shares.Merge()
		c.shares.work.Wait()
		for _, f := range c.take() {
			f()
			merges++
		}
	}
	if merges < 3 || there.remade < 3*size/2 || longest < longChain {
		t.Fatalf("%d merges, and %d bytes were made again there, of a state of %d; the longest chain had %d parts", merges, there.remade, size, longest)
	}
	if size < 1<<20 {
		t.Errorf("a state of %d bytes shows nothing", size)
	}
	if a := there.fetched / (rounds - 1); a > 3*size/100 {
		t.Errorf("a checkpoint costs %d bytes, %.1f %% of the state's %d", a, 100*float64(a)/float64(size), size)
	}
}

// Nothing is made of what is not all here, and what comes out another is refused.
func TestRemakeRefuses(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "state"), storetest.New())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	table := operator.StateTable{Name: "rows", Schema: readColumns, Identity: 2}
	part := func(delta bool, rows ...row) manifest.PartUse {
		b := batchOf(rows, delta)
		defer b.Release()
		p := sharePart{table: table, use: manifest.PartUse{Delta: delta}}
		made, err := s.parts.Put(func(w io.Writer) error { return p.write(w, []*batch.Batch{b}) })
		if err != nil {
			t.Fatal(err)
		}
		p.use.Part = made
		return p.use
	}
	whole, delta := part(false, row{key: "a"}, row{key: "b"}), part(true, row{key: "a", mean: 7})
	merged, err := s.merge(table, []manifest.PartUse{whole, delta}, nil)
	if err != nil {
		t.Fatal(err)
	}
	saved := manifest.Table{Name: "rows", Schema: avro.SchemaOf(table.Name, table.Schema, table.Keyed), Identity: 2}
	pinned := s.parts.Pinned()
	if err := s.Remake(saved, merged, nil); err != nil {
		t.Error(err)
	}
	s.parts.Unpin(merged.Part)
	wrong := merged
	wrong.From = []store.Digest{whole.Digest}
	if err := s.Remake(saved, wrong, nil); !errors.Is(err, store.ErrCorrupt) {
		t.Error(err)
	}
	wrong.From = []store.Digest{whole.Digest, {1}}
	if err := s.Remake(saved, wrong, nil); !errors.Is(err, store.ErrMissing) {
		t.Error(err)
	}
	if err := s.Remake(saved, whole, nil); !errors.Is(err, store.ErrMissing) {
		t.Error(err)
	}
	quit := make(chan struct{})
	close(quit)
	if err := s.Remake(saved, merged, quit); !errors.Is(err, errQuit) {
		t.Error(err)
	}
	if n := s.parts.Pinned(); n != pinned {
		t.Errorf("%d parts are pinned, %d were", n, pinned)
	}
}
