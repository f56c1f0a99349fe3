package jobmanager

import (
	"errors"
	"fmt"
	"io"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Machine is the replicated state of a site. It has no lock: one goroutine
// applies, and whoever reads State beside it needs the driver's lock, or a Clone.
type Machine struct {
	s *coordinator.State
}

// New is the state before the first command.
func New() *Machine {
	return &Machine{s: &coordinator.State{
		Level: coordinator.BaseLevel, Agents: map[mesh.NodeID]*coordinator.Agent{}, Jobs: map[coordinator.JobID]*coordinator.Job{},
		Names: map[string]coordinator.JobID{}, Feeds: map[string]*coordinator.Feed{}, Savepoints: map[string]*coordinator.Snapshot{}, Tokens: map[string]*coordinator.Token{},
		Removed: map[mesh.NodeID]*coordinator.Removed{}, Replicas: map[coordinator.JobID]*coordinator.Replica{}, Forgotten: map[coordinator.JobID]*coordinator.Forgotten{}, Moves: coordinator.NewMoves(),
	}}
}

// State is the present state, the same pointer as long as the machine lives. It
// must not be changed. What its maps lead to never changes and may be kept.
func (m *Machine) State() *coordinator.State { return m.s }

// Snapshot is a copy of the present state that writes itself: the writing may
// be done beside later Applies, once.
func (m *Machine) Snapshot() func(w io.Writer) error {
	s := m.s.Clone()
	return func(w io.Writer) error { return codec.EncodeState(w, s) }
}

// Restore puts a snapshot in the place of the state: everything may have
// changed. If it fails the state is as it was.
func (m *Machine) Restore(r io.Reader) error {
	s, err := codec.DecodeState(r)
	if err != nil {
		return err
	}
	*m.s = *s
	return nil
}

// The kinds of Result.Err. The text is a sentence for people without the kind.
var (
	ErrStale   = errors.New("stale")   // it was decided on what is no more: an attempt, epoch or term. Decide again
	ErrExists  = errors.New("exists")  // the name is taken
	ErrUnknown = errors.New("unknown") // nothing has this name
	ErrRefused = errors.New("refused") // it is not possible as things are
)

// Result is what became of a command.
type Result struct {
	Err error             // nil: it is in force, or was already
	Job coordinator.JobID // of JobSubmitted: the job that it made, now or when it came before
	// Move is whose record a command about a move is about, if that is there: of
	// MoveBegan the one that it made, now or when it came before.
	Move coordinator.MoveID
}

// What is a kind of thing in the state.
type What uint8

// The kinds.
const (
	Leader    What = iota + 1 // State.Leader and Term
	Site                      // Mesh and Site
	Level                     // Level
	Agent                     // Agents[Name]; it may be gone
	Token                     // Tokens[Name]; it may be gone
	Job                       // Jobs[Name]; it may be gone
	Feed                      // Feeds[Name]; it may be gone
	Savepoint                 // Savepoints[Name]; it may be gone
	Replica                   // Replicas[Name]; it may be gone
	Move                      // Moves.Departures[Name] or Moves.Arrivals[Name]; it may be gone
)

var whatNames = [...]string{Leader: "leader", Site: "site", Level: "level", Agent: "agent", Token: "token", Job: "job", Feed: "feed", Savepoint: "savepoint",
	Replica: "replica", Move: "move"}

// String is the name in logs and scripts.
func (w What) String() string { return whatNames[w] }

// Change names what a watcher must look at again.
type Change struct {
	What What
	Name string // empty: there is one only
}

// refusal is a Result.Err: one of the kinds, and a sentence that stands alone.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

// apply is one command on its way: it collects what changed. Every check comes
// before the first change, so a command has all of its effect or none.
type apply struct {
	*coordinator.State
	c       *coordinator.Command
	changes []Change
	moved   coordinator.MoveID
	// sessions are those in use, where many questions are asked of a state that does not
	// change; nil: each is looked for.
	sessions coordinator.Sessions
}

func (a *apply) changed(w What, name string) {
	a.changes = append(a.changes, Change{w, name})
}

// Apply applies the command of a Raft index, and says what changed, of the command and of
// the life of the site that it may be the first of. Indexes ascend; one that was applied already changes nothing. It never panics,
// whatever the command says, and keeps nothing that the caller may change.
func (m *Machine) Apply(index uint64, c *coordinator.Command) (Result, []Change) {
	if index <= m.s.Index {
		return Result{Err: refuse(ErrStale, "index %d was applied already: the state is at %d", index, m.s.Index)}, nil
	}
	a := &apply{State: m.s, c: c}
	if coordinator.Life(index) > coordinator.Life(m.s.Index) {
		a.revive(coordinator.Life(index))
	}
	m.s.Index = index
	if n := said(c); n != 1 {
		return Result{Err: refuse(ErrRefused, "a command that says %d things, not one: it is of a newer program, or broken", n)}, a.changes
	}
	if c.Level > m.s.Level {
		return Result{Err: refuse(ErrRefused, "a command of feature level %d, and level %d is in force", c.Level, m.s.Level)}, a.changes
	}
	if c.JobSubmitted != nil {
		id, err := a.jobSubmitted(c.JobSubmitted)
		return Result{Err: err, Job: id}, a.changes
	}
	err := a.dispatch()
	return Result{Err: err, Move: a.moved}, a.changes
}

func said(c *coordinator.Command) (n int) {
	for _, set := range []bool{
		c.LeaderBegan != nil, c.SiteFounded != nil, c.AgentJoined != nil, c.AgentLeft != nil, c.LevelRaised != nil,
		c.TokenCreated != nil, c.TokenUsed != nil, c.TokenRevoked != nil,
		c.JobSubmitted != nil, c.JobDeployed != nil, c.JobBecame != nil, c.JobTold != nil, c.JobRescaled != nil, c.JobForgotten != nil,
		c.CheckpointDone != nil, c.SinkCommitted != nil, c.SavepointAdded != nil, c.SavepointDeleted != nil, c.CopiesChanged != nil,
		c.FeedCreated != nil, c.FeedDeleted != nil, c.LogEpochBegun != nil, c.Move != nil,
		c.JobFailedOver != nil, c.JobQuarantined != nil, c.JobClaimed != nil,
		c.ReplicaOffered != nil, c.ReplicaNext != nil, c.ReplicaAdvanced != nil, c.ReplicaDropped != nil, c.ReplicaMoved != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

func (a *apply) dispatch() error {
	switch c := a.c; {
	case c.LeaderBegan != nil:
		return a.leaderBegan(c.LeaderBegan)
	case c.SiteFounded != nil:
		return a.siteFounded(c.SiteFounded)
	case c.AgentJoined != nil:
		return a.agentJoined(c.AgentJoined)
	case c.AgentLeft != nil:
		return a.agentLeft(c.AgentLeft)
	case c.LevelRaised != nil:
		return a.levelRaised(c.LevelRaised)
	case c.TokenCreated != nil:
		return a.tokenCreated(c.TokenCreated)
	case c.TokenUsed != nil:
		return a.tokenUsed(c.TokenUsed)
	case c.TokenRevoked != nil:
		return a.tokenRevoked(c.TokenRevoked)
	case c.JobDeployed != nil:
		return a.jobDeployed(c.JobDeployed)
	case c.JobBecame != nil:
		return a.jobBecame(c.JobBecame)
	case c.JobTold != nil:
		return a.jobTold(c.JobTold)
	case c.JobRescaled != nil:
		return a.jobRescaled(c.JobRescaled)
	case c.JobFailedOver != nil:
		return a.jobFailedOver(c.JobFailedOver)
	case c.JobQuarantined != nil:
		return a.jobQuarantined(c.JobQuarantined)
	case c.JobClaimed != nil:
		return a.jobClaimed(c.JobClaimed)
	case c.JobForgotten != nil:
		return a.jobForgotten(c.JobForgotten)
	case c.CheckpointDone != nil:
		return a.checkpointDone(c.CheckpointDone)
	case c.SinkCommitted != nil:
		return a.sinkCommitted(c.SinkCommitted)
	case c.SavepointAdded != nil:
		return a.savepointAdded(c.SavepointAdded)
	case c.SavepointDeleted != nil:
		return a.savepointDeleted(c.SavepointDeleted)
	case c.CopiesChanged != nil:
		return a.copiesChanged(c.CopiesChanged)
	case c.FeedCreated != nil:
		return a.feedCreated(c.FeedCreated)
	case c.FeedDeleted != nil:
		return a.feedDeleted(c.FeedDeleted)
	case c.ReplicaOffered != nil:
		return a.replicaOffered(c.ReplicaOffered)
	case c.ReplicaNext != nil:
		return a.replicaNext(c.ReplicaNext)
	case c.ReplicaAdvanced != nil:
		return a.replicaAdvanced(c.ReplicaAdvanced)
	case c.ReplicaDropped != nil:
		return a.replicaDropped(c.ReplicaDropped)
	case c.ReplicaMoved != nil:
		return a.replicaMoved(c.ReplicaMoved)
	case c.Move != nil:
		return a.move(c.Move)
	}
	return a.logEpochBegun(a.c.LogEpochBegun)
}

// ofTerm checks that the leader of a term still is the one.
func (a *apply) ofTerm(term uint64) error {
	switch {
	case term < a.Term:
		return refuse(ErrStale, "the leader of term %d decided it, and term %d has begun", term, a.Term)
	case term > a.Term:
		return refuse(ErrRefused, "the leader of term %d has not said that it began; the present term is %d", term, a.Term)
	}
	return nil
}
