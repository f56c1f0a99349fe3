package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/coordinator"
	tstore "github.com/tidemark-mesh/tidemark/store"
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
