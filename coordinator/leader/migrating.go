package leader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Moves of jobs to other sites and from them: one machine of coordinator/migration
// for each that is on record, made anew in each term. Here they are told what is
// so (the record, the job, its logs, what was fetched), and what they want is done.
//
// What is so is looked at when the move is marked: its record changed, its job, a
// feed, or what is kept of the job; a machine hears of it only where it is not as
// it was told last.

// migrating is what is known of moves.
type migrating struct {
	runs    map[coordinator.MoveID]*moveRun
	marked  map[coordinator.MoveID]bool
	reached map[mesh.Site]bool
	ends    map[string]coordinator.FeedEnd // of logs here that another site's are copied to
	lag     map[string]int64               // bytes that those lack
	behind  map[string]behind              // what else they lack
	probes  map[uint64]*probing
	probed  uint64             // the order of the last probe
	dry     coordinator.MoveID // of the last dry run
	dries   uint64             // dry runs so far
}

// behind is what a mirror's source has besides, and when it said so, of the clock of
// the mirror's owner.
type behind struct {
	rows  int64
	time  dataflow.Duration
	heard dataflow.Time
}

// moveRun is the machine of a move, and what it was told.
type moveRun struct {
	id     coordinator.MoveID
	job    coordinator.JobID
	source *migration.Source // or
	target *migration.Target

	departure *coordinator.Departure
	arrival   *coordinator.Arrival
	newest    *coordinator.Snapshot
	halted    *coordinator.Snapshot
	held      []coordinator.FeedEnd
	acts      dataflow.Time // until then an agent may act for the attempt with which the job was stopped
	ended     bool
	fetched   *coordinator.Snapshot
	logs      []coordinator.FeedEnd
	lag       int64
	rowed     bool // the first row's time was said

	fits       *coordinator.MovePropose // there is room for it here; the record that keeps that is not there yet
	checkpoint bool                     // one is wanted soon
	want       *coordinator.Snapshot    // that is fetched
	wantedAt   dataflow.Time
	lacks      int64 // bytes of it that were not here
	fetching   bool  // a command about the replica is under way
	retry      dataflow.Time
	warm       warmth
}

func newMigrating() migrating {
	return migrating{runs: make(map[coordinator.MoveID]*moveRun), marked: make(map[coordinator.MoveID]bool), reached: make(map[mesh.Site]bool),
		ends: make(map[string]coordinator.FeedEnd), lag: make(map[string]int64), behind: make(map[string]behind), probes: make(map[uint64]*probing)}
}

// mostRuns bounds the machines: those of all moves that may be on record, and as many
// of which there is a question only.
const mostRuns = 4 * migration.MaxMoves

// FromSite is a message of another site's leader about a move.
type FromSite struct {
	Site     mesh.Site
	ToSource *coordinator.ToSource // one of the three
	ToTarget *coordinator.ToTarget
	Owner    *coordinator.OwnerNews // of no move: owners.go
}

// ToSite is a message for the leader of another site; it may be lost.
type ToSite FromSite

// Mirrored says how far logs here are, that are copied from another site's: durable
// in all the copies that they need. Feeds that are not named are as before.
type Mirrored struct {
	Ends []coordinator.FeedEnd
	Lag  map[string]int64 // bytes that the other site is known to have besides, by feed
}

// Moving is what there is to say of a move. It is not in the state.
type Moving struct {
	Move coordinator.MoveID
	Job  coordinator.JobID
	migration.Progress
}

// Migrate is a person's wish about a move. Exactly one is set.
type Migrate struct {
	Begin  *coordinator.MoveBegan // answered with the move's id when it is on record
	Dry    *coordinator.MoveBegan // answered without an error if the other site would take the job
	Cancel coordinator.MoveID     // of one from here; of one to here, that has not got everything: drop it
	Force  coordinator.MoveID     // of one to here: active, though its source has not said so
	Why    string
	Sure   bool // with Force: though the source's site is reached
}

// markMove has a move looked at.
func (l *Leader) markMove(id coordinator.MoveID) { l.moving.marked[id] = true }

