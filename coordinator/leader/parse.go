package leader

import (
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/coordinator/restart"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// Parsed is what the leader must know of a job's text.
type Parsed struct {
	Job        *job.Job
	Graph      *graph.ExecutionGraph
	Feeds      []FeedUse
	Checkpoint checkpoint.Config // its times and limits only
	Restart    restart.Config
	// Unfenced: a sink of it acts where no token is looked at. A broker knows none.
	Unfenced bool
}

// FeedUse is a source that reads a feed.
type FeedUse struct {
	Source dataflow.OperatorID
	Feed   string // its name in the state
}
