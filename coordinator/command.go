package coordinator

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Command is an entry of the site's Raft log. Exactly one of its pointers is
// set. docs/COMMANDS.md has their bytes.
//
// A command was decided by a leader on what it saw; whether it still holds is
// checked again when it is applied, against the state then: the attempt, the
// epoch or the term in it must be the present ones. One that does not hold
// changes nothing and says why.
type Command struct {
	Level uint32        `cbor:"1,keyasint"` // the feature level that can apply it
	At    dataflow.Time `cbor:"2,keyasint"` // the leader's wall clock, for people and tokens' expiry

	LeaderBegan      *LeaderBegan      `cbor:"10,keyasint,omitempty"`
	SiteFounded      *SiteFounded      `cbor:"11,keyasint,omitempty"`
	AgentJoined      *Agent            `cbor:"12,keyasint,omitempty"` // new, or changed
	AgentLeft        *AgentLeft        `cbor:"13,keyasint,omitempty"`
	LevelRaised      *LevelRaised      `cbor:"14,keyasint,omitempty"`
	TokenCreated     *Token            `cbor:"15,keyasint,omitempty"`
	TokenUsed        *TokenUsed        `cbor:"16,keyasint,omitempty"`
	TokenRevoked     *TokenRevoked     `cbor:"17,keyasint,omitempty"`
	JobSubmitted     *JobSubmitted     `cbor:"20,keyasint,omitempty"`
	JobDeployed      *JobDeployed      `cbor:"21,keyasint,omitempty"`
	JobBecame        *JobBecame        `cbor:"22,keyasint,omitempty"`
	JobTold          *JobTold          `cbor:"23,keyasint,omitempty"`
	JobRescaled      *JobRescaled      `cbor:"24,keyasint,omitempty"`
	JobForgotten     *JobForgotten     `cbor:"25,keyasint,omitempty"`
	JobFailedOver    *JobFailedOver    `cbor:"26,keyasint,omitempty"`
	JobQuarantined   *JobQuarantined   `cbor:"27,keyasint,omitempty"`
	JobClaimed       *JobClaimed       `cbor:"28,keyasint,omitempty"`
	CheckpointDone   *CheckpointDone   `cbor:"30,keyasint,omitempty"`
	SinkCommitted    *SinkCommitted    `cbor:"31,keyasint,omitempty"`
	SavepointAdded   *Snapshot         `cbor:"32,keyasint,omitempty"` // imported
	SavepointDeleted *SavepointDeleted `cbor:"33,keyasint,omitempty"`
	CopiesChanged    *CopiesChanged    `cbor:"34,keyasint,omitempty"`
	FeedCreated      *Feed             `cbor:"40,keyasint,omitempty"`
	FeedDeleted      *FeedDeleted      `cbor:"41,keyasint,omitempty"`
	LogEpochBegun    *LogEpochBegun    `cbor:"42,keyasint,omitempty"`
	Move             *MoveCommand      `cbor:"50,keyasint,omitempty"` // SitesLevel
	ReplicaOffered   *ReplicaOffered   `cbor:"60,keyasint,omitempty"`
	ReplicaNext      *ReplicaNext      `cbor:"61,keyasint,omitempty"`
	ReplicaAdvanced  *ReplicaAdvanced  `cbor:"62,keyasint,omitempty"`
	ReplicaDropped   *ReplicaDropped   `cbor:"63,keyasint,omitempty"`
	ReplicaMoved     *ReplicaMoved     `cbor:"64,keyasint,omitempty"` // SettledLevel
}

// LeaderBegan is a leader's first command: those of earlier terms that come
// after it are void.
type LeaderBegan struct {
	Term uint64      `cbor:"1,keyasint"`
	Node mesh.NodeID `cbor:"2,keyasint"`
	// Isolated are jobs that another site may have taken, since nobody had led this one
	// for long. It is said again with them when the state is known. SitesLevel.
	Isolated []JobID `cbor:"3,keyasint,omitempty"`
}

// SiteFounded is the first command of a site.
type SiteFounded struct {
	Mesh string    `cbor:"1,keyasint"`
	Site mesh.Site `cbor:"2,keyasint"`
}

// AgentLeft: the agent does not belong to the site any more: it left, or it was
// replaced.
type AgentLeft struct {
	Node mesh.NodeID `cbor:"1,keyasint"`
}

// LevelRaised puts a feature level in force that all agents know.
type LevelRaised struct {
	Level uint32 `cbor:"1,keyasint"`
}

// TokenUsed takes one use off a token for a node that joins. It is refused if the
// token is unknown, revoked, expired at At, or used up; the same node again costs
// nothing.
type TokenUsed struct {
	ID   string      `cbor:"1,keyasint"`
	Hash []byte      `cbor:"2,keyasint"` // of the secret that was shown
	Node mesh.NodeID `cbor:"3,keyasint"`
}

// TokenRevoked ends a token.
type TokenRevoked struct {
	ID string `cbor:"1,keyasint"`
}

