package leader

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// The loss of a site. What is kept of its job becomes a job here when a person says
// so. A site that comes back asks, before it deploys a job that others keep, whether
// one of them has it; and whoever has a job asks those who may have it, too, again
// and again: the greater epoch wins, and of two at the same one neither runs.
// docs/MIGRATION.md.

// Failover is a person's wish about a job whose site is lost.
type Failover struct {
	Job coordinator.JobID
	// Force: though its site is reached, or another one may have it. Of a job that is
	// here: it goes on here, whoever else has it.
	Force bool
	Dry   bool // only say what would be lost
	Why   string
}

// FailedOver is what there is to say of it.
type FailedOver struct {
	From  mesh.Site // who has the job, as is known here
	Epoch uint64    // at which the job is here, or would be; 0: with Move
	// Snapshot is the checkpoint or savepoint from which it goes on. What the job has put
	// out since then stands beside what it puts out here.
	Snapshot string
	// Move is a prepared arrival of the job that is forced: with it all came that there
	// was, and nothing is lost. Empty: there is none.
	Move coordinator.MoveID
	// Lag is what its site had in its logs besides, as it said last, and Heard when that
	// was, by the wall clock of an agent here; 0: nothing was heard of one of them.
	Lag   coordinator.Lag
	Heard dataflow.Time
	Logs  int // how many it reads
	// Gap is which of them does not have what Snapshot stands in: it began anew since.
	// Empty: none, as far as is known.
	Gap string
	// Needs is why it wants force, and Refused why it is not possible at all; nil: it
	// does not, or is.
	Needs, Refused error
}

// Timing of questions.
const (
	askCalm   = 10 * dataflow.Second // of jobs that run, whether another site has them too
	askWaits  = dataflow.Second      // of jobs that wait for an answer
	maxOwners = 32                   // sites that are asked about a job
)

// owning is what is known of other sites' claims to a job of this one.
type owning struct {
	next    dataflow.Time               // when they are asked again
	answers map[mesh.Site]dataflow.Time // who has said that it has not taken it: when it was asked that
	named   map[mesh.Site]bool          // sites of which others have said that they have it
	before  []mesh.Site                 // keptBefore, once that is known
}

// heardOf is the greatest epoch at which another site was said to have a job.
type heardOf struct {
	epoch uint64
	owner mesh.Site
	since dataflow.Time // 0: that was not said
}

// asked are the sites that may have a job of this one: that keep it, that had it,
// and of which others have said so.
func (l *Leader) asked(r *jobRun, j *coordinator.Job) (sites []mesh.Site) {
	add := func(s mesh.Site) {
		if s != l.cfg.Site && s != "" && !slices.Contains(sites, s) && len(sites) < maxOwners {
			sites = append(sites, s)
		}
	}
	if p, err := l.parse(r, j); err == nil {
		for _, s := range l.keepers(p) {
			add(s)
		}
	}
	for _, d := range l.leavings(j) {
		add(d.To)
	}
	for _, t := range j.History {
		add(t.Site)
	}
	for _, s := range l.keptBefore(r, j) {
		add(s)
	}
	for _, s := range sorted(r.owning.named) {
		if l.moving.reached[s] { // who says so may have made it up
			add(s)
		}
	}
	return sites
}

// keptBefore are the sites that kept a job before it moved with other settings: who was not
// reached then may keep it still, and take it from the site that it left.
func (l *Leader) keptBefore(r *jobRun, j *coordinator.Job) []mesh.Site {
	if r.owning.before != nil || len(j.History) < 2 {
		return r.owning.before
	}
	r.owning.before = []mesh.Site{}
	for i, set := range j.Sets {
		if name, _, _ := strings.Cut(set, "="); strings.TrimSpace(name) != "replicate_to" {
			continue
		}
		then := *j
		then.Sets = j.Sets[:i]
		if p, err := l.cfg.Parse(&then); err == nil {
			r.owning.before = append(r.owning.before, l.keepers(p)...)
		}
	}
	return r.owning.before
}

