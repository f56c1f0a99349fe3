package migration

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Event is what happened, or is so: exactly one pointer or sentence is set, or
// none for a tick. Now is a steady clock of the leader's process: it never goes
// back, and means nothing to the other site.
type Event struct {
	Now dataflow.Time

	Record   *Record // the record has changed
	Rejected error   // the last Propose changed nothing, or was not accepted

	// Of a Source.
	FromTarget *coordinator.ToSource
	Newest     *coordinator.MoveNewest // the job's newest complete checkpoint, and where its logs end now
	Halted     *Halted
	Held       *Held
	Ended      string // the job has ended in another way: why
	Cancel     *Wish  // a person wants the job to stay

	// Of a Target.
	FromSource *coordinator.ToTarget
	Checked    *Checked
	Fetched    *Fetched
	Logs       *Logs
	First      bool  // the first row has come out of the job here
	Force      *Wish // a person knows that the source is lost: active without its decision
	Drop       *Wish // a person does not want the job here
}

// Record is the move as it is on record now; nil: it is not, or not any more.
type Record struct {
	Departure *coordinator.Departure // of a Source
	Arrival   *coordinator.Arrival   // of a Target
}

// Halted: the job is stopped, by the state, with a savepoint; nil: it is not any
// more.
type Halted struct {
	Savepoint *coordinator.Snapshot
	// Last is when the last row came out of the job, on the clock of Event.Now; 0: not
	// known.
	Last dataflow.Time
}

// Held: no feed that moves has a session, their logs are sealed, and Ends is where
// all feeds' logs end, of those that stay what the savepoint needs at least. It
// stays true until the move is decided.
type Held struct{ Ends []coordinator.FeedEnd }

// Wish is a person's. It is answered with its Ref.
type Wish struct {
	Ref int
	Why string
}

// Checked answers Check: whether the job can be restored and run here.
type Checked struct{ Why string } // empty: it can

// Fetched answers Fetch: all parts of a snapshot have their copies here.
type Fetched struct {
	Snapshot *coordinator.Snapshot // with those copies
	Bytes    int64                 // that came for it over the link
	Took     dataflow.Duration
}

// Logs is how far the job's logs are durable here, in all the copies they need.
type Logs struct {
	Ends []coordinator.FeedEnd
	Lag  int64 // bytes that the source is known to have besides
}

// Effect is what must be done: exactly one field is set.
type Effect struct {
	Propose *coordinator.MoveCommand // put it into this site's Raft log
	Send    *Send
	Answer  *Answer
	Tell    *Progress

	Checkpoint bool // Source: take a checkpoint of the job soon; Newest follows
	// Check whether the job can run here: operators, schemas, slots, connectors
	// within reach. Checked follows.
	Check *coordinator.MovePropose
	Fetch *coordinator.Snapshot // all parts that are missing here, instead of what was fetched before. Fetched follows, or Fetch comes again

	Over bool // the machine is done: drop it
}

// Send is a message for the leader of another site.
type Send struct {
	To     mesh.Site
	Target *coordinator.ToTarget
	Source *coordinator.ToSource
}

// Answer answers a wish. An error says why it did not become true.
type Answer struct {
	Ref int
	Err error
}

// Progress is one line for people. What is not known is 0.
type Progress struct {
	Phase string            // that the move is in now
	Round int               // of copying
	Bytes int64             // of the last round; of a phase that ended: in all
	Took  dataflow.Duration // of the last round; of a phase that ended: from its beginning, as far as this leader knows
	Ended string            // the phase that has just ended
	Left  dataflow.Duration // what would still be to copy if the job were halted now, as time
	Lag   int64             // bytes of logs that the target does not have
	// Snapshot is what the target has with a round: each leader tells the last one again.
	Snapshot string
	Anew     bool              // Source: a new leader goes on, and counts rounds and bytes from here
	Pause    dataflow.Duration // from the last row out here to the first row out there
	Error    dataflow.Duration // half of what Pause may be off, for the way between the sites
	Doubt    bool              // Target: IN_DOUBT
	Why      string
}

// Config is what both machines go by. The zero value of a field: its default.
type Config struct {
	Repeat  dataflow.Duration // what has no answer is said again; 1 s
	Silence dataflow.Duration // of the target while copying: abort; 60 s
	Halt    dataflow.Duration // of the job to stop: abort; give checkpoint.timeout. 60 s
	Offer   dataflow.Duration // of the target to be prepared: abort; 60 s
	Small   dataflow.Duration // to copy what is left: halt; 200 ms
	Rounds  int               // of copying, at most; 10
	Doubt   dataflow.Duration // of a prepared target without a decision: IN_DOUBT; 5 s
	Keep    dataflow.Duration // a decided arrival stays on record, for people; 10 min
	Measure dataflow.Duration // that a source waits to hear of the first row before it forgets; 30 s
}

func (c Config) filled() Config {
	for _, f := range []struct {
		d *dataflow.Duration
		v dataflow.Duration
	}{
		{&c.Repeat, dataflow.Second}, {&c.Silence, dataflow.Minute}, {&c.Halt, dataflow.Minute}, {&c.Offer, dataflow.Minute},
		{&c.Small, 200 * dataflow.Millisecond}, {&c.Doubt, 5 * dataflow.Second}, {&c.Keep, 10 * dataflow.Minute}, {&c.Measure, 30 * dataflow.Second},
	} {
		if *f.d == 0 {
			*f.d = f.v
		}
	}
	if c.Rounds == 0 {
		c.Rounds = 10
	}
	return c
}