// markMoves has those looked at that are about a job; empty: all.
func (l *Leader) markMoves(job coordinator.JobID) {
	for id, m := range l.moving.runs {
		if job == "" || m.job == job {
			l.moving.marked[id] = true
		}
	}
}

// lookAtMoves tells machines what is not as they were told, and makes those of
// moves that are new.
func (l *Leader) lookAtMoves() {
	for _, id := range take(l.moving.marked) { // what is marked meanwhile the next Step sees
		d, arr := l.st.Moves.Departures[id], l.st.Moves.Arrivals[id]
		m := l.moving.runs[id]
		switch {
		case m == nil && d != nil:
			m = l.leave(d)
		case m == nil && arr != nil:
			m = &moveRun{id: id, job: arr.Job.ID, arrival: arr, target: migration.NewTarget(l.cfg.Moving, l.now, id, arr), retry: dataflow.MinTime}
			l.moving.runs[id] = m
		case m == nil:
			continue
		}
		if m.source != nil {
			l.tellSource(m, d)
		} else {
			l.tellTarget(m, arr)
			l.warm(m)
		}
		l.moveTick(id)
	}
}

// leave makes the machine of a departure.
func (l *Leader) leave(d *coordinator.Departure) *moveRun {
	cfg := l.cfg.Moving
	if r, j := l.jobs[d.Job], l.st.Jobs[d.Job]; r != nil {
		if p, err := l.parse(r, j); err == nil {
			cfg.Halt = p.Checkpoint.Timeout
		}
	}
	job, _ := l.st.Moving(d)
	m := &moveRun{id: d.ID, job: d.Job, departure: d, source: migration.NewSource(cfg, l.now, d, job), retry: dataflow.MinTime}
	if index, _, _ := d.ID.Parts(); index <= l.ledFrom {
		m.source.Anew()
	}
	l.moving.runs[d.ID] = m
	return m
}

// moveTick lets time pass for a move.
func (l *Leader) moveTick(id coordinator.MoveID) {
	if m := l.moving.runs[id]; m != nil {
		if m.warm.late(l.now) {
			l.markMove(id)
		}
		l.stepMove(m, migration.Event{})
		l.fetch(m)
		l.hurry(m)
	}
}

// stepMove gives a machine an event, and does what it says.
func (l *Leader) stepMove(m *moveRun, e migration.Event) {
	e.Now = l.now
	var effects []migration.Effect
	if m.source != nil {
		effects = m.source.Step(e)
	} else {
		effects = m.target.Step(e)
	}
	for _, f := range effects {
		l.performMove(m, f)
	}
	if l.moving.runs[m.id] == m {
		l.wakes.set(subject{aMove, string(m.id)}, l.moveWake(m))
	}
}

func (l *Leader) moveWake(m *moveRun) dataflow.Time {
	at := dataflow.MaxTime
	if m.source != nil {
		at = m.source.Wake()
	} else {
		at = m.target.Wake()
	}
	for _, t := range []dataflow.Time{m.retry, m.acts} {
		if t > l.now {
			at = min(at, t)
		}
	}
	if over := m.warm.since.Add(warmLimit); m.warm.waits && over > l.now { // later it is looked at with what comes
		at = min(at, over)
	}
	return max(at, l.now+1)
}

// readable is a command of a move as all agents here read it. What another site says it
// says as it sees their level, and there may be one that is not seen.
func (l *Leader) readable(c *coordinator.MoveCommand) *coordinator.MoveCommand {
	switch {
	case l.st.Level >= coordinator.SettledLevel:
	case c.Forgotten != nil && c.Forgotten.Taken:
		return &coordinator.MoveCommand{Forgotten: &coordinator.MoveForgotten{ID: c.Forgotten.ID}}
	case c.ArrivalBegan != nil:
		arr := *c.ArrivalBegan
		arr.Job = *arr.Job.Plain()
		return &coordinator.MoveCommand{ArrivalBegan: &arr}
	}
	return c
}

