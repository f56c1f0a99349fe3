package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// text is a file's bytes; a file that is not there has none.
func text(t rapid.TB, fsys store.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if len(b) == 0 {
		return ""
	}
	if n, err := f.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	return string(b)
}

func durable(fsys store.FS, path string, subtask, parallelism int, e Encoder) SinkConfig {
	return SinkConfig{Path: path, Subtask: subtask, Parallelism: parallelism, Durable: true, Encoder: e, FS: fsys, MaxPending: 1000}
}

func TestTransactionalSuite(t *testing.T) {
	const path = "/out/deep/rows.csv"
	sensortest.Transactional(t, sensortest.TransactionalCase{Open: func(*testing.T) sensortest.World {
		fsys := storetest.New()
		return sensortest.World{
			Start: func(t rapid.TB, subtask, parallelism int) sensors.Transactional {
				s, err := OpenSink(durable(fsys, path, subtask, parallelism, encode.NewCSV(sensortest.WriterSchema(), encode.Options{})))
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Visible: func(t rapid.TB, _ int) []int64 {
				var out []int64
				for _, name := range fsys.Files() {
					if strings.HasPrefix(filepath.Base(name), ".") {
						continue
					}
					body := text(t, fsys, name)
					if body == "" {
						continue
					}
					lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
					if lines[0] != "name,n" || !strings.HasSuffix(body, "\n") {
						t.Fatalf("%s begins with %q, ends with %q", name, lines[0], body[max(0, len(body)-10):])
					}
					for _, l := range lines[1:] {
						var k, n int64
						if _, err := fmt.Sscanf(l, "row-%d,%d", &k, &n); err != nil || k != n {
							t.Fatalf("%s: line %q", name, l)
						}
						out = append(out, n)
					}
				}
				return out
			},
		}
	}})
}

func id(n uint64) dataflow.CheckpointID { return dataflow.CheckpointID{Counter: n} }

// life runs a job with a file sink of n checkpoints on fsys, from what held
// says (nil: a fresh start) to the end or the first error. Each checkpoint has
// a delta, two are left to wait, the spill file is used. It tells each
// checkpoint that completed to done before the sink hears of it.
type life struct {
	fsys        *storetest.FS
	checkpoints uint64
	done        func(c kept)
	overwrite   bool
	full        int // how often there was no room; it is made each time
}

// patient does f until there is room for it.
func (l *life) patient(f func() error) error {
	err := f()
	for errors.Is(err, sensors.ErrFull) && l.full < 100 {
		l.full++
		l.fsys.Heal()
		err = f()
	}
	return err
}

type kept struct {
	held sensortest.Held
	at   uint64 // number of the checkpoint
	rows int64
}

const lifePath = "/var/out/rows.csv"

func (l *life) run(from kept) error {
	ctx := context.Background()
	n := newNumbers()
	n.next = from.rows
	cfg := durable(l.fsys, lifePath, 0, 1, n.csv())
	cfg.MaxPending, cfg.Overwrite = 60, l.overwrite
	s, err := OpenSink(cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	var held []sensors.Pending
	if from.at > 0 {
		held = sensortest.Pending(from.held)
	}
	if err := l.patient(func() error { return s.Recover(ctx, held, func(string) bool { return true }) }); err != nil {
		return err
	}
	chain := sensortest.Held{}
	for c := from.at + 1; c <= l.checkpoints; c++ {
		for range 4 {
			b, _ := n.rows(7)
			err := l.patient(func() error { return s.Write(ctx, b) })
			b.Release()
			if err != nil {
				return err
			}
		}
		if chain, err = chain.Prepare(s, id(c), c == from.at+1); err != nil {
			return err
		}
		if c%3 == 2 { // it does not complete
			continue
		}
		l.done(kept{chain, c, n.next})
		if err := l.patient(func() error { return s.CommitThrough(ctx, id(c)) }); err != nil {
			return err
		}
	}
	return nil
}

// lived is the bytes of a life in which nothing happened.
func lived(t *testing.T, checkpoints uint64) (want string, prefix func(rows int64) string) {
	fsys := storetest.New()
	var last kept
	if err := (&life{fsys: fsys, checkpoints: checkpoints, done: func(c kept) { last = c }}).run(kept{}); err != nil {
		t.Fatal(err)
	}
	want = text(t, fsys, lifePath)
	if got := strings.Count(want, "\n"); int64(got) != last.rows+1 {
		t.Fatalf("%d lines", got)
	}
	return want, func(rows int64) string {
		if rows == 0 {
			return ""
		}
		return strings.Join(strings.SplitAfter(want, "\n")[:rows+1], "")
	}
}

// old makes a file system on which the target holds something else.
func old(t *testing.T) *storetest.FS {
	t.Helper()
	fsys := storetest.New()
	if err := fsys.MkdirAll(filepath.Dir(lifePath)); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Open(lifePath, os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("what was there before\n", 100)), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/var/out", "/var", "/"} {
		if err := fsys.SyncDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	return fsys
}

// TestE52_CrashImages: power is lost at every write of a sink's life, at every
// write of the recovery from it too; each image that the disk may be left with
// recovers to exactly the rows of the last checkpoint that completed, and the
// life that goes on from there ends with the same bytes as one without a crash.
func TestE52_CrashImages(t *testing.T) {
	for name, world := range map[string]func() *storetest.FS{"new file": storetest.New, "overwritten": func() *storetest.FS { return old(t) }} {
		t.Run(name, func(t *testing.T) { crashImages(t, world, name == "overwritten") })
	}
}

func crashImages(t *testing.T, world func() *storetest.FS, overwrite bool) {
	const checkpoints = 6
	want, prefix := lived(t, checkpoints)
	at, images, twice := 0, 0, 0
	for off := true; off; at++ {
		fsys := world()
		fsys.PowerOffAt(at + 1)
		var last kept
		err := (&life{fsys: fsys, checkpoints: checkpoints, done: func(c kept) { last = c }, overwrite: overwrite}).run(kept{})
		if off = fsys.Off(); !errors.Is(err, storetest.ErrPower) && err != nil { // nil: off in Close, where nobody listens, or not at all
			t.Fatalf("power off at %d: %v", at, err)
		}
		for seed := range uint64(8) {
			images++
			image := fsys.Crash(seed)
			if last.at > 0 {
				recovered := image.Crash(1)
				if err := (&life{fsys: recovered, checkpoints: last.at}).run(last); err != nil {
					t.Fatalf("power off at %d, image %d: %v", at, seed, err)
				}
				if got := text(t, recovered, lifePath); got != prefix(last.rows) {
					t.Fatalf("power off at %d, image %d: recovered to %q, want %q", at, seed, got, prefix(last.rows))
				}
			}
			from := last
			if seed < 4 { // power goes off again, in the recovery or a little later
				image.PowerOffAt(1 + (at+int(seed))%9)
				err := (&life{fsys: image, checkpoints: checkpoints, done: func(c kept) { from = c }, overwrite: overwrite}).run(last)
				if err != nil && !errors.Is(err, storetest.ErrPower) {
					t.Fatalf("power off at %d, image %d, and again: %v", at, seed, err)
				}
				if image.Off() {
					twice++
				}
				image = image.Crash(uint64(at) + seed)
			}
			if err := (&life{fsys: image, checkpoints: checkpoints, done: func(kept) {}, overwrite: overwrite}).run(from); err != nil {
				t.Fatalf("power off at %d, image %d, to the end: %v", at, seed, err)
			}
			if got := text(t, image, lifePath); got != want {
				t.Fatalf("power off at %d, image %d: ends with %q, want %q", at, seed, got, want)
			}
		}
	}
	t.Logf("%d operations, %d images, power lost again in %d recoveries", at-1, images, twice)
}

// TestFaultsAtEachOperation: no room for one operation, or for it and all that
// follow until room is made, holds the sink up; a broken disk ends its life. The
// file ends the same.
func TestFaultsAtEachOperation(t *testing.T) {
	const checkpoints = 6
	want, _ := lived(t, checkpoints)
	for name, fail := range map[string]func(f *storetest.FS, n int){
		"no room once":           func(f *storetest.FS, n int) { f.FailAt(n, syscall.ENOSPC) },
		"no room":                func(f *storetest.FS, n int) { f.FailFrom(n, syscall.ENOSPC) },
		"quota":                  func(f *storetest.FS, n int) { f.FailFrom(n, syscall.EDQUOT) },
		"no room at the restart": func(f *storetest.FS, n int) { f.FailFrom(15, syscall.EIO) },
		"broken once":            func(f *storetest.FS, n int) { f.FailAt(n, syscall.EIO) },
		"broken":                 func(f *storetest.FS, n int) { f.FailFrom(n, syscall.EIO) },
	} {
		t.Run(name, func(t *testing.T) {
			waited, ended := 0, 0
			for n := 1; n < 40; n++ {
				fsys := storetest.New()
				fail(fsys, n)
				var last kept
				l := &life{fsys: fsys, checkpoints: checkpoints, done: func(c kept) { last = c }}
				err := l.run(kept{})
				waited += l.full
				for tries := 0; err != nil; tries++ { // the job is started again
					ended++
					if tries > 3 || !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
						t.Fatalf("operation %d: %v", n, err)
					}
					fsys.Heal()
					if name == "no room at the restart" {
						fsys.FailFrom(n, syscall.ENOSPC)
					}
					err = l.run(last)
				}
				if got := text(t, fsys, lifePath); got != want {
					t.Fatalf("operation %d: ends with %q, want %q", n, got, want)
				}
			}
			if waited+ended == 0 {
				t.Error("nothing failed")
			}
			t.Logf("waited for room %d times, was started again %d times", waited, ended)
		})
	}
}
