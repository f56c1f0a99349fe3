package durable

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// State is a state folder. Any goroutine may call it.
type State struct {
	dir        string
	fs         store.FS
	lock       *part.Lock // nil: for reading only
	parts      *part.Store
	savepoints *part.Manifests

	mu        sync.Mutex                     // guards jobs and unwritten
	jobs      map[string]bool                // that are open in this process
	unwritten map[string][]manifest.Manifest // of each job what is kept and SyncKept could not write

	// publishing is held from before what a savepoint needs of feeds is kept until
	// the savepoint is there.
	publishing sync.Mutex

	// collecting is held by the one who collects, for as long as it reads and
	// deletes: several jobs may want to at the same time.
	collecting sync.Mutex
}

// Open makes the folder if need be, takes its lock (store.ErrLocked if another
// process has it) and clears away what a crash left. fsys is what manifests and
// parts are written through; nil: the disk.
func Open(dir string, fsys store.FS) (*State, error) {
	if fsys == nil {
		fsys = disk.Group
	}
	lock, err := part.LockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &State{dir: dir, fs: fsys, lock: lock, jobs: make(map[string]bool), unwritten: make(map[string][]manifest.Manifest)}
	if s.parts, err = part.Open(fsys, filepath.Join(dir, "parts")); err == nil {
		s.savepoints, err = part.OpenManifests(s.parts, filepath.Join(dir, "savepoints"))
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

// View is a folder for reading, which another process may have open: it changes
// nothing.
func View(dir string) (*State, error) {
	fsys := disk.Group
	if info, err := fsys.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("state folder %s: %w; give the folder that a job was run with (--state)", dir, store.ErrMissing)
	}
	return &State{dir: dir, fs: fsys, parts: part.View(fsys, filepath.Join(dir, "parts")), savepoints: part.ViewManifests(fsys, filepath.Join(dir, "savepoints")), jobs: make(map[string]bool)}, nil
}

// Dir is the folder.
func (s *State) Dir() string { return s.dir }

// FS is what it is written through.
func (s *State) FS() store.FS { return s.fs }

// Close gives the lock back. Nothing of it may run any more.
func (s *State) Close() error {
	lock := s.lock
	if s.lock = nil; lock == nil {
		return nil
	}
	return lock.Close()
}

// Still calls f while no savepoint is on its way: what is kept for one that is
// not there belongs to one that was deleted.
func (s *State) Still(f func() error) error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	return f()
}

// Collect removes the parts that no manifest names and no running job holds: none on
// disk, and none that SyncKept was told of and could not write.
func (s *State) Collect() (part.Collected, error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	return s.parts.Collect(func() ([]*part.Manifests, error) { return part.Folders(s.parts, s.dir) }, s.spared()...)
}

// Job is one job in a state folder.
type Job struct {
	state       *State
	name        string
	dir         string
	checkpoints *part.Manifests
}

// OpenJob opens a job's part of the folder; a process opens it once at a time.
func (s *State) OpenJob(name string) (*Job, error) {
	if err := manifest.CheckName(name); err != nil {
		return nil, fmt.Errorf("job %q: its name becomes a folder's: %w", name, err)
	}
	s.mu.Lock()
	open := s.jobs[name]
	s.jobs[name] = true
	s.mu.Unlock()
	if open {
		return nil, fmt.Errorf("job %q runs already in this process: %w", name, store.ErrLocked)
	}
	j := &Job{state: s, name: name, dir: filepath.Join(s.dir, "jobs", name)}
	var err error
	if j.checkpoints, err = part.OpenManifests(s.parts, filepath.Join(j.dir, "checkpoints")); err != nil {
		j.Close()
		return nil, fmt.Errorf("job %q: %w", name, err)
	}
	return j, nil
}

// Close lets another open the job.
func (j *Job) Close() {
	j.state.mu.Lock()
	defer j.state.mu.Unlock()
	delete(j.state.jobs, j.name)
}

// origin is where the present line of a job's checkpoints begins, if that is a
// savepoint: what was taken before it is another line.
type origin struct {
	Version   int    `json:"version"`
	Attempt   uint64 `json:"attempt"` // the first that began there
	Savepoint string `json:"savepoint"`
	From      string `json:"from,omitempty"`    // how it was given: its name, or a file's path
	Digest    string `json:"digest,omitempty"`  // of its manifest, as two may have one name: see digestOf
	Claimed   bool   `json:"claimed,omitempty"` // it is the job's, and goes when it is not needed any more
}

const (
	formatVersion = 1
	maxAttempt    = 1 << 62 // nobody restarts so often; one more than the greatest number would be 0
)

// attempts is the file of the last fencing token.
type attempts struct {
	Version int    `json:"version"`
	Attempt uint64 `json:"attempt"`
}

// NextAttempt gives out a fencing token: it is durable before it is returned, so
// that no other attempt ever gets it.
func (j *Job) NextAttempt() (dataflow.FencingToken, error) {
	a := attempts{Version: formatVersion}
	if err := j.read("attempt", &a); err != nil && !errors.Is(err, store.ErrMissing) {
		return dataflow.FencingToken{}, err
	}
	list, err := j.checkpoints.List()
	if err != nil {
		return dataflow.FencingToken{}, err
	}
	for _, e := range list { // in case somebody deleted the file
		if e.Err == nil {
			a.Attempt = max(a.Attempt, e.Manifest.ID.Token.Attempt)
		}
	}
	if a.Attempt >= maxAttempt {
		return dataflow.FencingToken{}, fmt.Errorf("%s: %w: attempt %d; if its checkpoints are there, it can be deleted", filepath.Join(j.dir, "attempt"), store.ErrCorrupt, a.Attempt)
	}
	a.Attempt++
	return dataflow.FencingToken{Attempt: a.Attempt}, j.write("attempt", a)
}

