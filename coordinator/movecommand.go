package coordinator

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// MoveCommand is what a Command says about a move: exactly one pointer is set.
// migration.Apply has the rules. The first five are the source's, the last four
// the target's.
type MoveCommand struct {
	Began     *MoveBegan     `cbor:"1,keyasint,omitempty"`
	Halting   *MoveHalting   `cbor:"2,keyasint,omitempty"`
	Offered   *MoveOffered   `cbor:"3,keyasint,omitempty"`
	Decided   *MoveDecided   `cbor:"4,keyasint,omitempty"`
	Forgotten *MoveForgotten `cbor:"5,keyasint,omitempty"`

	Fenced *JobFenced `cbor:"6,keyasint,omitempty"` // of either

	ArrivalBegan     *Arrival          `cbor:"10,keyasint,omitempty"` // its Phase is receiving
	ArrivalPrepared  *ArrivalIsReady   `cbor:"11,keyasint,omitempty"`
	ArrivalDecided   *ArrivalDecided   `cbor:"12,keyasint,omitempty"`
	ArrivalForgotten *ArrivalForgotten `cbor:"13,keyasint,omitempty"`
}

// MoveBegan begins the move of a job that runs at Epoch: copying. Its id is made
// of the index at which it is applied.
type MoveBegan struct {
	Job     JobID     `cbor:"1,keyasint"`
	Epoch   uint64    `cbor:"2,keyasint"`
	To      mesh.Site `cbor:"3,keyasint"`
	Stay    []string  `cbor:"4,keyasint,omitempty"`
	Sets    []string  `cbor:"5,keyasint,omitempty"`
	Request string    `cbor:"6,keyasint,omitempty"` // random
	// Configs are those of feeds that move which are others there, by Sets.
	Configs []FeedConfig `cbor:"7,keyasint,omitempty"`
}

// FeedConfig is the config of a feed that a job brings.
type FeedConfig struct {
	Feed   string `cbor:"1,keyasint"`
	Config []byte `cbor:"2,keyasint"` // as Feed.Config
}

// MoveHalting: what is left to copy is little, and the job is to stop with a
// savepoint.
type MoveHalting struct {
	ID MoveID `cbor:"1,keyasint"`
}

// MoveOffered: the job has stopped with Savepoint, and its logs end at Ends. It
// may not be deployed any more unless the move is aborted.
type MoveOffered struct {
	ID        MoveID    `cbor:"1,keyasint"`
	Savepoint string    `cbor:"2,keyasint"`
	Ends      []FeedEnd `cbor:"3,keyasint,omitempty"`
}

// MoveDecided is the decision. HandedOver is proposed only by who has heard that
// the target is prepared.
type MoveDecided struct {
	ID         MoveID `cbor:"1,keyasint"`
	HandedOver bool   `cbor:"2,keyasint,omitempty"` // false: aborted
	Why        string `cbor:"3,keyasint,omitempty"`
}

// MoveForgotten drops the record of a move that is decided, of which the target
// has said that it knows.
type MoveForgotten struct {
	ID MoveID `cbor:"1,keyasint"`
	// Taken: the target has said that the job was its own with this move. If this site has
	// not handed it over, the sessions of shared feeds that it offered are there.
	// SettledLevel.
	Taken bool `cbor:"2,keyasint,omitempty"`
}

// JobFenced: site Owner has the job at Epoch. What runs here at a lower one ends.
type JobFenced struct {
	Job   JobID     `cbor:"1,keyasint"`
	Epoch uint64    `cbor:"2,keyasint"`
	Owner mesh.Site `cbor:"3,keyasint"`
	// Since is when Owner got it, by its own clock, for people; 0: that is not known.
	Since dataflow.Time `cbor:"4,keyasint,omitempty"`
}

// ArrivalIsReady is PREPARED: each part of Savepoint has its copies here, and the
// logs are here up to Ends.
type ArrivalIsReady struct {
	ID        MoveID    `cbor:"1,keyasint"`
	Savepoint *Snapshot `cbor:"2,keyasint"`
	Ends      []FeedEnd `cbor:"3,keyasint,omitempty"`
}

// ArrivalDecided follows the source's decision: active if it has handed over, else
// dropped. Without one only what is not prepared yet can be dropped, and only
// Forced makes active: a person takes it upon himself that the source never says.
type ArrivalDecided struct {
	ID      MoveID       `cbor:"1,keyasint"`
	Verdict MoveDecision `cbor:"2,keyasint,omitempty"` // that was heard; 0: none was
	Forced  bool         `cbor:"3,keyasint,omitempty"`
	Why     string       `cbor:"4,keyasint,omitempty"`
}

// Active tells which of the two it is.
func (c *ArrivalDecided) Active() bool { return c.Forced || c.Verdict == DecisionHandedOver }

// ArrivalForgotten drops the record of an arrival that is decided. Nothing is
// lost by it: Moves.Forgotten stands for it.
type ArrivalForgotten struct {
	ID MoveID `cbor:"1,keyasint"`
}

// Messages between the leaders of two sites. Each may be lost, come twice, late,
// or out of order, and come from one who leads no more: all say what is in a
// replicated state and stays true, or ask for what can be refused.

