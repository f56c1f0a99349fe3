package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Encoder turns rows into the bytes of a file. The sink owns dst.
type Encoder interface {
	// AppendHeader appends what stands once at the beginning of a file.
	AppendHeader(dst []byte) []byte
	// Append appends the rows of b that are there, in order; it borrows b.
	Append(dst []byte, b *batch.Batch) []byte
}

const (
	defaultMaxPending = 16 << 20
	spillCopy         = 256 << 10
)

// SinkConfig says where a Sink writes.
type SinkConfig struct {
	Path        string
	Subtask     int
	Parallelism int
	Overwrite   bool // a file that is not empty is emptied, not refused
	Encoder     Encoder
	MaxPending  int // bytes of pending rows in memory; more wait in a file beside the target. 0: 16 MiB
	FS          FS  // nil: Disk
}

// Target is the file that a subtask writes: exactly path if it is the only
// one, else NAME-<i>.EXT.
func Target(path string, subtask, parallelism int) string {
	if parallelism <= 1 {
		return path
	}
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "-" + strconv.Itoa(subtask) + ext
}

// Sink writes rows into one file, a commit at a time. What a commit adds is
// appended with one write and fsynced; if any of that fails, the file is cut
// back to what was committed before, the rows stay pending, and the next
// Commit writes them anew. (Anew also after a failed fsync: what the system
// then holds of them is unknown, and a second fsync would say nothing.)
//
// Pending rows are held in memory up to MaxPending; more go to .NAME.pending
// beside the target, which Close removes. So memory is
// bounded, and a full disk comes back as ErrFull from Write or Commit.
//
// A process that is killed inside a commit can leave a part of it at the end
// of the file.
type Sink struct {
	cfg       SinkConfig
	name      string
	file      File
	committed int64 // length of the file as of the last commit
	torn      bool  // the file may be longer than committed
	newFile   bool  // its folder was not synced since it was made
	pending   []byte
	spill     File  // nil: none
	spilled   int64 // bytes of pending rows in spill; they come before those in memory
}

var _ sensors.Writer = (*Sink)(nil)

// OpenSink makes the folders and the file, empty. A file with something in it
// is refused unless Overwrite.
func OpenSink(cfg SinkConfig) (*Sink, error) {
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = defaultMaxPending
	}
	if cfg.FS == nil {
		cfg.FS = Disk{}
	}
	if cfg.Path == "" || cfg.Parallelism < 1 || cfg.Subtask < 0 || cfg.Subtask >= cfg.Parallelism {
		return nil, fmt.Errorf("file sink: no path, or subtask %d of %d does not exist", cfg.Subtask, cfg.Parallelism)
	}
	s := &Sink{cfg: cfg, name: Target(cfg.Path, cfg.Subtask, cfg.Parallelism), newFile: true}
	if err := s.open(); err != nil {
		return nil, err
	}
	s.pending = cfg.Encoder.AppendHeader(s.pending)
	return s, nil
}

func (s *Sink) open() error {
	info, err := s.cfg.FS.Stat(s.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return s.fault(err)
	case info.IsDir():
		return fmt.Errorf("file sink: %s is a folder; name a file in it", s.name)
	case !info.Mode().IsRegular():
		return fmt.Errorf("file sink: %s is not a regular file; a stdout or blackhole sink may be what you want", s.name)
	case info.Size() > 0 && !s.cfg.Overwrite:
		return fmt.Errorf("file sink: %s already holds %d bytes; move it away, or give --overwrite to empty it", s.name, info.Size())
	}
	if err := s.cfg.FS.MkdirAll(filepath.Dir(s.name)); err != nil {
		return s.fault(err)
	}
	flag := os.O_RDWR | os.O_CREATE
	if s.cfg.Overwrite {
		flag |= os.O_TRUNC
	}
	if err := s.cfg.FS.Remove(s.spillName()); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		return s.fault(err)
	}
	if s.file, err = s.cfg.FS.Open(s.name, flag); err != nil {
		return s.fault(err)
	}
	return nil
}

