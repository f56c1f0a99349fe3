package disk_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// Power goes off at each step of a replacement: the file has what it had or what
// it was to have, and the new content if Replace returned. The next one finds
// nothing in its way.
func TestReplacePowerCut(t *testing.T) {
	was, is := []byte("what it had, which is longer"), []byte("what it gets")
	for _, first := range []bool{true, false} {
		for at, done := 1, false; !done; at++ {
			fsys := storetest.New()
			if err := disk.MkdirAll(fsys, "/d"); err != nil {
				t.Fatal(err)
			}
			if !first {
				if err := disk.Replace(fsys, "/d/f", was); err != nil {
					t.Fatal(err)
				}
			}
			fsys.PowerOffAt(at)
			err := disk.Replace(fsys, "/d/f", is)
			if done = !fsys.Off(); done && err != nil || !done && err == nil {
				t.Fatalf("step %d: %v", at, err)
			}
			for seed := range uint64(40) {
				after := fsys.Crash(seed)
				got, missing := disk.Read(after, "/d/f", 100)
				switch {
				case string(got) == string(is):
				case !done && first && errors.Is(missing, fs.ErrNotExist):
				case !done && !first && string(got) == string(was):
				default:
					t.Fatalf("step %d, seed %d: %q, %v", at, seed, got, missing)
				}
				if err := disk.Replace(after, "/d/f", is); err != nil {
					t.Fatalf("step %d, seed %d, again: %v", at, seed, err)
				}
				if files := after.Files(); len(files) != 1 {
					t.Fatalf("step %d, seed %d: %v", at, seed, files)
				}
			}
		}
	}
}

// Each step fails once: the file has either content, and nothing else is left.
func TestReplaceFails(t *testing.T) {
	for at := 1; ; at++ {
		fsys := storetest.New()
		if err := errors.Join(fsys.MkdirAll("/d"), disk.Replace(fsys, "/d/f", []byte("was"))); err != nil {
			t.Fatal(err)
		}
		before := fsys.Ops()
		fsys.FailAt(at, syscall.ENOSPC)
		err := disk.Replace(fsys, "/d/f", []byte("is"))
		if fsys.Ops() < before+at {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		got, _ := disk.Read(fsys, "/d/f", 100)
		if !errors.Is(err, store.ErrFull) || string(got) != "was" && string(got) != "is" || len(fsys.Files()) != 1 {
			t.Errorf("step %d: %v, %q, %v", at, err, got, fsys.Files())
		}
	}
}

// What cannot be written leaves the file as it was.
func TestReplaceWithFails(t *testing.T) {
	fsys, broken := storetest.New(), errors.New("broken")
	if err := disk.Replace(fsys, "/f", []byte("was")); err != nil {
		t.Fatal(err)
	}
	err := disk.ReplaceWith(fsys, "/f", func(w io.Writer) error {
		_, err := io.WriteString(w, "a part")
		return errors.Join(err, broken)
	})
	if got, _ := disk.Read(fsys, "/f", 3); !errors.Is(err, broken) || string(got) != "was" {
		t.Errorf("%v, %q", err, got)
	}
	if _, err := disk.Read(fsys, "/f", 2); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a file that is too long: %v", err)
	}
}

// A folder outlives a power cut when MkdirAll has returned, also one whose names
// were there and not durable.
func TestMkdirAllPowerCut(t *testing.T) {
	fsys := storetest.New()
	if err := fsys.MkdirAll("/a/b"); err != nil {
		t.Fatal(err)
	}
	if err := disk.MkdirAll(fsys, "/a/b/c"); err != nil {
		t.Fatal(err)
	}
	if info, err := fsys.Crash(0).Stat("/a/b/c"); err != nil || !info.IsDir() {
		t.Error(err)
	}
}

func TestRemoveAll(t *testing.T) {
	dir := t.TempDir()
	for _, fsys := range []store.FS{disk.Group, storetest.New()} {
		gone, kept := filepath.Join(dir, "gone"), filepath.Join(dir, "kept")
		if err := errors.Join(fsys.MkdirAll(filepath.Join(gone, "a", "b")), fsys.MkdirAll(kept),
			disk.Replace(fsys, filepath.Join(gone, "a", "f"), nil), disk.Replace(fsys, filepath.Join(kept, "f"), nil)); err != nil {
			t.Fatal(err)
		}
		if fsys == disk.Group && runtime.GOOS != "windows" {
			if err := os.Symlink(kept, filepath.Join(gone, "link")); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(disk.RemoveAll(fsys, gone), disk.RemoveAll(fsys, gone)); err != nil {
			t.Error(err)
		}
		if _, err := fsys.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
		if _, err := fsys.Stat(filepath.Join(kept, "f")); err != nil {
			t.Errorf("behind a link: %v", err)
		}
	}
}

// Files, and the folders around them, are for those that the mode names; one that
// a crash left with another mode is not gone on with.
func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	for d, folder := range map[disk.FS]fs.FileMode{disk.Secret: 0o700, disk.Group: 0o750, disk.Shared: 0o755} {
		dir := filepath.Join(t.TempDir(), "d")
		name := filepath.Join(dir, "f")
		if err := disk.MkdirAll(d, dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name+disk.Temp, []byte("left behind"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := disk.Replace(d, name, nil); err != nil {
			t.Fatal(err)
		}
		for n, most := range map[string]fs.FileMode{dir: folder, name: fs.FileMode(d)} { // the umask may take some
			info, err := d.Stat(n)
			if err != nil {
				t.Fatal(err)
			}
			if mode := info.Mode().Perm(); mode&^most != 0 || mode&0o600 != 0o600 {
				t.Errorf("%s: %v, want %v", n, mode, most)
			}
		}
	}
}

func TestFull(t *testing.T) {
	words := fmt.Errorf("file resize error: %s", syscall.ENOSPC.Error())
	for _, err := range []error{syscall.ENOSPC, syscall.EDQUOT, &fs.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}, words, store.ErrFull} {
		if full := disk.Full(err); !errors.Is(full, store.ErrFull) || !errors.Is(full, err) || !strings.Contains(full.Error(), err.Error()) {
			t.Errorf("%v: %v", err, full)
		}
	}
	if disk.Full(nil) != nil || disk.Full(syscall.EIO) != error(syscall.EIO) {
		t.Error("what is not full")
	}
}
