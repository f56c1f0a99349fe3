package coordinator

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// DefaultNamespace is where everything is; others are reserved.
const DefaultNamespace = "default"

// State is what the agents of a site agree on: what coordinator/jobmanager has
// after some prefix of the Raft log. What a pointer or slice in it leads to is
// never changed once it is there: it is replaced. The maps are changed in place.
type State struct {
	Index      uint64 // of the last command applied
	Term       uint64 // of the last leader that said it began
	Leader     mesh.NodeID
	Mesh       string // the mesh's name, from its founding
	Site       mesh.Site
	Level      uint32 // the feature level in force: commands of greater ones are not proposed. It never goes down
	Agents     map[mesh.NodeID]*Agent
	Jobs       map[JobID]*Job
	Names      map[string]JobID // of live jobs, by NameKey
	Feeds      map[string]*Feed
	Savepoints map[string]*Snapshot
	Tokens     map[string]*Token
	Removed    map[mesh.NodeID]*Removed // agents that were taken out: whatever their certificates say, nobody lets them in
	Replicas   map[JobID]*Replica       // of other sites' jobs; SitesLevel
	Forgotten  map[JobID]*Forgotten     // jobs that ended here and are not remembered any more; SettledLevel
	Moves      Moves                    // of jobs, to other sites and from them
}

// Removed is an agent that belonged to the site. One that uses a token is none any
// more, and may join again.
type Removed struct {
	Node mesh.NodeID   `cbor:"1,keyasint"`
	Name string        `cbor:"2,keyasint"`
	At   dataflow.Time `cbor:"3,keyasint"`
}

// BaseLevel is the feature level of a new site: all that there was in the first
// version of the mesh. Every agent knows it.
const BaseLevel = 1

// The feature levels after the first.
const (
	// AdoptLevel: a job takes over the feeds of one that has ended, feeds stay while
	// a savepoint stands in them, files may be written over, savepoints know who
	// asked for them, checkpoints are counted.
	AdoptLevel = 2
	// CopiesLevel: the leader has agents copy parts that are on too few of them
	// (messages Copy and Copied); tokens may found other sites.
	CopiesLevel = 3
	// SitesLevel: ids of new jobs name the site, jobs move between sites and are
	// replicated, feeds are mirrored, an epoch of a log may be held.
	SitesLevel = 4
	// GoesOnLevel: an attempt's first snapshots go on from the parts that it was
	// restored from; where they cannot, agents take whole ones although the barrier is
	// not Full. Agents restore a job that arrives before it comes (messages Warm and
	// Warmed), and look first what is in its way (Probe and Probed). Agents say where
	// the lanes of a log are (Lanes of LogStatus), and streams to agents of other sites
	// are packed. Epochs that nobody can have counted to are refused.
	GoesOnLevel = 5
	// SettledLevel: what a move leaves behind goes: the savepoint with which the job was
	// stopped. The session of a shared feed does not leave a job that reads a mirror of it,
	// and comes with the last job that reads it, whatever epoch that has. The feed of a
	// job that goes on from another one's savepoint keeps its lineage, and its mirror.
	// The epoch behind a mirror's may start before that one, and is anybody's where all
	// that had it have left the site. A shared feed has no session while that may be at
	// another site with a job. Mirrors for what is kept of a job go with the site that it was
	// kept of. Who was taken out is refused with a code of its own. What a prepared move needs stays as it is, and a job that
	// another site may have taken is not handed over.
	// A shared feed that is deleted and made again under its name is another one.
	// What is on record of a file gets shorter where its job goes on from something older.
	// What is kept of a job says where the job is said to be by now. A site that has
	// forgotten a job knows whether it ended there, or moved on.
	// A recovered site's logs begin reigns, and its attempts have numbers of their own.
	SettledLevel = 6
	// Level is the greatest that this program knows.
	Level = SettledLevel
)