// ToTarget is what the source says: exactly one pointer is set besides Move.
type ToTarget struct {
	Move    MoveID       `cbor:"1,keyasint"`
	Propose *MovePropose `cbor:"2,keyasint,omitempty"`
	Newest  *MoveNewest  `cbor:"3,keyasint,omitempty"`
	Offer   *MoveOffer   `cbor:"4,keyasint,omitempty"`
	Verdict MoveDecision `cbor:"5,keyasint,omitempty"` // 0: none is said
}

// MovePropose asks whether the target takes the job.
type MovePropose struct {
	Job    MovingJob `cbor:"1,keyasint"`
	From   mesh.Site `cbor:"2,keyasint"`
	Epoch  uint64    `cbor:"3,keyasint"` // at the target
	Newest *Snapshot `cbor:"4,keyasint"` // what it would be restored from now
	// Dry: nothing is recorded; Move is made of an index that no log comes to, or 0 by a
	// program of before, and answers are only for who asked.
	Dry bool `cbor:"5,keyasint,omitempty"`
}

// NeedsSettled tells whether the session of a feed comes with the job, and only a site from
// SettledLevel on can own its log: the log had epochs that are not below the job's.
func (p *MovePropose) NeedsSettled(f *MovingFeed) bool {
	reigns := f.Reigns(p.From)
	return f.Of == nil && !f.Stay && slices.Contains(p.Job.Reads, f.Name) && reigns[len(reigns)-1].Epoch >= p.Epoch
}

// MoveNewest names the job's newest checkpoint, to be fetched before the job is
// halted.
type MoveNewest struct {
	Snapshot *Snapshot `cbor:"1,keyasint"`
	Ends     []FeedEnd `cbor:"2,keyasint,omitempty"` // of the logs, now
}

// MoveOffer is S and E.
type MoveOffer struct {
	Savepoint *Snapshot `cbor:"1,keyasint"`
	Ends      []FeedEnd `cbor:"2,keyasint,omitempty"`
}

// MoveDecision is the source's decision.
type MoveDecision uint8

// The decisions. Unknown is of a move that the source has no record of, though it
// has applied the index in its id: it was aborted, or the target knew already.
// Fenced: the job has another owner, by force, and this move gives it to nobody.
const (
	DecisionHandedOver MoveDecision = iota + 1
	DecisionAborted
	DecisionUnknown
	DecisionFenced
)

var decisionNames = [...]string{"", DecisionHandedOver: "handed-over", DecisionAborted: "aborted", DecisionUnknown: "unknown", DecisionFenced: "fenced"}

// String is its name in scripts.
func (d MoveDecision) String() string { return decisionNames[d] }

// ToSource is what the target says: exactly one pointer is set besides Move. Each
// of them asks as well: where the move is decided the answer is the verdict.
type ToSource struct {
	Move     MoveID        `cbor:"1,keyasint"`
	Accepted *MoveAccepted `cbor:"2,keyasint,omitempty"`
	Refused  *MoveRefused  `cbor:"3,keyasint,omitempty"`
	Got      *MoveGot      `cbor:"4,keyasint,omitempty"`
	Prepared *MovePrepared `cbor:"5,keyasint,omitempty"`
	Done     *MoveDone     `cbor:"6,keyasint,omitempty"`
}

// MoveAccepted: the target takes the job, and fetches what it has heard of.
type MoveAccepted struct {
	Fetching string `cbor:"1,keyasint,omitempty"` // a snapshot; empty: it waits to be told of one
	Bytes    int64  `cbor:"2,keyasint,omitempty"` // of it that came so far
	Offered  bool   `cbor:"3,keyasint,omitempty"` // it knows S and E
}

// MoveRefused: it does not.
type MoveRefused struct {
	Why string `cbor:"1,keyasint"`
}

// MoveGot: all parts of a snapshot have their copies at the target.
type MoveGot struct {
	Snapshot string            `cbor:"1,keyasint"`
	Bytes    int64             `cbor:"2,keyasint"` // fetched for it
	Took     dataflow.Duration `cbor:"3,keyasint"`
	Lag      int64             `cbor:"4,keyasint"` // bytes of the logs that it knows of and does not have
}

// MovePrepared: PREPARED is in the target's Raft log, with this S.
type MovePrepared struct {
	Savepoint string `cbor:"1,keyasint"`
}

// MoveDone: the target has recorded what became of the move.
type MoveDone struct {
	Phase  ArrivalPhase `cbor:"1,keyasint"` // active or dropped; 0: it has no record of it any more, or never had
	Forced bool         `cbor:"2,keyasint,omitempty"`
	Job    JobID        `cbor:"3,keyasint,omitempty"` // of active
	Epoch  uint64       `cbor:"4,keyasint,omitempty"` // of active
	// First is from when the verdict was first heard to the first row out of the job,
	// Held from then to when this was sent. 0: there was none yet, or it is not known.
	First dataflow.Duration `cbor:"5,keyasint,omitempty"`
	Held  dataflow.Duration `cbor:"6,keyasint,omitempty"`
}