// takeable are the jobs that other sites keep, and that are not to go on without a
// word of theirs. One of which there never was a checkpoint nobody can take.
func (l *Leader) takeable() (jobs []coordinator.JobID) {
	if l.st.Level < coordinator.SitesLevel {
		return nil
	}
	for _, id := range sorted(l.st.Jobs) {
		j := l.st.Jobs[id]
		if j.Status.Ended() || j.Isolated || j.Status == coordinator.Quarantined || j.Newest() == nil {
			continue
		}
		if p, err := l.cfg.Parse(j); err == nil && !p.Continues && len(l.takers(j, p)) > 0 {
			jobs = append(jobs, id)
		}
	}
	return jobs
}

// keepers are the other sites that keep a job.
func (l *Leader) keepers(p *Parsed) (sites []mesh.Site) {
	for _, s := range p.ReplicateTo {
		if s != l.cfg.Site {
			sites = append(sites, s)
		}
	}
	return sites
}

// takers are the other sites that may have what it takes to go on with a job: that keep
// it, or to which it was moving and that have not said that this is over.
func (l *Leader) takers(j *coordinator.Job, p *Parsed) []mesh.Site {
	sites := l.keepers(p)
	for _, d := range l.leavings(j) {
		if d.Epoch >= j.Epoch && !slices.Contains(sites, d.To) { // else a person has said since that the job goes on here
			sites = append(sites, d.To)
		}
	}
	return sites
}

// leavings are the moves of a job from here that are on record.
func (l *Leader) leavings(j *coordinator.Job) (all []*coordinator.Departure) {
	for _, id := range sorted(l.st.Moves.Departures) {
		if d := l.st.Moves.Departures[id]; d.Job == j.ID {
			all = append(all, d)
		}
	}
	return all
}

// unsaid tells whether a move must not be forgotten yet: its job waits for the site to
// which it was moving to say that it has not taken it, and that site has not; or that has
// taken it, and this site has not lost it yet.
func (l *Leader) unsaid(m *moveRun, c *coordinator.MoveForgotten) bool {
	j, r := l.st.Jobs[m.job], l.jobs[m.job]
	switch {
	case j == nil || m.departure == nil:
		return false
	case c.Taken && l.st.Level >= coordinator.SettledLevel && m.departure.MayBePrepared() && l.st.Disputed(m.departure):
		return true
	case !j.Isolated:
		return false
	}
	return r == nil || !l.denied(r, m.departure.To)
}

// denied tells whether a site has said lately that it has not taken a job.
func (l *Leader) denied(r *jobRun, by mesh.Site) bool {
	at, said := r.owning.answers[by]
	return said && l.now <= at.Add(l.cfg.Timing.Contact)
}

// mayBeTaken tells whether a job waits for other sites to say that they have not taken it.
func (l *Leader) mayBeTaken(id coordinator.JobID) bool {
	j := l.st.Jobs[id]
	return j != nil && j.Isolated
}

// isolated claims a job again when all that keep it have said that they have not
// taken it.
func (l *Leader) isolated(r *jobRun, j *coordinator.Job, p *Parsed) {
	var missing []string
	for _, s := range l.takers(j, p) {
		if !l.denied(r, s) {
			missing = append(missing, string(s))
		}
	}
	switch {
	case len(missing) > 0 && j.Status == coordinator.Suspended: // its move says what it is at
		return
	case len(missing) > 0:
		l.waits(r, j, fmt.Sprintf("site %s was down, and site %s may have taken the job meanwhile: it must be reached first (on_isolation: stop)", l.cfg.Site, strings.Join(missing, " or ")))
		return
	}
	r.busy = true
	l.propose(coordinator.Command{JobClaimed: &coordinator.JobClaimed{Job: j.ID, Epoch: j.Epoch, Term: l.cfg.Term}}, func(err error) { l.decided(r, err) })
}