// JobSubmitted is a job that was checked. It is refused if a live one has its
// name.
type JobSubmitted struct {
	Namespace        string   `cbor:"1,keyasint"`
	Name             string   `cbor:"2,keyasint"`
	Spec             []byte   `cbor:"3,keyasint"`
	Sets             []string `cbor:"4,keyasint,omitempty"`
	From             string   `cbor:"5,keyasint,omitempty"` // a savepoint's name, or JOB/NAME of a checkpoint of another job
	AllowNonRestored bool     `cbor:"6,keyasint,omitempty"`
	// Feeds are of its own sources, without Job and Log: Name is the source's id
	// here, and becomes JOB.SOURCE.
	Feeds []Feed `cbor:"7,keyasint,omitempty"`
	// Request makes a submission that is sent twice one: the id of the job that it
	// made the first time is the answer again. Random.
	Request string   `cbor:"8,keyasint,omitempty"`
	Reads   []string `cbor:"9,keyasint,omitempty"` // shared feeds: they cannot be deleted while the job lives
	// Adopts are the sources, of those in Feeds, that take over the feed of a job
	// that has ended, with its log and its session: From stands at positions in it.
	// Its config becomes that in Feeds. Level 2.
	Adopts    []Adoption `cbor:"10,keyasint,omitempty"`
	Overwrite bool       `cbor:"11,keyasint,omitempty"` // Job.Overwrite. Level 2
}

// Needs is the feature level that can apply the command.
func (c *Command) Needs() uint32 {
	s, d := c.JobSubmitted, c.CheckpointDone
	switch {
	case c.ReplicaOffered != nil && !c.ReplicaOffered.Job.plain(), c.Move != nil && c.Move.ArrivalBegan != nil && !c.Move.ArrivalBegan.Job.plain(), c.ReplicaMoved != nil, c.Move != nil && c.Move.Forgotten != nil && c.Move.Forgotten.Taken:
		return SettledLevel
	case c.ReplicaOffered != nil, c.ReplicaNext != nil, c.ReplicaAdvanced != nil, c.ReplicaDropped != nil, c.Move != nil,
		c.JobFailedOver != nil, c.JobQuarantined != nil, c.JobClaimed != nil, c.LeaderBegan != nil && len(c.LeaderBegan.Isolated) > 0,
		c.LogEpochBegun != nil && c.LogEpochBegun.Log.Held:
		return SitesLevel
	case c.TokenCreated != nil && c.TokenCreated.Founds != "":
		return CopiesLevel
	case s != nil && (len(s.Adopts) > 0 || s.Overwrite):
		return AdoptLevel
	case d != nil && d.Savepoint != nil && d.Savepoint.Request != "":
		return AdoptLevel
	}
	return BaseLevel
}

// JobDeployed begins attempt Attempt, which must be the one after the job's
// last.
type JobDeployed struct {
	Job     JobID   `cbor:"1,keyasint"`
	Attempt uint64  `cbor:"2,keyasint"`
	Term    uint64  `cbor:"3,keyasint"` // of the leader that decided it
	Places  []Place `cbor:"4,keyasint"`
	From    string  `cbor:"5,keyasint,omitempty"`
}

// JobBecame is a transition of a job's status. Attempt must be the present one;
// 0 for a job that was never deployed. The status that it has already: only Why
// is another.
type JobBecame struct {
	Job       JobID  `cbor:"1,keyasint"`
	Attempt   uint64 `cbor:"2,keyasint"`
	Status    Status `cbor:"3,keyasint"`
	Why       string `cbor:"4,keyasint,omitempty"`
	Savepoint string `cbor:"5,keyasint,omitempty"` // that it stopped with
}

// JobTold is a person's wish: stop with a savepoint (Then Halt or Drain), or
// cancel.
type JobTold struct {
	Job    JobID         `cbor:"1,keyasint"`
	Then   dataflow.Then `cbor:"2,keyasint,omitempty"`
	Cancel bool          `cbor:"3,keyasint,omitempty"`
}

// JobRescaled sets another parallelism: the present attempt ends, and the next
// goes on from the last checkpoint.
type JobRescaled struct {
	Job         JobID `cbor:"1,keyasint"`
	Parallelism int   `cbor:"2,keyasint"`
}

// JobForgotten drops an ended job and its checkpoints; savepoints stay, and so do
// the logs in which they stand.
type JobForgotten struct {
	Job JobID `cbor:"1,keyasint"`
}

// CheckpointDone says that a checkpoint or savepoint of attempt Attempt is
// complete: all its parts have their copies.
type CheckpointDone struct {
	Attempt    uint64    `cbor:"1,keyasint"`
	Checkpoint *Snapshot `cbor:"2,keyasint,omitempty"` // the job recovers from it, and sinks commit with it; nil: it is a savepoint only
	Savepoint  *Snapshot `cbor:"3,keyasint,omitempty"` // stands alone; nil: nobody asked for one
	Release    []string  `cbor:"4,keyasint,omitempty"` // older checkpoints that are not kept any more
}

// SinkCommitted says what finished commits made of an agent's targets.
type SinkCommitted struct {
	Job     JobID        `cbor:"1,keyasint"`
	Attempt uint64       `cbor:"2,keyasint"`
	Commits []SinkCommit `cbor:"3,keyasint"`
}

// SavepointDeleted drops a savepoint.
type SavepointDeleted struct {
	Name string `cbor:"1,keyasint"`
}

// CopiesChanged says where parts of a snapshot are now, after copies were made or
// lost with an agent. Whatever keeps a snapshot of this name, a job or its replica,
// is changed.
type CopiesChanged struct {
	Name   string       `cbor:"1,keyasint"` // of the snapshot
	Job    JobID        `cbor:"2,keyasint,omitempty"`
	Copies []PartCopies `cbor:"3,keyasint"`
}

// FeedDeleted drops a feed and its log. It is refused while a live job reads it.
type FeedDeleted struct {
	Name string `cbor:"1,keyasint"`
}

// LogEpochBegun begins the next epoch of a feed's log: Log.Epoch must be the one
// after the present. Log.Starts and Log.Heirs are filled in when it is applied.
type LogEpochBegun struct {
	Feed string   `cbor:"1,keyasint"`
	Term uint64   `cbor:"2,keyasint"`
	Log  LogEpoch `cbor:"3,keyasint"`
}
