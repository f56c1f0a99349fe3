package coordinator

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// Agents and their leader talk over one stream that the agent opens: messages in
// order, each once, until the stream breaks. Then the agent opens another one,
// to whoever leads, and begins with Hello. What matters beyond a stream is in
// the replicated state; what is lost with it is repeated by Hello.
// docs/CONTROL.md has the bytes.

// AttemptRef names one deployment of a job.
type AttemptRef struct {
	Job   JobID                 `cbor:"1,keyasint"`
	Token dataflow.FencingToken `cbor:"2,keyasint"`
}

// ToLeader is what an agent tells its leader: exactly one pointer is set.
type ToLeader struct {
	Hello     *Hello         `cbor:"1,keyasint,omitempty"`
	Heartbeat *Heartbeat     `cbor:"2,keyasint,omitempty"`
	Prepared  *Prepared      `cbor:"3,keyasint,omitempty"`
	Failed    *AttemptFailed `cbor:"4,keyasint,omitempty"`
	Stored    *Stored        `cbor:"5,keyasint,omitempty"`
	NotStored *NotStored     `cbor:"6,keyasint,omitempty"`
	Exhausted *Exhausted     `cbor:"7,keyasint,omitempty"`
	Committed *Committed     `cbor:"8,keyasint,omitempty"`
	Ended     *AttemptEnded  `cbor:"9,keyasint,omitempty"`
	Sealed    *Sealed        `cbor:"10,keyasint,omitempty"`
	InSync    *InSync        `cbor:"11,keyasint,omitempty"`
	OutOfSync *OutOfSync     `cbor:"12,keyasint,omitempty"`
	Copied    *Copied        `cbor:"13,keyasint,omitempty"` // CopiesLevel
	Flowed    *Flowed        `cbor:"14,keyasint,omitempty"` // SitesLevel
	Warmed    *Warmed        `cbor:"15,keyasint,omitempty"` // GoesOnLevel
	Probed    *Probed        `cbor:"16,keyasint,omitempty"` // GoesOnLevel
}

// Phase is what an attempt is at on one agent.
type Phase uint8

// The phases of an attempt on an agent, in their order. Failed follows any but
// Gone.
//
//	preparing  parts are fetched, connectors opened, state restored; nothing moves
//	prepared   all that is done, and Begin is waited for
//	running    rows flow
//	ended      all its subtasks here have finished
//	gone       it was stopped, or failed: nothing of it is left here
const (
	PhasePreparing Phase = iota + 1
	PhasePrepared
	PhaseRunning
	PhaseEnded
	PhaseGone
)

// Hello begins a stream: everything that the leader cannot know.
type Hello struct {
	Agent    Agent        `cbor:"1,keyasint"`
	Boot     uint64       `cbor:"2,keyasint"` // of the process
	Attempts []AttemptNow `cbor:"3,keyasint,omitempty"`
	Logs     []LogNow     `cbor:"4,keyasint,omitempty"`
	Applied  uint64       `cbor:"5,keyasint"` // Raft index up to which it knows the state
	// Leaving: its process is about to end. It is given nothing more, and what it has
	// goes to others.
	Leaving bool `cbor:"6,keyasint,omitempty"`
}

// AttemptNow is an attempt on an agent.
type AttemptNow struct {
	AttemptRef
	Phase    Phase     `cbor:"10,keyasint"`
	Prepared *Prepared `cbor:"11,keyasint,omitempty"` // what it said then
	// Barrier is the greatest counter of a barrier that it has seen: new ones are
	// greater.
	Barrier   uint64               `cbor:"12,keyasint,omitempty"`
	Exhausted []dataflow.SubtaskID `cbor:"13,keyasint,omitempty"`
	Committed []Committed          `cbor:"14,keyasint,omitempty"` // the last of each subtask
	Failed    *AttemptFailed       `cbor:"15,keyasint,omitempty"` // PhaseGone: what it said then
}

// LogNow is a feed's log on an agent's disk.
type LogNow struct {
	Feed   string `cbor:"1,keyasint"`
	Epoch  uint64 `cbor:"2,keyasint"` // the last that it took something of, or promised
	End    int64  `cbor:"3,keyasint"` // sequence number behind its last entry
	Sealed bool   `cbor:"4,keyasint,omitempty"`
	InSync bool   `cbor:"5,keyasint,omitempty"` // the owner acknowledges: all members have everything
}

