package worker

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Config is what an agent is when its process starts.
type Config struct {
	Agent coordinator.Agent // what its Hello says it is; Agent.Node is this node
	Site  mesh.Site
	Boot  uint64 // of this process: greater than that of any before it in this data folder
	// Folders are the names of the jobs' folders on this disk at the start. The site may
	// have forgotten their jobs meanwhile. Names that are no JobID's mean nothing here.
	Folders []string
	Timing  Timing
}

// Timing is how often an agent speaks.
type Timing struct {
	Heartbeat dataflow.Duration // from one to the next while the stream to the leader stands
	Redial    dataflow.Duration // from a stream that broke, or was not made, to the next try
}

// DefaultTiming is that of a site.
func DefaultTiming() Timing {
	return Timing{Heartbeat: 500 * dataflow.Millisecond, Redial: 200 * dataflow.Millisecond}
}
