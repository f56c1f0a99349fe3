package worker

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Event is what happened: exactly one field is set besides Now, or none for a
// tick. Now is a clock that never goes back and counts the time in which the
// machine slept.
type Event struct {
	Now dataflow.Time

	State     bool         // the replicated state that Step is given has changed
	Leader    *mesh.NodeID // who leads, as far as is known; empty: nobody
	Connected *bool        // the stream to the leader stands (Hello is the first message), or broke
	Message   *coordinator.ToAgent
	Attempt   *AttemptEvent // the executor says something of an attempt
	Log       *LogEvent     // and of a feed's log
	// Copied answers Copy; with no Order the executor has found out that parts are not
	// here which the state says are.
	Copied *coordinator.Copied
	Warmed *coordinator.Warmed // answers Warm
	Probed *coordinator.Probed // answers Probe; a leader that has heard nothing asks again
	Leave  bool                // the process is about to end: the leader is told, and gives what is here to others
	Beat   bool                // the leader is to hear now how things stand, and not with the next heartbeat
	Unsent *Unsent             // what was to be sent cannot be: it is too large
}

// Unsent is a message that the leader will never hear.
type Unsent struct {
	Message coordinator.ToLeader
	Err     error
}

// AttemptEvent is what became of an attempt here: what is to be passed to the
// leader, and what worker keeps to say it again in a Hello.
type AttemptEvent struct {
	Prepared  *coordinator.Prepared
	Failed    *coordinator.AttemptFailed // it is closed: nothing of it is left
	Stored    *coordinator.Stored
	NotStored *coordinator.NotStored
	Exhausted *coordinator.Exhausted
	Committed *coordinator.Committed
	Flowed    *coordinator.Flowed // passed on, and not kept
	Ended     *coordinator.AttemptEnded
	Closed    *coordinator.AttemptRef // after Close: nothing of it is left
}

// LogEvent is what became of a feed's log here.
type LogEvent struct {
	Opened    *coordinator.LogNow // it was found on disk at the start
	Sealed    *coordinator.Sealed
	InSync    *coordinator.InSync
	OutOfSync *coordinator.OutOfSync
	Failed    *LogFailed
	Done      *string // one more of what was asked of a feed's log is done, or has failed; said last
}

// LogFailed: the log cannot be opened or written.
type LogFailed struct {
	Feed  string
	Epoch uint64
	Why   string
}

// Effect is what must be done: exactly one pointer is set. The executor does
// what it is asked in order for one attempt or one feed, and side by side for
// several; it answers with AttemptEvent and LogEvent. Of a log each effect is
// answered by Done at last.
type Effect struct {
	Connect *mesh.NodeID // open a stream to the leader; an older one is ended
	Send    *coordinator.ToLeader

	// Lease: what acts on the world may do so until then; not after. Of what was ended
	// before nothing is left that could, if none ran.
	Lease *dataflow.Time

	Prepare  *Prepare
	Begin    *coordinator.Begin
	Trigger  *coordinator.Trigger
	Complete *Complete
	Finish   *coordinator.Finish
	Close    *coordinator.AttemptRef // end it now, give up what is not committed; answered by Closed

	Own    *LogRole // run the feed: session, log, copies to the members
	Follow *LogRole // take what the owner sends
	// Seal: cut the log to the epoch, whatever it was here, and promise durably to
	// take nothing of it, or of an older one, any more.
	Seal *LogRole
	Rest *string // neither: keep the log, do nothing with it
	Drop *string // the feed is deleted, or lives elsewhere: remove its log

	// Lost: files of the job's sinks are here. Its present attempt has no subtask here, or
	// less of one is on record than was: what nobody writes here is cut back to what is
	// on record of it.
	Lost *coordinator.Job

	// Warm: restore a job that may come to run here, as far as that harms nobody, or
	// go on with what is restored so. It ends with the job's Prepare, or Cool.
	Warm *Warm
	Cool *coordinator.JobID

	// Probe: look whether a job of another site could run here. It is answered by
	// Probed.
	Probe *coordinator.Probe

	// Copy parts of a kept snapshot to here, behind every Kept said before; answered by
	// Copied. The next one ends it between two parts.
	Copy *Copy

	// Kept: these are the job's checkpoints, and everybody's savepoints, that the
	// site keeps: what is in none of them may be deleted. Job empty: savepoints.
	Kept *Kept
}

// Prepare asks for an attempt's subtasks on this node: parts are fetched,
// targets of sinks cut back, connectors opened, state restored. It is answered
// by Prepared or Failed.
type Prepare struct {
	coordinator.AttemptRef
	Job  *coordinator.Job      // as it was when it was deployed
	From *coordinator.Snapshot // nil: afresh
}

// Warm asks for a job's state in memory before it is decided that the job comes.
// It is answered by Warmed, unless another one comes, or Cool; what cannot be done Prepare does.
type Warm struct {
	Job  *coordinator.Job      // as it is going to be, with its places
	From *coordinator.Snapshot // the newest, behind every Kept said before
}

// Complete: a checkpoint of the running attempt completed, and sinks may commit
// through it.
type Complete struct {
	coordinator.AttemptRef
	Snapshot *coordinator.Snapshot
}

// LogRole is an agent's part in a log epoch.
type LogRole struct {
	Feed  *coordinator.Feed
	Epoch coordinator.LogEpoch
}

// Copy is what the leader wants here too.
type Copy struct {
	Order    *coordinator.Copy
	Snapshot *coordinator.Snapshot // whose parts they are
}

// Kept is what is kept of a job.
type Kept struct {
	Job       coordinator.JobID
	Snapshots []*coordinator.Snapshot
	// More: another one of the same Step follows. Nothing is collected before that: a part
	// may be let go by one and named by the next.
	More bool
}
