package part

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

const (
	tempDir = "tmp"
	ext     = ".avro"

	// putters is how many parts of a PutAll are written, and folders synced, at a
	// time: file systems make syncs that come together durable with one flush.
	putters = 16
)

// Store is a directory of parts: DIR/ab/<digest>.avro, and DIR/tmp for those
// that are being written. Any goroutine may call it; one process at a time may
// have it open for writing (LockDir).
type Store struct {
	fs   store.FS
	dir  string
	temp atomic.Uint64 // names of temporary files

	mu        sync.Mutex                // guards what follows; never held for I/O
	cond      *sync.Cond                // of mu: a removal has ended
	pins      map[store.Digest]int      // by Put and Pin
	condemned map[store.Digest]bool     // being removed
	recent    map[store.Digest]struct{} // pinned since the collection began; nil: none is under way
	made      map[string]bool           // folders that are there
	clean     map[string]bool           // folders whose names are all durable
	changes   map[string]uint64         // how often a folder's names were changed
	changing  map[string]int            // changes of its names under way: a sync meanwhile may be before or behind them
}

var _ store.Parts = (*Store)(nil)

// Open makes the directory if need be and removes what a crash left of writes.
func Open(fs store.FS, dir string) (*Store, error) {
	tmp := filepath.Join(dir, tempDir)
	if err := disk.MkdirAll(fs, tmp); err != nil {
		return nil, kinds(err, "making", tmp)
	}
	left, err := fs.ReadDir(tmp)
	if err != nil {
		return nil, kinds(err, "reading", tmp)
	}
	for _, e := range left {
		if err := fs.Remove(filepath.Join(tmp, e.Name())); err != nil {
			return nil, kinds(err, "removing", filepath.Join(tmp, e.Name()))
		}
	}
	return View(fs, dir), nil
}

