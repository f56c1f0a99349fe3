package part_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

const (
	partsDir  = "/state/parts"
	checksDir = "/state/jobs/j/checkpoints"
	savesDir  = "/state/savepoints"
)

// checkpoint is a manifest of parts, one a shard.
func checkpoint(n int, parts []store.Part) manifest.Manifest {
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: fmt.Sprintf("chk-1-%d", n), Job: "j", MaxParallelism: 128, Mode: manifest.ExactlyOnce}
	m.ID = dataflow.CheckpointID{Token: dataflow.FencingToken{Attempt: 1}, Counter: uint64(n)}
	t := manifest.Table{Name: "t", Schema: `"x"`, Keyed: true, Identity: 1}
	for i, p := range parts {
		t.Shards = append(t.Shards, manifest.Shard{Subtask: i, Parts: []manifest.PartUse{{Part: p, Rows: 1}}})
	}
	m.Operators = []manifest.Operator{{ID: "op", Parallelism: len(parts), Tables: []manifest.Table{t}}}
	return m
}

// life is what a job does with its store, and what was promised to it.
type life struct {
	fs     *storetest.FS
	s      *part.Store
	checks *part.Manifests

	acked   map[string]manifest.Manifest // stored, and not let go
	pending map[string]bool              // being deleted
	held    []store.Part                 // put, not unpinned
}

func begin(fs *storetest.FS) (*life, error) {
	l := &life{fs: fs, acked: make(map[string]manifest.Manifest), pending: make(map[string]bool)}
	var err error
	if l.s, err = part.Open(fs, partsDir); err != nil {
		return l, err
	}
	l.checks, err = part.OpenManifests(l.s, checksDir)
	return l, err
}

func (l *life) folders() ([]*part.Manifests, error) { return part.Folders(l.s, "/state") }

// contents of checkpoint n: one part that never changes, one that changes every
// second time, one large one that is always new.
func contents(n int) [][]byte {
	large := bytes.Repeat(fmt.Appendf(nil, "%8d", n), 65<<10/8+n)
	return [][]byte{[]byte("constant"), fmt.Appendf(nil, "half %d", n/2), large}
}

// checkpoint takes one: parts, manifest, the old one deleted, collection.
func (l *life) checkpoint(n int) error {
	var writes []func(io.Writer) error
	for _, c := range contents(n) {
		writes = append(writes, storetest.Bytes(c))
	}
	parts, err := l.s.PutAll(writes)
	if err != nil {
		return err
	}
	l.held = parts
	m := checkpoint(n, parts)
	if err := l.checks.Put(m); err != nil {
		l.s.Unpin(parts...)
		l.held = nil
		return err
	}
	l.acked[m.Name] = m
	l.s.Unpin(parts...)
	l.held = nil
	for name := range l.acked {
		if name != m.Name {
			l.pending[name] = true
			delete(l.acked, name)
		}
	}
	delete(l.pending, m.Name) // a name may come again here
	for name := range l.pending {
		if err := l.checks.Delete(name); err != nil && !errors.Is(err, store.ErrMissing) {
			return err
		}
		delete(l.pending, name)
	}
	_, err = l.s.Collect(l.folders)
	return err
}

func (l *life) run() error {
	for n := 1; n <= 3; n++ {
		if err := l.checkpoint(n); err != nil {
			return err
		}
	}
	return nil
}

// whole checks that what was promised is there in an image, and nothing half.
func (l *life) whole(t *testing.T, img *storetest.FS, where string) {
	t.Helper()
	n, err := begin(img)
	if err != nil {
		t.Fatalf("%s: it does not open: %v", where, err)
	}
	list, err := n.checks.List()
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	seen := make(map[string]bool)
	for _, e := range list {
		if e.Err != nil {
			t.Fatalf("%s: a damaged manifest: %v", where, e.Err)
		}
		seen[e.Name] = true
		for _, p := range manifest.Needed(e.Manifest) {
			if err := n.s.Verify(p); err != nil {
				t.Fatalf("%s: manifest %s: %v", where, e.Name, err)
			}
		}
		n.acked[e.Name] = e.Manifest
	}
	for name := range l.acked {
		if !seen[name] {
			t.Fatalf("%s: the manifest %s is lost", where, name)
		}
	}
	for _, p := range l.held {
		if err := n.s.Verify(p); err != nil {
			t.Fatalf("%s: a part that was put: %v", where, err)
		}
	}
	if err := n.run(); err != nil {
		t.Fatalf("%s: it does not go on: %v", where, err)
	}
	n.tidy(t, where)
}

