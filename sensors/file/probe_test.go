package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func probeOf(dir string, fsys store.FS) error {
	placed := sensors.Placed{Node: "a", Nodes: []string{"a"}}
	return Probe(SinkConfig{Path: filepath.Join(dir, "new", "x.csv"), Parallelism: 1, Encoder: newNumbers().csv(), FS: fsys, Placed: placed})
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// What is in the folder that a probe tries stays there, whatever its name, and
// nothing comes to it.
func TestProbeLeavesFilesAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".tidemark-probe", "rows.csv"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("a person's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := probeOf(dir, disk.Shared); err != nil {
		t.Error(err)
	}
	if got := namesIn(t, dir); !slices.Equal(got, []string{".tidemark-probe", "rows.csv"}) {
		t.Errorf("%q are there", got)
	}
}

// What is in the way of a folder is said in the same words each time.
func TestProbeSaysTheSameAgain(t *testing.T) {
	fsys := storetest.New()
	fsys.FailFrom(1, fs.ErrPermission)
	first, again := probeOf("/", fsys), probeOf("/", fsys)
	if !errors.Is(first, fs.ErrPermission) || fmt.Sprint(first) != fmt.Sprint(again) {
		t.Errorf("%v, and then %v", first, again)
	}
}

// taken is a file system in which somebody else is always quicker to make a file.
type taken struct{ store.FS }

func (f taken) Open(name string, flag int) (store.File, error) {
	if flag&os.O_CREATE != 0 {
		if err := os.WriteFile(name, []byte("a person's"), 0o600); err != nil {
			return nil, err
		}
	}
	return f.FS.Open(name, flag)
}

// A file that a probe has not made it does not remove.
func TestProbeRemovesOnlyItsOwn(t *testing.T) {
	dir := t.TempDir()
	if err := probeOf(dir, taken{disk.Shared}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v, want that it exists", err)
	}
	if got := namesIn(t, dir); len(got) != 1 {
		t.Errorf("%q are there, want the one that somebody has made", got)
	}
}
