package migration

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Source is the leader's machine for a move from its site, in one term. Not safe
// for concurrent use.
//
// Its states are the phases of the record (coordinator.DeparturePhase); what it
// knows besides is lost with the leader, and learned again. It may lead no more:
// then its proposals are refused, and its messages say only what was recorded.
type Source struct {
	cfg  Config
	id   coordinator.MoveID
	to   mesh.Site
	ask  coordinator.MovePropose
	dry  bool
	rec  *coordinator.Departure
	over bool

	accepted bool
	fetching string // what the target fetches now, as it says
	offered  bool   // it knows S and E, as it says
	refused  string // the target will never be prepared: why
	prepared bool   // PREPARED is in the target's log, with this S
	done     *coordinator.MoveDone

	newest *coordinator.MoveNewest
	round  round // of copying
	wanted bool  // a checkpoint was asked for since the last round
	halted *Halted
	held   *Held
	ended  string
	cancel []Wish

	proposed bool // a command has no answer yet, or was refused just now
	urgent   bool // something is to be said at once
	begun    dataflow.Time
	heard    dataflow.Time // of the target, or since when it is not
	asked    dataflow.Time // when the command was proposed
	sent     dataflow.Time // when the repeated message was due last
	verdict  dataflow.Time // when it was first sent
	finished dataflow.Time // when Done was first heard
	told     bool          // the pause
	anew     bool          // another leader had the move before, and that is not told yet

	effects []Effect
}

// round is what is known of copying.
type round struct {
	got   string // the last snapshot that the target has
	n     int
	took  dataflow.Duration
	left  dataflow.Duration
	bytes int64 // in all
	ready bool  // nothing is won by another round
}

// NewSource makes the machine of a departure that is on record. job is what the
// target is to be told of it, now the time.
func NewSource(cfg Config, now dataflow.Time, d *coordinator.Departure, job coordinator.MovingJob) *Source {
	_, from, _ := d.ID.Parts()
	return &Source{cfg: cfg.filled(), id: d.ID, to: d.To, rec: d, begun: now, heard: now, urgent: true,
		ask: coordinator.MovePropose{Job: job, From: from, Epoch: d.Epoch + 1}}
}

// NewDryRun makes a machine that asks the target whether it would take the job,
// and records nothing. Its id is no move's, and no other dry run's. The verdict comes as the answer to ref: nil, it would.
func NewDryRun(cfg Config, now dataflow.Time, id coordinator.MoveID, to, from mesh.Site, epoch uint64, job coordinator.MovingJob, ref int) *Source {
	return &Source{cfg: cfg.filled(), id: id, to: to, dry: true, begun: now, heard: now, urgent: true, cancel: []Wish{{Ref: ref}},
		ask: coordinator.MovePropose{Job: job, From: from, Epoch: epoch + 1, Dry: true}}
}

// Anew says that another leader had the move before. Nothing that it knew is known.
func (s *Source) Anew() { s.anew = !s.rec.Phase.Decided() }

var errCancelledDry = errors.New("nobody wants to know any more")

// To is the site that the job goes to: nobody else speaks for the target.
func (s *Source) To() mesh.Site { return s.to }

// Step takes one event and returns its effects, valid until the next Step.
func (s *Source) Step(e Event) []Effect {
	s.effects = nil
	if s.over {
		return nil
	}
	if s.anew {
		s.anew = false
		s.tell(Progress{Phase: s.phase(), Anew: true})
	}
	switch {
	case e.Record != nil:
		s.record(e.Now, e.Record.Departure)
	case e.Rejected != nil:
		s.asked = e.Now // and tried again after a while
	case e.FromTarget != nil:
		s.hear(e.Now, e.FromTarget)
	case e.Newest != nil:
		s.newest, s.wanted, s.urgent = e.Newest, false, true
	case e.Halted != nil:
		s.halted, s.urgent = e.Halted, true
		if e.Halted.Savepoint == nil {
			s.halted = nil
		}
	case e.Held != nil:
		s.held = e.Held
	case e.Ended != "":
		s.ended = e.Ended
	case e.Cancel != nil:
		s.cancel = append(s.cancel[:len(s.cancel):len(s.cancel)], *e.Cancel)
	}
	if s.over {
		return s.effects
	}
	due := s.urgent || e.Now >= s.sent.Add(s.cfg.Repeat)
	if due {
		s.sent = e.Now
	}
	s.urgent = false
	if s.proposed && e.Now >= s.asked.Add(s.cfg.Repeat) {
		s.proposed = false
	}
	if s.dry {
		s.lookDry(e.Now, due)
	} else {
		s.look(e.Now, due)
	}
	return s.effects
}

