package jobmanager

import (
	"fmt"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// isolate ends what runs of jobs that another site may have.
func (a *apply) isolate(jobs []coordinator.JobID) {
	for _, id := range jobs {
		job := a.Jobs[id]
		if job == nil || job.Status.Ended() || job.Isolated || job.Status == coordinator.Quarantined {
			continue
		}
		next := *job
		next.Isolated, next.Since = true, a.c.At
		if job.Deployed() {
			next.Status, next.Savepoint = coordinator.Restarting, ""
			next.Why = cut(fmt.Sprintf("nobody led site %s for a while", a.Site))
			next.Restarts++
		}
		a.put(&next)
	}
}

func (a *apply) jobClaimed(c *coordinator.JobClaimed) error {
	job, err := a.job(c.Job)
	if err != nil {
		return err
	}
	if err := a.ofTerm(c.Term); err != nil {
		return err
	}
	switch {
	case job.Epoch != c.Epoch:
		return refuse(ErrStale, "job %s is at epoch %d, and nobody had taken it at %d", job.ID, job.Epoch, c.Epoch)
	case !job.Isolated:
		return nil
	}
	next := *job
	next.Isolated = false
	a.put(&next)
	return nil
}

// CheckFailover says why a state would not take a JobFailedOver. It changes nothing.
func CheckFailover(st *coordinator.State, c *coordinator.JobFailedOver) error {
	return (&apply{State: st}).checkFailover(c)
}

// Failovers says of many jobs why they could not be taken, of a state that does not change
// meanwhile: who has which session is looked up once.
type Failovers struct{ a apply }

// NewFailovers asks a state.
func NewFailovers(st *coordinator.State) *Failovers {
	return &Failovers{apply{State: st, sessions: st.Sessions()}}
}

// Check says why what is kept of a job could not be taken as things are; nil: it could.
func (f *Failovers) Check(r *coordinator.Replica) error {
	c := &coordinator.JobFailedOver{Job: r.Job.ID, From: r.From, Was: r.Epoch}
	if r.Snapshot != nil {
		c.Snapshot = r.Snapshot.Name
	}
	c.Epoch = FailoverEpoch(f.a.State, c, r.Has().Epoch)
	return f.a.checkFailover(c)
}

// FailoverEpoch is that at which a job goes on: above what is known of it here, and what
// other sites have said.
func FailoverEpoch(st *coordinator.State, c *coordinator.JobFailedOver, heard uint64) uint64 {
	epoch := max(c.Was, heard) + 1
	if j := st.Jobs[c.Job]; j != nil {
		epoch = max(epoch, j.Epoch+1)
	}
	if r := st.Replicas[c.Job]; st.Arriving(c.Job) != nil || r != nil && r.Moving != "" { // who hears of it knows that it is not by that move
		epoch = max(epoch, c.Was+2)
	}
	return epoch
}

func (a *apply) checkFailover(c *coordinator.JobFailedOver) error {
	if err := a.checkFailedOver(c); err != nil {
		return err
	}
	if c.From == a.Site {
		job, err := a.job(c.Job)
		if err != nil {
			return err
		}
		return a.checkKept(job, c)
	}
	r, err := a.replica(c.Job, c.From, c.Was)
	if err != nil {
		return err
	}
	return a.checkTaken(r, c)
}

func (a *apply) jobFailedOver(c *coordinator.JobFailedOver) error {
	if err := a.checkFailedOver(c); err != nil {
		return err
	}
	if c.From == a.Site {
		return a.keepJob(c)
	}
	return a.takeJob(c)
}

func (a *apply) checkFailedOver(c *coordinator.JobFailedOver) error {
	switch {
	case a.Level < coordinator.SitesLevel:
		return refuse(ErrRefused, "jobs go from site to site from feature level %d on, and level %d is in force", coordinator.SitesLevel, a.Level)
	case c.Epoch <= c.Was || c.Epoch-c.Was > a.maxTaken():
		return refuse(ErrRefused, "job %s: epoch %d is to follow %d", c.Job, c.Epoch, c.Was)
	case len(c.Why) > MaxText:
		return refuse(ErrRefused, "job %s: a sentence of more than %d bytes", c.Job, MaxText)
	}
	return nil
}

// maxTaken is how far the epoch at which a job is taken may be above the one that it
// had. The bounds on epochs are of GoesOnLevel: agents that do not know them apply the
// commands of a lower level, and all are to have the same state.
func (a *apply) maxTaken() uint64 {
	if a.Level < coordinator.GoesOnLevel {
		return MaxHistory
	}
	return coordinator.MaxEpochsAhead + 1
}

// maxEpoch bounds the epoch of a job that is not known here; see maxTaken.
func (a *apply) maxEpoch() uint64 {
	if a.Level < coordinator.GoesOnLevel {
		return math.MaxUint64
	}
	return coordinator.MaxEpoch
}

// keepJob: the job is here, and goes on here, whoever else has it.
func (a *apply) keepJob(c *coordinator.JobFailedOver) error {
	job, err := a.job(c.Job)
	switch {
	case err != nil:
		return err
	case job.Epoch == c.Epoch && !job.Status.Ended():
		return nil // it was said before
	}
	if err := a.checkKept(job, c); err != nil {
		return err
	}
	next := *job
	next.Epoch, next.Since, next.Owner, next.Isolated = c.Epoch, a.c.At, "", false
	if next.Status != coordinator.Created {
		next.Status = coordinator.Restarting
	}
	next.Why = cut(fmt.Sprintf("a person has said that it goes on at site %s, at epoch %d (%s)", a.Site, c.Epoch, c.Why))
	next.History = trimHistory(job.Passed(a.Site, coordinator.Tenure{Epoch: c.Epoch, Site: a.Site, At: a.c.At}))
	a.put(&next)
	a.isBack(func(d *coordinator.Departure, _ string) bool { return d.Job == job.ID && d.Epoch+1 < c.Epoch }) // else its target may be forced at this very epoch
	for _, name := range sorted(a.Feeds) {
		if f := a.Feeds[name]; f.Job == job.ID && (f.Mirror == nil || a.rivals(f, c.Was)) {
			_ = a.own(name, c.Epoch) // one that is said to be of a later reign, and is no mirror, has a session anyhow
		}
	}
	return nil
}

// rivals tells whether a mirror is of a site that had a feed at an epoch at which its job
// was here. That site loses the session with the job; of one that has it because it stayed
// there the reign is an older one.
func (a *apply) rivals(f *coordinator.Feed, was uint64) bool {
	its := newest(f.Lineage)
	return a.Level >= coordinator.SettledLevel && its.Epoch >= was && its.Site != a.Site
}

// checkKept says why a job that is here cannot go on here on a person's word.
func (a *apply) checkKept(job *coordinator.Job, c *coordinator.JobFailedOver) error {
	switch {
	case job.Epoch != c.Was:
		return refuse(ErrStale, "job %s is at epoch %d, and it was decided at %d", job.ID, job.Epoch, c.Was)
	case job.Status.Ended():
		return refuse(ErrRefused, "job %s has ended: it is %s", job.ID, job.Status)
	case job.Cancel:
		return refuse(ErrRefused, "job %s is being cancelled", job.ID)
	case a.Leaving(job.ID) != nil:
		return refuse(ErrRefused, "job %s is moving, by %s: cancel that", job.ID, a.Leaving(job.ID).ID)
	case job.Status != coordinator.Quarantined && !job.Isolated:
		return refuse(ErrRefused, "job %s is at this site, and %s: nobody need say that it goes on here", job.ID, job.Status)
	}
	return nil
}

// takeJob: what is kept here of a job of another site becomes a job of this one.
func (a *apply) takeJob(c *coordinator.JobFailedOver) error {
	if j := a.Jobs[c.Job]; j != nil && !j.Status.Ended() && j.Epoch == c.Epoch {
		return nil // it was said before
	}
	r, err := a.replica(c.Job, c.From, c.Was)
	if err != nil {
		return err
	}
	if err := a.checkTaken(r, c); err != nil {
		return err
	}
	a.giveUpArrival(r)
	m, old := &r.Job, a.Jobs[r.Job.ID]
	known := slices.Clone(m.History)
	if r.Later != nil { // it is asked from now on
		known = append(known, *r.Later)
	}
	job := &coordinator.Job{
		ID: m.ID, Namespace: coordinator.DefaultNamespace, Name: m.Name, Spec: m.Spec, Sets: m.Sets, Parallelism: m.Parallelism, Created: m.Created, Since: a.c.At,
		Epoch: c.Epoch, Attempt: r.Snapshot.ID.Token.Attempt, Checkpoints: []*coordinator.Snapshot{r.Snapshot},
		Reads: m.ReadsAt(r.From, a.Site, r.Moving), Adopted: m.Adopted, Overwrite: m.Overwrite, AllowNonRestored: m.Lossy, Completed: m.Completed,
		History: trimHistory(append(known, coordinator.Tenure{Epoch: c.Epoch, Site: a.Site, At: a.c.At})),
	}
	if old != nil {
		job.Attempt, job.Sinks, job.Request = max(job.Attempt, old.Attempt), old.Sinks, old.Request
	}
	a.Names[coordinator.NameKey(job.Namespace, job.Name)] = job.ID
	a.put(job)
	delete(a.Replicas, job.ID)
	a.changed(Replica, string(job.ID))
	for i := range m.Feeds {
		a.takeFeed(r, &m.Feeds[i], c.Epoch)
	}
	return nil
}

// takeFeed: a feed of a job that is taken is this site's, if its session was at the site
// that is lost. A shared one goes on under its mirror's name, unless another job has taken
// it along before: over there it is not this job's alone, and goes on, too, when that site
// is back.
func (a *apply) takeFeed(r *coordinator.Replica, m *coordinator.MovingFeed, epoch uint64) {
	f := *a.Feeds[r.Job.NameAt(m, r.From, a.Site, r.Moving)]
	shared, lost := slices.Contains(r.Job.Reads, m.Name), m.Of == nil && f.Mirror != nil
	switch {
	case shared && !lost:
		return
	case !shared:
		f.Job, f.Past = r.Job.ID, without(f.Past, r.Job.ID)
	}
	if lost {
		f.Owner, f.Move, f.Config, f.Replicas, f.Degrade = "", "", m.Config, m.Replicas, m.Degrade
	}
	a.Feeds[f.Name] = &f
	a.changed(Feed, f.Name)
	switch {
	case lost && shared:
		_ = a.own(f.Name, max(epoch, newest(f.Lineage).Epoch+1)) // that is a new one
	case lost:
		_ = a.own(f.Name, epoch) // it was checked
	}
}

// takenBesides is a job that is still kept here of the site from which a shared feed was
// taken along with another one, and that reads it, too; empty: there is none.
func (a *apply) takenBesides(f *coordinator.Feed) coordinator.JobID {
	for _, id := range sorted(a.Replicas) {
		if r := a.Replicas[id]; r.From == f.TakenFrom() && slices.Contains(r.Job.ReadsAt(r.From, a.Site, r.Moving), f.Name) {
			return id
		}
	}
	return ""
}

// checkTaken says why what is kept of a job cannot become a job of this site.
func (a *apply) checkTaken(r *coordinator.Replica, c *coordinator.JobFailedOver) error {
	m := &r.Job
	here := facts{a.State}.Job(m.ID)
	switch arr := a.Arriving(m.ID); {
	case r.Snapshot == nil:
		return refuse(ErrRefused, "job %s: no checkpoint of it is complete here: there is nothing to go on from", m.ID)
	case r.Restorable() == nil:
		return refuse(ErrRefused, "job %s: %q, which is complete here, was taken at site %s, and site %s went on with less of a log than that may stand in: there is nothing to go on from", m.ID, r.Snapshot.Name, r.Snapshot.ID.Token.Site, r.From)
	case r.Snapshot.Name != c.Snapshot:
		return refuse(ErrStale, "job %s: %q is complete here, and it was decided on %q", m.ID, r.Snapshot.Name, c.Snapshot)
	case c.Epoch <= here.Epoch || here.Here:
		return refuse(ErrStale, "job %s: site %s has it, or had it at epoch %d", m.ID, a.Site, here.Epoch)
	case r.Later != nil && c.Epoch <= r.Later.Epoch:
		return refuse(ErrStale, "job %s: site %s has it, at epoch %d", m.ID, r.Later.Site, r.Later.Epoch)
	case c.Epoch <= r.Snapshot.ID.Token.Epoch || r.Snapshot.ID.Token.Attempt > 1<<62:
		return refuse(ErrRefused, "job %s: %q is of epoch %d", m.ID, r.Snapshot.Name, r.Snapshot.ID.Token.Epoch)
	case arr != nil && arr.Phase == coordinator.ArrivalPrepared:
		return refuse(ErrRefused, "job %s is prepared here, by %s: force that move", m.ID, arr.ID)
	case a.Names[coordinator.NameKey(m.Namespace, m.Name)] != "":
		return refuse(ErrExists, "a job %q is at site %s already: stop it first", m.Name, a.Site)
	case a.expects(m.Name) != nil && a.expects(m.Name) != arr:
		return refuse(ErrExists, "a job %q is on its way here, by %s", m.Name, a.expects(m.Name).ID)
	case manifest.CheckName(m.Name) != nil:
		return refuse(ErrRefused, "a job called %q", m.Name)
	case len(a.Names) >= MaxLiveJobs:
		return refuse(ErrRefused, "%d jobs have not ended: stop some first", MaxLiveJobs)
	}
	for i := range m.Feeds {
		if err := a.checkTakenFeed(r, &m.Feeds[i], c); err != nil {
			return err
		}
	}
	return nil
}

// checkTakenFeed says why a feed of a job that is taken cannot be read here, or become
// this site's.
func (a *apply) checkTakenFeed(r *coordinator.Replica, m *coordinator.MovingFeed, c *coordinator.JobFailedOver) error {
	of, name, shared := m.Origin(r.From), r.Job.NameAt(m, r.From, a.Site, r.Moving), slices.Contains(r.Job.Reads, m.Name)
	switch f := a.Feeds[name]; {
	case of.Site == a.Site:
		return a.checkHome(r.Job.ID, m, of.Feed, r.From)
	case shared && m.Of == nil && name == m.Name:
		return refuse(ErrRefused, "job %s was moving here with the session of the shared feed %q of site %s, and not all of it is here: that site has to be back", r.Job.ID, name, r.From)
	case shared && f != nil && f.TakenFrom() == r.From: // with another job
		return nil
	case f == nil || f.Mirror == nil || *f.Mirror != of && f.Owner != r.From:
		return refuse(ErrRefused, "job %s: the log of feed %q is not kept here", r.Job.ID, name)
	case a.beginsAnew(f): // with a session it never would
		return refuse(ErrRefused, "job %s: no agent that has the log of feed %q is here: it begins anew first", r.Job.ID, name)
	case !shared && newest(coordinator.LineageOf(f, a.Site)).Epoch >= c.Epoch:
		return refuse(ErrStale, "job %s: feed %q has a reign of epoch %d already", r.Job.ID, f.Name, newest(f.Lineage).Epoch)
	case shared || m.Of != nil: // one that is shared gets another id here
		return nil
	case !c.Forced && a.ComesTwice(&r.Job, m, r.From) != nil:
		return a.twice(&r.Job, m, r.From, "give them different ones at its site, or have the job go on as it is, with force")
	}
	return a.checkSession(&coordinator.Feed{Name: name, Config: m.Config}, name)
}

// giveUpArrival drops a move of the job to here that has not got everything: it is
// taken without its source.
func (a *apply) giveUpArrival(r *coordinator.Replica) {
	arr := a.Arriving(r.Job.ID)
	if arr == nil {
		return
	}
	next := *arr
	next.Phase, next.Why, next.Since = coordinator.ArrivalDropped, "the job was taken here, as its site was lost", a.c.At
	a.Moves.Arrivals[arr.ID] = &next
	a.changed(Move, string(arr.ID))
}

// jobQuarantined ends what runs of a job, and keeps it. A move of it that is not
// decided is aborted: nobody can say what it would hand over.
func (a *apply) jobQuarantined(c *coordinator.JobQuarantined) error {
	job, err := a.job(c.Job)
	switch {
	case err != nil:
		return err
	case c.Other == a.Site || c.Other == "" || len(c.Other) > MaxName:
		return refuse(ErrRefused, "job %s: quarantined because of site %q", job.ID, c.Other)
	case job.Epoch != c.Epoch || job.Status.Ended():
		return refuse(ErrStale, "job %s is %s at epoch %d, and site %s has it at %d", job.ID, job.Status, job.Epoch, c.Other, c.Epoch)
	case job.Status == coordinator.Quarantined:
		return nil
	}
	halted, before := a.halted(), a.Moves.Clone()
	for _, id := range sorted(a.Moves.Departures) {
		if d := a.Moves.Departures[id]; d.Job == job.ID && !d.Phase.Decided() {
			next := *d
			next.Phase, next.Why, next.Since = coordinator.DepartureAborted, cut("the job is quarantined: "+coordinator.Quarantine(c.Other)), a.c.At
			a.Moves.Departures[id] = &next
		}
	}
	a.changedMoves(&before)
	next := *job
	next.Status, next.Why, next.Since = coordinator.Quarantined, coordinator.Quarantine(c.Other), a.c.At
	next.Then, next.Move, next.Savepoint, next.Isolated = dataflow.GoOn, "", "", false
	a.put(&next)
	a.dropHalted(halted)
	return nil
}
