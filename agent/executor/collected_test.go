package executor

import (
	"io"
	"strings"
	"syscall"
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

// A savepoint's name is used again while this agent does not look: it is written in place
// of the one before, and what nobody needs is collected.
func TestASavepointsNameIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		a := k.part(t, "a")
		k.tell(worker.Kept{Snapshots: []*coordinator.Snapshot{snapshot(t, manifest.Savepoint, "nightly", 1, a)}})
		time.Sleep(time.Minute)
		b := k.part(t, "b")
		k.tell(worker.Kept{Snapshots: []*coordinator.Snapshot{snapshot(t, manifest.Savepoint, "nightly", 2, b)}})
		time.Sleep(time.Minute)
		if lines := k.told(); len(lines) > 0 {
			t.Errorf("told %q", lines)
		}
		if k.has(a) || !k.has(b) {
			t.Errorf("of the old one's parts: %v, of the new one's: %v", k.has(a), k.has(b))
		}
	})
}

// The disk is full, so that a job's newest manifest cannot be written, and a person deletes
// a savepoint to make room: its parts go, and those that the manifest names stay.
func TestRoomIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		big, old := k.part(t, "big"), k.part(t, "old")
		sp, first := snapshot(t, manifest.Savepoint, "sp", 1, big), snapshot(t, manifest.Checkpoint, "chk-1", 1, old)
		k.tell(worker.Kept{More: true, Snapshots: []*coordinator.Snapshot{sp}})
		k.tell(worker.Kept{Job: "j1", Snapshots: []*coordinator.Snapshot{first}})
		time.Sleep(time.Minute)
		held := k.part(t, "held")
		if err := k.x.o.State.Parts().Pin(held); err != nil {
			t.Fatal(err)
		}
		k.x.holds.Take("j1", dataflow.CheckpointID{Counter: 2}, held)
		k.disk.SetCapacity(1)
		second := snapshot(t, manifest.Checkpoint, "chk-2", 2, held)
		k.tell(worker.Kept{Job: "j1", Snapshots: []*coordinator.Snapshot{second}})
		time.Sleep(30 * time.Second)
		if lines := k.told(); len(lines) != 1 || !strings.Contains(lines[0], "manifests of job") {
			t.Errorf("told %q", lines)
		}
		k.tell(worker.Kept{})
		time.Sleep(2 * collectEvery.Go())
		synctest.Wait()
		if k.has(big) || k.has(old) || !k.has(held) {
			t.Errorf("the savepoint's part is here: %v, that of a checkpoint before: %v, that of the newest: %v", k.has(big), k.has(old), k.has(held))
		}
		if k.x.holds.Checkpoints("j1") != nil {
			t.Error("more is held than the manifest names")
		}
		k.disk.SetCapacity(1 << 20)
		time.Sleep(time.Minute)
		k.told()
		if list, err := k.x.o.State.Checkpoints("j1"); err != nil || len(list) != 1 || list[0].Name != "chk-2" || !k.has(held) {
			t.Errorf("when there is room: %v, %v; its part is here: %v", list, err, k.has(held))
		}
	})
}

// What is kept cannot be read here, as by a program that is too old: nobody knows what it
// names, and nothing is collected.
func TestWhatIsKeptCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		k.tell(worker.Kept{More: true})
		p := k.part(t, "one")
		k.tell(worker.Kept{Job: "j1", Snapshots: []*coordinator.Snapshot{{Name: "chk-1", Manifest: []byte("x")}}})
		time.Sleep(30 * time.Second)
		if lines := k.told(); len(lines) != 1 || !strings.Contains(lines[0], "nothing is collected") || !k.has(p) {
			t.Errorf("told %q; the part is here: %v", lines, k.has(p))
		}
		k.tell(worker.Kept{Job: "j1"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if k.has(p) {
			t.Error("the part is still here")
		}
	})
}

// The machine's clock is set back by a month: what is to be done goes on as before.
func TestAClockThatIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		k.tell(worker.Kept{})
		time.Sleep(time.Second)
		bad := &coordinator.Snapshot{Name: "sp", Manifest: []byte("x")}
		k.tell(worker.Kept{Snapshots: []*coordinator.Snapshot{bad}})
		k.told()
		k.clock.by.Store(int64(-30 * dataflow.Day))
		time.Sleep(10 * time.Minute)
		if n := len(k.told()); n < 9 || n > 10 {
			t.Errorf("what fails is told %d times in 10 minutes", n)
		}
		p := k.part(t, "one")
		k.tell(worker.Kept{})
		time.Sleep(2 * collectEvery.Go())
		synctest.Wait()
		if k.has(p) {
			t.Error("a part that nobody needs is not collected")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if !k.released.Load() {
			t.Error("what was here at the start is still held, an hour after it")
		}
	})
}

