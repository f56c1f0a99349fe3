package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// Parts are the parts of the folder.
func (s *State) Parts() *part.Store { return s.parts }

// SyncKept makes the manifests of a job's checkpoints on this disk those that are
// kept: jobName names the folder; empty, it is that of savepoints. Their parts
// may be on other nodes. Those that are missing here are written before others
// are deleted, and Collect comes after it. A file of a kept name with another
// manifest is replaced. After an error all is done that could be: Collect spares
// what those name that could not be written, until the next call for this job.
// changed: it wrote or deleted some, also where others failed.
func (s *State) SyncKept(jobName string, kept []manifest.Manifest) (changed bool, err error) {
	if jobName != "" {
		if err := manifest.CheckName(jobName); err != nil {
			return false, err
		}
	}
	s.spare(jobName, kept)
	unwritten, changed, err := s.syncKept(jobName, kept)
	s.spare(jobName, unwritten)
	return changed, err
}

func (s *State) syncKept(jobName string, kept []manifest.Manifest) (unwritten []manifest.Manifest, changed bool, err error) {
	folder := s.savepoints
	if jobName != "" {
		if _, err := s.fs.Stat(s.checkpointsOf(jobName)); len(kept) == 0 && errors.Is(err, os.ErrNotExist) {
			return nil, false, nil
		}
		if folder, err = part.OpenManifests(s.parts, s.checkpointsOf(jobName)); err != nil {
			return kept, false, err
		}
	}
	list, err := folder.List()
	if err != nil {
		return kept, false, err
	}
	var errs []error
	for _, m := range kept {
		there := slices.ContainsFunc(list, func(e part.Entry) bool { return e.Name == m.Name && e.Err == nil && same(e.Manifest, m) })
		if there {
			continue
		}
		err := folder.Keep(m)
		if err != nil {
			errs, unwritten = append(errs, err), append(unwritten, m)
		}
		changed = changed || err == nil
	}
	for _, e := range list { // also after an error: it may be to make room
		if !slices.ContainsFunc(kept, func(m manifest.Manifest) bool { return m.Name == e.Name }) {
			err := folder.Delete(e.Name)
			errs, changed = append(errs, err), changed || err == nil
		}
	}
	return unwritten, changed, errors.Join(errs...)
}

// spare notes what Collect spares of a job beside what is on disk.
func (s *State) spare(jobName string, unwritten []manifest.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unwritten[jobName] = unwritten; len(unwritten) == 0 {
		delete(s.unwritten, jobName)
	}
}

// spared are the parts that manifests name which are kept, and could not be written.
func (s *State) spared() []store.Part {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []manifest.Manifest
	for _, ms := range s.unwritten {
		all = append(all, ms...)
	}
	return manifest.Needed(all...)
}

// same tells whether two manifests are one. A name may be given again while nobody looks,
// and checkpoints of two jobs may have the same id.
func same(a, b manifest.Manifest) bool {
	if a.Job != b.Job || a.ID != b.ID {
		return false
	}
	one, err := manifest.Encode(a)
	other, wrong := manifest.Encode(b)
	return err == nil && wrong == nil && bytes.Equal(one, other)
}

// Scratch is where a job may keep files that are of no use to a later run.
func (s *State) Scratch(jobName string) string {
	return filepath.Join(s.dir, "jobs", jobName, "scratch")
}

// Tidy removes what a process before left that is of no use to this one: scratch, and
// rows that wait in sinks' files, which checkpoints hold. No job may run yet.
func (s *State) Tidy() error {
	return s.each(filepath.Join(s.dir, "jobs"), func(job string, _ fs.DirEntry) error {
		return s.each(job, func(name string, e fs.DirEntry) error {
			switch e.Name() {
			case "scratch":
				return s.remove(name, e)
			case "sinks":
				return s.each(name, func(sink string, _ fs.DirEntry) error {
					return s.each(sink, func(name string, e fs.DirEntry) error {
						if filepath.Ext(name) != ".pending" {
							return nil
						}
						return s.remove(name, e)
					})
				})
			}
			return nil
		})
	})
}

// Forget removes all that is here of a job but parts, which Collect does. It must not run.
func (s *State) Forget(jobName string) error {
	return s.each(filepath.Join(s.dir, "jobs"), func(job string, e fs.DirEntry) error {
		if e.Name() != jobName {
			return nil
		}
		return s.remove(job, e)
	})
}

// each does something with what is in a folder, if there is one.
func (s *State) each(dir string, f func(name string, e fs.DirEntry) error) error {
	list, err := s.fs.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	errs := []error{err}
	for _, e := range list {
		errs = append(errs, f(filepath.Join(dir, e.Name()), e))
	}
	return errors.Join(errs...)
}

// remove removes a file, or a folder with what is in it; of a link only the link.
func (s *State) remove(name string, e fs.DirEntry) error {
	if e.IsDir() {
		if err := s.each(name, s.remove); err != nil {
			return err
		}
	}
	if err := s.fs.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SinkDir is where a sink keeps what must outlive the process.
func (s *State) SinkDir(jobName string, sink dataflow.OperatorID) string {
	return filepath.Join(s.dir, "jobs", jobName, "sinks", string(sink))
}

// Damaged are those of the parts that are here and damaged.
func (s *State) Damaged(parts []store.Part) (bad []store.Part) {
	for _, p := range parts {
		if errors.Is(s.parts.Verify(p), store.ErrCorrupt) {
			bad = append(bad, p)
		}
	}
	return bad
}

// Needed are the parts that Restore reads for the subtasks of a layout, each
// once.
func Needed(plan *restore.Plan, l Layout, subtasks []dataflow.SubtaskID) []store.Part {
	seen := make(map[store.Digest]bool)
	var all []store.Part
	add := func(uses []manifest.PartUse) {
		for _, u := range uses {
			if !seen[u.Digest] {
				seen[u.Digest] = true
				all = append(all, u.Part)
			}
		}
	}
	for _, id := range subtasks {
		for _, t := range l.Tables[id] {
			o := plan.Operator(t.Operator)
			if o == nil {
				continue
			}
			if !t.Keyed && t.Spread == operator.Split && o.From != o.To { // it is counted first
				for _, of := range o.Tables {
					if !of.Table.Keyed && of.Table.Spread == operator.Split {
						for _, sh := range of.Saved.Shards {
							add(sh.Parts)
						}
					}
				}
				continue
			}
			for _, sh := range o.Shares(t.Name, id.Index, nil) {
				add(sh.Parts)
			}
		}
	}
	return all
}