// askOwners asks the sites that may have a job, when it is time.
func (l *Leader) askOwners(r *jobRun, j *coordinator.Job) {
	if l.st.Level < coordinator.SitesLevel || l.now < r.owning.next {
		return
	}
	every := askCalm
	if j.Isolated {
		every = askWaits
	}
	r.owning.next = dataflow.MaxTime
	for _, s := range l.asked(r, j) {
		r.owning.next = l.now.Add(every)
		l.putOwner(s, coordinator.OwnerNews{Job: j.ID, Epoch: j.Epoch, Owner: l.cfg.Site, Ask: true, Term: l.cfg.Term, At: l.now, Since: j.Tenure(l.cfg.Site).At})
	}
}

func (l *Leader) putOwner(to mesh.Site, n coordinator.OwnerNews) {
	l.put(Effect{ToSite: &ToSite{Site: to, Owner: &n}})
}

// heardOwner: another site says who has a job.
func (l *Leader) heardOwner(from mesh.Site, n *coordinator.OwnerNews) {
	if !l.sound(n) {
		return
	}
	l.catchUp()
	if n.Ask && l.sure() {
		answer := l.ownerOf(n.Job)
		if l.yields(from, n) {
			answer.Owner, answer.Since = from, n.Since
		}
		answer.Term, answer.At = n.Term, n.At
		l.putOwner(from, answer)
	}
	j, r := l.st.Jobs[n.Job], l.jobs[n.Job]
	if (j != nil || l.st.Replicas[n.Job] != nil) && n.Owner != l.cfg.Site && n.Epoch > l.heard[n.Job].epoch {
		l.heard[n.Job] = heardOf{n.Epoch, n.Owner, n.Since}
	}
	l.note(n)
	if j == nil {
		if f := l.st.Forgotten[n.Job]; f != nil && n.Owner != l.cfg.Site && n.Epoch > f.Has.Epoch { // it is said to others
			l.contest(n.Job, fenced(n.Job, heardOf{n.Epoch, n.Owner, n.Since}))
		}
		return
	}
	ours := n.Epoch < j.Epoch || n.Epoch == j.Epoch && n.Owner == l.cfg.Site
	if !ours && n.Owner != l.cfg.Site { // nobody else knows more of this site than it does
		l.claimed(j, heardOf{n.Epoch, n.Owner, n.Since})
	}
	if r == nil {
		return
	}
	if !ours && n.Owner != l.cfg.Site {
		l.named(r, n.Owner)
	}
	if ours && !n.Ask && n.Term == l.cfg.Term {
		r.owning.answers[from] = max(n.At, r.owning.answers[from])
	}
	l.marks.jobs[n.Job] = true
}

// yields tells whether a site that asks about its job has it for itself: at the same epoch it
// was here, too, but that is over and forgotten, and nobody need choose between the two.
func (l *Leader) yields(from mesh.Site, n *coordinator.OwnerNews) bool {
	f := l.st.Forgotten[n.Job]
	return f != nil && f.Has.Site == l.cfg.Site && f.Has.Epoch == n.Epoch && n.Owner == from
}

// note puts on record that another site has a job of which something is kept here, above
// the epoch that is known: the next leader is to know that, too.
func (l *Leader) note(n *coordinator.OwnerNews) {
	r := l.st.Replicas[n.Job]
	if r == nil || l.st.Level < coordinator.SettledLevel || n.Owner == l.cfg.Site || n.Epoch <= r.Has().Epoch {
		return
	}
	l.contest(n.Job, coordinator.Command{ReplicaMoved: &coordinator.ReplicaMoved{Job: n.Job, From: r.From, Epoch: r.Epoch, To: coordinator.Tenure{Epoch: n.Epoch, Site: n.Owner, At: n.Since}}})
}

// claimed: another site has a job at its epoch here or above.
func (l *Leader) claimed(j *coordinator.Job, h heardOf) {
	switch {
	case h.epoch > j.Epoch:
		l.contest(j.ID, fenced(j.ID, h))
	case !j.Status.Ended() && j.Status != coordinator.Quarantined:
		l.contest(j.ID, coordinator.Command{JobQuarantined: &coordinator.JobQuarantined{Job: j.ID, Epoch: h.epoch, Other: h.owner}})
	}
}

