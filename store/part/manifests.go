package part

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

const manifestExt = ".manifest"

// Manifests is a folder of manifests, DIR/NAME.manifest: the checkpoints of a
// job, or the savepoints. Different names may be used at the same time.
type Manifests struct {
	fs    store.FS
	dir   string
	parts *Store // nil: for reading only
}

// OpenManifests makes the folder if need be and removes what a crash left of
// writes. parts is where the parts are that the manifests name.
func OpenManifests(parts *Store, dir string) (*Manifests, error) {
	m := &Manifests{fs: parts.fs, dir: dir, parts: parts}
	if err := disk.MkdirAll(m.fs, dir); err != nil {
		return nil, kinds(err, "making", dir)
	}
	files, err := m.fs.ReadDir(dir)
	if err != nil {
		return nil, kinds(err, "reading", dir)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), manifestExt+disk.Temp) {
			continue
		}
		if err := m.fs.Remove(filepath.Join(dir, f.Name())); err != nil {
			return nil, kinds(err, "removing", f.Name())
		}
	}
	return m, nil
}

// ViewManifests is a folder for reading, which another process may have open.
// One that is not there is empty.
func ViewManifests(fs store.FS, dir string) *Manifests { return &Manifests{fs: fs, dir: dir} }

// Dir is the folder.
func (s *Manifests) Dir() string { return s.dir }

func (s *Manifests) path(name string) string { return filepath.Join(s.dir, name+manifestExt) }

// Put stores a manifest: when it returned, the manifest is durable, and so are
// all parts that it names. A part that is not there is store.ErrMissing. The
// same manifest may be put again; another one of its name is refused unless the
// one that is there is damaged.
func (s *Manifests) Put(m manifest.Manifest) error {
	data, err := manifest.Encode(m)
	if err != nil {
		return err
	}
	needed := manifest.Needed(m)
	for i, p := range needed {
		if err := s.parts.Pin(p); err != nil {
			s.parts.Unpin(needed[:i]...)
			return fmt.Errorf("manifest %s: %w", m.Name, err)
		}
	}
	defer s.parts.Unpin(needed...)
	return s.write(m.Name, data)
}

// Keep stores a manifest whose parts may be on other nodes: those that are here
// are not collected while it is there. Who calls it is the authority on names: another
// manifest of this name is replaced, in one step and durably.
func (s *Manifests) Keep(m manifest.Manifest) error {
	data, err := manifest.Encode(m)
	if err != nil {
		return err
	}
	was, err := s.bytes(s.path(m.Name))
	if err == nil && bytes.Equal(was, data) {
		return s.sync()
	}
	return s.replace(m.Name, data, errors.Is(err, store.ErrMissing))
}

// write stores a manifest's bytes, durably, unless another one has its name.
func (s *Manifests) write(of string, data []byte) error {
	name := s.path(of)
	was, err := s.bytes(name)
	fresh := errors.Is(err, store.ErrMissing)
	switch {
	case fresh:
	case err != nil && !errors.Is(err, store.ErrCorrupt):
		return err
	case err == nil && bytes.Equal(was, data):
		return s.sync()
	default:
		if _, damaged := manifest.Decode(was); err == nil && damaged == nil {
			return fmt.Errorf("%s: another manifest has this name; choose one, or delete it", name)
		}
	}
	return s.replace(of, data, fresh)
}

// sync makes a name durable that is there: it may not be yet.
func (s *Manifests) sync() error { return kinds(s.fs.SyncDir(s.dir), "syncing", s.dir) }

// replace writes a manifest's file, in place of one that may be there. fresh: there is none.
func (s *Manifests) replace(of string, data []byte, fresh bool) error {
	name := s.path(of)
	err := disk.Replace(s.fs, name, data)
	if err != nil && fresh {
		_ = s.fs.Remove(name) // if this fails too, it may be seen: it is whole
	}
	return kinds(err, "writing", name)
}

// bytes reads a manifest's file.
func (s *Manifests) bytes(name string) ([]byte, error) {
	data, err := disk.Read(s.fs, name, manifest.MaxBytes)
	return data, kinds(err, "reading manifest", name)
}

// Get reads a manifest: store.ErrMissing if it is not there, store.ErrCorrupt
// if it is damaged.
func (s *Manifests) Get(name string) (manifest.Manifest, error) {
	if err := manifest.CheckName(name); err != nil {
		return manifest.Manifest{}, err
	}
	data, err := s.bytes(s.path(name))
	if err != nil {
		return manifest.Manifest{}, err
	}
	m, err := manifest.Decode(data)
	if err == nil && m.Name != name {
		err = fmt.Errorf("%w: it is the manifest %q under another name", store.ErrCorrupt, m.Name)
	}
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("%s: %w", s.path(name), err)
	}
	return m, nil
}

// Entry is a manifest of a folder.
type Entry struct {
	Name     string
	Manifest manifest.Manifest // if Err is nil
	Err      error             // why it cannot be read
}

// List reads all manifests, oldest first, and those that cannot be read, by
// name, behind them.
func (s *Manifests) List() ([]Entry, error) {
	files, err := s.fs.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, kinds(err, "reading", s.dir)
	}
	var list []Entry
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), manifestExt)
		if !ok || f.IsDir() {
			continue
		}
		e := Entry{Name: name}
		if e.Manifest, e.Err = s.Get(name); errors.Is(e.Err, store.ErrMissing) {
			continue // deleted meanwhile
		}
		list = append(list, e)
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		switch {
		case (a.Err == nil) != (b.Err == nil):
			return a.Err == nil
		case a.Err == nil && a.Manifest.ID.Less(b.Manifest.ID):
			return true
		case a.Err == nil && b.Manifest.ID.Less(a.Manifest.ID):
			return false
		}
		return a.Name < b.Name
	})
	return list, nil
}

// Delete removes a manifest, a damaged one too, for good. Its parts stay until
// a collection. One that is not there is store.ErrMissing.
func (s *Manifests) Delete(name string) error {
	if err := manifest.CheckName(name); err != nil {
		return err
	}
	if err := s.fs.Remove(s.path(name)); err != nil {
		return kinds(err, "deleting", s.path(name))
	}
	return s.sync()
}

// Folders are all folders of manifests below a state directory: jobs/JOB/checkpoints
// of every job, and savepoints. They are what Collect wants.
func Folders(parts *Store, root string) ([]*Manifests, error) {
	dirs := []string{filepath.Join(root, "savepoints")}
	jobs, err := parts.fs.ReadDir(filepath.Join(root, "jobs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, kinds(err, "reading", filepath.Join(root, "jobs"))
	}
	for _, j := range jobs {
		if j.IsDir() {
			dirs = append(dirs, filepath.Join(root, "jobs", j.Name(), "checkpoints"))
		}
	}
	var all []*Manifests
	for _, d := range dirs {
		info, err := parts.fs.Stat(d)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, kinds(err, "reading", d)
		}
		if info.IsDir() {
			all = append(all, &Manifests{fs: parts.fs, dir: d, parts: parts})
		}
	}
	return all, nil
}