// The machine's clock is set forward by a month: nothing is let go for that.
func TestAClockThatIsSetForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		p := k.part(t, "one")
		if err := k.x.o.State.Parts().Pin(p); err != nil {
			t.Fatal(err)
		}
		k.x.holds.Take(imported, dataflow.CheckpointID{Counter: 1}, p)
		k.tell(worker.Kept{})
		time.Sleep(time.Minute)
		k.clock.by.Store(int64(30 * dataflow.Day))
		k.tell(worker.Kept{})
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		if !k.has(p) || k.released.Load() {
			t.Errorf("within the hour the part of an import is here: %v; what was here at the start was let go: %v", k.has(p), k.released.Load())
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if k.has(p) || !k.released.Load() {
			t.Errorf("after the hour the part of an import is here: %v; what was here at the start was let go: %v", k.has(p), k.released.Load())
		}
	})
}

// A part that is imported again is kept for the time of the second import, whatever the
// numbers are that the two were given.
func TestAPartThatIsImportedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		p := k.part(t, "one")
		for _, serial := range []uint64{2, 1} {
			if err := k.x.o.State.Parts().Pin(p); err != nil {
				t.Fatal(err)
			}
			k.x.holds.Take(imported, dataflow.CheckpointID{Counter: serial}, p)
			k.tell(worker.Kept{})
			time.Sleep(50 * time.Minute)
		}
		synctest.Wait()
		if !k.has(p) {
			t.Error("it is gone 50 minutes after it was imported again")
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if k.has(p) {
			t.Error("it is there more than an hour after it was imported again")
		}
	})
}

// While the keeper is busy with another job a checkpoint completes, and the job's next
// attempt begins: what was held for the checkpoint is let go only when it is kept.
func TestNothingIsLetGoBeforeItIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		p, read, other := k.part(t, "newest"), k.part(t, "restored from"), k.part(t, "other")
		for _, held := range []store.Part{p, read} {
			if err := k.x.o.State.Parts().Pin(held); err != nil {
				t.Fatal(err)
			}
		}
		k.x.holds.Take("j1", dataflow.CheckpointID{Token: dataflow.FencingToken{Attempt: 1}, Counter: 2}, p)
		next := &attempt{x: k.x, ref: coordinator.AttemptRef{Job: "j1", Token: dataflow.FencingToken{Attempt: 2}}}
		k.x.holds.Take(next.held(), dataflow.CheckpointID{}, read)
		tell, times := k.x.o.Tell, 0
		k.x.o.Tell = func(line string) { // the keeper says this of j0: it is busy
			tell(line)
			if times++; times != 2 { // the second is of what is tried again
				return
			}
			k.disk.SetCapacity(1 << 20)
			k.tell(worker.Kept{Job: "j1", Snapshots: []*coordinator.Snapshot{snapshot(t, manifest.Checkpoint, "chk-2", 2, p, read)}})
			next.letGo()
			k.owed = true
		}
		k.disk.SetCapacity(1)
		k.tell(worker.Kept{Job: "j0", Snapshots: []*coordinator.Snapshot{snapshot(t, manifest.Checkpoint, "chk-0", 1, other)}})
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if times != 2 {
			t.Fatalf("told %d times: %q", times, k.told())
		}
		if !k.has(p) || !k.has(read) {
			t.Errorf("of the newest checkpoint is here what it stored: %v, and what it was restored from: %v", k.has(p), k.has(read))
		}
		k.tell(worker.Kept{Job: "j1"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if k.has(p) || k.has(read) {
			t.Error("nobody names its parts any more, and they are there")
		}
	})
}

// A manifest could not be deleted. What it names is collected when that succeeds at last,
// and meanwhile there is nothing new to collect.
func TestAManifestIsDeletedAtLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeping(t)
		p := k.part(t, "one")
		k.tell(worker.Kept{Job: "j1", Snapshots: []*coordinator.Snapshot{snapshot(t, manifest.Checkpoint, "chk-1", 1, p)}})
		time.Sleep(time.Minute)
		k.disk.FailFrom(1, syscall.EIO)
		k.tell(worker.Kept{Job: "j1"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if k.told(); !k.has(p) {
			t.Fatal("its part is gone before it is")
		}
		k.disk.Heal()
		time.Sleep(2 * keepAgain.Go())
		synctest.Wait()
		if k.has(p) {
			t.Error("it is deleted, and its part is still here")
		}
	})
}
