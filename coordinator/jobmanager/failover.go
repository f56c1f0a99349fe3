package jobmanager

import (
	"fmt"
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
		next.Isolated = true
		if job.Deployed() {
			next.Status, next.Since, next.Savepoint = coordinator.Restarting, a.c.At, ""
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

func (a *apply) jobFailedOver(c *coordinator.JobFailedOver) error {
	switch {
	case a.Level < coordinator.SitesLevel:
		return refuse(ErrRefused, "jobs go from site to site from feature level %d on, and level %d is in force", coordinator.SitesLevel, a.Level)
	case c.Epoch <= c.Was || c.Epoch-c.Was > MaxHistory:
		return refuse(ErrRefused, "job %s: epoch %d is to follow %d", c.Job, c.Epoch, c.Was)
	case len(c.Why) > MaxText:
		return refuse(ErrRefused, "job %s: a sentence of more than %d bytes", c.Job, MaxText)
	case c.From == a.Site:
		return a.keepJob(c)
	}
	return a.takeJob(c)
}

// keepJob: the job is here, and goes on here, whoever else has it.
func (a *apply) keepJob(c *coordinator.JobFailedOver) error {
	job, err := a.job(c.Job)
	switch {
	case err != nil:
		return err
	case job.Epoch == c.Epoch && !job.Status.Ended():
		return nil // it was said before
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
	next := *job
	next.Epoch, next.Since, next.Owner, next.Isolated = c.Epoch, a.c.At, "", false
	if next.Status != coordinator.Created {
		next.Status = coordinator.Restarting
	}
	next.Why = cut(fmt.Sprintf("a person has said that it goes on at site %s, at epoch %d (%s)", a.Site, c.Epoch, c.Why))
	next.History = trimHistory(job.Passed(a.Site, coordinator.Tenure{Epoch: c.Epoch, Site: a.Site, At: a.c.At}))
	a.put(&next)
	for _, name := range sorted(a.Feeds) {
		if f := a.Feeds[name]; f.Job == job.ID && f.Mirror == nil {
			_ = a.own(name, c.Epoch) // one that is said to be of a later reign stays as it is
		}
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
	job := &coordinator.Job{
		ID: m.ID, Namespace: coordinator.DefaultNamespace, Name: m.Name, Spec: m.Spec, Sets: m.Sets, Parallelism: m.Parallelism, Created: m.Created, Since: a.c.At,
		Epoch: c.Epoch, Attempt: r.Snapshot.ID.Token.Attempt, Checkpoints: []*coordinator.Snapshot{r.Snapshot},
		Adopted: m.Adopted, Overwrite: m.Overwrite, AllowNonRestored: m.Lossy, Completed: m.Completed,
		History: trimHistory(append(slices.Clone(m.History), coordinator.Tenure{Epoch: c.Epoch, Site: a.Site, At: a.c.At})),
	}
	if old != nil {
		job.Attempt, job.Sinks, job.Request = max(job.Attempt, old.Attempt), old.Sinks, old.Request
	}
	a.Names[coordinator.NameKey(job.Namespace, job.Name)] = job.ID
	a.put(job)
	delete(a.Replicas, job.ID)
	a.changed(Replica, string(job.ID))
	for i := range m.Feeds {
		f := *a.Feeds[m.Feeds[i].Name]
		f.Job, f.Past = job.ID, without(f.Past, job.ID)
		if m.Feeds[i].Of == nil { // else its session was not at the site that is lost
			f.Owner, f.Move, f.Config, f.Replicas, f.Degrade = "", "", m.Feeds[i].Config, m.Feeds[i].Replicas, m.Feeds[i].Degrade
		}
		a.Feeds[f.Name] = &f
		if a.changed(Feed, f.Name); m.Feeds[i].Of == nil {
			_ = a.own(f.Name, c.Epoch) // it was checked
		}
	}
	return nil
}

// checkTaken says why what is kept of a job cannot become a job of this site.
func (a *apply) checkTaken(r *coordinator.Replica, c *coordinator.JobFailedOver) error {
	m := &r.Job
	here := facts{a.State}.Job(m.ID)
	switch arr := a.Arriving(m.ID); {
	case r.Snapshot == nil:
		return refuse(ErrRefused, "job %s: no checkpoint of it is complete here: there is nothing to go on from", m.ID)
	case r.Snapshot.Name != c.Snapshot:
		return refuse(ErrStale, "job %s: %q is complete here, and it was decided on %q", m.ID, r.Snapshot.Name, c.Snapshot)
	case c.Epoch <= here.Epoch || here.Here:
		return refuse(ErrStale, "job %s: site %s has it, or had it at epoch %d", m.ID, a.Site, here.Epoch)
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
	case len(m.Reads) > 0:
		return refuse(ErrRefused, "job %s reads shared feeds of site %s (%v): they have other names here, and no job can be given those yet", m.ID, r.From, m.Reads)
	}
	for i := range m.Feeds {
		f, of := a.Feeds[m.Feeds[i].Name], m.Feeds[i].Origin(r.From)
		if of.Site == a.Site {
			if err := a.checkHome(m.ID, &m.Feeds[i], of.Feed, r.From); err != nil {
				return err
			}
			continue
		}
		switch {
		case f == nil || f.Mirror == nil || *f.Mirror != of && f.Owner != r.From:
			return refuse(ErrRefused, "job %s: the log of feed %q is not kept here", m.ID, m.Feeds[i].Name)
		case newest(coordinator.LineageOf(f, a.Site)).Epoch >= c.Epoch:
			return refuse(ErrStale, "job %s: feed %q has a reign of epoch %d already", m.ID, f.Name, newest(f.Lineage).Epoch)
		}
	}
	return nil
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
	for _, id := range sorted(a.Moves.Departures) {
		if d := a.Moves.Departures[id]; d.Job == job.ID && !d.Phase.Decided() {
			next := *d
			next.Phase, next.Why, next.Since = coordinator.DepartureAborted, cut("the job is quarantined: "+coordinator.Quarantine(c.Other)), a.c.At
			a.Moves.Departures[id] = &next
			a.changed(Move, string(id))
		}
	}
	next := *job
	next.Status, next.Why, next.Since = coordinator.Quarantined, coordinator.Quarantine(c.Other), a.c.At
	next.Then, next.Move, next.Savepoint, next.Isolated = dataflow.GoOn, "", "", false
	a.put(&next)
	return nil
}
