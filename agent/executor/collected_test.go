package executor

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// part puts a part of some bytes on the disk, which nobody holds.
func (k *keeping) part(t *testing.T, text string) store.Part {
	t.Helper()
	p, err := k.x.o.State.Parts().Put(func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
	if err != nil {
		t.Fatal(err)
	}
	k.x.o.State.Parts().Unpin(p)
	return p
}

func (k *keeping) has(p store.Part) bool { return k.x.o.State.Parts().Has(p) }

// snapshot is one that names parts, of a job called counts.
func snapshot(t *testing.T, kind manifest.Kind, name string, counter uint64, parts ...store.Part) *coordinator.Snapshot {
	t.Helper()
	m := manifest.Manifest{Kind: kind, Name: name, Job: "counts", MaxParallelism: 128, Mode: manifest.ExactlyOnce, ID: dataflow.CheckpointID{Counter: counter}}
	o := manifest.Operator{ID: "op", Parallelism: len(parts), Tables: []manifest.Table{{Name: "t", Schema: `"x"`}}}
	for i, p := range parts {
		o.Tables[0].Shards = append(o.Tables[0].Shards, manifest.Shard{Subtask: i, Parts: []manifest.PartUse{{Part: p, Rows: 1}}})
	}
	m.Operators = []manifest.Operator{o}
	data, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return &coordinator.Snapshot{Name: name, ID: m.ID, Manifest: data}
}

// Nothing is collected between what one step says of several jobs: here a savepoint goes
// whose parts a checkpoint names that comes next.
func TestNothingIsCollectedInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		p := k.part(t, "one")
		k.tell(worker.Kept{Snapshots: []*coordinator.Snapshot{snapshot(t, manifest.Savepoint, "sp", 1, p)}})
		time.Sleep(time.Minute)
		k.tell(worker.Kept{More: true})
		time.Sleep(time.Minute)
		synctest.Wait()
		if !k.has(p) {
			t.Fatal("its part is gone before the checkpoint is said")
		}
		k.tell(worker.Kept{Job: "j1", Snapshots: []*coordinator.Snapshot{snapshot(t, manifest.Checkpoint, "chk-1-2", 2, p)}})
		time.Sleep(time.Minute)
		synctest.Wait()
		if !k.has(p) {
			t.Error("its part is gone, which a checkpoint names")
		}
		k.tell(worker.Kept{Job: "j1"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if k.has(p) {
			t.Error("nobody names its part any more, and it is there")
		}
	})
}
