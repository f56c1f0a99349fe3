package migration

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Target is the leader's machine for a move to its site, in one term. Not safe
// for concurrent use.
//
// Its states are the phases of the record (coordinator.ArrivalPhase), and before
// there is one: asked. What it knows besides is lost with the leader, and learned
// again.
type Target struct {
	cfg  Config
	id   coordinator.MoveID
	from mesh.Site
	rec  *coordinator.Arrival
	over bool

	ask     *coordinator.MovePropose // of a move without a record
	asking  bool                     // Check has no answer yet
	checked *Checked
	refused string // the record was not begun: why

	want     *coordinator.Snapshot // what is fetched; nil: nothing was heard of yet
	fetched  *Fetched              // the last that is here
	offer    *coordinator.MoveOffer
	logs     *Logs
	verdict  coordinator.MoveDecision
	force    []Wish
	drop     []Wish
	first    dataflow.Duration // from the verdict to the first row; 0: not known
	doubtful bool

	proposed bool // a command has no answer yet, or was refused just now
	urgent   bool // something is to be said at once
	begun    dataflow.Time
	told     dataflow.Time // when the verdict was first heard; 0: it was not
	asked    dataflow.Time // when the command was proposed
	sent     dataflow.Time // when the repeated message was due last

	effects []Effect
}

// NewTarget makes the machine of an arrival: one that is on record, or, with nil,
// one of which Propose has just come.
func NewTarget(cfg Config, now dataflow.Time, id coordinator.MoveID, a *coordinator.Arrival) *Target {
	_, from, _ := id.Parts()
	return &Target{cfg: cfg.filled(), id: id, from: from, rec: a, begun: now, urgent: true}
}

// Step takes one event and returns its effects, valid until the next Step.
func (t *Target) Step(e Event) []Effect {
	t.effects = nil
	if t.over {
		return nil
	}
	switch {
	case e.Record != nil:
		t.record(e.Now, e.Record.Arrival)
	case e.Rejected != nil:
		t.asked = e.Now // and tried again after a while
		if t.rec == nil && t.refused == "" {
			t.refused, t.urgent = e.Rejected.Error(), true
		}
	case e.FromSource != nil:
		t.hear(e.Now, e.FromSource)
	case e.Checked != nil:
		t.checked, t.asking, t.urgent = e.Checked, false, true
	case e.Fetched != nil:
		t.fetched, t.urgent = e.Fetched, true
		if t.offer == nil && t.want != nil && t.want.ID.Less(e.Fetched.Snapshot.ID) {
			t.want = e.Fetched.Snapshot // what was wanted could not be had any more
		}
	case e.Logs != nil:
		t.logs = e.Logs
	case e.First:
		t.firstRow(e.Now)
	case e.Force != nil:
		t.force = append(t.force[:len(t.force):len(t.force)], *e.Force)
	case e.Drop != nil:
		t.drop = append(t.drop[:len(t.drop):len(t.drop)], *e.Drop)
	}
	if t.over {
		return t.effects
	}
	due := t.urgent || e.Now >= t.sent.Add(t.cfg.Repeat)
	if due {
		t.sent = e.Now
	}
	t.urgent = false
	if t.proposed && e.Now >= t.asked.Add(t.cfg.Repeat) {
		t.proposed = false
	}
	t.look(e.Now, due)
	return t.effects
}

// Wake is when a tick is wanted; MaxTime: not until something else happens.
func (t *Target) Wake() dataflow.Time {
	wake := t.sent.Add(t.cfg.Repeat)
	switch {
	case t.over:
		return dataflow.MaxTime
	case t.rec == nil:
		wake = t.begun.Add(t.cfg.Silence)
	case t.rec.Phase == coordinator.ArrivalPrepared && !t.doubtful:
		wake = min(wake, t.begun.Add(t.cfg.Doubt))
	case t.settled():
		wake = max(t.begun.Add(t.cfg.Keep), t.sent.Add(t.cfg.Repeat))
	}
	if t.proposed {
		wake = min(wake, t.asked.Add(t.cfg.Repeat))
	}
	return wake
}

