package statedb

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/statetest"
	"github.com/tidemark-mesh/tidemark/store"
)

// opener makes a new file for each use.
func opener(t *testing.T) statetest.Open {
	dir := t.TempDir()
	n := 0
	return func(r *rapid.T, memory int64) statetest.Backing {
		n++
		d, err := Open(filepath.Join(dir, strconv.Itoa(n), "state.db"), Options{Memory: memory})
		if err != nil {
			r.Fatal(err)
		}
		return d
	}
}

func inMemory(*rapid.T, int64) statetest.Backing { return nil }

// TestBacking compares the file with a map.
func TestBacking(t *testing.T) {
	open := opener(t)
	rapid.Check(t, func(t *rapid.T) {
		b := open(t, 1000)
		defer b.Close()
		statetest.CheckBacking(t, b)
	})
}

// TestStateOnDisk: a store with most of its state in the file holds what a model
// holds.
func TestStateOnDisk(t *testing.T) {
	open := opener(t)
	rapid.Check(t, func(t *rapid.T) { statetest.Check(t, open) })
}

// TestStateEitherWay: what one backend's snapshots hold restores into the other.
func TestStateEitherWay(t *testing.T) {
	open := opener(t)
	rapid.Check(t, func(t *rapid.T) { statetest.Check(t, inMemory, open) })
}

// TestFull: a file at its limit is an error that says so, from the first call
// that cannot be done on, and never a row less.
func TestFull(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "full.db"), Options{Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var full error
	for i := 0; full == nil && i < 1000; i++ {
		for k := range 100 {
			d.Put(0, []byte{byte(i >> 8), byte(i), byte(k)}, make([]byte, 1000))
		}
		full = d.Sync(t.Context())
	}
	if !errors.Is(full, store.ErrFull) {
		t.Fatalf("100 MB into 1 MB: %v", full)
	}
	if _, err := d.Get(0, []byte{0, 0, 0}); !errors.Is(err, store.ErrFull) {
		t.Errorf("Get afterwards: %v", err)
	}
	if err := d.Scan(0, func(_, _ []byte) error { return nil }); !errors.Is(err, store.ErrFull) {
		t.Errorf("Scan afterwards: %v", err)
	}
	d.Want(0, []byte{0, 0, 0})
	if err := d.Sync(t.Context()); !errors.Is(err, store.ErrFull) {
		t.Errorf("Sync afterwards: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestScratch: a file is made anew, gone when it is closed, and one that was
// left behind does no harm, whatever is in it.
func TestScratch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b.db")
	for _, garbage := range []bool{false, true} {
		if garbage {
			if err := os.WriteFile(path, []byte("an earlier run's"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		d.Put(0, []byte("k"), []byte("v"))
		if v, err := d.Get(0, []byte("k")); err != nil || string(v) != "v" {
			t.Errorf("%q %v", v, err)
		}
		if d.Memory() != DefaultMemory || d.Size() == 0 {
			t.Errorf("memory %d, size %d", d.Memory(), d.Size())
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Close: %v", err)
		}
	}
}