func (l *Leader) performMove(m *moveRun, f migration.Effect) {
	switch {
	case f.Propose != nil && f.Propose.Forgotten != nil && l.unsaid(m, f.Propose.Forgotten): // it comes again
	case f.Propose != nil && gives(f.Propose) && l.mayBeTaken(m.job): // likewise
	case f.Propose != nil:
		l.propose(coordinator.Command{Move: l.readable(f.Propose)}, func(err error) {
			if m.fits = nil; err != nil && l.moving.runs[m.id] == m {
				l.stepMove(m, migration.Event{Rejected: err})
			}
		})
	case f.Send != nil:
		l.put(Effect{ToSite: &ToSite{Site: f.Send.To, ToSource: f.Send.Source, ToTarget: f.Send.Target}})
	case f.Answer != nil:
		l.put(Effect{Answer: &Answer{Ref: f.Answer.Ref, Move: m.id, Err: f.Answer.Err}})
	case f.Tell != nil:
		l.put(Effect{Moving: &Moving{m.id, m.job, *f.Tell}})
		l.tellMove(m, f.Tell)
	case f.Checkpoint:
		m.checkpoint = true
		l.hurry(m)
	case f.Check != nil:
		m.fits = f.Check
		l.probe(m.id, f.Check, func(why string) {
			if l.moving.runs[m.id] != m {
				return
			}
			if why != "" {
				m.fits = nil
			}
			l.stepMove(m, migration.Event{Checked: &migration.Checked{Why: why}})
			l.markMove(m.id)
		})
	case f.Fetch != nil:
		m.want, m.wantedAt, m.lacks = f.Fetch, l.now, l.lacks(f.Fetch)
		l.markFetch(m.job) // it says who has the parts
		l.markMove(m.id)
	case f.Over:
		delete(l.moving.runs, m.id)
		l.wakes.set(subject{aMove, string(m.id)}, dataflow.MaxTime)
	}
}

// gives tells whether a command gives a job away, or promises it.
func gives(c *coordinator.MoveCommand) bool {
	return c.Offered != nil || c.Decided != nil && c.Decided.HandedOver
}

// tellMove is a line for people, of what is worth one.
func (l *Leader) tellMove(m *moveRun, p *migration.Progress) {
	switch {
	case p.Doubt:
		l.tell("move %s: IN_DOUBT: %s", m.id, p.Why)
	case p.Anew:
		l.tell("move %s: %s, with another leader", m.id, p.Phase)
	case p.Pause > 0:
		l.tell("move %s: nothing came out of the job for %s, give or take %s", m.id, p.Pause, p.Error)
	case p.Round > 0:
		l.tell("move %s: round %d: %d bytes in %s", m.id, p.Round, p.Bytes, p.Took)
	case p.Why != "":
		l.tell("move %s is %s: %s", m.id, p.Phase, p.Why)
	default:
		l.tell("move %s is %s", m.id, p.Phase)
	}
}

// tellSource says what is so of a departure. d is its record, nil when it is gone.
func (l *Leader) tellSource(m *moveRun, d *coordinator.Departure) {
	if d != m.departure {
		m.departure = d
		l.stepMove(m, migration.Event{Record: &migration.Record{Departure: d}})
	}
	j := l.st.Jobs[m.job]
	if (j == nil || j.Status.Ended() && j.Status != coordinator.Moved) && !m.ended {
		m.ended = true
		why := "it is gone"
		if j != nil {
			why = fmt.Sprintf("it is %s", j.Status)
		}
		l.stepMove(m, migration.Event{Ended: why})
	}
	if j == nil {
		return
	}
	if n := j.Newest(); n != nil && n != m.newest {
		fresh := m.newest == nil || n.Name != m.newest.Name // copies that changed are no news
		if m.newest = n; fresh {
			m.checkpoint = false
			l.stepMove(m, migration.Event{Newest: &coordinator.MoveNewest{Snapshot: n}})
		}
	}
	if d == nil {
		return
	}
	var halted *coordinator.Snapshot
	switch {
	case d.Phase.Decided():
		halted = m.halted // it goes with the decision
	case j.Status == coordinator.Suspended && j.Move == d.ID || d.Savepoint != "":
		halted = l.st.Savepoints[j.Savepoint]
	}
	if halted != m.halted {
		m.halted = halted
		h := &migration.Halted{Savepoint: told(halted)}
		if r := l.jobs[j.ID]; r != nil {
			h.Last = r.out.last
		}
		l.stepMove(m, migration.Event{Halted: h})
	}
	if r := l.jobs[j.ID]; r != nil && d.Phase == coordinator.DepartureHalting {
		if m.acts = l.mayAct(r); m.acts > 0 {
			return // the other site would begin while it does
		}
	}
	if ends, all := l.heldEnds(d, j); all && halted != nil && (m.held == nil || !slices.Equal(m.held, ends)) {
		m.held = ends
		l.stepMove(m, migration.Event{Held: &migration.Held{Ends: ends}})
	}
}

