package connect

import (
	"fmt"
	"os"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors/file"
)

// takenFile is a file that a source reads or a sink writes.
type takenFile struct {
	info os.FileInfo
	name string
	who  string // `source "in" reads`
}

// claim refuses to let a sink write a file that the job reads, or that another
// sink writes: with --overwrite that would empty the input before it was read.
// The job's check knows names only; here links, and a path from another folder,
// are seen through. A file that is not there yet is nobody's.
func (c *Connectors) claim(name string, s *job.Sink) error {
	if c.taken == nil {
		if err := c.TakeInputs(); err != nil {
			return err
		}
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil // what is wrong with it, if anything, opening it will tell
	}
	for _, t := range c.taken {
		if os.SameFile(t.info, info) {
			return fmt.Errorf("%s is the file %s, which %s; choose another path", name, t.name, t.who)
		}
	}
	c.taken = append(c.taken, takenFile{info, name, fmt.Sprintf("sink %q writes", s.ID)})
	return nil
}

// TakeInputs notes the files that sources read. It is done with the first file
// sink, unless it was before.
func (c *Connectors) TakeInputs() error {
	c.taken = []takenFile{}
	for _, s := range c.job.Sources {
		if s.File == nil || s.File.Path == file.Stdin || !c.anyLocal(s) {
			continue
		}
		names, err := c.resolve(s)
		if err != nil {
			return fmt.Errorf("source %q: %w", s.ID, err)
		}
		for _, n := range names {
			info, err := os.Stat(n)
			if err != nil {
				return fmt.Errorf("source %q: %w", s.ID, err)
			}
			c.taken = append(c.taken, takenFile{info, n, fmt.Sprintf("source %q reads", s.ID)})
		}
	}
	return nil
}

// anyLocal tells whether any subtask of a source runs here.
func (c *Connectors) anyLocal(s *job.Source) bool {
	for _, n := range c.job.Graph.Nodes {
		for i := 0; n.ID == s.ID && i < n.Parallelism; i++ {
			if c.local(n.ID, i) {
				return true
			}
		}
	}
	return false
}