// Wake is when a tick is wanted; MaxTime: not until something else happens.
func (s *Source) Wake() dataflow.Time {
	switch {
	case s.over:
		return dataflow.MaxTime
	case s.proposed:
		return min(s.sent, s.asked).Add(s.cfg.Repeat)
	}
	return min(s.sent.Add(s.cfg.Repeat), s.limit())
}

// limit is when the phase has taken too long.
func (s *Source) limit() dataflow.Time {
	switch {
	case s.dry || s.rec.Phase == coordinator.DepartureCopying:
		return s.heard.Add(s.cfg.Silence)
	case s.rec.Phase == coordinator.DepartureHalting:
		return s.begun.Add(s.cfg.Halt)
	case s.rec.Phase == coordinator.DepartureOffered:
		return s.begun.Add(s.cfg.Offer)
	}
	return dataflow.MaxTime
}

func (s *Source) record(now dataflow.Time, d *coordinator.Departure) {
	s.proposed = false
	if d == nil {
		s.finish(nil)
		return
	}
	if d.Phase != s.rec.Phase {
		s.tell(Progress{Phase: d.Phase.String(), Ended: s.rec.Phase.String(), Took: s.since(now, s.begun), Bytes: s.round.bytes, Why: d.Why})
		s.begun, s.heard, s.urgent, s.offered = now, now, true, false
	}
	s.rec = d
	if d.Phase.Decided() {
		s.answerAll()
	}
}

var errTooLate = errors.New("it is too late: the move was decided, and the other site has the job. Move it back")

// answerAll answers who wanted the move to be cancelled, by what it came to.
func (s *Source) answerAll() {
	for _, w := range s.cancel {
		var err error
		if s.rec.Phase != coordinator.DepartureAborted {
			err = errTooLate
		}
		s.put(Effect{Answer: &Answer{w.Ref, err}})
	}
	s.cancel = nil
}

// hear takes a message of the target. All of them say what is on record there.
func (s *Source) hear(now dataflow.Time, m *coordinator.ToSource) {
	if m.Move != s.id || s.dry && m.Done != nil {
		return
	}
	s.heard, s.urgent = now, s.urgent || !s.accepted
	switch {
	case m.Accepted != nil:
		s.accepted, s.fetching, s.offered = true, m.Accepted.Fetching, m.Accepted.Offered
	case m.Refused != nil && s.refused == "":
		s.refused = "the other site refuses it: " + m.Refused.Why
	case m.Got != nil:
		s.accepted, s.fetching = true, ""
		s.got(m.Got)
	case m.Prepared != nil:
		s.accepted = true
		s.prepared = s.prepared || !s.dry && s.rec.Savepoint != "" && m.Prepared.Savepoint == s.rec.Savepoint
	case m.Done != nil:
		s.hearDone(now, m.Done)
		return
	}
	if !s.dry && s.rec.Phase.Decided() {
		s.decided(now)
	}
}

func (s *Source) hearDone(now dataflow.Time, d *coordinator.MoveDone) {
	switch {
	case d.Phase == coordinator.ArrivalActive:
		s.prepared = true // it was
	case s.refused == "":
		s.refused = "the other site has dropped it"
	}
	if s.done == nil {
		s.finished = now
	}
	if s.done == nil || d.First > 0 || d.Forced {
		s.done = d
	}
	s.measure(now)
}

// measure tells the pause, as soon as all that it is made of is known: from the
// last row here to the verdict, the way there, and from there to the first row.
// The way is half of what is left of the round trip.
func (s *Source) measure(now dataflow.Time) {
	if s.told || s.done.First == 0 || s.verdict == 0 || s.halted == nil || s.halted.Last == 0 {
		return
	}
	s.told = true
	way := max(0, s.since(now, s.verdict)-s.done.Held) / 2
	s.tell(Progress{Phase: s.rec.Phase.String(), Pause: s.since(s.verdict, s.halted.Last) + way + s.done.First, Error: way})
}

