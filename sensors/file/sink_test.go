package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// fate decides what goes wrong on a faultyDisk. The zero value: nothing.
type fate struct {
	room      int64 // bytes that may still be written, if limited
	limited   bool
	full      error // what a write gets when there is no room; nil: a short write without an error
	sync      error
	truncate  error
	syncDir   error
	syncs     int
	afterEach func()
}

// faultyDisk is the disk in a test's folder, with faults. It never really
// fsyncs: it counts.
type faultyDisk struct {
	disk.FS
	*fate
}

type faultyFile struct {
	store.File
	*fate
}

func (d faultyDisk) Open(name string, flag int) (store.File, error) {
	f, err := d.FS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &faultyFile{f, d.fate}, nil
}

func (d faultyDisk) SyncDir(string) error { return d.syncDir }

func (f *faultyFile) WriteAt(p []byte, at int64) (int, error) {
	if f.afterEach != nil {
		defer f.afterEach()
	}
	if !f.limited || int64(len(p)) <= f.room {
		f.room -= int64(len(p))
		return f.File.WriteAt(p, at)
	}
	n, err := f.File.WriteAt(p[:f.room], at)
	f.room = 0
	if err == nil {
		err = f.full
	}
	return n, err
}

func (f *faultyFile) Sync() error {
	f.syncs++
	return f.sync
}

func (f *faultyFile) Truncate(n int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.File.Truncate(n)
}

// numbers makes batches of one bigint column, and the text of their rows.
type numbers struct {
	bl   *batch.Builder
	next int64
}

func newNumbers() *numbers {
	s := batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})
	return &numbers{bl: batch.NewBuilder(batch.NewPool(0, nil), s)}
}

func (n *numbers) rows(count int) (*batch.Batch, string) {
	var text []byte
	for range count {
		n.bl.SetInt(0, n.next)
		n.bl.EndRow(dataflow.Time(n.next))
		text = strconv.AppendInt(text, n.next, 10)
		text = append(text, '\n')
		n.next++
	}
	return n.bl.Take(), string(text)
}

func (n *numbers) csv() *encode.Encoder { return encode.NewCSV(n.bl.Schema(), encode.Options{}) }