// fenced is what puts on record that another site has a job that is or was here.
func fenced(job coordinator.JobID, h heardOf) coordinator.Command {
	return coordinator.Command{Move: &coordinator.MoveCommand{Fenced: &coordinator.JobFenced{Job: job, Epoch: h.epoch, Owner: h.owner, Since: h.since}}}
}

// onRecord is who is on record to have a job elsewhere, with what is kept of it here.
func (l *Leader) onRecord(id coordinator.JobID) heardOf {
	if r := l.st.Replicas[id]; r != nil {
		has := r.Has()
		return heardOf{epoch: has.Epoch, owner: has.Site, since: has.At}
	}
	return heardOf{}
}

// saidToHave is who is said to have a job elsewhere, at the greatest epoch: to this leader,
// or to one before, which put it on record.
func (l *Leader) saidToHave(id coordinator.JobID) heardOf {
	h := l.heard[id]
	if r := l.onRecord(id); r.epoch > h.epoch {
		return r
	}
	return h
}

// rival is what another site has said before a job was here: that it has it, at this epoch
// or above. A person who forces the move with which it came knows of that. false: nobody
// has said so.
func (l *Leader) rival(j *coordinator.Job) (heardOf, bool) {
	h := l.saidToHave(j.ID)
	for _, arr := range l.st.Moves.Arrivals {
		if arr.Job.ID == j.ID && arr.Epoch == j.Epoch && arr.Forced {
			return h, h.epoch > j.Epoch
		}
	}
	return h, h.epoch >= j.Epoch
}

// sound tells whether what another site says can be so: a job is with nobody at no
// epoch, or with a site at one that is not further from what is known than anybody counts.
func (l *Leader) sound(n *coordinator.OwnerNews) bool {
	var known uint64
	if j := l.st.Jobs[n.Job]; j != nil {
		known = j.Epoch
	}
	if r := l.st.Replicas[n.Job]; r != nil {
		known = max(known, r.Epoch)
	}
	if f := l.st.Forgotten[n.Job]; f != nil {
		known = f.Has.Epoch
	}
	return max(len(n.Job), len(n.Owner)) <= jobmanager.MaxName && (n.Epoch == 0) == (n.Owner == "") && n.Epoch <= coordinator.MaxEpoch &&
		(known == 0 || n.Epoch <= known+coordinator.MaxEpochsAhead)
}

// named notes a site of which another one has said that it has a job. Where there are
// too many, one goes that is not reached.
func (l *Leader) named(r *jobRun, owner mesh.Site) {
	if r.owning.named[owner] {
		return
	}
	if len(r.owning.named) >= maxOwners {
		all := sorted(r.owning.named)
		at := slices.IndexFunc(all, func(s mesh.Site) bool { return !l.moving.reached[s] })
		if at < 0 || !l.moving.reached[owner] {
			return
		}
		delete(r.owning.named, all[at])
	}
	r.owning.named[owner], r.owning.next = true, l.now
}

// contest proposes what follows of another site's claim, once.
func (l *Leader) contest(job coordinator.JobID, c coordinator.Command) {
	if l.contests[job] {
		return
	}
	l.contests[job] = true
	l.propose(c, func(error) { delete(l.contests, job) })
}

// sure tells whether a majority has just confirmed that this leads: else what is known here
// may be old.
func (l *Leader) sure() bool { return l.now <= l.confirmed.Add(l.cfg.Timing.Confirm) }

// ownerOf is what is known here of who has a job.
func (l *Leader) ownerOf(id coordinator.JobID) coordinator.OwnerNews {
	has := l.st.Tenure(id)
	n := coordinator.OwnerNews{Job: id, Epoch: has.Epoch, Owner: has.Site, Since: has.At}
	h := l.onRecord(id)
	if l.st.Arriving(id) != nil { // a prepared one keeps from being on record what was heard
		h = l.saidToHave(id)
	}
	if h.epoch > n.Epoch {
		n.Epoch, n.Owner, n.Since = h.epoch, h.owner, h.since
	}
	return n
}