// heldEnds are where the logs end that move; false: one of them may still grow.
func (l *Leader) heldEnds(d *coordinator.Departure, j *coordinator.Job) ([]coordinator.FeedEnd, bool) {
	ends := []coordinator.FeedEnd{}
	for _, name := range sorted(l.st.Feeds) {
		f := l.st.Feeds[name]
		if !d.Takes(j, f) {
			continue
		}
		if !f.Log.Held {
			return nil, false
		}
		ends = append(ends, coordinator.FeedEnd{Feed: name, End: f.Log.Start})
	}
	return ends, true
}

// hurry takes a checkpoint that a move waits for, as soon as the job runs.
func (l *Leader) hurry(m *moveRun) {
	if r := l.jobs[m.job]; m.checkpoint && r != nil && r.attempt != nil && r.attempt.coordinator != nil && r.attempt.phase == begun {
		m.checkpoint = false
		l.wantCheckpoint(r)
	}
}

// heardSite is a message about a move.
func (l *Leader) heardSite(from *FromSite) {
	if from.Owner != nil {
		l.heardOwner(from.Site, from.Owner)
		return
	}
	var id coordinator.MoveID
	e := migration.Event{Now: l.now, FromTarget: from.ToSource, FromSource: from.ToTarget}
	switch {
	case from.ToSource != nil:
		id = from.ToSource.Move
	case from.ToTarget != nil:
		id = from.ToTarget.Move
	default:
		return
	}
	m := l.moving.runs[id]
	_, source, ok := id.Parts()
	propose := from.ToTarget != nil && from.ToTarget.Propose != nil
	switch {
	case !ok || from.ToTarget != nil && source != from.Site || from.ToSource != nil && source != l.cfg.Site:
		return // nobody says that of a move of a third one
	case propose && !l.settled():
		return // nobody knows yet which agents are there; it is asked again
	case propose && from.ToTarget.Propose.Dry:
		m = &moveRun{id: id, target: migration.NewTarget(l.cfg.Moving, l.now, id, nil)}
		for _, f := range m.target.Step(e) { // nothing of it stays
			l.dryRun(m, f)
		}
		return
	case m != nil && m.source != nil && m.source.To() != from.Site:
		return // nor of one to a third one
	case m == nil && propose && len(l.moving.runs) >= mostRuns:
		return // too many ask at once; it is asked again
	case m == nil && propose && l.st.Moves.Arrivals[id] == nil:
		m = &moveRun{id: id, job: from.ToTarget.Propose.Job.ID, target: migration.NewTarget(l.cfg.Moving, l.now, id, nil), retry: dataflow.MinTime}
		l.moving.runs[id] = m
	}
	if m == nil || (m.source == nil) != (from.ToSource == nil) {
		m = &moveRun{id: id}
		for _, f := range migration.Unasked(&l.st.Moves, jobmanager.Facts(l.st), l.st.Index, from.Site, from.ToSource, from.ToTarget) {
			l.performMove(m, f)
		}
		return
	}
	l.stepMove(m, e)
	l.markMove(id)
}

func (l *Leader) dryRun(m *moveRun, f migration.Effect) {
	switch {
	case f.Check != nil:
		l.probe(m.id, f.Check, func(why string) {
			for _, f := range m.target.Step(migration.Event{Now: l.now, Checked: &migration.Checked{Why: why}}) {
				l.dryRun(m, f)
			}
		})
	case f.Send != nil:
		l.performMove(m, f)
	}
}