// Heartbeat asks for the lease. Granted answers it; the lease runs from when it
// was sent.
type Heartbeat struct {
	Seq     uint64          `cbor:"1,keyasint"`
	Applied uint64          `cbor:"2,keyasint"`
	Status  []SubtaskStatus `cbor:"3,keyasint,omitempty"` // of what runs here, now and then
	Logs    []LogStatus     `cbor:"4,keyasint,omitempty"` // of the feeds that it owns, now and then
	Disk    int64           `cbor:"5,keyasint,omitempty"` // free bytes where its data is; 0: it is not said this time
}

// Prepared: all subtasks of the attempt on this agent are open and restored.
type Prepared struct {
	AttemptRef
	Subtasks []PreparedSubtask `cbor:"10,keyasint"`
	Moved    bool              `cbor:"11,keyasint,omitempty"` // task.Task.Moved of any
}

// PreparedSubtask is what others must know of a subtask before it runs.
type PreparedSubtask struct {
	Subtask dataflow.SubtaskID `cbor:"1,keyasint"`
	Source  bool               `cbor:"2,keyasint,omitempty"`
	Splits  int                `cbor:"3,keyasint,omitempty"` // of a source
	Commits bool               `cbor:"4,keyasint,omitempty"` // it has transactional sinks, and says Committed
}

// AttemptFailed: it has failed on this agent, and nothing of it runs here any
// more. An empty Why: it was closed because the state does not want it any more.
type AttemptFailed struct {
	AttemptRef
	Subtask dataflow.SubtaskID `cbor:"10,keyasint,omitempty"`
	Why     string             `cbor:"11,keyasint"`
	Final   bool               `cbor:"12,keyasint,omitempty"` // another attempt would meet it again
	// Peer is the agent whose stream broke, if that was it: the cause is there.
	Peer mesh.NodeID `cbor:"13,keyasint,omitempty"`
}

// Stored: a subtask's share of a checkpoint is on disk in all its copies, and so
// is everything that it took for earlier barriers.
type Stored struct {
	AttemptRef
	ID      dataflow.CheckpointID `cbor:"10,keyasint"`
	Subtask dataflow.SubtaskID    `cbor:"11,keyasint"`
	Share   Share                 `cbor:"12,keyasint"`
}

// Share is what a subtask adds to a manifest: manifest.Assemble makes the
// checkpoint's of all of them. Where the barrier was Full no shard has more than
// one part, so that a savepoint can be made of it.
type Share struct {
	Manifest []byte            `cbor:"1,keyasint"` // as store/manifest encodes it, with the subtask's own positions and parts only; the other shards are empty
	Copies   []PartCopies      `cbor:"2,keyasint,omitempty"`
	Bytes    int64             `cbor:"3,keyasint"` // written for it
	Pause    dataflow.Duration `cbor:"4,keyasint"`
	Align    dataflow.Duration `cbor:"5,keyasint"`
}

// NotStored: a share failed. Kind is coordinator/checkpoint's Failure.
type NotStored struct {
	AttemptRef
	ID      dataflow.CheckpointID `cbor:"10,keyasint"`
	Subtask dataflow.SubtaskID    `cbor:"11,keyasint"`
	Kind    uint8                 `cbor:"12,keyasint"`
	Lost    bool                  `cbor:"13,keyasint,omitempty"` // rows are gone for good: the next barrier must be Full
	Why     string                `cbor:"14,keyasint"`
}

// Exhausted: a source subtask has sent all that it ever will.
type Exhausted struct {
	AttemptRef
	Subtask dataflow.SubtaskID `cbor:"10,keyasint"`
}

// Committed: a subtask's sinks have committed up to a checkpoint.
type Committed struct {
	AttemptRef
	Subtask dataflow.SubtaskID    `cbor:"10,keyasint"`
	ID      dataflow.CheckpointID `cbor:"11,keyasint"`
	Commits []SinkCommit          `cbor:"12,keyasint,omitempty"`
}

