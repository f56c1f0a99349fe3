package part

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Collected is what a collection did.
type Collected struct {
	Kept    int // parts
	Removed int
	Bytes   int64 // of those removed
}

// Collect removes the parts that no manifest names, that are not spared, and that
// nobody has pinned. find lists the folders of all manifests (Folders, as a rule);
// it is called after the collection has begun, so that none that appears later can
// name a part that is removed. A manifest that cannot be read stops the collection before
// anything is removed, as nobody knows what it names: delete or mend it.
//
// The order makes it safe: what is pinned is noted first, then the manifests are
// read, then deletions of manifests are made durable, and only then parts go. A
// crash in between leaves parts too many. One collection at a time: a second one
// is refused.
func (s *Store) Collect(find func() ([]*Manifests, error), spared ...store.Part) (Collected, error) {
	if !s.beginCollection() {
		return Collected{}, fmt.Errorf("parts of %s: a collection is under way", s.dir)
	}
	defer s.endCollection()
	var done Collected
	named, err := s.mark(find)
	if err != nil {
		return done, err
	}
	for _, p := range spared {
		named[p.Digest] = struct{}{}
	}
	err = s.Walk(func(p store.Part) error {
		if _, ok := named[p.Digest]; ok {
			done.Kept++
			return nil
		}
		gone, err := s.remove(p.Digest, func() bool { _, used := s.recent[p.Digest]; return !used })
		switch {
		case err != nil:
			return err
		case gone:
			done.Removed++
			done.Bytes += p.Size
		default:
			done.Kept++
		}
		return nil
	})
	return done, err
}

func (s *Store) beginCollection() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recent != nil {
		return false
	}
	s.recent = make(map[store.Digest]struct{}, len(s.pins))
	for d := range s.pins {
		s.recent[d] = struct{}{}
	}
	return true
}

func (s *Store) endCollection() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = nil
}

// mark reads all manifests.
func (s *Store) mark(find func() ([]*Manifests, error)) (map[store.Digest]struct{}, error) {
	folders, err := find()
	if err != nil {
		return nil, err
	}
	named := make(map[store.Digest]struct{})
	for _, f := range folders {
		list, err := f.List()
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if e.Err != nil {
				return nil, fmt.Errorf("nothing is collected: %w; delete it if it is not needed", e.Err)
			}
			for _, p := range manifest.Needed(e.Manifest) {
				named[p.Digest] = struct{}{}
			}
		}
		// A manifest whose deletion is not durable could come back without parts.
		if err := s.fs.SyncDir(f.dir); err != nil {
			return nil, kinds(err, "syncing", f.dir)
		}
	}
	return named, nil
}