// tidy checks that nothing is there but what is needed.
func (l *life) tidy(t *testing.T, where string) {
	t.Helper()
	if _, err := l.s.Collect(l.folders); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	var ms []manifest.Manifest
	for _, m := range l.acked {
		ms = append(ms, m)
	}
	want := len(manifest.Needed(ms...)) + len(ms)
	if files := l.fs.Files(); len(files) != want {
		t.Fatalf("%s: %d files, want %d: %v", where, len(files), want, files)
	}
	if l.s.Pinned() != 0 {
		t.Fatalf("%s: %d parts are pinned", where, l.s.Pinned())
	}
}

func TestPowerLossAtEveryWrite(t *testing.T) {
	for n := 1; ; n++ {
		fs := storetest.New()
		fs.PowerOffAt(n)
		l, err := begin(fs)
		if err == nil {
			err = l.run()
		}
		if err == nil {
			t.Logf("%d write points", n-1)
			return
		}
		if !errors.Is(err, storetest.ErrPower) {
			t.Fatalf("write %d: %v", n, err)
		}
		for seed := range uint64(8) {
			l.whole(t, fs.Crash(seed), fmt.Sprintf("power lost at write %d, seed %d", n, seed))
		}
	}
}

// A process that is killed leaves names behind that nobody has made durable:
// the next one must not rely on them.
func TestKilledThenPowerLoss(t *testing.T) {
	killed := errors.New("killed")
	for n := 1; ; n++ {
		fs := storetest.New()
		fs.FailFrom(n, killed)
		l, err := begin(fs)
		if err == nil {
			err = l.run()
		}
		fs.Heal()
		if err == nil {
			return
		}
		l, err = begin(fs)
		if err != nil {
			t.Fatal(err)
		}
		list, err := l.checks.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Err != nil {
				t.Fatalf("killed at write %d: %v", n, e.Err)
			}
			l.acked[e.Name] = e.Manifest
		}
		for k := 2; k <= 3; k++ {
			if err := l.checkpoint(k); err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(4) {
				l.whole(t, fs.Crash(seed), fmt.Sprintf("killed at write %d, checkpoint %d after it, seed %d", n, k, seed))
			}
		}
	}
}

func TestFullAndBrokenDiskAtEveryWrite(t *testing.T) {
	for _, broken := range []error{syscall.ENOSPC, syscall.EIO} {
		for n := 1; ; n++ {
			fs := storetest.New()
			l, err := begin(fs)
			if err != nil {
				t.Fatal(err)
			}
			fs.FailAt(n, broken)
			failed := false
			for k := 1; k <= 4; k++ {
				err := l.checkpoint(k)
				if err == nil {
					continue
				}
				failed = true
				if broken == syscall.ENOSPC && !errors.Is(err, store.ErrFull) || !errors.Is(err, broken) {
					t.Fatalf("%v at write %d: error %v", broken, n, err)
				}
				l.whole(t, fs.Crash(0), fmt.Sprintf("%v at write %d", broken, n))
			}
			if !failed {
				break
			}
			if err := l.checkpoint(9); err != nil {
				t.Fatalf("%v at write %d, the next checkpoint: %v", broken, n, err)
			}
			l.whole(t, fs.Crash(0), fmt.Sprintf("after %v at write %d", broken, n))
			l.tidy(t, fmt.Sprintf("after %v at write %d", broken, n))
		}
	}
}