// Flowed: rows have come into sinks of the attempt on this agent: the first ones of
// either kind of sink; and, at a barrier that halts, the last ones of a sink that
// shows them at once. What is lost of it nobody misses but people.
type Flowed struct {
	AttemptRef
	Commits bool              `cbor:"10,keyasint,omitempty"` // they come out with a checkpoint; else they are out
	Ago     dataflow.Duration `cbor:"11,keyasint,omitempty"`
}

// AttemptEnded: all subtasks of the attempt on this agent have finished.
type AttemptEnded struct{ AttemptRef }

// Sealed answers Seal: nothing of an epoch below Epoch is taken any more, and the
// log ends at End. It is durable.
type Sealed struct {
	Feed  string `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"`
	End   int64  `cbor:"3,keyasint"`
	// Why nothing could be promised. Empty: the next epoch can start at End.
	Why string `cbor:"4,keyasint,omitempty"`
}

// InSync: all members of the epoch have everything, and the owner acknowledges.
type InSync struct {
	Feed  string `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"`
}

// OutOfSync: the owner cannot reach a member, so nothing is acknowledged.
type OutOfSync struct {
	Feed   string      `cbor:"1,keyasint"`
	Epoch  uint64      `cbor:"2,keyasint"`
	Member mesh.NodeID `cbor:"3,keyasint"`
	Why    string      `cbor:"4,keyasint"`
}

// Copied says where parts of a snapshot are, and where not. It answers Copy, or
// tells that what the state says of this agent's disk is not so.
type Copied struct {
	Order uint64         `cbor:"1,keyasint,omitempty"` // Copy's; 0: nobody asked
	Name  string         `cbor:"2,keyasint"`           // of the snapshot
	Job   JobID          `cbor:"3,keyasint,omitempty"` // whose checkpoint it is; empty: a savepoint
	Parts []store.Digest `cbor:"4,keyasint,omitempty"` // durable and whole here, and kept as long as the snapshot is
	// Lacks are the agents that do not have a part that they are said to have, or
	// have it damaged.
	Lacks []PartCopies `cbor:"5,keyasint,omitempty"`
	Why   string       `cbor:"6,keyasint,omitempty"` // not all that Copy asked for is here
}

// SubtaskStatus is runtime.Status in short, for people.
type SubtaskStatus struct {
	AttemptRef
	Subtask   dataflow.SubtaskID `cbor:"10,keyasint"`
	Operators []OperatorCounters `cbor:"11,keyasint,omitempty"`
	Watermark dataflow.Time      `cbor:"12,keyasint"`
	Arrival   dataflow.Time      `cbor:"13,keyasint"`
	Busy      dataflow.Duration  `cbor:"14,keyasint"`
	Blocked   dataflow.Duration  `cbor:"15,keyasint"`
}

// OperatorCounters is task.LinkCounters.
type OperatorCounters struct {
	Operator   dataflow.OperatorID `cbor:"1,keyasint"`
	In         int64               `cbor:"2,keyasint,omitempty"`
	Out        int64               `cbor:"3,keyasint,omitempty"`
	Late       int64               `cbor:"4,keyasint,omitempty"`
	NoWindow   int64               `cbor:"5,keyasint,omitempty"`
	Rejected   int64               `cbor:"6,keyasint,omitempty"`
	Markers    int64               `cbor:"7,keyasint,omitempty"`
	Filtered   int64               `cbor:"8,keyasint,omitempty"`
	Duplicates int64               `cbor:"9,keyasint,omitempty"`
	Forgotten  int64               `cbor:"10,keyasint,omitempty"`
	DivByZero  int64               `cbor:"11,keyasint,omitempty"`
	Overflow   int64               `cbor:"12,keyasint,omitempty"`
	First      string              `cbor:"13,keyasint,omitempty"` // why the first was rejected
}