func (t *Target) record(now dataflow.Time, a *coordinator.Arrival) {
	t.proposed, t.urgent = false, true
	if a == nil {
		if t.rec != nil { // forgotten
			t.finish()
		}
		return
	}
	if t.rec == nil {
		t.tell(Progress{Phase: a.Phase.String()})
		t.begun = now
	} else if a.Phase != t.rec.Phase {
		t.tell(Progress{Phase: a.Phase.String(), Ended: t.rec.Phase.String(), Took: dataflow.Duration(now - t.begun), Why: a.Why})
		t.begun, t.doubtful = now, false
	}
	began := t.rec == nil
	t.rec, t.refused = a, ""
	if began && t.want != nil {
		t.fetch()
	}
}

// hear takes a message of the source.
func (t *Target) hear(now dataflow.Time, m *coordinator.ToTarget) {
	if m.Move != t.id {
		return
	}
	switch {
	case m.Propose != nil:
		t.urgent = true // it wants an answer
		if t.rec == nil {
			t.begun = now
			if t.refused != "" || t.checked != nil && t.checked.Why != "" {
				t.refused, t.checked, t.proposed = "", nil, false // another try
			}
			t.ask = m.Propose
		}
		t.wants(m.Propose.Newest)
	case m.Newest != nil:
		t.urgent = true
		t.wants(m.Newest.Snapshot)
	case m.Offer != nil:
		t.urgent = true
		if m.Offer.Savepoint != nil {
			t.offer = m.Offer
			t.wants(m.Offer.Savepoint)
		}
	case m.Verdict != 0:
		t.hearVerdict(now, m.Verdict)
	}
}

func (t *Target) hearVerdict(now dataflow.Time, v coordinator.MoveDecision) {
	if t.told == 0 {
		t.told = now
	}
	if t.verdict != coordinator.DecisionHandedOver || v == coordinator.DecisionFenced {
		t.verdict = v
	}
	if t.rec == nil { // of what is asked only
		t.finish()
		return
	}
	if t.rec.Phase.Decided() {
		t.done(now)
	}
}

// wants takes what is newer than what was wanted, when that is here: what is being
// fetched is fetched to its end, or nothing ever would be. Once there is an offer
// nothing else is wanted.
func (t *Target) wants(s *coordinator.Snapshot) {
	switch {
	case s == nil:
	case t.offer != nil && s != t.offer.Savepoint:
	case t.want != nil && (t.want.Name == s.Name || s.ID.Less(t.want.ID) && t.offer == nil): // heard late
	case t.offer == nil && t.want != nil && t.rec != nil && (t.fetched == nil || t.fetched.Snapshot.Name != t.want.Name):
	default:
		t.want = s
		if t.rec != nil {
			t.fetch()
		}
	}
}

func (t *Target) fetch() { t.put(Effect{Fetch: t.want}) }

func (t *Target) firstRow(now dataflow.Time) {
	if t.first == 0 && t.told != 0 {
		t.first = max(1, dataflow.Duration(now-t.told))
		if t.rec != nil && t.rec.Phase == coordinator.ArrivalActive {
			t.done(now)
		}
	}
}

// look compares the record with what is known, and does what is missing.
func (t *Target) look(now dataflow.Time, due bool) {
	switch {
	case t.rec == nil:
		t.lookAsked(now, due)
	case t.rec.Phase == coordinator.ArrivalReceiving:
		t.lookReceiving(now, due)
	case t.rec.Phase == coordinator.ArrivalPrepared:
		t.lookPrepared(now, due)
	default:
		t.lookDecided(now, due)
	}
}