// Clone is a copy with maps of its own, so that it stays as it is when s goes
// on.
func (s *State) Clone() *State {
	c := *s
	c.Agents, c.Jobs, c.Names = maps.Clone(s.Agents), maps.Clone(s.Jobs), maps.Clone(s.Names)
	c.Feeds, c.Savepoints, c.Tokens = maps.Clone(s.Feeds), maps.Clone(s.Savepoints), maps.Clone(s.Tokens)
	c.Removed, c.Moves, c.Replicas, c.Forgotten = maps.Clone(s.Removed), s.Moves.Clone(), maps.Clone(s.Replicas), maps.Clone(s.Forgotten)
	return &c
}

// NameKey is a job's key in State.Names.
func NameKey(namespace, name string) string {
	if namespace == DefaultNamespace || namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// Snapshot finds what Job.From, Job.Begin and JobSubmitted.From name: a
// checkpoint of the job, a savepoint, or JOB/NAME, a checkpoint of another
// job. job may be nil. nil: it is not there. What is kept of other sites' jobs is
// not found: no job of this site begins with it while that is so.
func (s *State) Snapshot(job *Job, name string) *Snapshot {
	if id, rest, ok := strings.Cut(name, "/"); ok {
		if job = s.Jobs[JobID(id)]; job == nil {
			return nil
		}
		return job.Checkpoint(rest)
	}
	if job != nil {
		if c := job.Checkpoint(name); c != nil {
			return c
		}
	}
	return s.Savepoints[name]
}

// Agent is a node that belongs to the site, whether it is there or not.
type Agent struct {
	Node   mesh.NodeID       `cbor:"1,keyasint"`
	Name   string            `cbor:"2,keyasint"`
	Host   string            `cbor:"3,keyasint"`
	Labels map[string]string `cbor:"4,keyasint,omitempty"`
	Slots  int               `cbor:"5,keyasint"`
	Memory int64             `cbor:"6,keyasint"` // budget in bytes for batches in flight of all its jobs
	Level  uint32            `cbor:"7,keyasint"`
	Link   string            `cbor:"8,keyasint"` // where it was reached last, for those who have no gossip yet
	HTTP   string            `cbor:"9,keyasint,omitempty"`
	// Version of the binary, for people.
	Version string `cbor:"10,keyasint"`
}

// Equal tells whether two say the same of an agent.
func (a *Agent) Equal(b *Agent) bool {
	x, y := *a, *b
	x.Labels, y.Labels = nil, nil
	return maps.Equal(a.Labels, b.Labels) && reflect.DeepEqual(x, y) // fields to come count too
}

// Job is a job that was submitted. Its spec never changes but by JobRescaled.
type Job struct {
	ID        JobID    `cbor:"1,keyasint"`
	Namespace string   `cbor:"2,keyasint"`
	Name      string   `cbor:"3,keyasint"`
	Spec      []byte   `cbor:"4,keyasint"`           // YAML, with the references to secrets, never the secrets
	Sets      []string `cbor:"5,keyasint,omitempty"` // --set K=V, in order
	// Parallelism of the job where it was rescaled; 0: as the spec says.
	Parallelism int           `cbor:"6,keyasint,omitempty"`
	Created     dataflow.Time `cbor:"7,keyasint"` // of the leader's wall clock, for people

	Status   Status        `cbor:"8,keyasint"`
	Why      string        `cbor:"9,keyasint,omitempty"`  // of waiting, restarting, failed: a sentence for people
	Then     dataflow.Then `cbor:"10,keyasint,omitempty"` // how it was told to stop; GoOn: it was not
	Cancel   bool          `cbor:"11,keyasint,omitempty"`
	Restarts int           `cbor:"12,keyasint,omitempty"`

	// Attempt numbers deployments from 1; it is the fencing token's, together with
	// Epoch (of owners, from 1). No attempt number is used twice: State.NextAttempt.
	Epoch   uint64  `cbor:"13,keyasint"`
	Attempt uint64  `cbor:"14,keyasint"`
	Places  []Place `cbor:"15,keyasint,omitempty"` // of the present attempt, by task and index; it runs while Deployed. Restarting: of the one that failed
	// From is the checkpoint or savepoint that the present attempt goes on from;
	// empty: it began afresh.
	From             string `cbor:"16,keyasint,omitempty"`
	Begin            string `cbor:"17,keyasint,omitempty"` // the savepoint that the job begins with, while it has no checkpoint
	AllowNonRestored bool   `cbor:"18,keyasint,omitempty"`

	Checkpoints []*Snapshot `cbor:"19,keyasint,omitempty"` // kept ones, oldest first
	// Sinks is what finished commits made of the sinks' targets: at most one entry
	// an agent and target.
	Sinks     []SinkCommit `cbor:"20,keyasint,omitempty"`
	Savepoint string       `cbor:"21,keyasint,omitempty"` // that it stopped with

	Request string        `cbor:"22,keyasint,omitempty"` // of the submission
	Reads   []string      `cbor:"23,keyasint,omitempty"` // shared feeds
	Since   dataflow.Time `cbor:"24,keyasint"`           // when its status changed last, of the leader's wall clock, for people
	End     uint64        `cbor:"25,keyasint,omitempty"` // Raft index at which it ended; 0: it lives

	Adopted   []Adoption `cbor:"26,keyasint,omitempty"` // feeds that it took over; other mqtt sources have JOB.SOURCE
	Overwrite bool       `cbor:"27,keyasint,omitempty"` // files that its sinks do not know from a checkpoint are emptied, not refused
	Completed uint64     `cbor:"28,keyasint,omitempty"` // checkpoints so far, of all attempts, since AdoptLevel is in force
	// Successor is the job that went on from it after it had ended, and has its Sinks.
	Successor JobID `cbor:"29,keyasint,omitempty"`

	// Move is the departure for which the job halts, or is suspended; empty: none.
	Move    MoveID    `cbor:"30,keyasint,omitempty"`
	Owner   mesh.Site `cbor:"31,keyasint,omitempty"` // of moved: the site that has it; empty: this one
	History []Tenure  `cbor:"32,keyasint,omitempty"` // of a job that has moved: who had it, by epoch, for people
	// Isolated: nobody had led the site for long, and another one may have taken the
	// job. Nothing of it runs, and its feeds have no session, until all that keep it have
	// said that they have not, or a person has said that it goes on here.
	Isolated bool `cbor:"33,keyasint,omitempty"`
	// Stands are the shared feeds that it read when it ended: as long as it lives none of
	// them is deleted. SettledLevel.
	Stands []Stand `cbor:"34,keyasint,omitempty"`
}

// Stand is a shared feed in whose log something stands. One of that name that was made
// at another index is another feed.
type Stand struct {
	Feed string `cbor:"1,keyasint"`
	Made uint64 `cbor:"2,keyasint,omitempty"` // Feed.Made
}

// Tenure says from when on a site has had a job.
type Tenure struct {
	Epoch uint64        `cbor:"1,keyasint"`
	Site  mesh.Site     `cbor:"2,keyasint"`
	At    dataflow.Time `cbor:"3,keyasint"` // of a leader's wall clock
}

// Adoption is a source of a job and the feed that it took over from another one.
type Adoption struct {
	Source dataflow.OperatorID `cbor:"1,keyasint"`
	Feed   string              `cbor:"2,keyasint"`
}

// OwnFeed is the name of the feed of an mqtt source of the job.
func (j *Job) OwnFeed(source dataflow.OperatorID) string {
	for _, a := range j.Adopted {
		if a.Source == source {
			return a.Feed
		}
	}
	return string(j.ID) + "." + string(source)
}

// Deployed tells whether the present attempt is to be where Places says.
func (j *Job) Deployed() bool {
	return j.Status == Restoring || j.Status == Running || j.Status == Stopping
}

// Token is the fencing token of the job's present attempt at site.
func (j *Job) Token(site mesh.Site) dataflow.FencingToken {
	return dataflow.FencingToken{Epoch: j.Epoch, Site: string(site), Attempt: j.Attempt}
}

// Newest is the checkpoint that a restart goes on from; nil: there is none.
func (j *Job) Newest() *Snapshot {
	if n := len(j.Checkpoints); n > 0 {
		return j.Checkpoints[n-1]
	}
	return nil
}

// RetainedCheckpoints are kept of a job for itself: one, and two to go back to if it is
// damaged. Older ones are there for as long as somebody else needs them: another site
// fetches one, or another job begins with it.
const RetainedCheckpoints = 3

// Retained are those that are kept for the job itself, oldest first.
func (j *Job) Retained() []*Snapshot {
	return j.Checkpoints[max(0, len(j.Checkpoints)-RetainedCheckpoints):]
}

// Checkpoint is a kept one, by name; nil: it is not there.
func (j *Job) Checkpoint(name string) *Snapshot {
	for _, c := range j.Checkpoints {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Place is where a subtask runs.
type Place struct {
	Subtask dataflow.SubtaskID `cbor:"1,keyasint"`
	Node    mesh.NodeID        `cbor:"2,keyasint"`
}

// MaxParts is how many parts a snapshot may have. A command with a longer list is not
// encoded.
const MaxParts = 1 << 17

// Snapshot is a completed checkpoint or savepoint and where its parts are.
type Snapshot struct {
	Name     string                `cbor:"1,keyasint"`
	Job      JobID                 `cbor:"2,keyasint"`
	ID       dataflow.CheckpointID `cbor:"3,keyasint"`
	Manifest []byte                `cbor:"4,keyasint"` // as store/manifest encodes it
	Copies   []PartCopies          `cbor:"5,keyasint,omitempty"`
	Bytes    int64                 `cbor:"6,keyasint"` // written for it
	// Request is the one that it answers: who sends it again gets the same savepoint.
	// Random.
	Request string `cbor:"7,keyasint,omitempty"`
	// Stands are the shared feeds that its job read, of a savepoint that was taken here.
	// No other site is told. SettledLevel.
	Stands []Stand `cbor:"8,keyasint,omitempty"`
}

// StandsIn tells whether a snapshot of a job can stand in the log of a shared feed that
// is here, by what the feed is: not if that was made when the one of its name that the
// job read was deleted.
func (s *State) StandsIn(c *Snapshot, f *Feed) bool {
	j := s.Jobs[c.Job]
	all := c.Stands
	if len(all) == 0 && j != nil {
		all = j.Stands
	}
	i := slices.IndexFunc(all, func(o Stand) bool { return o.Feed == f.Name })
	switch {
	case i >= 0:
		return all[i].Made == f.Made
	case j != nil && !j.Status.Ended():
		return true
	}
	return f.Made == 0 // one that was made later is said
}

// Of is a kept snapshot: a checkpoint of job, or of its replica, or, where job is
// empty, a savepoint. A name stands for one snapshot of a job, whatever keeps it.
// nil: it is not kept.
func (s *State) Of(job JobID, name string) *Snapshot {
	if job == "" {
		return s.Savepoints[name]
	}
	if j := s.Jobs[job]; j != nil {
		if c := j.Checkpoint(name); c != nil {
			return c
		}
	}
	if r := s.Replicas[job]; r != nil {
		return r.Named(name)
	}
	return nil
}

// DefaultReplicas is how many agents have each part, if the job says nothing, or
// is forgotten, and there are so many.
const DefaultReplicas = 2

// PartCopies is the nodes that have a part.
type PartCopies struct {
	Part  store.Digest  `cbor:"1,keyasint"`
	Nodes []mesh.NodeID `cbor:"2,keyasint"`
}

// SinkCommit is how far a sink's target is committed on the agent that it is on.
// An agent cuts its target back to it before it writes there again.
type SinkCommit struct {
	Operator dataflow.OperatorID   `cbor:"1,keyasint"`
	Node     mesh.NodeID           `cbor:"2,keyasint"`
	Target   string                `cbor:"3,keyasint"` // sensors.Pending's
	Through  dataflow.CheckpointID `cbor:"4,keyasint"`
	Length   int64                 `cbor:"5,keyasint"` // bytes of a file
}

// Feed is a durable ingestion and the chain of its log's epochs, of which only
// the present one matters.
type Feed struct {
	Name      string        `cbor:"1,keyasint"`
	Namespace string        `cbor:"2,keyasint"`
	Job       JobID         `cbor:"3,keyasint,omitempty"` // whose source it is; it may be forgotten. Empty: it is shared
	Config    []byte        `cbor:"4,keyasint"`           // agent/feed's, as JSON, with references to secrets only
	Replicas  int           `cbor:"5,keyasint"`           // copies asked for; 0: 2 where the site has ever had two agents, else 1
	Degrade   bool          `cbor:"6,keyasint,omitempty"` // when_short: degrade
	Log       LogEpoch      `cbor:"7,keyasint"`
	Created   dataflow.Time `cbor:"8,keyasint"`
	// Past are jobs that had it before, and of which something is kept that stands
	// in its log: the source is the same one in all of them.
	Past []JobID `cbor:"9,keyasint,omitempty"`
	// Mirror is another site's feed whose log this one's is a copy of: no session is
	// opened here. nil: the session is this site's. SitesLevel, as what follows.
	Mirror *Mirror `cbor:"10,keyasint,omitempty"`
	// Lineage are the reigns that the log went through, by Epoch; LineageOf says what
	// an empty one stands for.
	Lineage []Reign `cbor:"11,keyasint,omitempty"`
	// Reigns is the epoch of a reign of this site that the next epoch of the log
	// begins; 0: none.
	Reigns uint64 `cbor:"12,keyasint,omitempty"`
	// Fork is where the log here left what it is to be: its next epoch starts there
	// at the latest. nil: nowhere.
	Fork *Fork `cbor:"13,keyasint,omitempty"`
	// Owner is the site whose agents have the session; empty: this one. While another
	// has it nothing of its own is appended here: the log rests, or takes what that
	// site's took.
	Owner mesh.Site `cbor:"20,keyasint,omitempty"`
	// Move is the arrival that brought it here, until that is decided: dropped, it
	// goes.
	Move MoveID `cbor:"21,keyasint,omitempty"`
	// Made is the Raft index at which the record was made: two feeds that have the name
	// one after the other have different ones. The first epoch of the log has this number,
	// so it is above all that a feed of this name ever had here. 0: the record is from
	// before SettledLevel, or came with a job's submission, whose feeds' names are never
	// used twice: the first epoch is 1.
	Made uint64 `cbor:"22,keyasint,omitempty"`
	// Life is the life of the site whose reign the next epoch of the log begins, as the site
	// was recovered: what the lost ones took in an epoch that nobody here knows is in other
	// sites' mirrors. 0: none. SettledLevel.
	Life uint64 `cbor:"23,keyasint,omitempty"`
}

// NextEpoch is the number of the epoch of its log that begins next.
func (f *Feed) NextEpoch() uint64 {
	if f.Log.Epoch == 0 && f.Made > 0 {
		return f.Made
	}
	return f.Log.Epoch + 1
}

// Source is whose source a job's own feed is, in every job that had it.
func (f *Feed) Source() dataflow.OperatorID {
	_, source, _ := strings.Cut(f.Name, ".")
	return dataflow.OperatorID(source)
}

// Whose is the job for which a feed's log grows: whose source it is, or was when it
// moved and the session stayed. Empty: it is shared.
func (f *Feed) Whose() JobID {
	if n := len(f.Past); f.Job == "" && n > 0 {
		return f.Past[n-1]
	}
	return f.Job
}

// Of tells whether a feed is, or was, a job's own.
func (f *Feed) Of(job JobID) bool {
	return job != "" && (f.Job == job || slices.Contains(f.Past, job))
}

// LogEpoch says who may append to a feed's log. Its owner appends, and
// acknowledges a record when all members have it on disk; so every member has
// every record that was acknowledged.
//
// The next epoch begins when one member of this one has been sealed: it has
// promised to take nothing more of this epoch, and said where its log ends.
// That is Start of the next; members cut what they have behind Start of a
// later epoch than theirs, and copy what they lack, before the owner
// acknowledges anything.
//
// Until that is done the new members may have less than the old ones: so these
// stay Heirs. One of them owns the next epoch, and nothing is lost, as long as a
// member of this one shows that nothing was acknowledged in it: store/logepoch.
type LogEpoch struct {
	Epoch   uint64        `cbor:"1,keyasint"` // from 1, or Feed.Made; 0: the log was never begun
	Owner   mesh.NodeID   `cbor:"2,keyasint"` // one of Members
	Members []mesh.NodeID `cbor:"3,keyasint"`
	Start   int64         `cbor:"4,keyasint"` // sequence number of its first entry
	// Starts are those of the epochs up to this one, for who comes back after
	// several: Starts[i] is that of epoch Forgotten+i+1. Use Cut.
	Starts    []int64 `cbor:"5,keyasint"`
	Forgotten uint64  `cbor:"6,keyasint,omitempty"` // the first epochs, whose starts are not kept any more, and those of feeds that had the name before
	Heirs     []Heir  `cbor:"7,keyasint,omitempty"` // by node
	// Held: the owner has no session, and appends nothing of its own. So where the
	// feed leaves this site the log ends at Start. State.Holds says when.
	Held bool `cbor:"8,keyasint,omitempty"`
	// Mirror is Feed.Mirror as it was when the epoch began: its owner takes what that
	// one's has, and opens no session. SitesLevel, as what follows.
	Mirror *Mirror `cbor:"9,keyasint,omitempty"`
	// Reign is the newest of the log's lineage when the epoch began; nil: the only one
	// there ever was, of this site.
	Reign *Reign `cbor:"10,keyasint,omitempty"`
}

// Heir was a member of an epoch before. Its copy has all that was acknowledged
// before the present epoch, if it reaches From.
type Heir struct {
	Node mesh.NodeID `cbor:"1,keyasint"`
	From int64       `cbor:"2,keyasint"`
}

// Cut is where a log must be cut that took nothing of a later epoch than the
// given one: the start of the next. Where there is no next nothing is cut, and
// Cut is math.MaxInt64; where the next one's start is forgotten nothing of the
// log can be used, and Cut is 0.
func (l LogEpoch) Cut(epoch uint64) int64 {
	switch {
	case epoch >= l.Epoch:
		return math.MaxInt64
	case epoch < l.Forgotten || epoch-l.Forgotten >= uint64(len(l.Starts)):
		return 0
	}
	return l.Starts[epoch-l.Forgotten]
}

// Token is a permission to join.
type Token struct {
	ID      string        `cbor:"1,keyasint"`
	Hash    []byte        `cbor:"2,keyasint"` // SHA-256 of its secret
	Created dataflow.Time `cbor:"3,keyasint"` // of the leader's wall clock
	Expires dataflow.Time `cbor:"4,keyasint"` // MaxTime: never
	Uses    int           `cbor:"5,keyasint"` // so many joins are left; -1: any number
	Revoked bool          `cbor:"6,keyasint,omitempty"`
	// Nodes joined with it, and were not removed since; those of a token of any number
	// of uses are not kept.
	Nodes []mesh.NodeID `cbor:"7,keyasint,omitempty"`
	// Founds is another site, which the one who uses the token founds: it joins none.
	// Sealed is that site's key, which only the token's secret opens. CopiesLevel.
	Founds mesh.Site `cbor:"8,keyasint,omitempty"`
	Sealed []byte    `cbor:"9,keyasint,omitempty"`
}
