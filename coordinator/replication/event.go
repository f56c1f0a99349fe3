package replication

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Event is what happened: exactly one field is set, and what goes with it, or none for a tick. Now is a
// steady clock of the leader's process.
type Event struct {
	Now dataflow.Time

	Offer    *coordinator.Offer // the answer to an Ask
	Asked    int64              // with Offer: Ask.No
	Failed   error              // the last Ask has no answer
	Rejected *Rejected
	Jobs     []coordinator.JobID // their records, copies or logs are others
	All      bool                // those of any job may be; so a follower begins
}

// Records are the replicas as they are now. What a Step does not have to know of a job
// it does not ask for, as it may be dear.
type Records struct {
	Of   func(coordinator.JobID) Record // without a Replica: nothing is kept of the job
	Kept func() []coordinator.JobID     // the jobs of which something is kept and that the other site has, or had, in order
}

// Rejected is a proposal that changed nothing, or was not accepted.
type Rejected struct {
	Job     coordinator.JobID
	Err     error
	Refused bool // by the state: as that is now it always will be
}

// Record is a replica as it is now.
type Record struct {
	*coordinator.Replica
	Settled bool // it may say who is said to have the job: SettledLevel
	Copied  bool // each part of Next has the copies here that it can have, one at least
	// Whole: the logs are durable here up to where Next stands, and Ends says how far.
	Whole bool
	Ends  []coordinator.FeedEnd
	Void  bool // they never will be, as one of them begins behind that: another snapshot is fetched
	Stuck bool // parts of Next could not be fetched from the agents that are known to have them
	// Taken is a feed of this site that was a mirror of the other one's, until another job
	// was taken with it: what is kept stands in it, and gets nothing new. Empty: none is.
	Taken string
}

// Effect is what must be done: exactly one field is set.
type Effect struct {
	Ask     *Ask
	Propose *coordinator.Command // one of those about replicas
	Tell    string               // one line for people
}

// Ask asks another site's leader.
type Ask struct {
	Site mesh.Site
	No   int64 // ascends: an answer says to which question it is, as one may be asked while another is under way
	Want coordinator.Want
}

// Config is when what is done. The zero value of a field: its default.
type Config struct {
	Every dataflow.Duration // from an answer to the next question, where something is kept of the site's jobs; 1 s
	Calm  dataflow.Duration // where nothing is; 5 s
	Retry dataflow.Duration // of what was rejected, or has no answer; 2 s
	Lost  dataflow.Duration // a question without answer is asked again; 15 s
	Pin   dataflow.Duration // what a site was fetching when it asked last is kept for so long; 1 h
	Grace dataflow.Duration // a new leader lets nothing go that another site may be fetching; 15 s
}

func (c Config) filled() Config {
	for _, f := range []struct {
		d *dataflow.Duration
		v dataflow.Duration
	}{
		{&c.Every, dataflow.Second}, {&c.Calm, 5 * dataflow.Second}, {&c.Retry, 2 * dataflow.Second},
		{&c.Lost, 15 * dataflow.Second}, {&c.Pin, dataflow.Hour}, {&c.Grace, 15 * dataflow.Second},
	} {
		if *f.d == 0 {
			*f.d = f.v
		}
	}
	return c
}