// View is a Store for reading, of a directory that another process may have
// open: it changes nothing.
func View(fs store.FS, dir string) *Store {
	s := &Store{fs: fs, dir: dir, pins: make(map[store.Digest]int), condemned: make(map[store.Digest]bool),
		made: make(map[string]bool), clean: make(map[string]bool), changes: make(map[string]uint64), changing: make(map[string]int)}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// path is where a part is, and its folder.
func (s *Store) path(d store.Digest) (folder, name string) {
	hex := d.String()
	folder = filepath.Join(s.dir, hex[:2])
	return folder, filepath.Join(folder, hex+ext)
}

// Put stores a part and pins it; see store.Parts.
func (s *Store) Put(write func(w io.Writer) error) (store.Part, error) {
	parts, err := s.PutAll([]func(io.Writer) error{write})
	if err != nil {
		return store.Part{}, err
	}
	return parts[0], nil
}

// PutAll stores parts and pins them, as often as they are there, with as few
// waits for the disk as possible: several are written at a time, and each
// folder is synced once. An error means that none is stored; the first one of
// the order given is returned.
func (s *Store) PutAll(writes []func(w io.Writer) error) ([]store.Part, error) {
	puts := make([]put, len(writes))
	errs := make([]error, len(writes))
	together(len(writes), func(i int) { errs[i] = s.write(&puts[i], writes[i]) })
	err := first(errs)
	if err == nil {
		err = s.name(puts)
	}
	parts := make([]store.Part, len(puts))
	for i := range puts {
		if err != nil {
			s.undo(&puts[i])
		}
		parts[i] = puts[i].part
	}
	if err != nil {
		return nil, err
	}
	return parts, nil
}

// together calls f for 0 to n-1, several at a time, and waits for all.
func together(n int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(putters, n) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	workers.Wait()
}

func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// put is a part on its way.
type put struct {
	part   store.Part
	temp   string // its bytes, durable; empty: it was there already
	pinned bool
	was    bool // there was a file of its name, damaged
	placed bool // it has its name
}

// write writes a part to a temporary file, makes it durable, and pins it.
func (s *Store) write(p *put, write func(w io.Writer) error) error {
	t := &tempFile{s: s}
	err := write(t)
	if err != nil && t.err == nil {
		t.drop()
		return err // the caller's own
	}
	if err := t.flush(); err != nil {
		t.drop()
		return err
	}
	p.part = t.part()
	s.pin(p.part.Digest)
	p.pinned = true
	if s.good(p.part) { // bytes that are there are read once more rather than written
		t.drop()
		return nil
	}
	if err := t.close(); err != nil {
		t.drop()
		return err
	}
	p.temp = t.name
	return nil
}

// good tells whether the part is there and not damaged.
func (s *Store) good(p store.Part) bool { return s.Has(p) && s.Verify(p) == nil }

// name gives the parts their names, and makes these durable.
func (s *Store) name(puts []put) error {
	var folders []string
	for i := range puts {
		p := &puts[i]
		folder, name := s.path(p.part.Digest)
		if !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
		if p.temp == "" {
			continue
		}
		if err := s.makeFolder(folder); err != nil {
			return err
		}
		_, err := s.fs.Stat(name)
		p.was = err == nil
		rename := func() error { return s.fs.Rename(p.temp, name) }
		if err = s.change(folder, rename); errors.Is(err, os.ErrNotExist) {
			if err = errors.Join(s.again(), s.makeFolder(folder)); err == nil {
				err = s.change(folder, rename)
			}
		}
		if err != nil {
			return written(err, "naming", name)
		}
		p.placed = true
	}
	slices.Sort(folders)
	return s.syncFolders(append([]string{s.dir}, folders...)) // the folders' own names are in dir
}

func (s *Store) makeFolder(folder string) error {
	s.mu.Lock()
	there := s.made[folder]
	s.mu.Unlock()
	if there {
		return nil
	}
	if err := s.change(s.dir, func() error { return s.fs.MkdirAll(folder) }); err != nil {
		return written(err, "making", folder)
	}
	s.mu.Lock()
	s.made[folder] = true
	s.mu.Unlock()
	return nil
}

// again makes the folders again when somebody has removed them: else nothing
// could be written until the next start.
func (s *Store) again() error {
	s.mu.Lock()
	clear(s.made)
	clear(s.clean)
	for folder := range s.changes {
		s.changes[folder]++ // a sync under way is of a folder that is gone
	}
	s.mu.Unlock()
	return disk.MkdirAll(s.fs, filepath.Join(s.dir, tempDir))
}

// change does what changes the names in a folder. Until the next sync that
// begins after it, they are not durable.
func (s *Store) change(folder string, do func() error) error {
	s.mu.Lock()
	s.clean[folder] = false
	s.changing[folder]++
	s.mu.Unlock()
	err := do()
	s.mu.Lock()
	s.changes[folder]++
	s.changing[folder]--
	s.mu.Unlock()
	return err
}

// syncFolders makes the names in folders durable, where they are not known to
// be: after a start nothing is known.
func (s *Store) syncFolders(folders []string) error {
	errs := make([]error, len(folders))
	together(len(folders), func(i int) { errs[i] = s.syncFolder(folders[i]) })
	return first(errs)
}

func (s *Store) syncFolder(folder string) error {
	s.mu.Lock()
	clean, at, still := s.clean[folder], s.changes[folder], s.changing[folder] == 0
	s.mu.Unlock()
	if clean {
		return nil
	}
	if err := s.fs.SyncDir(folder); err != nil {
		return written(err, "syncing", folder)
	}
	s.mu.Lock()
	s.clean[folder] = still && s.changes[folder] == at && s.changing[folder] == 0
	s.mu.Unlock()
	return nil
}

// undo takes back what a failed PutAll did of one part.
func (s *Store) undo(p *put) {
	if p.temp != "" && !p.placed {
		_ = s.fs.Remove(p.temp) // Open removes it if this fails
	}
	if !p.pinned {
		return
	}
	s.Unpin(p.part)
	if p.placed && !p.was {
		_, _ = s.remove(p.part.Digest, func() bool { return s.pins[p.part.Digest] == 0 }) // else a collection does
	}
}

// Pin keeps a part from being collected until as many calls of Unpin: for who
// was told that it is there and will name it in a manifest later. Put pins too.
// A part that is not there is store.ErrMissing.
func (s *Store) Pin(p store.Part) error {
	s.pin(p.Digest)
	if !s.Has(p) {
		s.Unpin(p)
		return fmt.Errorf("part %v: %w", p.Digest, store.ErrMissing)
	}
	return nil
}

// Settle makes the names of parts that are there durable: a process that was
// killed may have left some that are not. Parts that this Store put are.
func (s *Store) Settle(parts ...store.Part) error {
	if len(parts) == 0 {
		return nil
	}
	folders := []string{s.dir}
	for _, p := range parts {
		if folder, _ := s.path(p.Digest); !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	return s.syncFolders(folders)
}

// pin waits for a removal of the part that is under way.
func (s *Store) pin(d store.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.condemned[d] {
		s.cond.Wait()
	}
	s.pins[d]++
	if s.recent != nil {
		s.recent[d] = struct{}{}
	}
}

// Unpin takes back one Pin or Put of each part: once a manifest that is stored
// names it, or nobody wants it any more.
func (s *Store) Unpin(parts ...store.Part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		switch n := s.pins[p.Digest]; {
		case n > 1:
			s.pins[p.Digest] = n - 1
		case n == 1:
			delete(s.pins, p.Digest)
		default:
			panic("part: Unpin of a part that is not pinned")
		}
	}
}

// Pinned is how many parts are pinned.
func (s *Store) Pinned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pins)
}

