package leader

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Event is what happened: exactly one pointer is set, or none for a tick. Now
// is a steady clock of the leader's process: it never goes back, and means
// nothing to anybody else. Wall is for people.
type Event struct {
	Now  dataflow.Time
	Wall dataflow.Time
	// Stood is how long, just before Now, the leader's process stood still, as a whole
	// or for want of a processor. What was said meanwhile has not been heard yet: it is
	// no silence of anybody.
	Stood dataflow.Duration

	From    *From    // an agent said something
	Gone    *Gone    // an agent's stream broke, or gossip thinks it failed
	Applied *Applied // a command was applied here: the leader's own, or one of before
	Refused *Refused // a proposal was not accepted: leadership is lost, or the disk is
	Wish    *Wish    // a person asks for something through the API
	Unsent  *Unsent  // a message cannot be sent: it is too large
	// Of moves of jobs between sites (migrating.go).
	FromSite *FromSite    // the leader of another site said something
	Mirrored *Mirrored    // logs here have come further
	Sites    *[]mesh.Site // all other sites that are reached now
	// Of what sites keep of each other's jobs (replicating.go).
	Offered *Offered // another site has answered what it was asked, or has not
	Wanted  *Wanted  // another site asks
	// Confirmed: a majority has said that this leader leads, at some time after
	// this one of the same clock (raft's VerifyLeader, asked then). Without one in
	// the last Timing.Confirm no lease is granted: a leader that does not know that
	// there is another one must not keep agents alive which that one takes for lost.
	Confirmed *dataflow.Time
}

// From is a message of an agent.
type From struct {
	Node    mesh.NodeID
	Message coordinator.ToLeader
}

// Gone: nothing comes from the agent any more. It is a hint: what counts is its
// lease.
type Gone struct {
	Node mesh.NodeID
	Boot uint64 // of the process that is gone; a greater one may be there already
	Sure bool   // the process has ended: gossip or the machine said so, not only silence
}

// Applied is a command that the replicated state has taken.
type Applied struct {
	Index   uint64
	Command *coordinator.Command
	Err     error // why it changed nothing
	Ref     int   // of the Propose that it was; 0: somebody else's
}

// Refused is a proposal that may or may not be applied some day.
type Refused struct {
	Ref int
	Err error
}

// Wish asks for what needs more than one command. The answer comes as Answer
// with the same Ref.
type Wish struct {
	Ref       int
	Savepoint *coordinator.JobID // take one, go on running
	Request   string             // with Savepoint: sent again with the same one, it is the same savepoint. Random; empty: it is not
	Stop      *coordinator.JobTold
	Migrate   *Migrate
	Failover  *Failover
}

// Effect is what must be done: exactly one pointer is set.
type Effect struct {
	Propose *Propose
	Send    *Send
	Drop    *mesh.NodeID // end this agent's stream; it begins again with Hello
	Answer  *Answer
	ToSite  *ToSite          // say it to the leader of another site
	Moving  *Moving          // show it; it is not in the state
	Ask     *replication.Ask // ask the leader of another site; answered with Offered
	Offer   *Offer           // answers Wanted; without an Offer: ask again
	Tell    string           // one line for people: an event worth telling
}

// Propose puts a command into the Raft log.
type Propose struct {
	Ref     int // from 1, ascending
	Command coordinator.Command
}

// Send tells an agent something over the stream that it opened. If there is none
// it is dropped.
type Send struct {
	To      mesh.NodeID
	Message coordinator.ToAgent
}

// Unsent is a message that its agent will never hear.
type Unsent struct {
	Send
	Err error
}

// Answer answers a wish.
type Answer struct {
	Ref       int
	Savepoint string             // the name of the one that was taken
	Move      coordinator.MoveID // of a wish about a move
	// FailedOver is of such a wish, also where it was refused when it was to be done;
	// nil: before.
	FailedOver *FailedOver
	Err        error
}