// BeginAt notes that attempt t begins at a savepoint, which is the job's from now
// on if it claims it. from is what From was given for it.
func (j *Job) BeginAt(t dataflow.FencingToken, savepoint manifest.Manifest, from string, claim bool) error {
	digest, err := digestOf(savepoint)
	if err != nil {
		return err
	}
	return j.write("origin", origin{Version: formatVersion, Attempt: t.Attempt, Savepoint: savepoint.Name, From: from, Digest: digest, Claimed: claim})
}

// digestOf is the SHA-256 of a manifest as it is stored, in hex digits.
func digestOf(m manifest.Manifest) (string, error) {
	data, err := manifest.Encode(m)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), err
}

// origin is where the job's line began; without a savepoint it began afresh.
func (j *Job) origin() (o origin, err error) {
	err = j.read("origin", &o)
	if errors.Is(err, store.ErrMissing) {
		err = nil
	}
	return o, err
}

// read reads a small file of the job; store.ErrMissing if it is not there.
func (j *Job) read(name string, v any) error {
	name = filepath.Join(j.dir, name)
	data, err := disk.Read(j.state.fs, name, 64<<10)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", name, store.ErrMissing)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	var version struct {
		Version int `json:"version"`
	}
	err = json.Unmarshal(data, &version)
	if err == nil && version.Version != formatVersion {
		return fmt.Errorf("%s has version %d; this program reads version %d: use a newer one", name, version.Version, formatVersion)
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %v; if its checkpoints are there, it can be deleted", name, store.ErrCorrupt, err)
	}
	return nil
}

// write replaces a small file of the job in one step.
func (j *Job) write(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	name = filepath.Join(j.dir, name)
	if err := disk.Replace(j.state.fs, name, append(data, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// drop deletes a checkpoint, or a savepoint that the job claimed. One that is
// gone is fine.
func (j *Job) drop(name string) error {
	err := j.folderOf(name).Delete(name)
	if errors.Is(err, store.ErrMissing) {
		return nil
	}
	return err
}

func (j *Job) folderOf(name string) *part.Manifests {
	if strings.HasPrefix(name, manifest.CheckpointPrefix) {
		return j.checkpoints
	}
	return j.state.savepoints
}

// errQuit ends a merge that nobody waits for any more.
var errQuit = errors.New("the job has ended")

// quitReader ends when quit is closed.
type quitReader struct {
	r    io.Reader
	quit <-chan struct{}
}

func (q quitReader) Read(p []byte) (int, error) {
	select {
	case <-q.quit:
		return 0, errQuit
	default:
		return q.r.Read(p)
	}
}

// merge makes one part of a chain and pins it.
func (s *State) merge(t operator.StateTable, parts []manifest.PartUse, quit <-chan struct{}) (use manifest.PartUse, err error) {
	use.Part, err = s.parts.Put(func(w io.Writer) error {
		use.Rows, err = s.mergeTo(w, t, parts, quit)
		return err
	})
	for _, u := range parts {
		use.From = append(use.From, u.Digest)
	}
	return use, err
}

// mergeTo writes the part that a chain is when merged.
func (s *State) mergeTo(w io.Writer, t operator.StateTable, parts []manifest.PartUse, quit <-chan struct{}) (rows int64, err error) {
	return mergeTo(s.parts.Open, w, t, parts, quit)
}

func mergeTo(open func(store.Part) (io.ReadCloser, error), w io.Writer, t operator.StateTable, parts []manifest.PartUse, quit <-chan struct{}) (rows int64, err error) {
	err = together(open, parts, quit, func(readers []io.Reader) error {
		rows, err = avro.Merge(w, headerOf(t), readers, t.Identity, batch.NewPool(0, nil))
		return err
	})
	return rows, err
}

// eachMerged calls f with the rows that a chain has when merged; f borrows them.
func eachMerged(open func(store.Part) (io.ReadCloser, error), t operator.StateTable, parts []manifest.PartUse, f func(*batch.Batch) error) error {
	return together(open, parts, nil, func(readers []io.Reader) error {
		return avro.EachMerged(headerOf(t), readers, t.Identity, batch.NewPool(0, nil), f)
	})
}

func headerOf(t operator.StateTable) avro.Header {
	return avro.Header{Table: t.Name, Schema: t.Schema, Keyed: t.Keyed}
}

// together calls f with the parts of a chain, open.
func together(open func(store.Part) (io.ReadCloser, error), parts []manifest.PartUse, quit <-chan struct{}, f func([]io.Reader) error) (err error) {
	var opened []io.Closer
	defer func() {
		for _, c := range opened {
			err = errors.Join(err, c.Close())
		}
	}()
	var readers []io.Reader
	for _, u := range parts {
		r, err := open(u.Part)
		if err != nil {
			return err
		}
		opened = append(opened, r)
		readers = append(readers, quitReader{r, quit})
	}
	return f(readers)
}