// Has tells whether the part is there, by name and size only.
func (s *Store) Has(p store.Part) bool {
	_, name := s.path(p.Digest)
	info, err := s.fs.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Size() == p.Size
}

// Find is the part of a digest, with its size as it is here. store.ErrMissing if
// it is not.
func (s *Store) Find(d store.Digest) (store.Part, error) {
	_, name := s.path(d)
	info, err := s.fs.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return store.Part{}, fmt.Errorf("part %v: %w", d, store.ErrMissing)
	}
	return store.Part{Digest: d, Size: info.Size()}, nil
}

// Walk calls f with every part that is there, in order of their digests. Files
// that are no parts are passed over.
func (s *Store) Walk(f func(store.Part) error) error {
	folders, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return kinds(err, "reading", s.dir)
	}
	for _, folder := range folders {
		if !folder.IsDir() || len(folder.Name()) != 2 {
			continue
		}
		files, err := s.fs.ReadDir(filepath.Join(s.dir, folder.Name()))
		if err != nil {
			return kinds(err, "reading", filepath.Join(s.dir, folder.Name()))
		}
		for _, file := range files {
			hex, ok := strings.CutSuffix(file.Name(), ext)
			d, err := store.ParseDigest(hex)
			if !ok || err != nil || hex != d.String() || hex[:2] != folder.Name() {
				continue
			}
			info, err := file.Info()
			if errors.Is(err, os.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return kinds(err, "reading", file.Name())
			}
			if err := f(store.Part{Digest: d, Size: info.Size()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove removes a part unless it is pinned; whether it did. One that is not
// there is no error.
func (s *Store) Remove(p store.Part) (bool, error) {
	return s.remove(p.Digest, func() bool { return s.pins[p.Digest] == 0 })
}

// remove removes a part if may, which is called with the lock held, allows it.
func (s *Store) remove(d store.Digest, may func() bool) (bool, error) {
	s.mu.Lock()
	if s.condemned[d] || !may() {
		s.mu.Unlock()
		return false, nil
	}
	s.condemned[d] = true // who wants to pin it waits, and then finds it gone
	s.mu.Unlock()
	_, name := s.path(d)
	err := s.fs.Remove(name)
	s.mu.Lock()
	delete(s.condemned, d)
	s.cond.Broadcast()
	s.mu.Unlock()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, kinds(err, "removing", name)
	}
	return true, nil
}

func (s *Store) tempName() string {
	return filepath.Join(s.dir, tempDir, strconv.FormatUint(s.temp.Add(1), 10))
}
