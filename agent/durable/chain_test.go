package durable

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// chained is a chain without parts; take stores a share.
func chained(t *testing.T, disk *storetest.FS, events func(string)) (c *Checkpointer, sub dataflow.SubtaskID, take func(full bool, rows ...row)) {
	t.Helper()
	state, err := Open(filepath.Join(t.TempDir(), "state"), disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	job, err := state.OpenJob("j")
	if err != nil {
		t.Fatal(err)
	}
	sub = dataflow.SubtaskID{Task: "t"}
	table := runtime.TableOf{Operator: "op", StateTable: operator.StateTable{Name: "rows", Schema: readColumns, Identity: 2}}
	c = NewCheckpointer(CheckpointerOptions{
		Job: job, MaxParallelism: 1, Clock: sensors.Wall{}, Events: events,
		Config: checkpoint.Config{Subtasks: []dataflow.SubtaskID{sub}},
		Tables: map[dataflow.SubtaskID][]runtime.TableOf{sub: {table}}, Parallelism: map[dataflow.OperatorID]int{"op": 1},
	})
	c.shares.o.Stored = func(s Stored) { // nobody decides here
		if s.Err != nil {
			t.Error(s.Err)
		}
	}
	take = func(full bool, rows ...row) {
		t.Helper()
		s := &share{taken: snapshot(sub, full, rows...)}
		s.parts = c.shares.partsOf(s)
		if c.shares.store(s); s.err != nil || c.shares.link(s) {
			t.Fatal(s.err)
		}
	}
	return c, sub, take
}

// mergedToNothing is a chain of deltas of which nothing is left, whose merge has ended
// and was not heard yet.
func mergedToNothing(t *testing.T) (c *Checkpointer, sub dataflow.SubtaskID, take func(full bool, rows ...row)) {
	t.Helper()
	c, sub, take = chained(t, storetest.New(), func(s string) { t.Error(s) })
	take(true, row{key: "a"})
	take(false, row{key: "a", gone: true})
	take(false, row{key: "b"})
	take(false, row{key: "b", gone: true})
	c.shares.Merge()
	c.shares.work.Wait()
	return c, sub, take
}

// snapshot is what a subtask hands over at a barrier.
func snapshot(sub dataflow.SubtaskID, full bool, rows ...row) runtime.SnapshotTaken {
	return runtime.SnapshotTaken{
		Subtask: sub, Barrier: dataflow.Barrier{Full: full}, State: []task.StateRows{{Operator: "op", Table: "rows", Batch: batchOf(rows, !full)}},
	}
}

// hear does what was posted.
func hear(c *Checkpointer) {
	for _, f := range c.take() {
		f()
	}
}

// saves makes a checkpoint of the chains.
func saves(t *testing.T, c *Checkpointer, counter uint64) {
	t.Helper()
	m, err := c.manifest(dataflow.CheckpointID{Counter: counter}, checkpoint.What{Checkpoint: true})
	if err == nil {
		err = c.o.Job.checkpoints.Put(m)
	}
	if err != nil {
		t.Errorf("checkpoint %d: %v", counter, err)
	}
}

// Nothing is left of a chain when it is merged, and meanwhile a delta has come:
// the chain still begins with a whole part, as manifests want it.
func TestChainOfWhichNothingIsLeft(t *testing.T) {
	c, _, take := mergedToNothing(t)
	take(false, row{key: "b"}, row{key: "a", gone: true})
	hear(c)
	if parts := c.shares.chains[place{"op", "rows", 0}].parts; len(parts) > 2 {
		t.Fatalf("nothing was merged: %d parts", len(parts))
	}
	saves(t, c, 1)
}

// The same, and the delta is only being stored when the merge is heard of: it is a
// delta already, and needs the part before it.
func TestChainOfWhichNothingIsLeftWhileADeltaIsStored(t *testing.T) {
	c, sub, take := mergedToNothing(t)
	at := place{"op", "rows", 0}
	c.shares.Take(snapshot(sub, false, row{key: "b"}, row{key: "a", gone: true}))
	hear(c) // first the merge
	c.shares.work.Wait()
	hear(c)
	if parts := c.shares.chains[at].parts; len(parts) != 2 || parts[0].Delta || !parts[1].Delta {
		t.Errorf("the chain is %v", parts)
	}
	saves(t, c, 1)
	take(false, row{key: "c"})
	saves(t, c, 2)
}

// Nothing is left of a chain, and nothing is being stored: it has no part any more.
func TestChainOfWhichNothingIsLeftGoes(t *testing.T) {
	c, _, take := mergedToNothing(t)
	hear(c)
	if parts := c.shares.chains[place{"op", "rows", 0}].parts; len(parts) > 0 {
		t.Errorf("the chain is %v", parts)
	}
	take(false, row{key: "b"})
	saves(t, c, 1)
}

// While checkpoints do not complete, and all parts stay on disk, a chain is merged when its
// deltas are as large as what they change, and else only when it is very long. Where that
// fails, too, a full snapshot is to come.
func TestChainWhileNoCheckpointCompletes(t *testing.T) {
	disk := storetest.New()
	var told []string
	c, _, take := chained(t, disk, func(s string) { told = append(told, s) })
	at := place{"op", "rows", 0}
	open := func() (parts int, tooLong bool) {
		tooLong = c.shares.MergeOpen()
		c.shares.work.Wait()
		hear(c)
		return len(c.shares.chains[at].parts), tooLong
	}
	take(true, row{key: "a"})
	for n := 2; n < shortChain; n++ {
		take(false, row{key: "a", mean: float64(n)})
		if parts, _ := open(); parts != n {
			t.Errorf("a chain of %d parts has %d after it", n, parts)
		}
	}
	take(false, row{key: "a", mean: 9})
	take(false, row{key: "a", mean: 10})
	if parts, tooLong := open(); parts != 1 || tooLong {
		t.Errorf("small, and all of it changes: %d parts, too long %t", parts, tooLong)
	}
	var all []row
	for k := range 4000 {
		all = append(all, row{key: fmt.Sprintf("%x", sha256.Sum256([]byte{byte(k), byte(k >> 8)}))})
	}
	take(true, all...)
	for n := 2; n <= mostOpen; n++ {
		if n == longOpen {
			disk.FailReads(syscall.EIO)
		}
		take(false, row{key: "a", mean: float64(n)})
		if parts, tooLong := open(); parts != n || tooLong != (n == mostOpen) {
			t.Fatalf("a chain of %d parts has %d after it, and is too long: %t", n, parts, tooLong)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0], "failed") {
		t.Errorf("%d failed for one reason, and told was %q", mostOpen-longOpen+1, told)
	}
	disk.Heal()
	if parts, tooLong := open(); parts != 1 || !tooLong {
		t.Errorf("merged at last: %d parts, was too long %t", parts, tooLong)
	}
	disk.FailReads(syscall.EIO)
	for n := 2; n <= longOpen; n++ {
		take(false, row{key: "a", mean: float64(n)})
	}
	if open(); len(told) != 2 {
		t.Errorf("it fails again after it was merged, and told was %q", told)
	}
	saves(t, c, 1)
}

// A chain has become long while checkpoints did not complete, as it may then. When one
// completes at last it is merged, and no whole snapshot is asked for, until that fails, or
// lasts until after the next.
func TestALongChainWhenACheckpointCompletes(t *testing.T) {
	for _, c := range []struct {
		name   string
		fails  bool // the first merge after it
		lasts  bool
		before bool // it failed already while none completed
	}{{name: "merged"}, {name: "failed", fails: true}, {name: "failed before", fails: true, before: true}, {name: "slow", lasts: true}} {
		t.Run(c.name, func(t *testing.T) { longChainCompletes(t, c.fails, c.lasts, c.before) })
	}
}

func longChainCompletes(t *testing.T, fails, lasts, before bool) {
	disk := storetest.New()
	c, _, take := chained(t, disk, func(string) {})
	var all []row
	for k := range 4000 {
		all = append(all, row{key: fmt.Sprintf("%x", sha256.Sum256([]byte{byte(k), byte(k >> 8)}))})
	}
	take(true, all...)
	if fails {
		disk.FailReads(syscall.EIO)
	}
	long := mostParts + 1
	if before {
		long = longOpen + 1
	}
	n := 1
	grow := func() {
		n++
		take(false, row{key: "a", mean: float64(n)})
	}
	for n < long {
		if grow(); c.shares.MergeOpen() {
			t.Fatalf("%d parts are too long while no checkpoint completes", n)
		}
		c.shares.work.Wait()
		hear(c)
	}
	completes := func(want bool) {
		t.Helper()
		grow()
		c.shares.Merge()
		if got := c.shares.TooLong(); got != want {
			t.Errorf("a checkpoint completes, and the chain is too long: %t, want %t", got, want)
		}
	}
	completes(before)
	c.shares.work.Wait()
	if !lasts {
		hear(c)
	}
	completes(fails || lasts)
	c.shares.work.Wait()
	hear(c)
	disk.Heal()
	completes(fails) // where it failed, it is merged only now
	c.shares.work.Wait()
	hear(c)
	completes(false)
	c.shares.work.Wait()
	hear(c)
}