// lookAsked: there is a question and no record.
func (t *Target) lookAsked(now dataflow.Time, due bool) {
	t.refuseWishes(errors.New("the move has not begun here"), true)
	switch {
	case now >= t.begun.Add(t.cfg.Silence):
		t.finish()
	case t.ask == nil || t.asking || t.proposed && t.refused == "":
	case t.checked == nil:
		t.asking = true
		t.put(Effect{Check: t.ask})
	case t.checked.Why != "" || t.refused != "":
		if why := t.checked.Why + t.refused; due {
			t.say(coordinator.ToSource{Refused: &coordinator.MoveRefused{Why: why}})
		}
	case t.ask.Dry:
		if due {
			t.say(coordinator.ToSource{Accepted: &coordinator.MoveAccepted{}})
		}
	default:
		t.propose(now, coordinator.MoveCommand{ArrivalBegan: &coordinator.Arrival{ID: t.id, Job: t.ask.Job, From: t.from, Epoch: t.ask.Epoch, Phase: coordinator.ArrivalReceiving}})
	}
}

// lookReceiving: everything is fetched. The move may be dropped: nobody counts on
// it yet.
func (t *Target) lookReceiving(now dataflow.Time, due bool) {
	t.refuseWishes(errors.New("not everything is here: there is nothing to force yet"), false)
	switch {
	case t.proposed:
		return
	case t.verdict != 0: // handed over it was not, without PREPARED
		t.dropped(now, t.verdictText())
		return
	case len(t.drop) > 0:
		t.dropped(now, "not wanted here: "+t.drop[0].Why)
		return
	case t.complete():
		t.propose(now, coordinator.MoveCommand{ArrivalPrepared: &coordinator.ArrivalIsReady{ID: t.id, Savepoint: t.fetched.Snapshot, Ends: t.offer.Ends}})
		return
	}
	if due {
		t.say(t.status())
	}
}

// status says what is here.
func (t *Target) status() coordinator.ToSource {
	if t.fetched == nil || t.want != nil && t.want.Name != t.fetched.Snapshot.Name || t.offer != nil {
		a := coordinator.MoveAccepted{Offered: t.offer != nil}
		if t.want != nil {
			a.Fetching = t.want.Name
		}
		return coordinator.ToSource{Accepted: &a}
	}
	g := coordinator.MoveGot{Snapshot: t.fetched.Snapshot.Name, Bytes: t.fetched.Bytes, Took: t.fetched.Took}
	if t.logs != nil {
		g.Lag = t.logs.Lag
	}
	return coordinator.ToSource{Got: &g}
}

// complete tells whether S has its copies here, and the logs are here up to E.
func (t *Target) complete() bool {
	if t.offer == nil || t.fetched == nil || t.fetched.Snapshot.Name != t.offer.Savepoint.Name {
		return false
	}
	for _, e := range t.offer.Ends {
		if t.end(e.Feed) < e.End {
			return false
		}
	}
	return true
}

func (t *Target) end(feed string) int64 {
	if t.logs != nil {
		for _, e := range t.logs.Ends {
			if e.Feed == feed {
				return e.End
			}
		}
	}
	return -1
}

// lookPrepared: only the source decides, or a person.
func (t *Target) lookPrepared(now dataflow.Time, due bool) {
	for _, w := range t.drop {
		t.put(Effect{Answer: &Answer{w.Ref, fmt.Errorf("everything is here, and only site %s decides now: cancel the move there", t.from)}})
	}
	t.drop = nil
	if !t.doubtful && t.verdict == 0 && now >= t.begun.Add(t.cfg.Doubt) {
		t.doubtful = true
		t.tell(Progress{Phase: t.rec.Phase.String(), Doubt: true, Why: fmt.Sprintf("site %s does not say what it decided", t.from)})
	}
	switch {
	case t.proposed:
	case t.verdict == coordinator.DecisionHandedOver:
		t.propose(now, coordinator.MoveCommand{ArrivalDecided: &coordinator.ArrivalDecided{ID: t.id, Verdict: t.verdict}})
	case t.verdict != 0:
		t.dropped(now, t.verdictText())
	case len(t.force) > 0:
		t.propose(now, coordinator.MoveCommand{ArrivalDecided: &coordinator.ArrivalDecided{ID: t.id, Forced: true, Why: t.force[0].Why}})
	case due:
		t.say(coordinator.ToSource{Prepared: &coordinator.MovePrepared{Savepoint: t.rec.Savepoint.Name}})
	}
}

