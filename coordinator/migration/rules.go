package migration

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Limits. A move that goes beyond one is refused.
const (
	MaxMoves = 100  // departures, and as many arrivals, that are on record
	MaxText  = 4096 // bytes of a sentence that is kept; the rest is cut off
)

// The kinds of errors of Apply, the same as jobmanager's. The text is a sentence
// for people without the kind.
var (
	ErrStale   = errors.New("stale")   // it was decided on what is no more
	ErrUnknown = errors.New("unknown") // nothing has this name
	ErrRefused = errors.New("refused") // it is not possible as things are
)

type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

// Jobs is what the rules must know of the jobs in the same state.
type Jobs interface {
	Job(coordinator.JobID) JobFacts
	// NameFree tells whether no live job has the name. Names of arrivals that are
	// not decided are taken: Apply looks after those.
	NameFree(namespace, name string) bool
}

// JobFacts is what a site's state says of a job. The zero value: it has none.
type JobFacts struct {
	Epoch uint64 // the greatest at which this site knows that somebody had it
	Here  bool   // this site has it, at Epoch, and it has not ended
	// Halted is the savepoint with which the job has stopped for a move; empty: it
	// has not.
	Halted string
	// Isolated: another site may have taken it, and nobody gives away what may not be
	// this site's.
	Isolated bool
}

// Order is what the entry that changes a record does to the job, all of it in the
// same Raft entry.
type Order uint8

// The orders. docs/MIGRATION.md has the table.
const (
	Nothing Order = iota
	Halt          // stop with a savepoint; the next log epoch of feeds that move has no session
	GoOn          // go on, from S or the newest checkpoint, at the same epoch; feeds have sessions
	Leave         // it is another site's, at Applied.Epoch: it ends here, and feeds that moved with it
	Fence         // likewise, by force
	Arrive        // it is this site's, at Applied.Epoch, and begins with the arrival's savepoint
)

var orderNames = [...]string{Nothing: "", Halt: "halt", GoOn: "go on", Leave: "leave", Fence: "fence", Arrive: "arrive"}

// String is its name in scripts.
func (o Order) String() string { return orderNames[o] }

// Applied is what a command did. The zero value: nothing, though nothing was
// wrong.
type Applied struct {
	Move  coordinator.MoveID // whose record changed; empty of JobFenced
	Job   coordinator.JobID
	Order Order
	Epoch uint64 // of Leave, Fence and Arrive: at which the job has its owner now
}

// Entry is where a command stands.
type Entry struct {
	Index uint64
	At    dataflow.Time // the leader's wall clock, for people
	Site  mesh.Site     // whose state it is
	Level uint32        // the feature level in force there
}

// Apply applies a command to a site's moves. A command that was decided on what is
// no more changes nothing, and the error says why; one that is in force already
// changes nothing, and there is no error.
func Apply(m *coordinator.Moves, jobs Jobs, e Entry, c *coordinator.MoveCommand) (Applied, error) {
	switch {
	case c.Began != nil:
		return began(m, jobs, e, c.Began)
	case c.Halting != nil:
		return departure(m, jobs, e, c.Halting.ID, c)
	case c.Offered != nil:
		return departure(m, jobs, e, c.Offered.ID, c)
	case c.Decided != nil:
		return departure(m, jobs, e, c.Decided.ID, c)
	case c.Forgotten != nil:
		return departureForgotten(m, c.Forgotten.ID)
	case c.Fenced != nil:
		return fenced(m, jobs, e, c.Fenced)
	case c.ArrivalBegan != nil:
		return arrivalBegan(m, jobs, e, c.ArrivalBegan)
	case c.ArrivalPrepared != nil:
		return arrival(m, e, c.ArrivalPrepared.ID, c)
	case c.ArrivalDecided != nil:
		return arrival(m, e, c.ArrivalDecided.ID, c)
	case c.ArrivalForgotten != nil:
		return arrivalForgotten(m, c.ArrivalForgotten.ID)
	}
	return Applied{}, refuse(ErrRefused, "a command about a move that says nothing: it is of a newer program, or broken")
}

