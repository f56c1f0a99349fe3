package leader

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Leader is what one term of leadership knows and has under way. Not safe for
// concurrent use.
type Leader struct {
	cfg Config
}

// New makes the leader of a term. Its first Step begins the term.
func New(cfg Config) *Leader { return &Leader{cfg: cfg} }

// Step takes one event and returns what must be done, in order. st is the
// replicated state of this agent, as it is now; it is not kept.
func (l *Leader) Step(st *coordinator.State, e Event) []Effect { return nil }

// Wake is when a tick is wanted; MaxTime: not until something else happens.
func (l *Leader) Wake() dataflow.Time { return dataflow.MaxTime }