// Name is the file it writes.
func (s *Sink) Name() string { return s.name }

// Write encodes the rows of b and keeps them pending. ErrFull: nothing of b is
// pending, because neither memory nor the disk has room.
func (s *Sink) Write(_ context.Context, b *batch.Batch) error {
	if len(s.pending) >= s.cfg.MaxPending {
		if err := s.spillOver(); err != nil {
			return s.fault(err)
		}
	}
	s.pending = s.cfg.Encoder.Append(s.pending, b)
	return nil
}

// spillOver moves the pending rows from memory to the file beside the target.
func (s *Sink) spillOver() error {
	if s.spill == nil {
		f, err := s.cfg.FS.Open(s.spillName(), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return err
		}
		s.spill = f
	}
	if err := writeAt(s.spill, s.pending, s.spilled); err != nil {
		return errors.Join(err, s.spill.Truncate(s.spilled)) // gives back the room; were that to fail, the next write goes over it
	}
	s.spilled += int64(len(s.pending))
	s.pending = s.pending[:0]
	return nil
}

func (s *Sink) spillName() string {
	return filepath.Join(filepath.Dir(s.name), "."+filepath.Base(s.name)+".pending")
}

// Commit appends the pending rows to the file, durably, or leaves the file as
// it was.
func (s *Sink) Commit(context.Context) error {
	if s.file == nil {
		return s.fault(os.ErrClosed)
	}
	if err := s.mend(); err != nil {
		return s.fault(err)
	}
	length := s.committed + s.spilled + int64(len(s.pending))
	if length == s.committed && !s.newFile {
		return nil
	}
	s.torn = true
	if err := s.appendPending(); err != nil {
		if torn := s.mend(); torn != nil { // never ErrFull: a part of the commit is visible
			return fmt.Errorf("file sink: %s holds a part of a commit (%w), and %w", s.name, err, torn)
		}
		return s.fault(err)
	}
	s.torn, s.newFile = false, false
	s.committed, s.pending = length, s.pending[:0]
	if s.spilled > 0 {
		s.spilled = 0
		_ = s.spill.Truncate(0) // only gives room back: what would stay is written over
	}
	return nil
}

func (s *Sink) appendPending() error {
	at := s.committed
	var buf []byte
	for done := int64(0); done < s.spilled; {
		if buf == nil {
			buf = make([]byte, min(spillCopy, s.spilled))
		}
		part := buf[:min(int64(len(buf)), s.spilled-done)]
		if n, err := s.spill.ReadAt(part, done); n < len(part) {
			return err
		}
		if err := writeAt(s.file, part, at); err != nil {
			return err
		}
		done += int64(len(part))
		at += int64(len(part))
	}
	if err := writeAt(s.file, s.pending, at); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	if s.newFile {
		return s.cfg.FS.SyncDir(filepath.Dir(s.name))
	}
	return nil
}

// mend cuts the file back to what was committed, if a failed commit left more.
func (s *Sink) mend() error {
	if !s.torn {
		return nil
	}
	if err := s.file.Truncate(s.committed); err != nil {
		return fmt.Errorf("cutting it back to %d bytes failed: %w", s.committed, err)
	}
	s.torn = false
	return nil
}

func (s *Sink) dropSpill() error {
	if s.spill == nil {
		return nil
	}
	err := errors.Join(s.spill.Close(), s.cfg.FS.Remove(s.spillName()))
	s.spill = nil
	return err
}

// Close gives up pending rows and closes the file.
func (s *Sink) Close() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.mend(), s.file.Close(), s.dropSpill())
	s.file, s.pending = nil, nil
	if err != nil {
		return s.fault(err)
	}
	return nil
}

// fault says what failed, and wraps ErrFull where there is no room.
func (s *Sink) fault(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("file sink: %s: %w: %w; its rows wait until there is room", s.name, sensors.ErrFull, err)
	}
	return fmt.Errorf("file sink: %s: %w", s.name, err)
}

func writeAt(f File, p []byte, at int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := f.WriteAt(p, at)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}
