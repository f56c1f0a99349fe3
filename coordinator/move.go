package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// The move of a job between two sites: what each of them keeps of it in its
// replicated state. coordinator/migration has the rules, docs/MIGRATION.md the
// protocol, coordinator/jobmanager what becomes of the job.

// MoveID names a move: "m", the Raft index at which it began, and the site that
// the job leaves, as in m512-north. So no other move ever has it, and whoever has
// applied that index knows whether there was one.
type MoveID string

// NewMoveID is the id of the move that begins at a Raft index of its source.
func NewMoveID(index uint64, source mesh.Site) MoveID {
	return MoveID(fmt.Sprintf("m%d-%s", index, source))
}

// NewDryRunID is the id of a question of a leader's term whether another site would take
// a job: as of a move at an index that no log comes to. Each question has its own, so that
// an answer that comes late is none to the next one.
func NewDryRunID(term, question uint64, source mesh.Site) MoveID {
	return NewMoveID(dryRuns|(term<<24|question&(1<<24-1))&(dryRuns-1), source)
}

const dryRuns = 1 << 63

// DryRun tells whether it is a dry run's. A program of before has index 0 for all of them.
func (m MoveID) DryRun() bool {
	index, _, ok := m.Parts()
	return ok && (index == 0 || index >= dryRuns)
}

// Parts are the Raft index and the source that the id names; false: it is no
// move's.
func (m MoveID) Parts() (index uint64, source mesh.Site, ok bool) {
	number, site, found := strings.Cut(strings.TrimPrefix(string(m), "m"), "-")
	index, err := strconv.ParseUint(number, 10, 64)
	source = mesh.Site(site)
	return index, source, found && err == nil && site != "" && NewMoveID(index, source) == m
}

// Moves is the part of a site's state that is about moves. Records are never
// changed once they are there: they are replaced.
type Moves struct {
	Departures map[MoveID]*Departure // of jobs of this site
	Arrivals   map[MoveID]*Arrival   // of other sites' jobs
	// Forgotten is, for each site, the greatest index in the id of an arrival that
	// was forgotten: no arrival at or below it begins any more. So a message that
	// was under way for a year brings no move back.
	Forgotten map[mesh.Site]uint64
}

// NewMoves is none at all.
func NewMoves() Moves {
	return Moves{Departures: map[MoveID]*Departure{}, Arrivals: map[MoveID]*Arrival{}, Forgotten: map[mesh.Site]uint64{}}
}

// Clone is a copy with maps of its own.
func (m *Moves) Clone() Moves {
	return Moves{Departures: maps.Clone(m.Departures), Arrivals: maps.Clone(m.Arrivals), Forgotten: maps.Clone(m.Forgotten)}
}

// DeparturePhase is what a move is at in the site that the job leaves.
type DeparturePhase uint8

// The phases of a departure.
//
//	copying      the job runs; the target fetches what there is, again and again
//	halting      the job stops with savepoint S; feeds that move have no session any more
//	offered      S and the logs' ends E are on record; the job runs nowhere
//	handed-over  the decision: the target has the job, and this site never runs it at this epoch again
//	aborted      the other decision: the job goes on here, from S or its newest checkpoint
//	fenced       another site has the job at a greater epoch, by force; what runs here ends
//
// and these transitions, each one entry of the source's Raft log:
//
//	copying -> halting, aborted, fenced
//	halting -> offered, aborted, fenced
//	offered -> handed-over, aborted, fenced
//	aborted -> fenced
//	handed-over, fenced: none
const (
	DepartureCopying DeparturePhase = iota + 1
	DepartureHalting
	DepartureOffered
	DepartureHandedOver
	DepartureAborted
	DepartureFenced
)

var departureNames = [...]string{DepartureCopying: "copying", DepartureHalting: "halting", DepartureOffered: "offered",
	DepartureHandedOver: "handed-over", DepartureAborted: "aborted", DepartureFenced: "fenced"}

// String is the name that a user sees.
func (p DeparturePhase) String() string { return departureNames[p] }