func content(t rapid.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustWrite(t rapid.TB, w sensors.Writer, b *batch.Batch) {
	t.Helper()
	defer b.Release()
	if err := w.Write(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// TestSinkSurvivesAFaultAtEveryByte: whatever fails at whichever byte of a
// commit, the file holds the commits before it and nothing else, and the next
// Commit, with the fault gone, adds every row once.
func TestSinkSurvivesAFaultAtEveryByte(t *testing.T) {
	ctx := context.Background()
	eio := &os.PathError{Op: "write", Path: "x", Err: syscall.EIO}
	for name, c := range map[string]struct {
		spill bool
		fail  func(f *fate, room int64)
		full  bool
		is    error
	}{
		"no space":    {fail: func(f *fate, n int64) { f.limited, f.room, f.full = true, n, syscall.ENOSPC }, full: true, is: syscall.ENOSPC},
		"quota":       {fail: func(f *fate, n int64) { f.limited, f.room, f.full = true, n, syscall.EDQUOT }, full: true, is: syscall.EDQUOT},
		"broken":      {fail: func(f *fate, n int64) { f.limited, f.room, f.full = true, n, eio }, is: syscall.EIO},
		"short":       {fail: func(f *fate, n int64) { f.limited, f.room, f.full = true, n, nil }, is: io.ErrShortWrite},
		"fsync":       {fail: func(f *fate, _ int64) { f.sync = syscall.EIO }, is: syscall.EIO},
		"fsync, full": {fail: func(f *fate, _ int64) { f.sync = syscall.ENOSPC }, full: true, is: syscall.ENOSPC},
		"spilled":     {spill: true, fail: func(f *fate, n int64) { f.limited, f.room, f.full = true, n, syscall.ENOSPC }, full: true, is: syscall.ENOSPC},
		"no cut":      {fail: func(f *fate, n int64) { f.limited, f.room, f.full, f.truncate = true, n, syscall.ENOSPC, syscall.EIO }, is: syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			for room := int64(0); room < 100; room++ {
				path := filepath.Join(t.TempDir(), "out.csv")
				f := &fate{}
				n := newNumbers()
				cfg := SinkConfig{Path: path, Parallelism: 1, Encoder: n.csv(), FS: faultyDisk{disk.Shared, f}}
				if c.spill {
					cfg.MaxPending = 20
				}
				s, err := OpenSink(cfg)
				if err != nil {
					t.Fatal(err)
				}
				first, firstText := n.rows(20)
				mustWrite(t, s, first)
				if err := s.Commit(ctx); err != nil {
					t.Fatal(err)
				}
				committed := "n\n" + firstText
				want := committed
				for range 4 {
					b, text := n.rows(9)
					mustWrite(t, s, b)
					want += text
				}
				if got := content(t, path); got != committed {
					t.Fatalf("pending rows are in the file: %q", got)
				}
				c.fail(f, room)
				for range 2 { // a fault that stays
					err = s.Commit(ctx)
					if !errors.Is(err, c.is) || errors.Is(err, sensors.ErrFull) != c.full || !strings.Contains(err.Error(), path) {
						t.Fatalf("at byte %d: %v", room, err)
					}
					if f.limited {
						f.room = room
					}
				}
				if got := content(t, path); got != committed && f.truncate == nil {
					t.Fatalf("at byte %d the file holds half a commit: %q", room, got)
				}
				*f = fate{syncs: f.syncs}
				more, text := n.rows(1)
				mustWrite(t, s, more)
				syncs := f.syncs
				if err := s.Commit(ctx); err != nil {
					t.Fatal(err)
				}
				if got := content(t, path); got != want+text || f.syncs == syncs {
					t.Fatalf("at byte %d, after the fault: %q, %d fsyncs", room, got, f.syncs-syncs)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
					t.Fatalf("left behind: %v", left)
				}
			}
		})
	}
}

// TestSinkAgainstAModel: random writes, commits and faults; the file always is
// the committed rows, and a refused Write has taken nothing.
func TestSinkAgainstAModel(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		path := filepath.Join(root, strconv.Itoa(runs), "deep", "out.csv")
		f := &fate{}
		n := newNumbers()
		most := rapid.SampledFrom([]int{1, 30, 1 << 20}).Draw(rt, "most pending")
		s, err := OpenSink(SinkConfig{Path: path, Parallelism: 1, Encoder: n.csv(), FS: faultyDisk{disk.Shared, f}, MaxPending: most})
		if err != nil {
			rt.Fatal(err)
		}
		committed, pending := "", "n\n"
		f.afterEach = func() { // what a crash at this moment would leave
			if got := content(rt, path); !strings.HasPrefix(got, committed) || !strings.HasPrefix(committed+pending, got) {
				rt.Fatalf("the file holds %q; committed %q, pending %q", got, committed, pending)
			}
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "commit", "full", "sync", "heal"}).Draw(rt, "step") {
			case "write":
				b, text := n.rows(rapid.IntRange(1, 20).Draw(rt, "rows"))
				switch err := s.Write(ctx, b); {
				case err == nil:
					pending += text
					if len(s.queue.Tail()) > most+len(text) {
						rt.Fatalf("%d bytes pending in memory", len(s.queue.Tail()))
					}
				case !errors.Is(err, sensors.ErrFull):
					rt.Fatal(err)
				}
				b.Release()
			case "commit":
				switch err := s.Commit(ctx); {
				case err == nil:
					committed, pending = committed+pending, ""
				case f.sync == nil && !errors.Is(err, sensors.ErrFull):
					rt.Fatal(err)
				}
				if got := content(rt, path); got != committed {
					rt.Fatalf("after a commit the file holds %q, want %q", got, committed)
				}
			case "full":
				f.limited, f.full, f.room = true, syscall.ENOSPC, rapid.Int64Range(0, 60).Draw(rt, "room")
			case "sync":
				f.sync = syscall.EIO
			case "heal":
				f.limited, f.sync = false, nil
			}
		}
		f.limited, f.sync = false, nil
		if err := s.Commit(ctx); err != nil {
			rt.Fatal(err)
		}
		committed, pending = committed+pending, ""
		if got := content(rt, path); got != committed {
			rt.Fatalf("at the end the file holds %q, want %q", got, committed)
		}
		if err := s.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestFirstCommitSyncsTheFolder: a file whose name is lost in a power failure
// was not committed.
func TestFirstCommitSyncsTheFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.csv")
	f := &fate{syncDir: syscall.EIO}
	n := newNumbers()
	s, err := OpenSink(SinkConfig{Path: path, Parallelism: 1, Encoder: n.csv(), FS: faultyDisk{disk.Shared, f}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, text := n.rows(3)
	mustWrite(t, s, b)
	if err := s.Commit(context.Background()); !errors.Is(err, syscall.EIO) || content(t, path) != "" {
		t.Errorf("%v, the file holds %q", err, content(t, path))
	}
	f.syncDir = nil
	if err := s.Commit(context.Background()); err != nil || content(t, path) != "n\n"+text {
		t.Errorf("%v, the file holds %q", err, content(t, path))
	}
	syncs := f.syncs
	if err := s.Commit(context.Background()); err != nil || f.syncs != syncs {
		t.Errorf("a commit of nothing: %v, %d fsyncs", err, f.syncs-syncs)
	}
}

func TestOpenSink(t *testing.T) {
	dir := t.TempDir()
	at := func(s string) string { return filepath.Join(dir, s) }
	n := newNumbers()
	open := func(path string, sub, p int, overwrite bool) (*Sink, error) {
		return OpenSink(SinkConfig{Path: path, Subtask: sub, Parallelism: p, Overwrite: overwrite, Encoder: n.csv()})
	}
	finish := func(s *Sink, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Commit(context.Background()), s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	finish(open(at("a/b/out.csv"), 0, 1, false)) // makes folders; no rows are a result, too
	if got := content(t, at("a/b/out.csv")); got != "n\n" {
		t.Errorf("%q", got)
	}
	if _, err := open(at("a/b/out.csv"), 0, 1, false); err == nil || !strings.Contains(err.Error(), "--overwrite") || content(t, at("a/b/out.csv")) != "n\n" {
		t.Errorf("a file that is not empty: %v", err)
	}
	write(t, at("a/b/.out.csv.pending"), "of a run that was killed")
	write(t, at("a/b/out.csv"), "something else, much longer")
	finish(open(at("a/b/out.csv"), 0, 1, true))
	if got := content(t, at("a/b/out.csv")); got != "n\n" {
		t.Errorf("overwritten: %q", got)
	}
	write(t, at("empty.csv"), "")
	finish(open(at("empty.csv"), 0, 1, false))
	for i := range 3 {
		finish(open(at("many/x.y.csv"), i, 3, false))
	}
	finish(open(at("many/plain"), 1, 2, false))
	for path, want := range map[string]string{at("a"): "is a folder", os.DevNull: "not a regular file", at("empty.csv/x.csv"): "empty.csv", "": "no path"} {
		if _, err := open(path, 0, 1, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", path, err)
		}
	}
	if _, err := open(at("z.csv"), 2, 2, false); err == nil {
		t.Error("subtask 2 of 2")
	}
	var names []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			names = append(names, filepath.ToSlash(strings.TrimPrefix(p, dir+string(filepath.Separator))))
		}
		return err
	})
	if want := "[a/b/out.csv empty.csv many/plain-1 many/x.y-0.csv many/x.y-1.csv many/x.y-2.csv]"; fmt.Sprint(names) != want || err != nil {
		t.Errorf("files: %v, %v", names, err)
	}
}