// verdictText is why the arrival is dropped: what the source has said, and, where that
// knows no more, what was here.
func (t *Target) verdictText() string {
	switch t.verdict {
	case coordinator.DecisionAborted:
		return fmt.Sprintf("site %s has aborted the move: its record there says why", t.from)
	case coordinator.DecisionHandedOver: // without PREPARED
		return fmt.Sprintf("site %s says that it has handed the job over, and not all of it was here", t.from)
	case coordinator.DecisionFenced:
		return fmt.Sprintf("site %s does not have the job any more: another site has it, by force", t.from)
	}
	here := "nothing of it was here"
	switch {
	case t.rec.Phase == coordinator.ArrivalPrepared:
		here = "all of it was here, with savepoint " + t.rec.Savepoint.Name
	case t.fetched != nil:
		here = fmt.Sprintf("%s of it was here", t.fetched.Snapshot.Name)
	case t.want != nil:
		here = fmt.Sprintf("%s of it was being fetched", t.want.Name)
	}
	return fmt.Sprintf("site %s has no record of the move any more: it was aborted there, or another site took the job by force, and was then forgotten; %s", t.from, here)
}

func (t *Target) dropped(now dataflow.Time, why string) {
	t.propose(now, coordinator.MoveCommand{ArrivalDecided: &coordinator.ArrivalDecided{ID: t.id, Verdict: t.verdict, Why: why}})
}

// lookDecided: the source asks until it knows, but for what was forced: that it
// may not know, and must.
func (t *Target) lookDecided(now dataflow.Time, due bool) {
	t.refuseWishes(nil, true)
	switch {
	case t.proposed:
	case t.settled() && now >= t.begun.Add(t.cfg.Keep):
		t.propose(now, coordinator.MoveCommand{ArrivalForgotten: &coordinator.ArrivalForgotten{ID: t.id}})
	case due && (t.rec.Forced && !t.settled() || t.begun == now):
		t.done(now)
	}
}

// settled tells whether the source needs nothing more of the record. A source that
// does not know that a job was forced away from it runs it still.
func (t *Target) settled() bool {
	if t.rec == nil || !t.rec.Phase.Decided() {
		return false
	}
	return !t.rec.Forced || t.verdict == coordinator.DecisionHandedOver || t.verdict == coordinator.DecisionFenced
}

// done says what became of the move.
func (t *Target) done(now dataflow.Time) {
	d := coordinator.MoveDone{Phase: t.rec.Phase, Forced: t.rec.Forced, First: t.first}
	if t.rec.Phase == coordinator.ArrivalActive {
		d.Job, d.Epoch = t.rec.Job.ID, t.rec.Epoch
	}
	if t.told != 0 {
		d.Held = dataflow.Duration(now - t.told)
	}
	t.say(coordinator.ToSource{Done: &d})
}

// refuseWishes answers those that cannot become true any more, or with nil those
// that are what the record says.
func (t *Target) refuseWishes(err error, all bool) {
	answer := func(wishes []Wish, came bool) {
		for _, w := range wishes {
			because := err
			if err == nil && !came {
				because = fmt.Errorf("it is too late: the move is %s", t.rec.Phase)
			}
			t.put(Effect{Answer: &Answer{w.Ref, because}})
		}
	}
	answer(t.force, t.rec != nil && t.rec.Phase == coordinator.ArrivalActive)
	t.force = nil
	if all {
		answer(t.drop, t.rec != nil && t.rec.Phase == coordinator.ArrivalDropped)
		t.drop = nil
	}
}

func (t *Target) finish() {
	t.over = true
	t.put(Effect{Over: true})
}

func (t *Target) propose(now dataflow.Time, c coordinator.MoveCommand) {
	t.proposed, t.asked = true, now
	t.put(Effect{Propose: &c})
}

func (t *Target) say(m coordinator.ToSource) {
	m.Move = t.id
	t.put(Effect{Send: &Send{To: t.from, Source: &m}})
}

func (t *Target) tell(p Progress) { t.put(Effect{Tell: &p}) }
func (t *Target) put(e Effect)    { t.effects = append(t.effects, e) }