var nextDeparture = [...][]DeparturePhase{
	DepartureCopying:    {DepartureHalting, DepartureAborted, DepartureFenced},
	DepartureHalting:    {DepartureOffered, DepartureAborted, DepartureFenced},
	DepartureOffered:    {DepartureHandedOver, DepartureAborted, DepartureFenced},
	DepartureHandedOver: nil,
	DepartureAborted:    {DepartureFenced},
	DepartureFenced:     nil,
}

// CanBecome tells whether to may follow p.
func (p DeparturePhase) CanBecome(to DeparturePhase) bool {
	return slices.Contains(nextDeparture[p], to)
}

// Known tells whether there is such a phase.
func (p DeparturePhase) Known() bool { return p >= DepartureCopying && p <= DepartureFenced }

// Decided tells whether the move is over, as far as the source is concerned.
func (p DeparturePhase) Decided() bool { return p >= DepartureHandedOver }

// MayRun tells whether the source may run the job at the departure's epoch.
func (p DeparturePhase) MayRun() bool {
	return p == DepartureCopying || p == DepartureHalting || p == DepartureAborted
}

// ArrivalPhase is what a move is at in the site that the job goes to.
type ArrivalPhase uint8

// The phases of an arrival.
//
//	receiving  parts and logs are fetched; it may be dropped at any time
//	prepared   S has its copies here, and the logs are here up to E: the site waits for the source's decision, whatever it costs
//	active     the job is this site's, at the arrival's epoch
//	dropped    it is not; what was fetched may be deleted
//
// and these transitions, each one entry of the target's Raft log:
//
//	receiving -> prepared, dropped
//	prepared  -> active (the source has handed over, or a person forces it), dropped (the source has aborted)
//	active, dropped: none
//
// Prepared while the source's decision is unknown is what people see as IN_DOUBT.
const (
	ArrivalReceiving ArrivalPhase = iota + 1
	ArrivalPrepared
	ArrivalActive
	ArrivalDropped
)

var arrivalNames = [...]string{ArrivalReceiving: "receiving", ArrivalPrepared: "prepared", ArrivalActive: "active", ArrivalDropped: "dropped"}

// String is the name that a user sees.
func (p ArrivalPhase) String() string { return arrivalNames[p] }

var nextArrival = [...][]ArrivalPhase{
	ArrivalReceiving: {ArrivalPrepared, ArrivalDropped},
	ArrivalPrepared:  {ArrivalActive, ArrivalDropped},
	ArrivalActive:    nil,
	ArrivalDropped:   nil,
}

// CanBecome tells whether to may follow p.
func (p ArrivalPhase) CanBecome(to ArrivalPhase) bool { return slices.Contains(nextArrival[p], to) }

// Known tells whether there is such a phase.
func (p ArrivalPhase) Known() bool { return p >= ArrivalReceiving && p <= ArrivalDropped }

// Decided tells whether nothing follows p.
func (p ArrivalPhase) Decided() bool { return p >= ArrivalActive }

// Departure is a move in the state of the site that the job leaves.
type Departure struct {
	ID    MoveID    `cbor:"1,keyasint"`
	Job   JobID     `cbor:"2,keyasint"`
	To    mesh.Site `cbor:"3,keyasint"`
	Epoch uint64    `cbor:"4,keyasint"` // at which it runs here; at the target it is one more
	// Stay are the feeds whose session stays here, and whose logs are mirrored; the
	// job's others move.
	Stay []string `cbor:"5,keyasint,omitempty"`
	Sets []string `cbor:"6,keyasint,omitempty"` // --set K=V that hold at the target
	// Configs are those of the feeds that are others there, because of Sets.
	Configs []FeedConfig `cbor:"14,keyasint,omitempty"`

	Phase     DeparturePhase `cbor:"7,keyasint"`
	Savepoint string         `cbor:"8,keyasint,omitempty"` // S, from offered on
	Ends      []FeedEnd      `cbor:"9,keyasint,omitempty"` // E, from offered on, by feed
	Why       string         `cbor:"10,keyasint,omitempty"`

	Request string        `cbor:"11,keyasint,omitempty"` // of who began it: sent again, it is the same move
	Begun   dataflow.Time `cbor:"12,keyasint"`           // of the leader's wall clock, for people
	Since   dataflow.Time `cbor:"13,keyasint"`           // when its phase changed last, likewise
}