// got counts a round of copying.
func (s *Source) got(g *coordinator.MoveGot) {
	r := &s.round
	if g.Snapshot == r.got {
		return
	}
	before := *r
	r.got, r.took, r.left = g.Snapshot, g.Took, g.Took
	r.n++
	r.bytes += g.Bytes
	s.wanted = false
	if g.Bytes > 0 && g.Took > 0 { // the logs' rest comes at the same speed
		r.left += dataflow.Duration(float64(g.Lag) / float64(g.Bytes) * float64(g.Took))
	}
	shrinks := before.n == 0 || g.Took < before.took/4*3
	r.ready = r.left <= s.cfg.Small || !shrinks || r.n >= s.cfg.Rounds
	s.tell(Progress{Phase: s.phase(), Round: r.n, Bytes: g.Bytes, Took: g.Took, Left: r.left, Lag: g.Lag, Snapshot: g.Snapshot})
}

func (s *Source) phase() string {
	if s.dry {
		return "dry run"
	}
	return s.rec.Phase.String()
}

// look compares the record with what is known, and does what is missing.
func (s *Source) look(now dataflow.Time, due bool) {
	switch {
	case s.rec.Phase.Decided():
		s.answerAll()
		s.lookDecided(now, due)
	case s.proposed:
	case s.done != nil && s.done.Phase == coordinator.ArrivalActive:
		s.fence(now)
	case s.abort(now):
	case s.rec.Phase == coordinator.DepartureCopying:
		s.lookCopying(now, due)
	case s.rec.Phase == coordinator.DepartureHalting:
		s.lookHalting(now)
	default:
		s.lookOffered(now, due)
	}
}

// fence: the target has the job, by force, and this site has not given it away.
// The greater epoch wins.
func (s *Source) fence(now dataflow.Time) {
	s.propose(now, coordinator.MoveCommand{Fenced: &coordinator.JobFenced{Job: s.rec.Job, Epoch: s.done.Epoch, Owner: s.to}})
}

// abort gives the move up if there is a reason.
func (s *Source) abort(now dataflow.Time) bool {
	why := ""
	switch {
	case s.ended != "":
		why = "the job has ended: " + s.ended
	case s.refused != "":
		why = s.refused
	case len(s.cancel) > 0:
		why = "cancelled"
		if w := s.cancel[0].Why; w != "" {
			why += ": " + w
		}
	case now < s.limit() || s.prepared && s.rec.Phase == coordinator.DepartureOffered:
	case s.rec.Phase == coordinator.DepartureCopying:
		why = fmt.Sprintf("nothing was heard of site %s for %s", s.to, s.cfg.Silence)
	case s.rec.Phase == coordinator.DepartureHalting && s.halted != nil:
		why = fmt.Sprintf("the logs of the job were not sealed in %s", s.cfg.Halt)
	case s.rec.Phase == coordinator.DepartureHalting:
		why = fmt.Sprintf("the job did not stop with a savepoint in %s", s.cfg.Halt)
	default:
		why = fmt.Sprintf("site %s did not have everything in %s", s.to, s.cfg.Offer)
	}
	if why == "" {
		return false
	}
	s.propose(now, coordinator.MoveCommand{Decided: &coordinator.MoveDecided{ID: s.id, Why: why}})
	return true
}

func (s *Source) lookCopying(now dataflow.Time, due bool) {
	switch {
	case s.newest == nil:
		s.checkpoint()
	case s.accepted && s.round.ready:
		s.propose(now, coordinator.MoveCommand{Halting: &coordinator.MoveHalting{ID: s.id}})
	case s.accepted && s.round.got == s.newest.Snapshot.Name:
		s.checkpoint()
	case !due || s.accepted && s.fetching == s.newest.Snapshot.Name:
	case s.accepted:
		s.say(coordinator.ToTarget{Newest: s.newest})
	default:
		ask := s.ask
		ask.Newest = s.newest.Snapshot
		s.say(coordinator.ToTarget{Propose: &ask})
	}
}

