package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/pending"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Encoder turns rows into the bytes of a file. The sink owns dst.
type Encoder interface {
	// AppendHeader appends what stands once at the beginning of a file.
	AppendHeader(dst []byte) []byte
	// Append appends the rows of b that are there, in order; it borrows b.
	Append(dst []byte, b *batch.Batch) []byte
}

const defaultMaxPending = 16 << 20

// SinkConfig says where a Sink writes.
type SinkConfig struct {
	Path        string
	Subtask     int
	Parallelism int
	// Durable: the job takes checkpoints. Recover is called before the first
	// Write and decides whether the target is begun or taken up again; until
	// then it is not touched.
	Durable    bool
	Overwrite  bool // a file that is not empty, and not known from a checkpoint, is emptied, not refused
	Encoder    Encoder
	MaxPending int      // bytes of pending rows in memory; more wait in a file beside the target. 0: 16 MiB
	FS         store.FS // nil: Disk

	Permit sensors.Permit // asked before rows become visible; nil: they always may
	Placed sensors.Placed // where the sink is in a site; the zero value: there is none
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
// appended and fsynced; if any of that fails, the file is cut back to what was
// committed before, the rows stay pending, and the next commit writes them
// anew. (Anew also after a failed fsync: what the system then holds of them is
// unknown, and a second fsync would say nothing.)
//
// In a job that takes checkpoints it is exactly once: see transaction.go for
// how, recover.go for what a restart does. Without (not Durable) rows are
// committed by Commit, and a process that is killed inside a commit can leave
// a part of it at the end of the file.
//
// Pending rows are held in memory up to MaxPending; more go to .NAME.pending
// beside the target, which Close removes. So memory is bounded, and a full disk
// comes back as ErrFull from Write, Commit or CommitThrough.
type Sink struct {
	cfg       SinkConfig
	name      string
	target    string     // the name in checkpoints
	file      store.File // nil: not open, or closed
	begun     bool       // the target was opened; it may be closed again
	committed int64      // length of the file as of the last commit
	torn      bool       // the file may be longer than committed
	folders   []string   // must be synced with the next commit: they hold a name that is new

	queue   *pending.Queue // of the bytes behind committed
	trans   *pending.Transactions
	cut     int64            // the queue is cut into pieces up to here
	piece   []byte           // scratch of Prepare
	carried []target         // files of the family that no subtask writes any more; this one carries their records on
	undone  []sensors.Commit // of such files, less counts than is on record
	through dataflow.CheckpointID
}

var (
	_ sensors.Writer        = (*Sink)(nil)
	_ sensors.Transactional = (*Sink)(nil)
	_ sensors.Recorder      = (*Sink)(nil)
)

// OpenSink makes the folders and the file, empty. A file with something in it
// is refused unless Overwrite. With Durable, all that is left to Recover.
func OpenSink(cfg SinkConfig) (*Sink, error) {
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = defaultMaxPending
	}
	if cfg.FS == nil {
		cfg.FS = disk.Shared
	}
	if cfg.Path == "" || cfg.Parallelism < 1 || cfg.Subtask < 0 || cfg.Subtask >= cfg.Parallelism {
		return nil, fmt.Errorf("file sink: no path, or subtask %d of %d does not exist", cfg.Subtask, cfg.Parallelism)
	}
	if p := &cfg.Placed; p.Node != "" && (!cfg.Durable || len(p.Nodes) != cfg.Parallelism || p.Nodes[cfg.Subtask] != p.Node || strings.Contains(p.Node, ":")) {
		return nil, fmt.Errorf("file sink: %s: subtask %d of %d does not run on agent %q of %q, or the job takes no checkpoints", cfg.Path, cfg.Subtask, cfg.Parallelism, p.Node, p.Nodes)
	}
	s := &Sink{cfg: cfg, name: Target(cfg.Path, cfg.Subtask, cfg.Parallelism), trans: pending.NewTransactions(1)}
	s.target = s.targetOf(cfg.Subtask)
	if _, err := s.kind(); err != nil {
		return nil, err
	}
	if cfg.Durable {
		return s, nil
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	return s, nil
}

// kind refuses what is no file; the size is -1 if there is none.
func (s *Sink) kind() (size int64, err error) {
	info, err := s.cfg.FS.Stat(s.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return -1, nil
	case err != nil:
		return 0, s.fault(err)
	case info.IsDir():
		return 0, fmt.Errorf("file sink: %s is a folder; name a file in it", s.name)
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("file sink: %s is not a regular file; a stdout or blackhole sink may be what you want", s.name)
	}
	return info.Size(), nil
}

// begin opens a target that no checkpoint knows.
func (s *Sink) begin() error {
	size, err := s.kind()
	if err != nil {
		return err
	}
	if err := s.empty(size); err != nil {
		return err
	}
	if err := s.open(0); err != nil {
		return err
	}
	if size > 0 {
		err := s.permitted()
		if err == nil {
			err = s.file.Truncate(0)
		}
		if err != nil {
			return s.fault(errors.Join(err, s.closeFile()))
		}
	}
	if s.cfg.Durable {
		// Now, not with the first commit: another process may make it, and would
		// not know that the folders are new.
		if err := pending.SyncFolders(s.cfg.FS, s.folders); err != nil {
			return s.fault(errors.Join(err, s.closeFile()))
		}
		s.folders = nil
	}
	s.queue.SetTail(s.cfg.Encoder.AppendHeader(s.queue.Tail()))
	s.begun = true
	return nil
}

// empty refuses to begin with a file that holds something.
func (s *Sink) empty(size int64) error {
	if size > 0 && !s.cfg.Overwrite {
		return fmt.Errorf("file sink: %s already holds %d bytes; move it away, or give --overwrite to empty it", s.name, size)
	}
	return nil
}

// open opens or makes the file, of which length bytes are committed.
func (s *Sink) open(length int64) error {
	var err error
	if s.folders, err = pending.MakeFolders(s.cfg.FS, s.name); err != nil {
		return s.fault(err)
	}
	if s.queue, err = pending.NewQueue(s.cfg.FS, s.spillName(), s.cfg.MaxPending, length); err != nil {
		return s.fault(err)
	}
	if s.file, err = s.cfg.FS.Open(s.name, os.O_RDWR|os.O_CREATE); err != nil {
		return s.fault(err)
	}
	s.committed, s.cut = length, length
	return nil
}

// Name is the file it writes.
func (s *Sink) Name() string { return s.name }

// Write encodes the rows of b and keeps them pending. ErrFull: nothing of b is
// pending, because neither memory nor the disk has room.
func (s *Sink) Write(_ context.Context, b *batch.Batch) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.queue.Room(); err != nil {
		return s.fault(err)
	}
	s.queue.SetTail(s.cfg.Encoder.Append(s.queue.Tail(), b))
	return nil
}

