package connect

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

// GiveDisk gives the operators that can use one a file for the state that the
// job's `state: {memory}` has no room for: each the same share of the memory. A
// job of several agents gives each agent's subtasks their share of the whole.
// The files are in scratch, and what is there of an earlier run is of no use.
func GiveDisk(j *job.Job, p *runtime.Plan, scratch string) {
	if j.State.Backend != job.OnDisk {
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
	tidy := sync.OnceValue(func() error { return os.RemoveAll(scratch) })
	for i := range p.Subtasks {
		s := &p.Subtasks[i]
		s.Backings = make([]func() (runtime.Backing, error), len(s.Config.Links))
		for k, c := range s.Config.Links {
			if !backed(c.Factory) {
				continue
			}
			path := filepath.Join(scratch, fmt.Sprintf("%s-%d.db", c.ID, s.Config.ID.Index))
			memory := j.State.Memory / int64(shares)
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