// LogStatus is a feed on the agent that owns it, for people.
type LogStatus struct {
	Feed     string `cbor:"1,keyasint"`
	Epoch    uint64 `cbor:"2,keyasint"`
	End      int64  `cbor:"3,keyasint"`
	Bytes    int64  `cbor:"4,keyasint"`
	Broker   string `cbor:"5,keyasint,omitempty"` // "connected", or why not
	Messages int64  `cbor:"6,keyasint"`
	Why      string `cbor:"7,keyasint,omitempty"` // it does not acknowledge, if so
	// Payload is the bytes of payloads and topics since the log was made, Clock its
	// arrival clock, both at End. SitesLevel, as what follows.
	Payload int64         `cbor:"8,keyasint,omitempty"`
	Clock   dataflow.Time `cbor:"9,keyasint,omitempty"` // 0: there is none
	// Of is where the log of which it is a mirror stood when that was said last.
	Of *MirrorOf `cbor:"10,keyasint,omitempty"`
	// Mirrors are the other sites' copies, by site and feed.
	Mirrors []MirrorAt `cbor:"11,keyasint,omitempty"`
	// The log has the entries from First on, and those before Shown in all its copies.
	First int64 `cbor:"12,keyasint,omitempty"`
	Shown int64 `cbor:"13,keyasint,omitempty"`
	// Lanes are the same by lane, of a log that is a mirror or has one; what all copies
	// have may be more. nil: it is not known. GoesOnLevel.
	Lanes []LaneAt `cbor:"14,keyasint,omitempty"`
}

// LaneAt is which offsets of a lane are there: from First on, before Next.
type LaneAt struct {
	First int64 `cbor:"1,keyasint,omitempty"`
	Next  int64 `cbor:"2,keyasint"`
}

// Lacks says why a job that stands at an offset of a lane cannot go on there; empty:
// it can. feed is whose log it is. home: what the job reads is a beginning of that log,
// so it reaches as far.
func (l LaneAt) Lacks(feed string, lane int, at int64, home bool) string {
	switch {
	case at < l.First:
		return fmt.Sprintf("the log of feed %s begins at %d in lane %d here, and the job would go on from %d", feed, l.First, lane, at)
	case at > l.Next && !home:
		return fmt.Sprintf("the log of feed %s ends at %d in lane %d here, and the job would go on from %d", feed, l.Next, lane, at)
	}
	return ""
}

// MirrorOf is the source of a mirror.
type MirrorOf struct {
	Node    mesh.NodeID   `cbor:"1,keyasint,omitempty"` // that it is taken from; empty: from nobody now
	End     int64         `cbor:"2,keyasint,omitempty"` // what is replicated there
	Payload int64         `cbor:"3,keyasint,omitempty"` // as LogStatus.Payload
	Clock   dataflow.Time `cbor:"4,keyasint,omitempty"`
	Heard   dataflow.Time `cbor:"5,keyasint,omitempty"` // when it said so, on the clock of this agent; 0: never
	Lost    int64         `cbor:"6,keyasint,omitempty"` // entries that the source did not have any more when they were needed
	Why     string        `cbor:"7,keyasint,omitempty"` // nothing comes, if so
}

// MirrorAt is another site's copy, as its source knows it.
type MirrorAt struct {
	Site  mesh.Site     `cbor:"1,keyasint"`
	Feed  string        `cbor:"2,keyasint,omitempty"` // empty: none was opened yet
	Node  mesh.NodeID   `cbor:"3,keyasint,omitempty"` // that takes it; empty: nobody now
	End   int64         `cbor:"4,keyasint"`           // it has everything before it
	Heard dataflow.Time `cbor:"5,keyasint,omitempty"` // on the clock of this agent
	// Let: the log did not wait for it any more, as it lacked more than is kept for
	// one.
	Let bool `cbor:"6,keyasint,omitempty"`
}

// ToAgent is what a leader tells an agent: exactly one pointer is set besides
// Term. An agent that has heard of a greater term does nothing of it.
type ToAgent struct {
	Term    uint64   `cbor:"1,keyasint"`
	Granted *Granted `cbor:"2,keyasint,omitempty"`
	Begin   *Begin   `cbor:"3,keyasint,omitempty"`
	Trigger *Trigger `cbor:"4,keyasint,omitempty"`
	Finish  *Finish  `cbor:"5,keyasint,omitempty"`
	Seal    *Seal    `cbor:"6,keyasint,omitempty"`
	Refused *Refused `cbor:"7,keyasint,omitempty"`
	Copy    *Copy    `cbor:"8,keyasint,omitempty"` // CopiesLevel
	Over    *Over    `cbor:"9,keyasint,omitempty"`
	Warm    *Warm    `cbor:"10,keyasint,omitempty"` // GoesOnLevel
	Probe   *Probe   `cbor:"11,keyasint,omitempty"` // GoesOnLevel
}

