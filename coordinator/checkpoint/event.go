package checkpoint

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// EventKind says what happened.
type EventKind uint8

// The events.
const (
	Tick      EventKind = iota + 1 // time has come to Now
	Requested                      // somebody wants a savepoint: Request
	Stored                         // Subtask's share of ID is on disk
	Failed                         // ID cannot complete, because of Failure and Err
	Written                        // the manifest of ID is on disk
	Exhausted                      // the source Subtask has sent all it ever will
	Wanted                         // somebody waits for the next checkpoint: it is taken as soon as may be
	Committed                      // Subtask's sinks have committed everything up to ID
)

// Event is one thing that happened.
type Event struct {
	Kind    EventKind
	Now     dataflow.Time
	ID      dataflow.CheckpointID
	Subtask dataflow.SubtaskID
	Failure Failure
	Lost    bool // Failed: rows that a subtask handed over are gone, so no later delta is worth anything
	Err     error
	Request Request
}

// Request asks for a savepoint.
type Request struct {
	Ref  int           // the answer carries it
	Then dataflow.Then // Halt, Drain: the job stops with it
	// Delta: what the savepoint stands for shares its parts with checkpoints before;
	// its barrier is not Full because of it.
	Delta bool
}

// Failure is why a checkpoint did not complete.
type Failure uint8

// The failures. Those that say something of the job's health count towards what
// it tolerates; the others do not.
const (
	Expired       Failure = iota + 1 // it took longer than the timeout
	Declined                         // a subtask could not take its snapshot
	Async                            // a subtask's rows could not be stored
	IO                               // the manifest could not be written
	Subsumed                         // a later one took its place
	Shutdown                         // the job ends
	NotAllRunning                    // not all subtasks can take part yet
	JobFailed                        // the attempt failed
	Short                            // fewer agents have its parts than could
)

var failureNames = [...]string{Expired: "expired", Declined: "declined", Async: "async", IO: "io", Subsumed: "subsumed", Shutdown: "shutdown",
	NotAllRunning: "not-all-running", JobFailed: "job-failed", Short: "short"}

// String is the name in scripts.
func (f Failure) String() string { return failureNames[f] }

var failureWords = [...]string{Expired: "it took longer than checkpoint.timeout allows", Declined: "a subtask could not take its snapshot",
	Async: "state could not be stored", IO: "its manifest could not be written", Subsumed: "a later one took its place", Shutdown: "the job ends",
	NotAllRunning: "not all subtasks run yet", JobFailed: "the job failed", Short: "too few agents have copies of it"}

// Words say what failed, for people.
func (f Failure) Words() string { return failureWords[f] }

// Counts tells whether the failure counts towards the tolerable ones.
func (f Failure) Counts() bool { return f >= Expired && f <= IO }

// EffectKind says what an Effect asks for.
type EffectKind uint8

// The effects.
const (
	Trigger  EffectKind = iota + 1 // give Barrier to the sources
	Write                          // all shares of ID are stored: write its manifest, as What says
	Complete                       // ID is complete: sinks commit, feeds may truncate
	Abort                          // ID is given up because of Failure and Err; what was stored of it stays in the chains
	Release                        // the checkpoint Name is not kept any longer
	Answer                         // the savepoint request Ref is done: it has ID, or Err
	Fail                           // the attempt must fail: Err
	Stop                           // nothing is left to do: end the job
)

// Effect is one thing that must be done.
type Effect struct {
	Kind    EffectKind
	Barrier dataflow.Barrier
	ID      dataflow.CheckpointID
	What    What
	Failure Failure
	Name    string
	Ref     int
	Err     error
}

// What is a manifest to be.
type What struct {
	Checkpoint bool // one of the job's own, from which it recovers
	Savepoint  bool // a person's; with Checkpoint two manifests name the same parts, the savepoint's is written first
	Finished   bool // all input was read, or ended, and all output is committed
	Drained    bool // the input was ended before the barrier: to be marked so, and its positions as ended
	Ref        int  // with Savepoint: of the request that it answers
}

// Name is what the checkpoint of an id is called in its job: chk-ATTEMPT-COUNTER,
// with the epoch and site before them if they are given.
func Name(id dataflow.CheckpointID) string {
	if id.Token.Epoch == 0 && id.Token.Site == "" {
		return fmt.Sprintf("chk-%d-%d", id.Token.Attempt, id.Counter)
	}
	return fmt.Sprintf("chk-%d-%s-%d-%d", id.Token.Epoch, id.Token.Site, id.Token.Attempt, id.Counter)
}
