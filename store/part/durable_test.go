package part_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func TestPutAloneIsDurable(t *testing.T) {
	fs := storetest.New()
	s := open(t, fs, "/a/b/parts")
	p, err := s.Put(storetest.Bytes([]byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	if err := part.View(fs.Crash(0), "/a/b/parts").Verify(p); err != nil {
		t.Error(err)
	}
}

func TestDeleteIsDurable(t *testing.T) {
	l := start(t)
	m := checkpoint(1, []store.Part{l.mustPut(t, "a")})
	if err := errors.Join(l.checks.Put(m), l.checks.Delete(m.Name)); err != nil {
		t.Fatal(err)
	}
	if list, err := part.ViewManifests(l.fs.Crash(0), checksDir).List(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestDeletedManifestDoesNotComeBackWithoutParts: its deletion was not synced
// when the parts went.
func TestDeletedManifestDoesNotComeBackWithoutParts(t *testing.T) {
	l := start(t)
	m := checkpoint(1, []store.Part{l.mustPut(t, "a")})
	if err := l.checks.Put(m); err != nil {
		t.Fatal(err)
	}
	l.s.Unpin(m.Operators[0].Tables[0].Shards[0].Parts[0].Part)
	l.fs.FailAt(2, syscall.EIO) // the sync after the removal
	if err := l.checks.Delete(m.Name); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if c, err := l.s.Collect(l.folders); err != nil || c.Removed != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	for seed := range uint64(10) {
		l.whole(t, l.fs.Crash(seed), fmt.Sprint("seed ", seed))
	}
}

// TestManifestPutAgain: a name that a killed process left is not durable before
// somebody has synced it.
func TestManifestPutAgain(t *testing.T) {
	l := start(t)
	m := checkpoint(1, []store.Part{l.mustPut(t, "a")})
	l.fs.FailFrom(5, syscall.EIO) // created, written, synced, renamed; then nothing works
	if err := l.checks.Put(m); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	l.fs.Heal()
	if _, err := l.checks.Get(m.Name); err != nil {
		t.Fatalf("the test shows nothing: %v", err)
	}
	if err := l.checks.Put(m); err != nil {
		t.Fatal(err)
	}
	if _, err := part.ViewManifests(l.fs.Crash(0), checksDir).Get(m.Name); err != nil {
		t.Error(err)
	}
}

// TestKeepReplaces: who says what is kept may give a name to another manifest. Whatever
// happens in between, one of the two is there, and the new one when Keep has returned.
func TestKeepReplaces(t *testing.T) {
	one := checkpoint(1, []store.Part{storetest.PartOf([]byte("a"))})
	two := checkpoint(1, []store.Part{storetest.PartOf([]byte("b"))})
	look := func(t *testing.T, fs *storetest.FS, when string, may ...manifest.Manifest) {
		t.Helper()
		got, err := part.ViewManifests(fs, checksDir).Get(one.Name)
		if err != nil || !slices.ContainsFunc(may, func(m manifest.Manifest) bool { return manifest.Needed(m)[0] == manifest.Needed(got)[0] }) {
			t.Errorf("%s: %v, %v", when, manifest.Needed(got), err)
		}
	}
	for n := 1; n < 20; n++ {
		l := start(t)
		if err := l.checks.Keep(one); err != nil {
			t.Fatal(err)
		}
		if err := l.checks.Put(two); err == nil {
			t.Fatal("Put replaced it")
		}
		l.fs.FailAt(n, syscall.EIO)
		err := l.checks.Keep(two)
		l.fs.Heal()
		if err == nil {
			if n == 1 {
				t.Error("it was not written")
			}
			look(t, l.fs.Crash(0), "done", two)
			return
		}
		look(t, l.fs, fmt.Sprint("failed at ", n), one, two)
		for seed := range uint64(5) {
			look(t, l.fs.Crash(seed), fmt.Sprint("failed at ", n, ", seed ", seed), one, two)
		}
	}
	t.Error("it cannot be replaced")
}

// TestFailedPutLeavesNothing: also when the part had its name already.
func TestFailedPutLeavesNothing(t *testing.T) {
	for _, size := range []int{1, 100_000} {
		for n := 1; n < 12; n++ {
			l := start(t)
			text := []byte(strings.Repeat("x", size))
			l.fs.FailAt(n, syscall.EIO)
			_, err := l.s.Put(storetest.Bytes(text))
			if err != nil && (l.s.Has(storetest.PartOf(text)) || len(l.fs.Files()) != 0 || l.s.Pinned() != 0) {
				t.Errorf("failed at write %d of %d bytes: %v is there, %d pinned", n, size, l.fs.Files(), l.s.Pinned())
			}
		}
	}
}

// hooked calls functions before removals, and after renames and syncs.
type hooked struct {
	*storetest.FS
	before  func(name string)
	renamed func()
	synced  func(dir string)
}

func (h *hooked) Rename(from, to string) error {
	err := h.FS.Rename(from, to)
	h.renamed()
	return err
}

func (h *hooked) SyncDir(dir string) error {
	err := h.FS.SyncDir(dir)
	h.synced(dir)
	return err
}

func newHooked() *hooked {
	return &hooked{FS: storetest.New(), before: func(string) {}, renamed: func() {}, synced: func(string) {}}
}

func (h *hooked) Remove(name string) error {
	h.before(name)
	return h.FS.Remove(name)
}

// TestPutWhileThePartIsRemoved: it waits for the removal, and writes the part
// again.
func TestPutWhileThePartIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooked()
		s := open(t, h, partsDir)
		p, err := s.Put(storetest.Bytes([]byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		s.Unpin(p)
		done := make(chan error, 1)
		h.before = func(name string) {
			h.before = func(string) {}
			go func() {
				_, err := s.PutAll([]func(io.Writer) error{storetest.Bytes([]byte("x"))})
				done <- err
			}()
			synctest.Wait()
			if len(done) > 0 {
				t.Error("it was put while it was being removed")
			}
		}
		if gone, err := s.Remove(p); err != nil || !gone {
			t.Errorf("%v, %v", gone, err)
		}
		if err := errors.Join(<-done, s.Verify(p)); err != nil {
			t.Error(err)
		}
	})
}

// TestPutWhileItsFolderIsSynced: a name made after the sync of another part is
// not taken for synced with it.
func TestPutWhileItsFolderIsSynced(t *testing.T) {
	first, second := []byte("x"), []byte{}
	for i := 0; len(second) == 0; i++ {
		if text := fmt.Appendf(nil, "%d", i); storetest.PartOf(text).Digest[0] == storetest.PartOf(first).Digest[0] {
			second = text
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHooked()
		s := open(t, h, partsDir)
		goOn, done := make(chan struct{}), make(chan error, 1)
		var once atomic.Bool // folders are synced side by side, and the second part's is the same
		h.synced = func(dir string) {
			if !strings.HasSuffix(dir, storetest.PartOf(first).Digest.String()[:2]) || once.Swap(true) {
				return
			}
			h.renamed = func() { <-goOn }
			go func() {
				_, err := s.Put(storetest.Bytes(second))
				done <- err
			}()
			synctest.Wait() // it has its name
		}
		if _, err := s.Put(storetest.Bytes(first)); err != nil {
			t.Fatal(err)
		}
		close(goOn)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := part.View(h.FS.Crash(0), partsDir).Verify(storetest.PartOf(second)); err != nil {
			t.Error(err)
		}
	})
}

// meanwhile does something once, right before a part gets its name.
type meanwhile struct {
	store.FS
	do func()
}

func (m *meanwhile) Rename(oldname, newname string) error {
	if do := m.do; do != nil {
		m.do = nil
		do()
	}
	return m.FS.Rename(oldname, newname)
}

// TestSyncMeanwhileIsNotOurs: the folder is synced for another part after ours
// has begun to get its name there, and before it has.
func TestSyncMeanwhileIsNotOurs(t *testing.T) {
	disk := storetest.New()
	fs := &meanwhile{FS: disk}
	s := open(t, fs, "/parts")
	byFolder := make(map[string][]byte)
	var a, b []byte
	for i := 0; a == nil; i++ { // two parts of one folder
		text := fmt.Appendf(nil, "part %d", i)
		folder := storetest.PartOf(text).Digest.String()[:2]
		if first := byFolder[folder]; first != nil {
			a, b = first, text
		}
		byFolder[folder] = text
	}
	fs.do = func() {
		if _, err := s.Put(storetest.Bytes(b)); err != nil {
			t.Error(err)
		}
	}
	for _, text := range [][]byte{a, b} {
		p, err := s.Put(storetest.Bytes(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := part.View(disk.Crash(0), "/parts").Verify(p); err != nil {
			t.Errorf("a part that was put is not durable: %v", err)
		}
	}
}

// TestSettle: a name that a killed process left is durable when Settle returns.
func TestSettle(t *testing.T) {
	lost := 0
	for seed := range uint64(10) {
		for _, settle := range []bool{false, true} {
			fs := storetest.New()
			p, err := open(t, fs, "/parts").Put(storetest.Bytes([]byte("x")))
			if err != nil {
				t.Fatal(err)
			}
			name := "/parts/" + p.Digest.String()[:2] + "/" + p.Digest.String() + ".avro"
			if err := errors.Join(fs.Rename(name, "/parts/tmp/1"), fs.SyncDir("/parts/tmp"), fs.SyncDir("/parts/"+p.Digest.String()[:2]), fs.Rename("/parts/tmp/1", name)); err != nil {
				t.Fatal(err)
			}
			s := open(t, fs, "/parts") // the next process
			if settle {
				if err := errors.Join(s.Pin(p), s.Settle(p)); err != nil {
					t.Fatal(err)
				}
			}
			switch err := part.View(fs.Crash(seed), "/parts").Verify(p); {
			case err != nil && settle:
				t.Errorf("seed %d: %v", seed, err)
			case err != nil:
				lost++
			}
		}
	}
	if lost == 0 {
		t.Error("no seed shows what Settle is for")
	}
}
