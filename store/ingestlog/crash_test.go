package ingestlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// watchedDisk sees the segments that a log opens for writing.
type watchedDisk struct {
	dir   string
	files map[string]*watched // by name
	fail  func(name string, w storetest.PageWrite) error
}

type watched struct {
	*storetest.Pages
	base []byte // what is durable in it
}

func newDisk(dir string) *watchedDisk {
	return &watchedDisk{dir: dir, files: make(map[string]*watched)}
}

func (d *watchedDisk) open(path string, mode os.FileMode, o *bolt.Options) (*bolt.DB, error) {
	db, err := bolt.Open(path, mode, o)
	if err != nil || o.ReadOnly {
		return db, err
	}
	name := filepath.Base(path)
	base, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	w := &watched{storetest.WatchPages(db), base}
	w.Fail = func(p storetest.PageWrite) error {
		if d.fail == nil {
			return nil
		}
		return d.fail(name, p)
	}
	d.files[name] = w
	return db, nil
}

// durable notes that all that was written is.
func (d *watchedDisk) durable(t *testing.T) {
	for name, w := range d.files {
		w.Take()
		base, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		w.base = base
	}
}

// segments are the bytes of all segments, by name.
func segments(t *testing.T, dir string) map[string][]byte {
	files := make(map[string][]byte)
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
		if strings.HasSuffix(e.Name(), suffix) {
			files[e.Name()] = must[[]byte](t)(os.ReadFile(filepath.Join(dir, e.Name())))
		}
	}
	return files
}