func (s *Sink) usable() error {
	if s.file != nil {
		return nil
	}
	if !s.begun {
		return fmt.Errorf("file sink: %s: Recover was not called", s.name)
	}
	return s.fault(os.ErrClosed)
}

func (s *Sink) spillName() string {
	return filepath.Join(filepath.Dir(s.name), "."+filepath.Base(s.name)+".pending")
}

// Commit appends the pending rows to the file, durably, or leaves the file as
// it was.
func (s *Sink) Commit(context.Context) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.commit(s.queue.End())
}

// commit makes the file's committed length to.
func (s *Sink) commit(to int64) error {
	if err := s.mend(); err != nil {
		return s.fault(err)
	}
	if to == s.committed && len(s.folders) == 0 {
		return nil
	}
	if err := s.there(); err != nil {
		return err
	}
	if err := s.permitted(); err != nil {
		return s.fault(err)
	}
	s.torn = true
	if err := s.append(to); err != nil {
		if torn := s.mend(); torn != nil { // never ErrFull: a part of the commit is visible
			return fmt.Errorf("file sink: %s holds a part of a commit (%w), and %w", s.name, err, torn)
		}
		return s.fault(err)
	}
	s.torn, s.folders = false, nil
	s.committed = to
	s.queue.Drop(to)
	return nil
}

// permitted tells whether rows may become visible now.
func (s *Sink) permitted() error {
	if err := sensors.Permitted(s.cfg.Permit); err != nil {
		return fmt.Errorf("nothing was committed: %w", err)
	}
	return nil
}

// there tells whether the file is still what was committed, and still has its
// name: rows that go to a file that was deleted or moved are nobody's.
func (s *Sink) there() error {
	open, err := s.file.Stat()
	if err != nil {
		return s.fault(err)
	}
	if open.Size() < s.committed {
		return s.shorter(open.Size(), s.committed)
	}
	named, err := s.cfg.FS.Stat(s.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("file sink: %s is gone, with %d bytes that were committed: somebody deleted or moved it; put it back, or start the job anew", s.name, s.committed)
	case err != nil:
		return s.fault(err)
	case named.Size() != open.Size():
		return s.shorter(named.Size(), s.committed)
	}
	return nil
}

func (s *Sink) append(to int64) error {
	if err := s.queue.CopyTo(s.file, s.committed, to); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	return pending.SyncFolders(s.cfg.FS, s.folders)
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

func (s *Sink) closeFile() error {
	err := errors.Join(s.file.Close(), s.queue.Close())
	s.file = nil
	return err
}

// Close gives up pending rows and closes the file.
func (s *Sink) Close() error {
	if s.file == nil {
		return nil
	}
	if err := errors.Join(s.mend(), s.closeFile()); err != nil {
		return s.fault(err)
	}
	return nil
}

func (s *Sink) shorter(is, committed int64) error {
	return fmt.Errorf("file sink: %s is %d bytes long, but %d were committed: somebody cut or replaced it; put it back, or start the job anew with another path", s.name, is, committed)
}

// fault says what failed, and wraps ErrFull where there is no room.
func (s *Sink) fault(err error) error { return fault(s.name, err) }

func fault(name string, err error) error {
	if disk.IsFull(err) {
		return fmt.Errorf("file sink: %s: %w; its rows wait until there is room", name, sensors.Full(err))
	}
	return fmt.Errorf("file sink: %s: %w", name, err)
}