// MayRun tells whether a site may run a job at an epoch, as far as its moves are
// concerned: whoever deploys it asks, in the entry that does so. The error says
// why not.
func MayRun(m *coordinator.Moves, job coordinator.JobID, epoch uint64) error {
	for _, id := range sorted(m.Departures) {
		if d := m.Departures[id]; d.Job == job && d.Epoch >= epoch && !d.Phase.MayRun() {
			return refuse(ErrRefused, "job %s is %s to site %s by %s, and does not run here at epoch %d", job, d.Phase, d.To, id, epoch)
		}
	}
	return nil
}

func began(m *coordinator.Moves, jobs Jobs, e Entry, c *coordinator.MoveBegan) (Applied, error) {
	job := jobs.Job(c.Job)
	for _, id := range sorted(m.Departures) {
		d := m.Departures[id]
		if c.Request != "" && d.Request == c.Request {
			return Applied{Move: id, Job: d.Job}, nil
		}
		if d.Job == c.Job && !d.Phase.Decided() {
			return Applied{}, refuse(ErrRefused, "job %s is moving to %s already, by %s: wait, or cancel that", c.Job, d.To, id)
		}
	}
	switch {
	case job == JobFacts{}:
		return Applied{}, refuse(ErrUnknown, "no job %q", c.Job)
	case !job.Here:
		return Applied{}, refuse(ErrRefused, "job %s is not this site's, or has ended: ask the site that has it", c.Job)
	case c.Epoch != job.Epoch:
		return Applied{}, refuse(ErrStale, "job %s is at epoch %d, and the move was decided at %d", c.Job, job.Epoch, c.Epoch)
	case c.To == e.Site || c.To == "":
		return Applied{}, refuse(ErrRefused, "job %s is to move to site %q, which is this one, or none", c.Job, c.To)
	case len(m.Departures) >= MaxMoves:
		return Applied{}, refuse(ErrRefused, "%d moves are on record, most of them decided, and their targets have not heard of it: reach those sites first", MaxMoves)
	}
	d := &coordinator.Departure{ID: coordinator.NewMoveID(e.Index, e.Site), Job: c.Job, To: c.To, Epoch: c.Epoch, Stay: slices.Clone(c.Stay),
		Sets: slices.Clone(c.Sets), Configs: slices.Clone(c.Configs), Phase: coordinator.DepartureCopying, Request: c.Request, Begun: e.At, Since: e.At}
	m.Departures[d.ID] = d
	return Applied{Move: d.ID, Job: d.Job}, nil
}

// departure makes one transition of a departure.
func departure(m *coordinator.Moves, jobs Jobs, e Entry, id coordinator.MoveID, c *coordinator.MoveCommand) (Applied, error) {
	d := m.Departures[id]
	if d == nil {
		return Applied{}, refuse(ErrUnknown, "no move %q from here", id)
	}
	next, order, err := ApplyDeparture(d, jobs.Job(d.Job), c)
	if err != nil || next == d {
		return Applied{}, err
	}
	next.Since = e.At
	m.Departures[id] = next
	a := Applied{Move: id, Job: d.Job, Order: order}
	if order == Leave {
		a.Epoch = d.Epoch + 1
	}
	return a, nil
}

// ApplyDeparture is the rule for one record: it returns the next version, d itself
// if the command is in force already, and what is to become of the job.
func ApplyDeparture(d *coordinator.Departure, job JobFacts, c *coordinator.MoveCommand) (*coordinator.Departure, Order, error) {
	next, order := *d, Nothing
	switch {
	case c.Halting != nil:
		next.Phase, order = coordinator.DepartureHalting, Halt
	case c.Offered != nil:
		next.Phase, next.Savepoint, next.Ends = coordinator.DepartureOffered, c.Offered.Savepoint, slices.Clone(c.Offered.Ends)
	case c.Decided != nil && c.Decided.HandedOver:
		next.Phase, order = coordinator.DepartureHandedOver, Leave
	case c.Decided != nil:
		next.Phase, next.Why, order = coordinator.DepartureAborted, cut(c.Decided.Why), GoOn
	default:
		return d, Nothing, refuse(ErrRefused, "not a transition of a move")
	}
	switch {
	case next.Phase == d.Phase && !(c.Offered != nil && c.Offered.Savepoint != d.Savepoint):
		return d, Nothing, nil
	case !d.Phase.CanBecome(next.Phase):
		return d, Nothing, refuse(ErrStale, "move %s is %s, and cannot become %s from there", d.ID, d.Phase, next.Phase)
	case !job.Here || job.Epoch != d.Epoch: // it ended in another way: there is nothing to hand over
		if next.Phase != coordinator.DepartureAborted {
			return d, Nothing, refuse(ErrStale, "move %s: the job has ended, or is not this site's at epoch %d any more", d.ID, d.Epoch)
		}
		order = Nothing
	case job.Isolated && (next.Phase == coordinator.DepartureOffered || next.Phase == coordinator.DepartureHandedOver):
		return d, Nothing, refuse(ErrStale, "move %s: another site may have taken job %s meanwhile: those that keep it are asked first", d.ID, d.Job)
	case next.Phase == coordinator.DepartureOffered && (job.Halted == "" || job.Halted != c.Offered.Savepoint):
		return d, Nothing, refuse(ErrStale, "move %s: the job has not stopped with savepoint %q", d.ID, c.Offered.Savepoint)
	}
	if d.Phase == coordinator.DepartureCopying && order == GoOn {
		order = Nothing // it never stopped
	}
	return &next, order, nil
}

