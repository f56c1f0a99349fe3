package agent_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	tstore "github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// originDisk has no room for so many files of where a job began.
type originDisk struct {
	tstore.FS
	left int // of the goroutine that begins the job
}

func (m *originDisk) Rename(old, name string) error {
	if filepath.Base(name) == "origin" && m.left > 0 {
		m.left--
		return &os.PathError{Op: "rename", Path: name, Err: syscall.ENOSPC}
	}
	return m.FS.Rename(old, name)
}

// firstStopped is E65's job first, stopped after e1 e4 e12 w4, and its savepoint.
func firstStopped(t *testing.T) (d *stateful, savepoint, dir string) {
	t.Helper()
	dir = t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	put(t, in, events("e1 e4 e12 w4"))
	d = newStateful(t, filepath.Join(dir, "state"))
	o, err := d.until(fmt.Sprintf(sumJob, "first", in, filepath.Join(dir, "first.jsonl")), &gate{crashAt: 4}, setting{batchRows: 1}, (*agent.Local).Stop, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, d.said)
	}
	put(t, in, events("e8 e15 w9 w19"))
	return d, o.Savepoint, dir
}

// secondJob is one that may begin at first's savepoint, and is started again when it
// fails.
func secondJob(dir string) (text, out string) {
	out = filepath.Join(dir, "out.jsonl")
	text = fmt.Sprintf(sumJob, "second", filepath.Join(dir, "in.jsonl"), out)
	return strings.Replace(text, "strategy: none", "strategy: fixed-delay, attempts: 3, delay: 1ms", 1), out
}

// A job that fails before it has noted at which savepoint it begins begins there when
// it is started again.
func TestItBeginsAtTheSavepointAtLast(t *testing.T) {
	d, savepoint, dir := firstStopped(t)
	d.fs = &originDisk{FS: d.disk, left: 2}
	text, out := secondJob(dir)
	o, err := d.run(text, setting{batchRows: 1}, func(l *agent.LocalOptions) { l.From = savepoint })
	if err != nil || o.Status != coordinator.Finished || o.Restarts != 2 {
		t.Fatalf("%+v, %v\n%s", o, err, d.said)
	}
	if got := values(t, out, "total"); !slices.Equal(got, []int64{13, 27}) {
		t.Errorf("totals %v, want 13 and 27\n%s", got, d.said)
	}
}

// exportedCheckpoint crashes E65's job first after e1 e4 e12 w4, and writes its last
// checkpoint to a file.
func exportedCheckpoint(t *testing.T, drained bool) (name, dir string) {
	t.Helper()
	dir = t.TempDir()
	in := filepath.Join(dir, "in.jsonl")
	put(t, in, events("e1 e4 e12 w4 w4"))
	d := newStateful(t, filepath.Join(dir, "first"))
	text := fmt.Sprintf(sumJob, "first", in, filepath.Join(dir, "first.jsonl"))
	if drained {
		d.drainedOnce(text, "first", 4)
	} else if _, err := d.until(text, &gate{stops: []int{4}, crashAt: 5}, setting{batchRows: 1}, nil, nil); !errors.Is(err, errCrash) {
		t.Fatalf("%v\n%s", err, d.said)
	}
	_, state := d.begin(text, setting{}, nil)
	saved, err := state.Store().Saved("first")
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	name = filepath.Join(dir, "exported")
	if err := errors.Join(saved.Export(&file), state.Close(), os.WriteFile(name, file.Bytes(), 0o644), os.Remove(in)); err != nil {
		t.Fatal(err)
	}
	return name, dir
}

// inNew has second read another file than first did, from its beginning.
func inNew(t *testing.T, dir, list string) (text, out string) {
	t.Helper()
	put(t, filepath.Join(dir, "in.jsonl"), events(list))
	text, out = secondJob(dir)
	return strings.Replace(strings.Replace(text, "  in:\n", "  new:\n", 1), "from: in,", "from: new,", 1), out
}

