package leader

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
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
	// Lapsed: for Timing.Lapse before this term the agent on which this leader is had no
	// lease of any leader of the site, as far as its process knows. Another site may
	// have taken jobs meanwhile.
	Lapsed      bool
	Moving      migration.Config                        // when moves do what
	Replication replication.Config                      // when sites ask each other
	Parse       func(*coordinator.Job) (*Parsed, error) // nil: Parse; pure
}

// Timing is how long the leader waits for what. All agents of a site have the
// same.
type Timing struct {
	Lease   dataflow.Duration // that an agent has from the sending of a granted heartbeat
	Silence dataflow.Duration // of an agent of which somebody said that it is gone: then it is lost
	Confirm dataflow.Duration // leases are granted for so long after a majority confirmed this leader
	Retry   dataflow.Duration // after a proposal was refused
	Finish  dataflow.Duration // for all agents to end an attempt whose last checkpoint is complete
	Replace dataflow.Duration // a member of a log that is lost for so long is replaced, if there is somebody
	Close   dataflow.Duration // for an agent that is there to end an attempt; then it gets no lease until it has
	Prepare dataflow.Duration // for an agent that is there to prepare an attempt
	Apart   dataflow.Duration // two agents that did not reach each other are kept apart for so long
	Gather  dataflow.Duration // from what may have taken copies away to the look at it
	Forsake dataflow.Duration // copies on an agent that is lost for so long are made anew on others
	Again   dataflow.Duration // copies that could not be made are tried again
	Copy    dataflow.Duration // for an agent that is there to copy what it was asked for
	Contact dataflow.Duration // another site has said that it has not taken a job: that holds for so long
	Lapse   dataflow.Duration // see Config.Lapsed
}

// DefaultTiming is that of a site.
func DefaultTiming() Timing {
	return Timing{Lease: 3 * dataflow.Second, Silence: 1500 * dataflow.Millisecond, Confirm: 500 * dataflow.Millisecond,
		Retry: 200 * dataflow.Millisecond, Finish: 5 * dataflow.Second, Replace: 5 * dataflow.Second, Close: 30 * dataflow.Second, Prepare: 10 * dataflow.Minute,
		Apart: dataflow.Minute, Gather: 10 * dataflow.Second, Forsake: 10 * dataflow.Minute, Again: dataflow.Minute, Copy: dataflow.Hour,
		Contact: dataflow.Minute, Lapse: dataflow.Minute}
}

// Safe is how long after the leader granted a lease nobody acts on it any more,
// whatever the two clocks make of three seconds.
func (t Timing) Safe() dataflow.Duration { return t.Lease + t.Lease/10 }