func departureForgotten(m *coordinator.Moves, id coordinator.MoveID) (Applied, error) {
	d := m.Departures[id]
	switch {
	case d == nil:
		return Applied{}, nil
	case !d.Phase.Decided():
		return Applied{}, refuse(ErrStale, "move %s is %s: what is not decided is not forgotten", id, d.Phase)
	}
	delete(m.Departures, id)
	return Applied{Move: id, Job: d.Job}, nil
}

// fenced: the greater epoch wins, whatever this site thinks.
func fenced(m *coordinator.Moves, jobs Jobs, e Entry, c *coordinator.JobFenced) (Applied, error) {
	job, changed := jobs.Job(c.Job), false
	if e.Level >= coordinator.GoesOnLevel && job != (JobFacts{}) && job.Epoch < c.Epoch && c.Epoch-job.Epoch > coordinator.MaxEpochsAhead {
		return Applied{}, refuse(ErrRefused, "job %s: site %s cannot have it at epoch %d, as it is known to have been at %d", c.Job, c.Owner, c.Epoch, job.Epoch)
	}
	for _, id := range sorted(m.Departures) {
		d := m.Departures[id]
		if d.Job == c.Job && d.Epoch < c.Epoch && d.Phase.CanBecome(coordinator.DepartureFenced) {
			next := *d
			next.Phase, next.Since = coordinator.DepartureFenced, e.At
			next.Why = cut(fmt.Sprintf("site %s has it at epoch %d, by force", c.Owner, c.Epoch))
			m.Departures[id], changed = &next, true
		}
	}
	switch {
	case job != JobFacts{} && job.Epoch < c.Epoch:
		return Applied{Job: c.Job, Order: Fence, Epoch: c.Epoch}, nil
	case changed:
		return Applied{Job: c.Job}, nil
	}
	return Applied{}, refuse(ErrStale, "job %s: epoch %d of site %s is not above the one that is known, %d", c.Job, c.Epoch, c.Owner, job.Epoch)
}

func arrivalBegan(m *coordinator.Moves, jobs Jobs, e Entry, c *coordinator.Arrival) (Applied, error) {
	if m.Arrivals[c.ID] != nil {
		return Applied{}, nil
	}
	index, from, ok := c.ID.Parts()
	job := jobs.Job(c.Job.ID)
	switch {
	case !ok || from != c.From || from == e.Site || c.Job.ID == "":
		return Applied{}, refuse(ErrRefused, "%q is no move from site %q", c.ID, c.From)
	case index <= m.Forgotten[from]:
		return Applied{}, refuse(ErrStale, "move %s is over, or a later one of site %s was over before this one began: begin it again", c.ID, from)
	case job.Here:
		return Applied{}, refuse(ErrRefused, "job %s is at site %s already, at epoch %d: if it was forced, let that site be reached first", c.Job.ID, e.Site, job.Epoch)
	case job.Epoch >= c.Epoch:
		return Applied{}, refuse(ErrStale, "job %s was here at epoch %d, and is to come at %d: this is an old message", c.Job.ID, job.Epoch, c.Epoch)
	case len(m.Arrivals) >= MaxMoves:
		return Applied{}, refuse(ErrRefused, "%d jobs are on their way to site %s: wait for some", MaxMoves, e.Site)
	case !jobs.NameFree(c.Job.Namespace, c.Job.Name):
		return Applied{}, refuse(ErrRefused, "a job %q is at site %s already: stop it first", c.Job.Name, e.Site)
	}
	for _, id := range sorted(m.Arrivals) {
		if a := m.Arrivals[id]; !a.Phase.Decided() && (a.Job.ID == c.Job.ID || a.Job.Name == c.Job.Name && a.Job.Namespace == c.Job.Namespace) {
			return Applied{}, refuse(ErrRefused, "job %q is on its way to site %s already, by %s: wait for that", a.Job.Name, e.Site, id)
		}
	}
	a := *c
	a.Phase, a.Savepoint, a.Ends, a.Forced, a.Why, a.Begun, a.Since = coordinator.ArrivalReceiving, nil, nil, false, "", e.At, e.At
	m.Arrivals[a.ID] = &a
	return Applied{Move: a.ID, Job: a.Job.ID}, nil
}