var (
	errNotKept = errors.New("nothing is kept here of such a job of another site")
	errMayHave = errors.New("another site may have taken it, and it goes on when those that keep it have said that they have not; or say that you are sure that it is to go on here, with force")
)

// mostDecided is how often is decided anew about a wish because what it was decided on
// is no more.
const mostDecided = 5

// wishFailover takes a job whose site is lost, or says what would be lost.
func (l *Leader) wishFailover(ref int, w *Failover) { l.decideFailover(ref, w, mostDecided) }

// decideFailover decides as things are. What is complete here may change until that is in
// force: nobody need ask again because of that, and of nothing else. Who is sure was not
// asked whether it is to be taken from a site of which nobody has told them.
func (l *Leader) decideFailover(ref int, w *Failover, left int) {
	f, c := l.plan(w)
	answer := func(err error) { l.put(Effect{Answer: &Answer{Ref: ref, FailedOver: f, Err: err}}) }
	switch {
	case f == nil:
		answer(fmt.Errorf("job %s: %w", w.Job, errNotKept))
	case w.Dry:
		answer(nil)
	case f.Refused != nil:
		answer(f.Refused)
	case f.Needs != nil && !w.Force:
		answer(f.Needs)
	case c == nil:
		l.wishMove(ref, &Migrate{Force: f.Move, Why: w.Why, Sure: w.Force})
	default:
		l.propose(coordinator.Command{JobFailedOver: c}, func(err error) {
			if _, again := l.plan(w); errors.Is(err, jobmanager.ErrStale) && left > 1 && again != nil &&
				again.From == c.From && again.Was == c.Was && again.Epoch == c.Epoch && again.Snapshot != c.Snapshot {
				l.decideFailover(ref, w, left-1)
				return
			}
			answer(err)
		})
	}
}

// plan is what a wish comes to as things are, and its command, where it needs one. nil:
// nothing is known of such a job.
func (l *Leader) plan(w *Failover) (*FailedOver, *coordinator.JobFailedOver) {
	j, r := l.st.Jobs[w.Job], l.st.Replicas[w.Job]
	if arr := l.st.Arriving(w.Job); arr != nil && arr.Phase == coordinator.ArrivalPrepared {
		return &FailedOver{From: arr.From, Move: arr.ID, Snapshot: arr.Savepoint.Name, Needs: l.mayForce(arr)}, nil
	}
	f, c := &FailedOver{}, &coordinator.JobFailedOver{Job: w.Job, Forced: w.Force, Why: w.Why}
	switch {
	case j != nil && !j.Status.Ended():
		c.From, c.Was = l.cfg.Site, j.Epoch
		if n := j.Newest(); n != nil {
			f.Snapshot = n.Name
		}
		f.Needs = l.mayKeep(j)
	case r != nil:
		c.From, c.Was = r.From, r.Epoch
		if r.Snapshot != nil {
			c.Snapshot, f.Snapshot = r.Snapshot.Name, r.Snapshot.Name
			f.Gap = l.gapOf(r)
		}
		f.Logs = len(r.Job.Feeds)
		f.Lag, f.Heard = l.lagOf(r)
		if f.Needs = l.mayTake(r); f.Needs == nil && f.Gap != "" {
			f.Needs = fmt.Errorf("job %s: %s: it could not go on from %s; or say that you are sure, with force", r.Job.Name, f.Gap, f.Snapshot)
		}
	default:
		return nil, nil
	}
	c.Epoch = jobmanager.FailoverEpoch(l.st, c, l.saidToHave(w.Job).epoch)
	f.From, f.Epoch = c.From, c.Epoch
	f.Refused = jobmanager.CheckFailover(l.st, c)
	return f, c
}

