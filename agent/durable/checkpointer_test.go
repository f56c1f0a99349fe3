package durable

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// change is what one barrier of a keeper meets.
type change struct {
	rows      []row // put, or removed
	decline   bool  // a subtask cannot take its snapshot
	failAt    int   // this operation on the disk from now fails; 0: none
	savepoint bool  // somebody asks for one
}

// keeper is the Engine of a job of two subtasks that keeps a table of rows in
// memory. Trigger is called by Run's goroutine only.
type keeper struct {
	c       *Checkpointer
	disk    *storetest.FS
	script  []change
	rows    [2]map[string]row
	dirty   [2]map[string]bool // since the last snapshot that was handed over
	saved   map[dataflow.CheckpointID][2]map[string]row
	full    []bool
	goesOn  [2]bool // a subtask's next snapshot may be a delta
	lacks   bool    // a part of the base is gone
	answers []<-chan Answer
	done    func()
}

func (k *keeper) Completed(dataflow.CheckpointID) {}
func (k *keeper) Stop()                           { k.done() }

func (k *keeper) subtask(i int) dataflow.SubtaskID {
	return dataflow.SubtaskID{Task: "sums", Index: i}
}

func (k *keeper) Trigger(b dataflow.Barrier) {
	var now change
	if len(k.script) > 0 {
		now, k.script = k.script[0], k.script[1:]
	} else if b.Then == dataflow.GoOn {
		k.answers = append(k.answers, k.c.Savepoint(dataflow.Halt))
	}
	for n, r := range now.rows {
		i := n % 2
		key := fmt.Sprint(r.key, r.at)
		k.dirty[i][key] = true
		if r.gone {
			delete(k.rows[i], key)
		} else {
			k.rows[i][key] = r
		}
	}
	if now.failAt > 0 {
		k.disk.FailAt(now.failAt, syscall.ENOSPC)
	}
	if now.savepoint {
		k.answers = append(k.answers, k.c.Savepoint(dataflow.GoOn))
	}
	k.full = append(k.full, b.Full)
	var copied [2]map[string]row
	for i := range k.rows {
		copied[i] = maps.Clone(k.rows[i])
		t := runtime.SnapshotTaken{Subtask: k.subtask(i), Barrier: b}
		full := b.Full || !k.goesOn[i]
		if full && !b.Full {
			t.Whole = []dataflow.OperatorID{"sums"}
		}
		k.goesOn[i] = true
		if now.decline && i == 0 {
			t.Err = fmt.Errorf("no room")
		} else if rows := k.delta(i, full); len(rows) > 0 {
			t.State = []task.StateRows{{Operator: "sums", Table: "means", Batch: batchOf(rows, !full)}}
		}
		k.c.Taken(t)
	}
	k.saved[b.ID] = copied
}

// delta is what a snapshot hands over.
func (k *keeper) delta(i int, full bool) (rows []row) {
	defer clear(k.dirty[i])
	if full {
		return slices.Collect(maps.Values(k.rows[i]))
	}
	for key := range k.dirty[i] {
		r, there := k.rows[i][key]
		if !there {
			r = row{key: key[:2], gone: true}
			_, _ = fmt.Sscan(key[2:], &r.at)
		}
		rows = append(rows, r)
	}
	return rows
}

func drawChange(t *rapid.T) change {
	c := change{savepoint: rapid.IntRange(0, 3).Draw(t, "savepoint") == 0, decline: rapid.IntRange(0, 9).Draw(t, "decline") == 0}
	if rapid.IntRange(0, 4).Draw(t, "fails") == 0 {
		c.failAt = rapid.IntRange(1, 12).Draw(t, "fail at")
	}
	for range rapid.IntRange(0, 8).Draw(t, "rows") {
		c.rows = append(c.rows, row{
			key: rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(t, "key"), at: float64(rapid.IntRange(0, 2).Draw(t, "at")),
			mean: float64(rapid.IntRange(0, 1000).Draw(t, "mean")), gone: rapid.IntRange(0, 2).Draw(t, "gone") == 0,
		})
	}
	return c
}

// texts are rows in a fixed order.
func texts(rows map[string]row) (lines []string) {
	for _, r := range rows {
		lines = append(lines, r.text())
	}
	slices.Sort(lines)
	return lines
}

// shardTexts are the rows of a subtask in a checkpoint or savepoint.
func shardTexts(t *rapid.T, s *State, m manifest.Manifest, subtask int) (lines []string) {
	v := &Saved{Manifest: m, from: s.parts}
	table, _ := v.find("sums", "means")
	if table == nil {
		t.Fatalf("%s has no state", m.Name)
	}
	for _, sh := range table.Shards {
		if sh.Subtask != subtask {
			continue
		}
		if m.Kind == manifest.Savepoint && (len(sh.Parts) > 1 || len(sh.Parts) == 1 && sh.Parts[0].Delta) {
			t.Fatalf("%s does not stand alone: %+v", m.Name, sh.Parts)
		}
		err := v.readShard(table, sh, func(rd *avro.Reader) error {
			return eachBatch(rd, func(b *batch.Batch) error {
				e := encode.NewJSON(readColumns, encode.Options{})
				for i := range b.Rows {
					lines = append(lines, strings.TrimSpace(string(e.AppendRow(nil, b, i))))
				}
				b.Release()
				return nil
			})
		})
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
	}
	slices.Sort(lines)
	return lines
}

