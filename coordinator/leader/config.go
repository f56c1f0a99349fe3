package leader

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Config is what a leader begins its term with.
type Config struct {
	Term   uint64 // of Raft
	Self   mesh.NodeID
	Site   mesh.Site
	Level  uint32 // the feature level that this binary knows
	Timing Timing
	Parse  func(*coordinator.Job) (*Parsed, error) // nil: Parse; pure
	Place  func(Request) Placing                   // nil: Place; pure
}

// Timing is how long the leader waits for what. All agents of a site have the
// same.
type Timing struct {
	Lease   dataflow.Duration // that an agent has from the sending of a granted heartbeat
	Silence dataflow.Duration // of an agent of which somebody said that it is gone: then it is lost
	Confirm dataflow.Duration // leases are granted for so long after a majority confirmed this leader
	Retry   dataflow.Duration // after a proposal was refused
	Finish  dataflow.Duration // for all agents to end an attempt whose last checkpoint is complete
	Prefer  dataflow.Duration // an owner of a log that cannot reach a member for so long gets another one, if there is one
}

// DefaultTiming is that of a site.
func DefaultTiming() Timing {
	return Timing{Lease: 3 * dataflow.Second, Silence: 1500 * dataflow.Millisecond, Confirm: 500 * dataflow.Millisecond,
		Retry: 200 * dataflow.Millisecond, Finish: 5 * dataflow.Second, Prefer: 5 * dataflow.Second}
}

// Safe is how long after the leader granted a lease nobody acts on it any more,
// whatever the two clocks make of three seconds.
func (t Timing) Safe() dataflow.Duration { return t.Lease + t.Lease/10 }

// Request asks for places for a job.
type Request struct {
	State  *coordinator.State
	Job    *coordinator.Job
	Parsed *Parsed
	Alive  func(mesh.NodeID) bool
	// Owners are the agents on which the subtasks of a source with lanes of a feed
	// must run.
	Owners map[dataflow.OperatorID]mesh.NodeID
}

// Placing is the answer: a place for every subtask, or why there is none.
type Placing struct {
	Places []coordinator.Place
	Why    string
}