// put makes a folder with files, sparse where they are zero.
func put(t *testing.T, files map[string][]byte) string {
	dir := t.TempDir()
	for name, data := range files {
		f := must[*os.File](t)(os.Create(filepath.Join(dir, name)))
		err := f.Truncate(int64(len(data)))
		zero := make([]byte, 4096)
		for at := 0; at < len(data); at += len(zero) {
			if chunk := data[at:min(at+len(zero), len(data))]; !bytes.Equal(chunk, zero[:len(chunk)]) {
				_, e := f.WriteAt(chunk, int64(at))
				err = errors.Join(err, e)
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// recovers checks that what a crash left holds what was durable before the last
// commit of m, or all of it, and that a log can go on from there.
func (m *model) recovers(t *testing.T, o Options, files map[string][]byte, what string) {
	t.Helper()
	o.Dir, o.OpenDB, o.Events = put(t, files), nil, nil
	defer func() { _ = os.RemoveAll(o.Dir) }()
	l, err := Open(o)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	before := m.before()
	is := before
	if err := before.holds(l); err != nil {
		is = m
		if also := m.holds(l); also != nil {
			t.Fatalf("%s: neither before the commit: %v\nnor behind it: %v", what, err, also)
		}
	}
	if err := is.tails(l, 50); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if len(m.commits)%3 > 0 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	after := &model{lanes: slices.Clone(is.lanes), entries: slices.Clone(is.entries[:is.commits[len(is.commits)-1]]), commits: slices.Clone(is.commits)}
	for i := range after.lanes {
		after.lanes[i] = after.durable(i)
	}
	var r sensors.Records
	r.Reset(0)
	r.AppendMessage([]byte("after"), []byte("crash"), 1)
	after.append(&r)
	after.commit()
	_, err = l.Append(&r)
	if err = errors.Join(err, l.Commit(), l.Close()); err == nil {
		if l, err = Open(o); err == nil {
			err = errors.Join(after.holds(l), l.Close())
		}
	}
	if err != nil {
		t.Fatalf("%s, going on: %v", what, err)
	}
}

func (m *model) before() *model {
	return &model{lanes: m.lanes, entries: m.entries, commits: m.commits[:len(m.commits)-1]}
}

// At every commit of a random run the power fails in many ways: the log holds
// what was acknowledged, or the whole commit besides, never a part of it.
func TestPowerLossAtEveryCommit(t *testing.T) {
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { powerLoss(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func powerLoss(t *testing.T, rnd *rand.Rand) {
	d := newDisk(t.TempDir())
	// The cap lets retention delete before there are 65,536 messages.
	o := Options{Dir: d.dir, Lanes: 3, SegmentBytes: 256 << 10, Retain: Retention{Bytes: 1 << 20}, Cap: 3 << 20, OpenDB: d.open}
	rolled, deleted := 0, 0
	o.Events = func(e Event) {
		switch e.Kind {
		case Rolled:
			rolled++
		case Deleted:
			deleted++
		}
	}
	l := must[*Log](t)(Open(o))
	m := newModel(o.Lanes)
	m.commits = []int{0}
	var r sensors.Records
	now := int64(1_700_000_000_000_000)
	for range 22 {
		for range 1 + rnd.IntN(4) {
			random(&r, rnd, o.Lanes, now)
			if _, err := l.Append(&r); errors.Is(err, store.ErrFull) {
				continue // some are large
			} else if err != nil {
				t.Fatal(err)
			}
			m.append(&r)
			now += int64(rnd.IntN(1000))
		}
		// So much that segments roll.
		r.Reset(rnd.IntN(o.Lanes))
		for i := range 100 + rnd.IntN(100) {
			r.AppendMessage([]byte("bulk"), bytes.Repeat([]byte{byte(i)}, rnd.IntN(2000)), now)
		}
		must[sensors.Position](t)(l.Append(&r))
		m.append(&r)
		d.durable(t)
		before := segments(t, d.dir)
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
		m.commit()
		m.crashes(t, o, d, before, rnd)
	}
	if err := errors.Join(m.holds(l), l.Close()); err != nil {
		t.Fatal(err)
	}
	if rolled < 3 || deleted == 0 {
		t.Errorf("%d segments rolled, %d deleted", rolled, deleted)
	}
}

// crashes makes what the last commit may have left.
func (m *model) crashes(t *testing.T, o Options, d *watchedDisk, before map[string][]byte, rnd *rand.Rand) {
	names := slices.Sorted(maps.Keys(d.files))
	last := names[len(names)-1]
	if strings.HasSuffix(last, newSuffix) {
		last = names[len(names)-2]
	}
	w := d.files[last]
	writes := w.Take()
	if _, was := before[last]; !was {
		// It was made by this commit: half made, whole without a name, whole.
		half := maps.Clone(before)
		half[last+newSuffix] = w.base[:rnd.IntN(len(w.base))]
		m.recovers(t, o, half, "a segment half made")
		half[last+newSuffix] = w.base
		m.recovers(t, o, half, "a segment without its name")
		before[last] = w.base
		m.recovers(t, o, before, "a new segment")
	}
	for i := range 2 {
		files := maps.Clone(before)
		files[last], _ = storetest.PageImage(w.base, writes, rnd)
		m.recovers(t, o, files, fmt.Sprintf("power loss %d in %s", i, last))
	}
	// Then retention deletes, one by one.
	files := maps.Clone(before)
	now := segments(t, d.dir)
	files[last] = now[last]
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, is := now[name]; !is {
			delete(files, name)
			m.recovers(t, o, files, "retention has deleted "+name)
		}
	}
}

// Each write of a commit fails once, and each sync: the disk is full, or broken.
// Nothing of the commit is seen or lost, and the next one does it all.
func TestEveryWriteFailsOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		full bool
	}{{"disk full", syscall.ENOSPC, true}, {"i/o error", syscall.EIO, false}} {
		t.Run(c.name, func(t *testing.T) {
			for roll := range 2 {
				for at := 0; failing(t, c.err, c.full, roll == 1, func(d *watchedDisk) func() bool {
					n, failed := 0, false
					d.fail = func(string, storetest.PageWrite) error {
						if n++; n > at {
							failed = true
							return c.err
						}
						return nil
					}
					return func() bool { return failed }
				}); at++ {
					if at > 100 {
						t.Fatal("no commit has a hundred writes")
					}
				}
			}
		})
	}
}

func TestEverySyncFailsOnce(t *testing.T) {
	for _, meta := range []bool{false, true} {
		failing(t, nil, false, false, func(d *watchedDisk) func() bool {
			failed := false
			for _, w := range d.files {
				w.FailSync = func(p storetest.PageWrite) bool {
					is := p.Meta() == meta
					failed = failed || is
					return is
				}
			}
			return func() bool { return failed }
		})
	}
}

// failing does a commit that breaks; false: it did not, since it had no more
// steps that could.
func failing(t *testing.T, kind error, full, roll bool, breaks func(*watchedDisk) func() bool) bool {
	d := newDisk(t.TempDir())
	o := Options{Dir: d.dir, Lanes: 2, OpenDB: d.open}
	if roll {
		o.SegmentBytes = 1
	}
	l := must[*Log](t)(Open(o))
	m := newModel(2)
	rnd := rand.New(rand.NewPCG(5, 5))
	var r sensors.Records
	add := func(n int) {
		for range n {
			random(&r, rnd, 2, int64(len(m.entries)))
			must[sensors.Position](t)(l.Append(&r))
			m.append(&r)
		}
	}
	add(10)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	m.commit()
	add(10)
	was := states(l)
	failed := breaks(d)
	err := l.Commit()
	if !failed() {
		if err != nil {
			t.Fatal(err)
		}
		return false
	}
	if err == nil || full != errors.Is(err, store.ErrFull) || kind != nil && !errors.Is(err, kind) {
		t.Fatalf("the commit returns %v", err)
	}
	for _, w := range d.files {
		w.Restore()
		w.FailSync = nil
	}
	if now := states(l); !slices.Equal(now, was) {
		t.Fatalf("lanes are %v, were %v", now, was)
	}
	if err := m.holds(l); err != nil {
		t.Fatalf("after the failure: %v", err)
	}
	behind := &model{lanes: m.lanes, entries: m.entries, commits: append(slices.Clone(m.commits), len(m.entries))}
	behind.recovers(t, o, segments(t, d.dir), "killed after the failure")
	add(5) // more comes meanwhile
	if err := l.Commit(); err == nil && d.fail != nil {
		t.Fatal("a commit on a disk that fails")
	}
	d.fail = nil
	if err := l.Commit(); err != nil {
		t.Fatalf("when the disk is back: %v", err)
	}
	m.commit()
	if err := m.holds(l); err != nil {
		t.Fatal(err)
	}
	add(5)
	if err := errors.Join(l.Commit(), l.Close()); err != nil {
		t.Fatal(err)
	}
	m.commit()
	l = must[*Log](t)(Open(o))
	// What was written again is there once; its blocks may be cut otherwise.
	if err := errors.Join(m.holds(l), l.Close()); err != nil {
		t.Fatal(err)
	}
	return true
}

// states is the state of all lanes.
func states(l *Log) []LaneState {
	var s []LaneState
	for i := range l.Lanes() {
		s = append(s, l.Lane(i))
	}
	return s
}