// Granted: the lease runs for Lease from when heartbeat Seq was sent. Index is
// what the leader has applied: an agent that has started just now deletes, owns
// and prepares nothing before it knows as much.
type Granted struct {
	Seq   uint64            `cbor:"1,keyasint"`
	Lease dataflow.Duration `cbor:"2,keyasint"`
	Index uint64            `cbor:"3,keyasint,omitempty"`
}

// Begin: all agents of the attempt are prepared; rows may flow.
type Begin struct {
	AttemptRef
	Subtasks []PreparedSubtask `cbor:"10,keyasint"` // of the whole job
	Moved    bool              `cbor:"11,keyasint,omitempty"`
}

// Trigger: sources put the barrier into their streams.
type Trigger struct {
	AttemptRef
	Barrier dataflow.Barrier `cbor:"10,keyasint"`
}

// Finish: the last checkpoint is complete, and sources end.
type Finish struct{ AttemptRef }

// Over: the attempt is over, and its agent says AttemptFailed as soon as nothing of
// it is left there: at once if it never knew of it, and then nothing ever will be.
type Over struct{ AttemptRef }

// Seal asks a member to take nothing of epochs below Epoch any more.
type Seal struct {
	Feed  string `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"`
}

// Copy: this agent is to have parts of a snapshot too; answered by Copied. It
// begins when its own state is as new as the leader's was, so that what comes is
// kept as long as the snapshot is. One that comes while another one is under way
// ends that between two parts.
type Copy struct {
	Order uint64       `cbor:"1,keyasint"` // from 1 in each term
	Index uint64       `cbor:"2,keyasint"` // what the leader had applied
	Name  string       `cbor:"3,keyasint"`
	Job   JobID        `cbor:"4,keyasint,omitempty"`
	Parts []PartCopies `cbor:"5,keyasint"` // with those that have them, the best first
}

// Warm: a job that is on its way here is going to run at these places, some of
// which are of this agent. As long as nothing else says so the agent restores it
// from what is kept of it, without doing anything that others see, and says
// Warmed. Without places the agent lets go what it has of that.
type Warm struct {
	Index  uint64  `cbor:"1,keyasint"` // what the leader had applied
	Move   MoveID  `cbor:"2,keyasint"`
	Job    JobID   `cbor:"3,keyasint"`
	Name   string  `cbor:"4,keyasint,omitempty"` // of the snapshot
	Places []Place `cbor:"5,keyasint,omitempty"`
}

// Warmed: a snapshot is restored here as far as it can be early. It answers Warm.
type Warmed struct {
	Job  JobID  `cbor:"1,keyasint"`
	Name string `cbor:"2,keyasint"`
}

// Probe: a job of another site may come here, and would run at these places, some of
// which are of this agent. The agent looks whether what the job's subtasks here are
// connected with is there and can be used: files, folders, brokers. It leaves nothing
// behind, and answers with Probed.
type Probe struct {
	Order    uint64                `cbor:"1,keyasint"` // from 1 in each term
	Move     MoveID                `cbor:"2,keyasint"`
	Job      MovingJob             `cbor:"3,keyasint"`
	Epoch    uint64                `cbor:"4,keyasint"` // that the job would have
	Places   []Place               `cbor:"5,keyasint,omitempty"`
	Sessions []dataflow.OperatorID `cbor:"6,keyasint,omitempty"` // sources whose broker would be asked from here; that of others is not looked at
	From     *Snapshot             `cbor:"7,keyasint,omitempty"` // the job's newest, without copies: could its state be restored?
}

// Probed answers Probe. An empty Why: nothing is in the way.
type Probed struct {
	Order uint64 `cbor:"1,keyasint"`
	Move  MoveID `cbor:"2,keyasint"`
	Why   string `cbor:"3,keyasint,omitempty"`
}

// Refused: the leader has nothing to do with this agent, and says why. The
// stream ends.
type Refused struct {
	Why string `cbor:"1,keyasint"`
}
