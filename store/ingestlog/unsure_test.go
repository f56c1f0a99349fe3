package ingestlog

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// platter is what the disk has of segments, where the system's memory shows more: a
// sync that fails leaves pages that count as written, and no later sync writes them.
type platter struct {
	store.FS
	files map[string][]byte // by name
	begun []storetest.PageWrite
	fail  error // of syncs
}

// behind is a platter with all that is in the segments now, but for the writes to the
// meta pages of one of them since its base.
func behind(t *testing.T, d *watchedDisk, name string) *platter {
	p := &platter{FS: disk.Shared, files: segments(t, d.dir)}
	w := d.files[name]
	for i := range 2 {
		at := i * len(metaPage(w.base, 0))
		copy(p.files[name][at:], metaPage(w.base, at))
	}
	return p
}

func metaPage(file []byte, at int) []byte { return file[at:][:os.Getpagesize()] }

func (p *platter) Open(name string, flag int) (store.File, error) {
	f, err := p.FS.Open(name, flag)
	if err != nil || filepath.Ext(name) != suffix {
		return f, err
	}
	return &platterFile{File: f, p: p, name: filepath.Base(name)}, nil
}

type platterFile struct {
	store.File
	p     *platter
	name  string
	dirty []storetest.PageWrite
}

func (f *platterFile) WriteAt(b []byte, at int64) (int, error) {
	w := storetest.PageWrite{At: at, Data: slices.Clone(b)}
	f.dirty = append(f.dirty, w)
	f.p.begun = append(f.p.begun, w)
	return f.File.WriteAt(b, at)
}

func (f *platterFile) Sync() error {
	dirty := f.dirty
	f.dirty = nil
	if f.p.fail != nil {
		return f.p.fail
	}
	for _, w := range dirty {
		copy(f.p.files[f.name][w.At:], w.Data)
	}
	return f.File.Sync()
}

// ends is where the log ends that is found after the power failed.
func ends(t *testing.T, files map[string][]byte) int64 {
	t.Helper()
	l, err := Open(Options{Dir: put(t, files)})
	if err != nil {
		t.Error(err)
		return -1
	}
	_, end := l.End()
	if err := errors.Join(l.verify(l.last()), l.Close()); err != nil {
		t.Error(err)
	}
	return end
}

// unsure is a log of three groups of a message, of which the sync of the last one's meta
// failed. goOn writes that again, into another segment. It is closed.
func unsure(t *testing.T, goOn bool) (*watchedDisk, *platter, Options) {
	t.Helper()
	const name = "0000000001.log"
	d := newDisk(t.TempDir())
	o := Options{Dir: d.dir, Lanes: 1, OpenDB: d.open}
	l := must[*Log](t)(Open(o))
	if err := l.Lead(1); err != nil {
		t.Fatal(err)
	}
	var r sensors.Records
	for i, text := range []string{"a", "b", "c"} {
		d.durable(t)
		if i == 2 {
			d.files[name].FailSync = storetest.PageWrite.Meta
		}
		r.Reset(0)
		r.AppendMessage(nil, []byte(text), 1)
		must[sensors.Position](t)(l.Append(&r))
		if err := l.Commit(); (err != nil) != (i == 2) {
			t.Fatalf("commit %d: %v", i, err)
		}
	}
	d.files[name].Restore()
	d.files[name].FailSync = nil
	p := behind(t, d, name)
	if goOn {
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
		now := segments(t, d.dir)
		now[name] = p.files[name]
		p.files = now
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return d, p, o
}

// The sync of a commit's meta fails, and the log is opened again while the machine goes
// on: the system shows the commit. What the log says then is on the disk.
func TestWhatAFailedSyncLeftIsDurableWhenTheLogIsOpenedAgain(t *testing.T) {
	_, p, o := unsure(t, false)
	if end := ends(t, p.files); end != 2 {
		t.Fatalf("before, the disk has %d entries", end)
	}
	const name = "0000000001.log"
	before := slices.Clone(p.files[name])
	// It fails once more.
	o.FS, o.OpenDB, p.fail = p, nil, syscall.EIO
	if l, err := Open(o); !errors.Is(err, syscall.EIO) {
		t.Errorf("a log is opened whose disk fails: %v", err)
		_ = l.Close()
	}
	p.fail, p.begun = nil, nil
	l := must[*Log](t)(Open(o))
	_, end := l.End()
	if after := ends(t, p.files); after != end {
		t.Errorf("the log says that it durably ends with %d; after a power loss it ends with %d", end, after)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The power fails while it is opened.
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		files := maps.Clone(p.files)
		files[name], _ = storetest.PageImage(before, p.begun, rnd)
		if end := ends(t, files); end != 2 && end != 3 {
			t.Fatalf("the power fails while it is opened: it ends with %d", end)
		}
	}
}

// A cut goes back into a segment whose last sync failed. What is before it stays,
// whenever the power fails.
func TestACutIntoASegmentWhoseSyncFailed(t *testing.T) {
	d, p, o := unsure(t, true)
	const name, next = "0000000001.log", "0000000002.log"
	o.FS = p
	l := must[*Log](t)(Open(o))
	if _, end := l.End(); end != 3 || len(l.segs) != 2 {
		t.Fatalf("it ends with %d, in %d segments", end, len(l.segs))
	}
	delete(d.files, name)
	if end, err := l.CutTo(1); err != nil || end != 1 {
		t.Fatal(end, err)
	}
	base := p.files[name]
	writes := d.files[name].Take()
	if len(writes) == 0 || bytes.Equal(base, segments(t, d.dir)[name]) {
		t.Fatal("nothing was cut")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	delete(p.files, next)
	rnd := rand.New(rand.NewPCG(2, 2))
	for range 50 {
		files := maps.Clone(p.files)
		files[name], _ = storetest.PageImage(base, writes, rnd)
		if end := ends(t, files); end < 1 {
			t.Fatalf("the power fails while it is cut: it ends with %d", end)
		}
	}
}