// Whatever a job puts and removes, whichever snapshots, writes and merges fail,
// whenever savepoints are taken and the job is started again: each checkpoint
// and each savepoint holds the rows that were there at its barrier, a savepoint
// in whole parts, and no task is made to write what is on disk already.
func TestSavepointsOfDeltasHoldWhatWasThere(t *testing.T) {
	home, runs := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(home, fmt.Sprint(runs))
		disk := storetest.New()
		s, err := Open(dir, disk)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		j, err := s.OpenJob("job")
		if err != nil {
			t.Fatal(err)
		}
		k := &keeper{disk: disk, saved: make(map[dataflow.CheckpointID][2]map[string]row)}
		for range rapid.IntRange(1, 3).Draw(t, "attempts") {
			k.live(t, s, j)
		}
		if n := s.parts.Pinned(); n > 0 {
			t.Fatalf("%d parts are still pinned", n)
		}
		if _, err := s.Collect(); err != nil {
			t.Fatal(err)
		}
		k.judge(t, s)
	})
}

// live runs one attempt from the newest checkpoint.
func (k *keeper) live(t *rapid.T, s *State, j *Job) {
	for i := range k.rows {
		k.rows[i], k.dirty[i] = make(map[string]row), make(map[string]bool)
	}
	p, err := j.Newest()
	if err != nil {
		t.Fatal(err)
	}
	if p.Manifest != nil {
		for i, rows := range k.saved[p.Manifest.ID] {
			k.rows[i] = maps.Clone(rows)
		}
	}
	token, err := j.NextAttempt()
	if err != nil {
		t.Fatal(err)
	}
	base := k.begin(t, p.Manifest)
	k.script, k.full, k.answers = rapid.SliceOfN(rapid.Custom(drawChange), 1, 30).Draw(t, "script"), nil, nil
	calm := !k.lacks && !slices.ContainsFunc(k.script, func(c change) bool { return c.decline || c.failAt > 0 })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k.done = cancel
	subtasks := []dataflow.SubtaskID{k.subtask(0), k.subtask(1)}
	table := runtime.TableOf{Operator: "sums", StateTable: operator.StateTable{Name: "means", Schema: readColumns, Identity: 2}}
	k.c = NewCheckpointer(CheckpointerOptions{
		Job: j, MaxParallelism: 8, Clock: sensors.Wall{}, Parallelism: map[dataflow.OperatorID]int{"sums": 2},
		Tables: map[dataflow.SubtaskID][]runtime.TableOf{subtasks[0]: {table}, subtasks[1]: {table}},
		Config: checkpoint.Config{Token: token, Interval: 1, Timeout: dataflow.Hour, Tolerable: 1000, Retain: 2, Subtasks: subtasks, Sources: subtasks, Full: rapid.Bool().Draw(t, "a full barrier"), Kept: p.Kept},
		Base:   base,
		Events: func(string) {},
		Keep: func(m *manifest.Manifest) error { // nobody may take what is kept for one that is deleted
			if m.Kind == manifest.Savepoint && s.publishing.TryLock() {
				return fmt.Errorf("pins can be let go while %s is on its way", m.Name)
			}
			return nil
		},
	})
	if err := k.c.Run(ctx, k); err != nil && !strings.Contains(err.Error(), "stop:") {
		t.Fatalf("%v", err)
	}
	k.disk.Heal()
	taken := false
	for _, ch := range k.answers {
		a := <-ch // there is always one
		if _, err := s.Manifest(a.Name); (err == nil) != (a.Err == nil) {
			t.Fatalf("savepoint %q: %v; on disk: %v", a.Name, a.Err, err)
		}
		taken = taken || a.Err == nil
	}
	if calm && (!taken || slices.Contains(k.full[1:], true)) {
		t.Fatalf("full barriers %v, a savepoint %t, and nothing was to fail", k.full, taken)
	}
}

// begin draws which subtasks' chains begin with what they are restored from, which
// of them know it, and what of it is gone.
func (k *keeper) begin(t *rapid.T, m *manifest.Manifest) *Base {
	b := &Base{parts: make(map[place][]manifest.PartUse)}
	k.goesOn, k.lacks = [2]bool{}, false
	if m == nil {
		return b
	}
	for _, sh := range m.Operators[0].Tables[0].Shards {
		if rapid.Bool().Draw(t, "parts") {
			parts := slices.Clone(sh.Parts)
			if len(parts) > 0 && rapid.IntRange(0, 5).Draw(t, "gone") == 0 {
				parts[rapid.IntRange(0, len(parts)-1).Draw(t, "which")].Digest[0] ^= 1
				k.lacks = true
			}
			b.parts[place{"sums", "means", sh.Subtask}] = parts
			k.goesOn[sh.Subtask] = rapid.IntRange(0, 3).Draw(t, "knows") > 0
		}
	}
	return b
}

// judge compares all that is on disk with what was there when it was taken.
func (k *keeper) judge(t *rapid.T, s *State) {
	saved, err := s.Savepoints()
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.Checkpoints("job")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range append(saved, own...) {
		if e.Err != nil {
			t.Fatal(e.Err)
		}
		for i, rows := range k.saved[e.Manifest.ID] {
			if got, want := shardTexts(t, s, e.Manifest, i), texts(rows); !slices.Equal(got, want) {
				t.Fatalf("%s (%v), subtask %d:\n%s\nwant\n%s", e.Name, e.Manifest.ID, i, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
}
