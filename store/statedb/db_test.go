package statedb

import (
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/statetest"
)

// opener makes a new file for each use.
func opener(t *testing.T) statetest.Open {
	dir := t.TempDir()
	n := 0
	return func(r *rapid.T, memory int64) statetest.Backing {
		n++
		d, err := Open(filepath.Join(dir, string(rune('a'+n%26))+".db", "x", filepath.Base(t.Name())+string(rune('a'+n/26%26))), Options{Memory: memory})
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