// Arrival is a move in the state of the site that the job goes to.
type Arrival struct {
	ID    MoveID    `cbor:"1,keyasint"`
	Job   MovingJob `cbor:"2,keyasint"`
	From  mesh.Site `cbor:"3,keyasint"`
	Epoch uint64    `cbor:"4,keyasint"` // at which it is to run here

	Phase ArrivalPhase `cbor:"5,keyasint"`
	// Savepoint is S with the copies of its parts at this site, from prepared on.
	Savepoint *Snapshot     `cbor:"6,keyasint,omitempty"`
	Ends      []FeedEnd     `cbor:"7,keyasint,omitempty"` // E, from prepared on, by feed
	Forced    bool          `cbor:"8,keyasint,omitempty"` // active by a person's force: the source may not know
	Why       string        `cbor:"9,keyasint,omitempty"`
	Begun     dataflow.Time `cbor:"10,keyasint"` // of the leader's wall clock, for people
	Since     dataflow.Time `cbor:"11,keyasint"`
}

// MovingJob is what the target must know of a job to run it under its own id.
type MovingJob struct {
	ID          JobID         `cbor:"1,keyasint"`
	Namespace   string        `cbor:"2,keyasint"`
	Name        string        `cbor:"3,keyasint"`
	Spec        []byte        `cbor:"4,keyasint"`
	Sets        []string      `cbor:"5,keyasint,omitempty"` // the job's, then the move's
	Parallelism int           `cbor:"6,keyasint,omitempty"`
	Created     dataflow.Time `cbor:"7,keyasint"`
	Feeds       []MovingFeed  `cbor:"8,keyasint,omitempty"` // all that it reads
	Reads       []string      `cbor:"9,keyasint,omitempty"` // Job.Reads: which of them are shared
	Adopted     []Adoption    `cbor:"10,keyasint,omitempty"`
	Overwrite   bool          `cbor:"11,keyasint,omitempty"`
	Lossy       bool          `cbor:"12,keyasint,omitempty"` // Job.AllowNonRestored
	Completed   uint64        `cbor:"13,keyasint,omitempty"`
	History     []Tenure      `cbor:"14,keyasint,omitempty"` // up to the site that it leaves
}

// As is the job as it would be at a site that has it at an epoch, as far as its text,
// state and settings go: it has no places, and nothing is on record of its files.
func (m *MovingJob) As(epoch uint64) *Job {
	return &Job{ID: m.ID, Namespace: m.Namespace, Name: m.Name, Spec: m.Spec, Sets: m.Sets, Parallelism: m.Parallelism, Epoch: epoch, Reads: m.Reads,
		Adopted: m.Adopted, Overwrite: m.Overwrite, AllowNonRestored: m.Lossy}
}

// MovingFeed is a feed that a moving job reads.
type MovingFeed struct {
	Name   string `cbor:"1,keyasint"`
	Config []byte `cbor:"2,keyasint"`           // Feed.Config
	Stay   bool   `cbor:"3,keyasint,omitempty"` // its session stays at the source

	Replicas int           `cbor:"4,keyasint"` // of Feed, as what follows
	Degrade  bool          `cbor:"5,keyasint,omitempty"`
	Created  dataflow.Time `cbor:"6,keyasint"`
	Lineage  []Reign       `cbor:"7,keyasint,omitempty"` // LineageOf
	// Of is the feed of yet another site, or of the target itself, that has the
	// session, where the feed is a mirror at the source. It stays there. nil: the
	// source has it.
	Of *Mirror `cbor:"8,keyasint,omitempty"`
}

// FeedEnd is how far a feed's log goes: the sequence number behind the last entry
// that counts.
type FeedEnd struct {
	Feed string `cbor:"1,keyasint"`
	End  int64  `cbor:"2,keyasint"`
}