// mayKeep says why a job that is here is not to go on here without force: nobody has
// said that no other site has it.
func (l *Leader) mayKeep(j *coordinator.Job) error {
	switch {
	case j.Status == coordinator.Quarantined:
		return fmt.Errorf("job %s is quarantined: %s", j.Name, j.Why)
	case j.Isolated:
		return fmt.Errorf("job %s is isolated: %w", j.Name, errMayHave)
	}
	return nil // that is refused anyhow
}

// mayTake says why a job is not to be taken without force.
func (l *Leader) mayTake(r *coordinator.Replica) error {
	h := l.saidToHave(r.Job.ID)
	switch {
	case h.epoch > r.Epoch || h.epoch == r.Epoch && h.owner != r.From:
		return fmt.Errorf("job %s: site %s has it, at epoch %d: take it from there; or say that you are sure, with force", r.Job.Name, h.owner, h.epoch)
	case l.moving.reached[r.From]:
		return fmt.Errorf("job %s: site %s has it, and is reached: \"tidemark job migrate\" moves it from there, and loses nothing; or say that you are sure, with force", r.Job.Name, r.From)
	}
	return nil
}

// mayForce says why a move that is prepared is not to be forced without a word more: its
// source is there, or another site has the job already.
func (l *Leader) mayForce(arr *coordinator.Arrival) error {
	h := l.saidToHave(arr.Job.ID)
	switch {
	case l.moving.reached[arr.From]:
		return fmt.Errorf("move %s from site %s: %w", arr.ID, arr.From, errIsReached)
	case h.epoch >= arr.Epoch:
		return fmt.Errorf("job %s: site %s has it, at epoch %d, and with move %s it would be here at %d: leave it there; or say that you are sure, with force", arr.Job.Name, h.owner, h.epoch, arr.ID, arr.Epoch)
	}
	return nil
}

// gapOf says which log here does not have what a replica's Snapshot stands in; empty:
// none, as far as is known.
func (l *Leader) gapOf(r *coordinator.Replica) string {
	m, err := manifest.Decode(r.Snapshot.Manifest)
	if err != nil {
		return "" // who restores it says so
	}
	stands, _ := l.positions(&r.Job, &m)
	for i := range r.Job.Feeds {
		f := &r.Job.Feeds[i]
		name := r.Job.NameAt(f, r.From, l.cfg.Site, r.Moving)
		if log := l.st.Feeds[name]; log != nil && l.nobodyHas(log) {
			return fmt.Sprintf("no agent that has the log of feed %s is here", name)
		}
		here := l.replicating.lanes[name]
		for _, lane := range sorted(stands[f.Name]) {
			if lane >= len(here) {
				continue
			}
			at, log, home := stands[f.Name][lane], here[lane], f.Origin(r.From).Site == l.cfg.Site
			if why := cmp.Or(log.Lacks(name, lane, at.least, home), log.Lacks(name, lane, at.most, home)); why != "" {
				return why
			}
		}
	}
	return ""
}

// nobodyHas tells whether all agents that have a log have left the site, or are lost.
func (l *Leader) nobodyHas(f *coordinator.Feed) bool {
	return f.Log.Epoch > 0 && l.settled() && !slices.ContainsFunc(holders(f), func(node mesh.NodeID) bool { return !l.away(node) })
}

// lagOf is what the logs here lack, as was heard last.
func (l *Leader) lagOf(r *coordinator.Replica) (lag coordinator.Lag, heard dataflow.Time) {
	heard = dataflow.MaxTime
	for i := range r.Job.Feeds {
		name := r.Job.NameAt(&r.Job.Feeds[i], r.From, l.cfg.Site, r.Moving)
		b := l.moving.behind[name]
		lag.Rows, lag.Bytes, lag.Time = lag.Rows+b.rows, lag.Bytes+l.moving.lag[name], max(lag.Time, b.time)
		heard = min(heard, b.heard)
	}
	if len(r.Job.Feeds) == 0 {
		heard = 0
	}
	return lag, heard
}