// A checkpoint that was exported stands for a savepoint: a job that begins at it and
// fails begins there again, also without being told so; until it has a checkpoint of
// its own it cannot be deleted, and a job that claims it lets it go.
func TestAnExportedCheckpointIsASavepoint(t *testing.T) {
	file, dir := exportedCheckpoint(t, false)
	text, out := inNew(t, dir, "e8 e15 w9 w19")
	slow := strings.Replace(strings.Replace(text, "interval: 1ms", "interval: 1h", 1), "strategy: fixed-delay, attempts: 3, delay: 1ms", "strategy: none", 1)
	d := newStateful(t, filepath.Join(dir, "state"))
	claim := func(l *agent.LocalOptions) { l.From, l.AllowNonRestored, l.Claim = file, true, true }
	if _, err := d.until(slow, &gate{crashAt: 1}, setting{batchRows: 1}, nil, claim); !errors.Is(err, errCrash) {
		t.Fatalf("%v\n%s", err, d.said)
	}
	_, state := d.begin(text, setting{}, nil)
	list, err := state.Store().Savepoints()
	if err != nil || len(list) != 1 || list[0].Manifest.Kind != manifest.Savepoint || !strings.HasPrefix(list[0].Name, "sp-") {
		t.Fatalf("the folder has %+v, %v", list, err)
	}
	if err := state.Store().Delete(list[0].Name); err == nil {
		t.Error("the savepoint that the job needs was deleted")
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.until(text, &gate{stops: []int{1, 1, 2, 3}}, setting{batchRows: 1}, nil, func(l *agent.LocalOptions) { l.AllowNonRestored = true }); err != nil {
		t.Fatalf("%v\n%s", err, d.said)
	}
	if got := values(t, out, "total"); !slices.Equal(got, []int64{13, 27}) {
		t.Errorf("totals %v, want 13 and 27\n%s", got, d.said)
	}
	if files := d.disk.Files(); slices.ContainsFunc(files, func(n string) bool { return strings.Contains(n, list[0].Name) }) {
		t.Errorf("the claimed savepoint is still there:\n%s", strings.Join(files, "\n"))
	}
}

// One that was drained is refused as a drained savepoint is.
func TestAnExportedDrainedCheckpointIsRefused(t *testing.T) {
	file, dir := exportedCheckpoint(t, true)
	text, out := inNew(t, dir, "e8 e15 w9 w19")
	d := newStateful(t, filepath.Join(dir, "state"))
	o, err := d.run(text, setting{}, func(l *agent.LocalOptions) { l.From, l.AllowNonRestored = file, true })
	if !errors.Is(err, restore.ErrRefused) || !strings.Contains(err.Error(), "drained") {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("the output was touched")
	}
}

// The same command goes on when the savepoint, or the file that was exported, is gone.
func TestTheSameCommandWithoutTheSavepoint(t *testing.T) {
	for _, c := range []string{"savepoint", "claimed", "file"} {
		t.Run(c, func(t *testing.T) {
			d, from, dir := firstStopped(t)
			first := filepath.Join(dir, "exported")
			_, state := d.begin(fmt.Sprintf(sumJob, "first", filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "first.jsonl")), setting{}, nil)
			saved, err := state.Store().Saved(from)
			if err != nil {
				t.Fatal(err)
			}
			var file bytes.Buffer
			if err := errors.Join(saved.Export(&file), state.Close(), os.WriteFile(first, file.Bytes(), 0o644)); err != nil {
				t.Fatal(err)
			}
			savepoint := from
			if c == "file" {
				from = first
			}
			text, out := secondJob(dir)
			same := func(l *agent.LocalOptions) { l.From, l.Claim = from, c == "claimed" }
			if _, err := d.until(text, &gate{stops: []int{1, 1, 2}, crashAt: 3}, setting{batchRows: 1}, nil, same); !errors.Is(err, errCrash) {
				t.Fatalf("%v\n%s", err, d.said)
			}
			_, state = d.begin(text, setting{}, nil)
			err = state.Store().Delete(savepoint)
			if err != nil && !errors.Is(err, tstore.ErrMissing) {
				t.Error(err)
			}
			if err := errors.Join(state.Close(), os.Remove(first)); err != nil {
				t.Error(err)
			}
			if o, err := d.run(text, setting{batchRows: 1}, same); err != nil || o.Status != coordinator.Finished {
				t.Fatalf("%+v, %v\n%s", o, err, d.said)
			}
			if got := values(t, out, "total"); !slices.Equal(got, []int64{13, 27}) {
				t.Errorf("totals %v, want 13 and 27\n%s", got, d.said)
			}
			other := func(l *agent.LocalOptions) { l.From = "sp-another" }
			if o, err := d.run(text, setting{batchRows: 1}, other); !errors.Is(err, tstore.ErrMissing) {
				t.Errorf("at another savepoint: %+v, %v", o, err)
			}
		})
	}
}

// Another savepoint that has only the name of the one at which the job began is no
// reason to go on: neither from checkpoints since, nor from the one of before.
func TestAnotherSavepointOfTheSameName(t *testing.T) {
	for _, c := range []struct {
		what     string
		crashAt  int
		interval string
	}{{"checkpoints since", 3, "1ms"}, {"none yet", 1, "1h"}} {
		t.Run(c.what, func(t *testing.T) {
			var files [2]string
			var dir string
			for i := range files {
				d, from, in := firstStopped(t)
				if i == 0 {
					dir = in
				}
				_, state := d.begin(fmt.Sprintf(sumJob, "first", filepath.Join(in, "in.jsonl"), filepath.Join(in, "first.jsonl")), setting{}, nil)
				saved, err := state.Store().Saved(from)
				if err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				if err := saved.Export(&b); err != nil {
					t.Fatal(err)
				}
				if _, err := state.Store().Import(&b, "before-upgrade"); err != nil {
					t.Fatal(err)
				}
				if saved, err = state.Store().Saved("before-upgrade"); err != nil {
					t.Fatal(err)
				}
				files[i] = filepath.Join(in, "exported")
				b.Reset()
				if err := errors.Join(saved.Export(&b), state.Close(), os.WriteFile(files[i], b.Bytes(), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			text, _ := secondJob(dir)
			text = strings.Replace(text, "interval: 1ms", "interval: "+c.interval, 1)
			d := newStateful(t, filepath.Join(dir, "second"))
			stops := []int{1, 1, 2}
			if _, err := d.until(text, &gate{stops: stops[:c.crashAt], crashAt: c.crashAt}, setting{batchRows: 1}, nil, func(l *agent.LocalOptions) { l.From, l.AllowNonRestored = files[0], true }); !errors.Is(err, errCrash) {
				t.Fatalf("%v\n%s", err, d.said)
			}
			_, err := d.run(text, setting{batchRows: 1}, func(l *agent.LocalOptions) { l.From, l.AllowNonRestored = files[1], true })
			if err == nil || !strings.Contains(err.Error(), "another one than that which is given now") {
				t.Errorf("%v\n%s", err, d.said)
			}
			if _, err := d.run(text, setting{batchRows: 1}, func(l *agent.LocalOptions) { l.From, l.AllowNonRestored = files[0], true }); err != nil {
				t.Errorf("with the same one: %v\n%s", err, d.said)
			}
		})
	}
}
