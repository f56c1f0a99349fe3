package part_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func start(t testing.TB) *life {
	t.Helper()
	l, err := begin(storetest.New())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func path(p store.Part) string {
	return fmt.Sprintf("%s/%s/%v.avro", partsDir, p.Digest.String()[:2], p.Digest)
}

func (l *life) mustPut(t testing.TB, text string) store.Part {
	t.Helper()
	p, err := l.s.Put(storetest.Bytes([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDamagedPartIsNamedAndHealed(t *testing.T) {
	text := strings.Repeat("rows ", 50_000)
	for name, damage := range map[string]func([]byte) []byte{
		"a flipped bit": func(b []byte) []byte { b[77_777] ^= 1; return b },
		"cut short":     func(b []byte) []byte { return b[:100_000] },
		"too long":      func(b []byte) []byte { return append(b, 'x') },
		"empty":         func([]byte) []byte { return nil },
	} {
		l := start(t)
		p := l.mustPut(t, text)
		if err := l.fs.Damage(path(p), damage); err != nil {
			t.Fatal(err)
		}
		_, err := storetest.ReadPart(l.s, p)
		if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), path(p)) {
			t.Errorf("%s: error %v", name, err)
		}
		if err := l.s.Verify(p); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: verified with %v", name, err)
		}
		l.mustPut(t, text)
		img := l.fs.Crash(0)
		if err := part.View(img, partsDir).Verify(p); err != nil {
			t.Errorf("%s: put again, and %v", name, err)
		}
	}
}

// Whose folders are removed while it runs can write again, and what it wrote is
// durable.
func TestFoldersRemovedUnderAStore(t *testing.T) {
	gone := map[string]func(dir string, p store.Part) string{
		"all":                func(dir string, _ store.Part) string { return dir },
		"temporary files":    func(dir string, _ store.Part) string { return filepath.Join(dir, "tmp") },
		"the part's own one": func(dir string, p store.Part) string { return filepath.Join(dir, p.Digest.String()[:2]) },
	}
	for name, which := range gone {
		dir := filepath.Join(t.TempDir(), "parts")
		s, err := part.Open(disk.Group, dir)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			p, err := s.Put(storetest.Bytes([]byte("rows")))
			if err == nil {
				err = s.Verify(p)
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := os.RemoveAll(which(dir, p)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A part that cannot be written is not a part that is missing: who fetches it would
// else lay it to the node that sent it.
func TestUnwritablePartIsNotMissing(t *testing.T) {
	l := start(t)
	l.fs.FailFrom(1, os.ErrNotExist)
	if _, err := l.s.Put(storetest.Bytes([]byte("rows"))); err == nil || errors.Is(err, store.ErrMissing) {
		t.Errorf("error %v", err)
	}
}

func TestReadErrorsAreNotDamage(t *testing.T) {
	l := start(t)
	p := l.mustPut(t, "x")
	l.fs.FailReads(syscall.EIO)
	if _, err := storetest.ReadPart(l.s, p); !errors.Is(err, syscall.EIO) || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("error %v", err)
	}
}

func TestPutAll(t *testing.T) {
	l := start(t)
	mine := errors.New("mine")
	var writes []func(io.Writer) error
	for i := range 20 {
		writes = append(writes, storetest.Bytes(fmt.Appendf(nil, "part %d", i/2)))
	}
	parts, err := l.s.PutAll(writes)
	if err != nil || len(parts) != 20 || parts[0] != parts[1] || parts[3] != storetest.PartOf([]byte("part 1")) {
		t.Fatalf("%v, %v", parts, err)
	}
	l.s.Unpin(parts...)
	if l.s.Pinned() != 0 {
		t.Errorf("%d parts pinned", l.s.Pinned())
	}
	before := len(l.fs.Files())
	writes[7] = func(io.Writer) error { return mine }
	writes[8] = storetest.Bytes([]byte("new"))
	if _, err := l.s.PutAll(writes); err != mine {
		t.Errorf("error %v", err)
	}
	if n := len(l.fs.Files()); n != before || l.s.Pinned() != 0 {
		t.Errorf("%d files, were %d; %d parts pinned", n, before, l.s.Pinned())
	}
	if none, err := l.s.PutAll(nil); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
}

// TestFailedPutLeavesOthersParts: a part that somebody else has put meanwhile,
// or that was there, is not taken back.
func TestFailedPutLeavesOthersParts(t *testing.T) {
	l := start(t)
	p := l.mustPut(t, "kept")
	for n := 1; n < 20; n++ {
		l.fs.FailAt(n, syscall.EIO)
		_, err := l.s.PutAll([]func(io.Writer) error{storetest.Bytes([]byte("kept")), storetest.Bytes(fmt.Appendf(nil, "new %d", n))})
		l.fs.Heal()
		if err != nil && l.s.Verify(p) != nil {
			t.Fatalf("the part is gone after a failure at write %d", n)
		}
	}
}

func TestCollectKeepsWhatIsPinned(t *testing.T) {
	l := start(t)
	put := l.mustPut(t, "put")
	old := l.mustPut(t, "old")
	l.s.Unpin(old)
	if err := l.s.Pin(storetest.PartOf([]byte("nobody"))); !errors.Is(err, store.ErrMissing) {
		t.Errorf("pinned what is not there: %v", err)
	}
	if err := l.s.Pin(old); err != nil {
		t.Fatal(err)
	}
	collect := func(removed int) {
		t.Helper()
		c, err := l.s.Collect(l.folders)
		if err != nil || c.Removed != removed {
			t.Errorf("%+v, %v, want %d removed", c, err, removed)
		}
	}
	collect(0)
	l.s.Unpin(old)
	collect(1)
	l.s.Unpin(put)
	if gone, err := l.s.Remove(put); err != nil || !gone || l.s.Has(put) {
		t.Errorf("%v, %v", gone, err)
	}
	collect(0)
}

// TestCollectionAndNewManifests: parts put, pinned or named in a new manifest
// while a collection reads the manifests are kept, though it has not seen them.
func TestCollectionAndNewManifests(t *testing.T) {
	l := start(t)
	first := checkpoint(1, []store.Part{l.mustPut(t, "shared")})
	if err := l.checks.Put(first); err != nil {
		t.Fatal(err)
	}
	l.s.Unpin(manifest.Needed(first)...)
	early := l.mustPut(t, "put before, named and unpinned after the manifests were read")
	saves, err := part.OpenManifests(l.s, savesDir)
	if err != nil {
		t.Fatal(err)
	}
	sp := checkpoint(1, manifest.Needed(first))
	sp.Kind, sp.Name = manifest.Savepoint, "sp"
	_, err = l.s.Collect(func() ([]*part.Manifests, error) {
		// The savepoint takes the checkpoint's part over, and the checkpoint goes:
		// the collection sees neither.
		if err := saves.Put(sp); err != nil {
			return nil, err
		}
		if err := l.checks.Delete(first.Name); err != nil {
			return nil, err
		}
		second := checkpoint(2, []store.Part{early, l.mustPut(t, "put meanwhile")})
		if err := saves.Put(second); err != nil {
			return nil, err
		}
		l.s.Unpin(manifest.Needed(second)...)
		return []*part.Manifests{l.checks}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := saves.List()
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, e := range list {
		for _, p := range manifest.Needed(e.Manifest) {
			if err := l.s.Verify(p); err != nil {
				t.Errorf("%s: %v", e.Name, err)
			}
		}
	}
	if _, err := l.s.Collect(func() ([]*part.Manifests, error) {
		_, err := l.s.Collect(l.folders)
		if err == nil {
			t.Error("two collections at a time")
		}
		return l.folders()
	}); err != nil {
		t.Error(err)
	}
}

// TestManyPutsAndCollections: whatever the order, a manifest that is stored has
// its parts.
func TestManyPutsAndCollections(t *testing.T) {
	l := start(t)
	var jobs, sweeper sync.WaitGroup
	done := make(chan struct{})
	sweeper.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := l.s.Collect(l.folders); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for j := range 3 {
		checks, err := part.OpenManifests(l.s, fmt.Sprintf("/state/jobs/j%d/checkpoints", j))
		if err != nil {
			t.Fatal(err)
		}
		jobs.Go(func() {
			last := ""
			for n := range 60 {
				parts, err := l.s.PutAll([]func(io.Writer) error{
					storetest.Bytes(fmt.Appendf(nil, "of all %d", n%3)), storetest.Bytes(fmt.Appendf(nil, "of %d %d", j, n))})
				if err != nil {
					t.Error(err)
					return
				}
				m := checkpoint(n, parts)
				if err := checks.Put(m); err != nil {
					t.Error(err)
				}
				l.s.Unpin(parts...)
				if last != "" {
					if err := checks.Delete(last); err != nil {
						t.Error(err)
					}
				}
				last = m.Name
				for _, p := range parts {
					if err := l.s.Verify(p); err != nil {
						t.Errorf("job %d, checkpoint %d: %v", j, n, err)
					}
				}
			}
		})
	}
	jobs.Wait()
	close(done)
	sweeper.Wait()
	if c, err := l.s.Collect(l.folders); err != nil || c.Kept != 4 || l.s.Pinned() != 0 {
		t.Errorf("%+v, %v, %d pinned", c, err, l.s.Pinned())
	}
}

func TestManifests(t *testing.T) {
	l := start(t)
	parts := []store.Part{l.mustPut(t, "a"), l.mustPut(t, "b")}
	var names []string
	for _, n := range []int{10, 9, 2} {
		if err := l.checks.Put(checkpoint(n, parts)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.checks.Put(checkpoint(9, parts)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	other := checkpoint(9, parts)
	other.Job = "other"
	if err := l.checks.Put(other); err == nil || !strings.Contains(err.Error(), "another manifest has this name") {
		t.Errorf("another of the same name: %v", err)
	}
	if err := l.checks.Put(checkpoint(3, []store.Part{parts[0], storetest.PartOf([]byte("gone"))})); !errors.Is(err, store.ErrMissing) {
		t.Errorf("a part that is not there: %v", err)
	}
	file := func(n int) string { return fmt.Sprintf("%s/chk-1-%d.manifest", checksDir, n) }
	if err := l.fs.Damage(file(9), func(b []byte) []byte { return b[:len(b)/2] }); err != nil {
		t.Fatal(err)
	}
	list, err := l.checks.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name)
		if (e.Err != nil) != (e.Name == "chk-1-9") || e.Err != nil && (!errors.Is(e.Err, store.ErrCorrupt) || !strings.Contains(e.Err.Error(), file(9))) {
			t.Errorf("%s: %v", e.Name, e.Err)
		}
	}
	if got := strings.Join(names, " "); got != "chk-1-2 chk-1-10 chk-1-9" {
		t.Errorf("listed %s", got)
	}
	l.s.Unpin(parts...)
	if _, err := l.s.Collect(l.folders); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "chk-1-9") {
		t.Errorf("collected beside a damaged manifest: %v", err)
	}
	if err := l.checks.Put(checkpoint(9, parts)); err != nil {
		t.Errorf("put in place of a damaged one: %v", err)
	}
	if m, err := l.checks.Get("chk-1-9"); err != nil || m.Job != "j" {
		t.Errorf("%v, %v", m, err)
	}
	for name, want := range map[string]error{"chk-1-7": store.ErrMissing} {
		if _, err := l.checks.Get(name); !errors.Is(err, want) {
			t.Errorf("get: %v", err)
		}
		if err := l.checks.Delete(name); !errors.Is(err, want) {
			t.Errorf("delete: %v", err)
		}
	}
	for _, name := range []string{"../j", "", ".hidden"} {
		if _, err := l.checks.Get(name); err == nil {
			t.Errorf("got %q", name)
		}
		if err := l.checks.Delete(name); err == nil {
			t.Errorf("deleted %q", name)
		}
	}
	if list, err := part.ViewManifests(l.fs, "/nowhere").List(); err != nil || list != nil {
		t.Errorf("%v, %v", list, err)
	}
}

// A checkpoint becomes a savepoint, the same one each time, and none has a name like
// a checkpoint's.
func TestImportOfACheckpoint(t *testing.T) {
	l, o := start(t), start(t)
	m := checkpoint(4, []store.Part{l.mustPut(t, "a")})
	var file bytes.Buffer
	if err := part.Export(&file, m, l.s); err != nil {
		t.Fatal(err)
	}
	var names []string
	for range 2 {
		got, err := part.Import(bytes.NewReader(file.Bytes()), o.checks, "")
		if err != nil || got.Kind != manifest.Savepoint || !strings.HasPrefix(got.Name, "sp-") || got.ID != m.ID {
			t.Errorf("%+v, %v", got, err)
		}
		names = append(names, got.Name)
	}
	if list, err := o.checks.List(); err != nil || len(list) != 1 || names[0] != names[1] {
		t.Errorf("there are %v, %v; names %v", list, err, names)
	}
	if _, err := part.Import(bytes.NewReader(file.Bytes()), o.checks, "chk-1-4"); err == nil {
		t.Error("a savepoint has the name of a checkpoint")
	}
}

func TestExportImport(t *testing.T) {
	l := start(t)
	large := strings.Repeat("x", 300_000)
	m := checkpoint(4, []store.Part{l.mustPut(t, "a"), l.mustPut(t, large), l.mustPut(t, "a")})
	m.Kind, m.Name = manifest.Savepoint, "sp-4"
	var file, again bytes.Buffer
	if err := errors.Join(part.Export(&file, m, l.s), part.Export(&again, m, l.s)); err != nil || !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Fatalf("%v, or other bytes", err)
	}
	o := start(t)
	got, err := part.Import(bytes.NewReader(file.Bytes()), o.checks, "")
	if err != nil || got.Name != m.Name {
		t.Fatal(got, err)
	}
	if _, err := part.Import(bytes.NewReader(file.Bytes()), o.checks, "copy"); err != nil {
		t.Fatal(err)
	}
	back, err := o.checks.Get(m.Name)
	if err != nil {
		t.Fatal(err)
	}
	again.Reset()
	if err := part.Export(&again, back, o.s); err != nil || !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Errorf("it does not come back as it was: %v", err)
	}
	if o.s.Pinned() != 0 {
		t.Errorf("%d parts are pinned", o.s.Pinned())
	}
	for n := 0; n < file.Len()-1024-512; n += 4999 { // behind it only padding is missing
		l := start(t)
		if _, err := part.Import(bytes.NewReader(file.Bytes()[:n]), l.checks, ""); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
		if list, err := l.checks.List(); err != nil || len(list) != 0 || l.s.Pinned() != 0 {
			t.Fatalf("cut to %d bytes: %v, %v, %d pinned", n, list, err, l.s.Pinned())
		}
	}
	for at := 300; at < file.Len()-1024; at += 4999 {
		spoilt := bytes.Clone(file.Bytes())
		if spoilt[at] ^= 1; spoilt[at]^1 == 0 {
			continue // padding
		}
		l := start(t)
		if _, err := part.Import(bytes.NewReader(spoilt), l.checks, ""); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("a flipped bit in byte %d: %v", at, err)
		}
	}
	if err := o.fs.Damage(path(storetest.PartOf([]byte(large))), func(b []byte) []byte { b[5]++; return b }); err != nil {
		t.Fatal(err)
	}
	if err := part.Export(io.Discard, m, o.s); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a damaged part was exported: %v", err)
	}
}

func TestImportOnAFullDisk(t *testing.T) {
	l := start(t)
	m := checkpoint(4, []store.Part{l.mustPut(t, "a"), l.mustPut(t, strings.Repeat("x", 100_000))})
	var file bytes.Buffer
	if err := part.Export(&file, m, l.s); err != nil {
		t.Fatal(err)
	}
	o := start(t)
	o.fs.SetCapacity(50_000)
	if _, err := part.Import(bytes.NewReader(file.Bytes()), o.checks, ""); !errors.Is(err, store.ErrFull) {
		t.Errorf("error %v", err)
	}
	o.fs.Heal()
	if _, err := part.Import(bytes.NewReader(file.Bytes()), o.checks, ""); err != nil {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	l, err := part.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.LockDir(dir); !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = part.LockDir(dir); err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, disk.Group, dir)
	want := make(map[store.Part]bool)
	for i := range 300 {
		p, err := s.Put(storetest.Bytes(fmt.Appendf(nil, "%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		want[p] = true
	}
	for _, name := range []string{"readme", "00/readme", "tmp/17"} { // not ours
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	last := ""
	err := s.Walk(func(p store.Part) error {
		if !want[p] || p.Digest.String() < last {
			t.Errorf("%v of %d bytes, after %s", p.Digest, p.Size, last)
		}
		delete(want, p)
		last = p.Digest.String()
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v, %d not seen", err, len(want))
	}
	open(t, disk.Group, dir)
	if _, err := os.Stat(filepath.Join(dir, "tmp/17")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1, 10, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := open(b, disk.Group, b.TempDir())
			i := 0
			for b.Loop() {
				var writes []func(io.Writer) error
				for range n {
					i++
					writes = append(writes, storetest.Bytes(fmt.Appendf(nil, "%2000d", i)))
				}
				if _, err := s.PutAll(writes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("10 one by one", func(b *testing.B) {
		s := open(b, disk.Group, b.TempDir())
		i := 0
		for b.Loop() {
			for range 10 {
				i++
				if _, err := s.Put(storetest.Bytes(fmt.Appendf(nil, "%2000d", i))); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