var (
	errOneDry    = errors.New("another move is being tried; ask again")
	errNoMove    = errors.New("there is no such move, or it is over")
	errIsReached = errors.New("its site is reached, and decides by itself: cancel the move there; or say that you are sure")
)

// wishMove does what a person wants of a move.
func (l *Leader) wishMove(ref int, w *Migrate) {
	answer := func(id coordinator.MoveID, err error) { l.put(Effect{Answer: &Answer{Ref: ref, Move: id, Err: err}}) }
	switch {
	case w.Begin != nil:
		began := *w.Begin
		if err := errors.Join(l.mayLeave(began.Job), jobmanager.CheckReaders(l.st, &began)); err != nil && l.began(&began) == "" {
			answer("", err)
			return
		}
		l.propose(coordinator.Command{Move: &coordinator.MoveCommand{Began: &began}}, func(err error) {
			id := coordinator.MoveID("")
			if err == nil {
				id = l.began(&began)
			}
			answer(id, err)
		})
	case w.Dry != nil:
		l.wishDry(ref, w.Dry)
	case w.Cancel != "":
		m := l.moving.runs[w.Cancel]
		switch {
		case m == nil:
			answer(w.Cancel, errNoMove)
		case m.source != nil:
			l.stepMove(m, migration.Event{Cancel: &migration.Wish{Ref: ref, Why: w.Why}})
		default:
			l.stepMove(m, migration.Event{Drop: &migration.Wish{Ref: ref, Why: w.Why}})
		}
	case w.Force != "":
		m := l.moving.runs[w.Force]
		switch {
		case m == nil || m.arrival == nil:
			answer(w.Force, errNoMove)
		case l.mayForce(m.arrival) != nil && !w.Sure:
			answer(w.Force, l.mayForce(m.arrival))
		default:
			l.stepMove(m, migration.Event{Force: &migration.Wish{Ref: ref, Why: w.Why}})
		}
	}
}

// mayLeave says why a job that runs here is not to move: one that was drained has nothing
// left but its last commit, and no other job may begin where it stands.
func (l *Leader) mayLeave(id coordinator.JobID) error {
	if j := l.st.Jobs[id]; j != nil && !j.Status.Ended() && drained(j) {
		return fmt.Errorf("job %s was drained, and ends when its last output is committed; it does not move any more", j.Name)
	}
	return nil
}

// began is the move that a command began, now or when it came before.
func (l *Leader) began(c *coordinator.MoveBegan) coordinator.MoveID {
	for _, id := range sorted(l.st.Moves.Departures) {
		if d := l.st.Moves.Departures[id]; c.Request != "" && d.Request == c.Request {
			return id
		}
	}
	if d := l.st.Leaving(c.Job); d != nil {
		return d.ID
	}
	return ""
}

// wishDry asks another site whether it would take a job. One is asked at a time.
func (l *Leader) wishDry(ref int, c *coordinator.MoveBegan) {
	j := l.st.Jobs[c.Job]
	job, ok := l.st.MovingTo(c.Job, c.Stay, c.Sets, c.Configs)
	switch {
	case !ok || j.Status.Ended():
		l.put(Effect{Answer: &Answer{Ref: ref, Err: fmt.Errorf("no job %q runs here", c.Job)}})
		return
	case l.moving.runs[l.moving.dry] != nil:
		l.put(Effect{Answer: &Answer{Ref: ref, Err: errOneDry}})
		return
	}
	if err := errors.Join(l.mayLeave(c.Job), jobmanager.CheckMove(l.st, c)); err != nil {
		l.put(Effect{Answer: &Answer{Ref: ref, Err: err}})
		return
	}
	l.moving.dries++
	id := coordinator.NewDryRunID(l.cfg.Term, l.moving.dries, l.cfg.Site)
	l.moving.dry = id
	m := &moveRun{id: id, job: c.Job, source: migration.NewDryRun(l.cfg.Moving, l.now, id, c.To, l.cfg.Site, j.Epoch, job, ref), retry: dataflow.MinTime}
	l.moving.runs[id] = m
	l.markMove(id)
}