// arrival makes one transition of an arrival.
func arrival(m *coordinator.Moves, e Entry, id coordinator.MoveID, c *coordinator.MoveCommand) (Applied, error) {
	a := m.Arrivals[id]
	if a == nil {
		return Applied{}, refuse(ErrUnknown, "no move %q to here", id)
	}
	next, order, err := ApplyArrival(a, c)
	if err != nil || next == a {
		return Applied{}, err
	}
	next.Since = e.At
	m.Arrivals[id] = next
	ap := Applied{Move: id, Job: a.Job.ID, Order: order}
	if order == Arrive {
		ap.Epoch = a.Epoch
	}
	return ap, nil
}

// ApplyArrival is the rule for one record: it returns the next version, a itself
// if the command is in force already, and what is to become of the job.
func ApplyArrival(a *coordinator.Arrival, c *coordinator.MoveCommand) (*coordinator.Arrival, Order, error) {
	next, order := *a, Nothing
	switch {
	case c.ArrivalPrepared != nil:
		p := c.ArrivalPrepared
		if p.Savepoint == nil {
			return a, Nothing, refuse(ErrRefused, "move %s: prepared without a savepoint", a.ID)
		}
		next.Phase, next.Savepoint, next.Ends = coordinator.ArrivalPrepared, p.Savepoint, slices.Clone(p.Ends)
	case c.ArrivalDecided != nil && c.ArrivalDecided.Active():
		next.Phase, next.Forced, order = coordinator.ArrivalActive, c.ArrivalDecided.Forced, Arrive
	case c.ArrivalDecided != nil:
		next.Phase, next.Why = coordinator.ArrivalDropped, cut(c.ArrivalDecided.Why)
	default:
		return a, Nothing, refuse(ErrRefused, "not a transition of an arrival")
	}
	switch {
	case next.Phase == a.Phase:
		return a, Nothing, nil
	case !a.Phase.CanBecome(next.Phase):
		return a, Nothing, refuse(ErrStale, "move %s is %s, and cannot become %s from there", a.ID, a.Phase, next.Phase)
	case a.Phase == coordinator.ArrivalPrepared && !next.Forced && c.ArrivalDecided.Verdict == 0:
		// Decided here before it was prepared; now the source may have handed over.
		return a, Nothing, refuse(ErrStale, "move %s is prepared: only site %s decides", a.ID, a.From)
	}
	return &next, order, nil
}

func arrivalForgotten(m *coordinator.Moves, id coordinator.MoveID) (Applied, error) {
	a := m.Arrivals[id]
	switch {
	case a == nil:
		return Applied{}, nil
	case !a.Phase.Decided():
		return Applied{}, refuse(ErrStale, "move %s is %s: what is not decided is not forgotten", id, a.Phase)
	}
	index, from, _ := id.Parts()
	m.Forgotten[from] = max(m.Forgotten[from], index)
	delete(m.Arrivals, id)
	return Applied{Move: id, Job: a.Job.ID}, nil
}

// cut shortens a sentence that is kept.
func cut(s string) string { return strings.Clone(s[:min(len(s), MaxText)]) }

func sorted[V any](m map[coordinator.MoveID]V) []coordinator.MoveID {
	ids := make([]coordinator.MoveID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
