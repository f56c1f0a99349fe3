package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// Savepoints lists all savepoints, oldest first, and behind them those that cannot
// be read. Those of several jobs have no order but that of the wall clock.
func (s *State) Savepoints() ([]part.Entry, error) {
	list, err := s.savepoints.List()
	whole := slices.IndexFunc(list, func(e part.Entry) bool { return e.Err != nil })
	if whole < 0 {
		whole = len(list)
	}
	sort.SliceStable(list[:whole], func(i, j int) bool { return list[i].Manifest.Created < list[j].Manifest.Created })
	return list, err
}

// Jobs are the names of the jobs that have a folder, sorted.
func (s *State) Jobs() ([]string, error) {
	dirs, err := s.fs.ReadDir(filepath.Join(s.dir, "jobs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, d := range dirs {
		if d.IsDir() {
			names = append(names, d.Name())
		}
	}
	return names, nil
}

// AgentJobs are those of Jobs that an agent has put there, not a process that ran a job
// alone in this folder: such a one counts its attempts there before all else.
func (s *State) AgentJobs() ([]string, error) {
	names, err := s.Jobs()
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := s.fs.Stat(filepath.Join(s.dir, "jobs", name, "attempt"))
		return !errors.Is(err, os.ErrNotExist)
	}), err
}

// Checkpoints lists the checkpoints of a job that are kept, oldest first, and
// those that cannot be read.
func (s *State) Checkpoints(jobName string) ([]part.Entry, error) {
	if err := manifest.CheckName(jobName); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "jobs", jobName, "checkpoints")
	if _, err := s.fs.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("job %q is %w in %s", jobName, store.ErrMissing, s.dir)
	}
	return part.ViewManifests(s.fs, dir).List()
}

// Manifest finds a savepoint by its name, or a checkpoint by JOB/NAME.
func (s *State) Manifest(name string) (manifest.Manifest, error) {
	jobName, checkpoint := filepath.Split(filepath.ToSlash(name))
	if jobName == "" {
		return s.savepoints.Get(name)
	}
	jobName = jobName[:len(jobName)-1]
	if err := manifest.CheckName(jobName); err != nil {
		return manifest.Manifest{}, err
	}
	return part.ViewManifests(s.fs, filepath.Join(s.dir, "jobs", jobName, "checkpoints")).Get(checkpoint)
}

// Import stores what Export wrote, under another name if one is given. The
// folder must be open for writing.
func (s *State) Import(r io.Reader, name string) (manifest.Manifest, error) {
	return part.Import(r, s.savepoints, name)
}

// errNeeded means that a job has nothing else to go on from.
var errNeeded = errors.New("a job needs it")

// Delete deletes a savepoint, and the parts that nothing else names. One that a
// job was started from and has no checkpoint after is refused. What feeds keep
// for it is for the caller to let go.
func (s *State) Delete(name string) error {
	jobs, err := s.Jobs()
	if err != nil {
		return err
	}
	for _, n := range jobs {
		j := &Job{state: s, name: n, dir: filepath.Join(s.dir, "jobs", n), checkpoints: part.ViewManifests(s.fs, filepath.Join(s.dir, "jobs", n, "checkpoints"))}
		o, err := j.origin()
		if err != nil || o.Savepoint != name {
			continue // a damaged file of a job keeps nobody from deleting
		}
		list, err := j.checkpoints.List()
		if err != nil {
			return err
		}
		needed := true
		for _, e := range list {
			needed = needed && (e.Err != nil || e.Manifest.ID.Token.Attempt < o.Attempt)
		}
		if needed {
			return fmt.Errorf("savepoint %s: %w: %q was started from it and has completed no checkpoint since; run it until it has, or delete %s", name, errNeeded, n, j.dir)
		}
	}
	if err := s.savepoints.Delete(name); err != nil {
		return err
	}
	_, err = s.Collect()
	return err
}
