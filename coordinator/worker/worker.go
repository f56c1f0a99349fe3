package worker

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Worker is what one process of an agent knows. Not safe for concurrent use.
type Worker struct {
	cfg Config
}

// New makes the worker of a process. The Opened events of all logs on its disk
// come before anything else.
func New(cfg Config) *Worker { return &Worker{cfg: cfg} }

// Step takes one event and returns what must be done, in order. st is the
// replicated state of this agent, as it is now; it is not kept.
func (w *Worker) Step(st *coordinator.State, e Event) []Effect { return nil }

// Wake is when a tick is wanted; MaxTime: not until something else happens.
func (w *Worker) Wake() dataflow.Time { return dataflow.MaxTime }
