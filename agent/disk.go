package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/store/statedb"
)

// giveDisk gives the operators that can use one a file for the state that the
// job's `state: {memory}` has no room for: each the same share of the memory.
func (l *Local) giveDisk(p *runtime.Plan) {
	if l.job.State.Backend != job.OnDisk {
		return
	}
	shares := 0
	for i := range p.Subtasks {
		for _, c := range p.Subtasks[i].Config.Links {
			if backed(c.Factory) {
				shares++
			}
		}
	}
	// What an earlier run left, with another parallelism perhaps, goes first.
	tidy := sync.OnceValue(func() error { return os.RemoveAll(l.scratchDir()) })
	for i := range p.Subtasks {
		s := &p.Subtasks[i]
		s.Backings = make([]func() (runtime.Backing, error), len(s.Config.Links))
		for k, c := range s.Config.Links {
			if !backed(c.Factory) {
				continue
			}
			path := filepath.Join(l.scratchDir(), fmt.Sprintf("%s-%d.db", c.ID, s.Config.ID.Index))
			memory := l.job.State.Memory / int64(shares)
			s.Backings[k] = func() (runtime.Backing, error) {
				if err := tidy(); err != nil {
					return nil, fmt.Errorf("remove what an earlier run left: %w", err)
				}
				return statedb.Open(path, statedb.Options{Memory: memory})
			}
		}
	}
}

func backed(f operator.Factory) bool {
	b, ok := f.(operator.Backed)
	return ok && b.Backed()
}

// scratchDir is where the files are: what is in it is of no use to a later run.
// A run without a state folder has its own, where temporary files go.
func (l *Local) scratchDir() string {
	if l.durable != nil {
		return filepath.Join(l.opt.State.store.Dir(), "jobs", l.job.Name, "scratch")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("tidemark-%d-%s", os.Getpid(), l.job.Name))
}