func (s *Source) lookHalting(now dataflow.Time) {
	if s.halted != nil && s.held != nil {
		s.propose(now, coordinator.MoveCommand{Offered: &coordinator.MoveOffered{ID: s.id, Savepoint: s.halted.Savepoint.Name, Ends: s.held.Ends}})
	}
}

func (s *Source) lookOffered(now dataflow.Time, due bool) {
	switch {
	case s.prepared:
		s.propose(now, coordinator.MoveCommand{Decided: &coordinator.MoveDecided{ID: s.id, HandedOver: true}})
	case due && !s.offered && s.halted != nil && s.halted.Savepoint.Name == s.rec.Savepoint:
		s.say(coordinator.ToTarget{Offer: &coordinator.MoveOffer{Savepoint: s.halted.Savepoint, Ends: s.rec.Ends}})
	}
}

// lookDecided says the decision until the target has recorded it.
func (s *Source) lookDecided(now dataflow.Time, due bool) {
	switch {
	case s.done == nil:
		if due {
			s.decided(now)
		}
	case s.proposed:
	case s.done.Phase == coordinator.ArrivalActive && s.rec.Phase == coordinator.DepartureAborted:
		s.fence(now)
	case s.measuring(now):
		if due {
			s.decided(now) // Done comes again, with the first row's time
		}
	default:
		if s.done.Forced {
			s.decided(now)
		}
		s.propose(now, coordinator.MoveCommand{Forgotten: &coordinator.MoveForgotten{ID: s.id, Taken: s.done.Phase == coordinator.ArrivalActive}})
	}
}

// measuring tells whether the pause may still become known.
func (s *Source) measuring(now dataflow.Time) bool {
	return s.done.Phase == coordinator.ArrivalActive && !s.told && s.verdict != 0 && s.halted != nil && s.halted.Last != 0 && now < s.finished.Add(s.cfg.Measure)
}

// decided says the decision, which is on record.
func (s *Source) decided(now dataflow.Time) {
	if s.verdict == 0 {
		s.verdict = now
	}
	s.say(coordinator.ToTarget{Verdict: verdictOf(s.rec)})
}

func verdictOf(d *coordinator.Departure) coordinator.MoveDecision {
	switch d.Phase {
	case coordinator.DepartureHandedOver:
		return coordinator.DecisionHandedOver
	case coordinator.DepartureAborted:
		return coordinator.DecisionAborted
	case coordinator.DepartureFenced:
		return coordinator.DecisionFenced
	}
	return 0
}

// lookDry asks until there is an answer.
func (s *Source) lookDry(now dataflow.Time, due bool) {
	switch {
	case s.accepted:
		s.finish(nil)
	case s.refused != "":
		s.finish(errors.New(s.refused))
	case len(s.cancel) > 1:
		s.finish(errCancelledDry)
	case now >= s.limit():
		s.finish(fmt.Errorf("nothing was heard of site %s for %s", s.to, s.cfg.Silence))
	case s.newest == nil:
		s.checkpoint()
	case due:
		ask := s.ask
		ask.Newest = s.newest.Snapshot
		s.say(coordinator.ToTarget{Propose: &ask})
	}
}

func (s *Source) finish(err error) {
	for _, w := range s.cancel {
		s.put(Effect{Answer: &Answer{w.Ref, err}})
	}
	s.over = true
	s.put(Effect{Over: true})
}

func (s *Source) checkpoint() {
	if !s.wanted {
		s.wanted = true
		s.put(Effect{Checkpoint: true})
	}
}

func (s *Source) propose(now dataflow.Time, c coordinator.MoveCommand) {
	s.proposed, s.asked = true, now
	s.put(Effect{Propose: &c})
}

func (s *Source) say(m coordinator.ToTarget) {
	m.Move = s.id
	s.put(Effect{Send: &Send{To: s.to, Target: &m}})
}

func (s *Source) tell(p Progress) { s.put(Effect{Tell: &p}) }
func (s *Source) put(e Effect)    { s.effects = append(s.effects, e) }

func (s *Source) since(now, then dataflow.Time) dataflow.Duration {
	return dataflow.Duration(now - then)
}