func TestNothingWorksAfterClose(t *testing.T) {
	s, err := OpenSink(SinkConfig{Path: filepath.Join(t.TempDir(), "x"), Parallelism: 1, Encoder: newNumbers().csv()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(context.Background()); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	r, err := NewReader(SourceConfig{Files: []string{"x"}, Parallelism: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Read(context.Background(), &sensors.Records{}, 1); !errors.Is(err, os.ErrClosed) {
		t.Error(err) // not io.EOF, which would be a job that is done
	}
}

// visible reads back column n of the suite's rows.
func visible(t *testing.T, text string) []int64 {
	var out []int64
	for line := range strings.Lines(text) {
		_, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ",")
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			out = append(out, n)
		} else if v != "n" {
			t.Fatalf("line %q", line)
		}
	}
	return out
}

func TestSinkSuite(t *testing.T) {
	sensortest.Writer(t, sensortest.WriterCase{Open: func(t *testing.T) sensortest.Sink {
		path := filepath.Join(t.TempDir(), "out.csv")
		s, err := OpenSink(SinkConfig{Path: path, Parallelism: 1, MaxPending: 50, Encoder: encode.NewCSV(sensortest.WriterSchema(), encode.Options{}), FS: faultyDisk{disk.Shared, &fate{}}})
		if err != nil {
			t.Fatal(err)
		}
		return sensortest.Sink{Writer: s, Visible: func(t *testing.T, _ int) []int64 { return visible(t, content(t, path)) }}
	}})
}

func TestStreamSuite(t *testing.T) {
	for _, live := range []bool{false, true} {
		sensortest.Writer(t, sensortest.WriterCase{Immediate: live, Open: func(t *testing.T) sensortest.Sink {
			var out bytes.Buffer
			s := NewStream(&out, encode.NewCSV(sensortest.WriterSchema(), encode.Options{}), live)
			return sensortest.Sink{Writer: s, Visible: func(t *testing.T, _ int) []int64 { return visible(t, out.String()) }}
		}})
	}
}

// Rows that go to a file that was deleted, moved or replaced would be nobody's,
// and the job would say that all is well.
func TestAFileThatHasLostItsNameIsNotWritten(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file keeps its name there")
	}
	for what, change := range map[string]func(path string) error{
		"is gone":        os.Remove,
		"is 3 bytes":     func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, []byte("new"), 0o600)) },
		"deleted or mov": func(path string) error { return os.Rename(path, path+".1") },
	} {
		path := filepath.Join(t.TempDir(), "out.csv")
		n := newNumbers()
		s, err := OpenSink(SinkConfig{Path: path, Parallelism: 1, Encoder: n.csv()})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := n.rows(3)
		mustWrite(t, s, b)
		if err := s.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		b, _ = n.rows(3)
		mustWrite(t, s, b)
		if err := s.Commit(context.Background()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("a file that %s: %v", what, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
