package jobmanager

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// put sets a job's next version.
func (a *apply) put(job *coordinator.Job) {
	was := a.Jobs[job.ID]
	if job.Status.Ended() && (was == nil || !was.Status.Ended()) {
		job.Stands = a.stands(job)
	}
	a.Jobs[job.ID] = job
	a.changed(Job, string(job.ID))
	if was == nil {
		return
	}
	contested := was.Contested() != job.Contested()
	if !contested && was.Status.Ended() == job.Status.Ended() && was.Epoch == job.Epoch {
		return
	}
	for _, name := range sorted(a.Feeds) { // what they are to do hangs on it
		if f := a.Feeds[name]; contested && (f.Job == job.ID || slices.Contains(job.Reads, name)) || a.offered(job.ID, f) {
			a.changed(Feed, name)
		}
	}
}

// offered tells whether a shared feed's session was offered with a job, by a move that is on
// record.
func (a *apply) offered(job coordinator.JobID, f *coordinator.Feed) bool {
	for _, d := range a.Moves.Departures {
		if d.Job == job && d.Offers(f) {
			return true
		}
	}
	return false
}

// stands are the shared feeds that a job reads.
func (a *apply) stands(job *coordinator.Job) (all []coordinator.Stand) {
	for _, name := range job.Reads {
		if f := a.Feeds[name]; f != nil && a.Level >= coordinator.SettledLevel {
			all = append(all, coordinator.Stand{Feed: name, Made: f.Made})
		}
	}
	return all
}

// job finds the job that a command is about.
func (a *apply) job(id coordinator.JobID) (*coordinator.Job, error) {
	if job := a.Jobs[id]; job != nil {
		return job, nil
	}
	return nil, refuse(ErrUnknown, "no job %q", id)
}

// cut shortens a sentence that is kept.
func cut(s string) string { return strings.Clone(s[:min(len(s), MaxText)]) }

func (a *apply) jobSubmitted(c *coordinator.JobSubmitted) (coordinator.JobID, error) {
	for _, id := range sorted(a.Jobs) {
		if c.Request != "" && a.Jobs[id].Request == c.Request {
			return id, nil
		}
	}
	id := coordinator.NewJobID(a.Index, "")
	if a.Level >= coordinator.SitesLevel {
		id = coordinator.NewJobID(a.Index, a.Site)
	}
	if err := a.checkSubmitted(id, c); err != nil {
		return "", err
	}
	job := &coordinator.Job{
		ID: id, Namespace: coordinator.DefaultNamespace, Name: c.Name, Spec: bytes.Clone(c.Spec), Sets: slices.Clone(c.Sets), Created: a.c.At, Since: a.c.At,
		Epoch: 1, Begin: c.From, AllowNonRestored: c.AllowNonRestored, Request: c.Request, Reads: slices.Clone(c.Reads),
		Adopted: slices.Clone(c.Adopts), Overwrite: c.Overwrite,
	}
	if c.From != "" && a.Level >= coordinator.AdoptLevel {
		from := a.Snapshot(nil, c.From)
		job.Epoch = from.ID.Token.Epoch + 1 // what it does is newer than all that it begins with
		a.inherit(job, from.Job)
	}
	if a.Level >= coordinator.SettledLevel {
		for _, ad := range c.Adopts { // the savepoint may be from before its log was at other sites
			f := a.Feeds[ad.Feed]
			job.Epoch = max(job.Epoch, newest(coordinator.LineageOf(f, a.Site)).Epoch+1, f.Reigns+1)
		}
	}
	a.Names[coordinator.NameKey(job.Namespace, job.Name)] = id
	a.put(job)
	for i := range c.Feeds {
		feed := newFeed(&c.Feeds[i], a.c.At)
		feed.Name, feed.Job = job.OwnFeed(dataflow.OperatorID(feed.Name)), id
		if old := a.Feeds[feed.Name]; old != nil {
			feed.Log, feed.Created, feed.Past = old.Log, old.Created, a.pastOf(old)
			if a.Level >= coordinator.SettledLevel {
				feed.Lineage, feed.Reigns, feed.Life, feed.Fork, feed.Made = old.Lineage, old.Reigns, old.Life, old.Fork, old.Made
			}
		}
		a.Feeds[feed.Name] = feed
		a.changed(Feed, feed.Name)
	}
	return id, nil
}

// inherit gives a job what is on record of the files of the one that it goes on
// from, when that has ended: its sinks go on with them as if it were restarted,
// and nobody else cuts them back any more.
func (a *apply) inherit(job *coordinator.Job, from coordinator.JobID) {
	old := a.Jobs[from]
	for old != nil && a.Jobs[old.Successor] != nil {
		old = a.Jobs[old.Successor]
	}
	if old == nil || !old.Status.Ended() || old.Status == coordinator.Moved { // it may come back, and go on with them
		return
	}
	job.Sinks = old.Sinks
	next := *old
	next.Sinks, next.Successor = nil, job.ID
	a.put(&next)
}

func (a *apply) checkSubmitted(id coordinator.JobID, c *coordinator.JobSubmitted) error {
	if err := manifest.CheckName(c.Name); err != nil {
		return refuse(ErrRefused, "the job's name %q: use 1 to 128 letters, digits, '-', '_', '.', and a letter or digit first", c.Name)
	}
	switch other := a.Names[coordinator.NameKey(c.Namespace, c.Name)]; {
	case c.Namespace != "" && c.Namespace != coordinator.DefaultNamespace:
		return refuse(ErrRefused, "namespace %q: there is only %q", c.Namespace, coordinator.DefaultNamespace)
	case other != "":
		return refuse(ErrExists, "a job %q is there, %s, and it is %s: stop it first, or give this one another name", c.Name, other, a.Jobs[other].Status)
	case a.expects(c.Name) != nil:
		return refuse(ErrExists, "a job %q is on its way here, by %s: give this one another name", c.Name, a.expects(c.Name).ID)
	case len(a.Names) >= MaxLiveJobs:
		return refuse(ErrRefused, "%d jobs have not ended: stop some first", MaxLiveJobs)
	case len(c.Spec) > MaxSpec || len(c.Request) > MaxName || len(c.From) > MaxText:
		return refuse(ErrRefused, "job %q: the spec has more than %d bytes, or a text is too long", c.Name, MaxSpec)
	case len(c.Sets) > MaxSets || slices.ContainsFunc(c.Sets, func(s string) bool { return len(s) > MaxText }):
		return refuse(ErrRefused, "job %q: more than %d settings, or one of more than %d bytes", c.Name, MaxSets, MaxText)
	case len(c.Feeds) > MaxSources || len(c.Reads) > MaxSources || len(a.Feeds)+len(c.Feeds)-len(c.Adopts) > MaxFeeds:
		return refuse(ErrRefused, "job %q: more than %d sources of a job, or more than %d feeds: delete some first", c.Name, MaxSources, MaxFeeds)
	case c.From != "" && a.Snapshot(nil, c.From) == nil:
		return refuse(ErrUnknown, "no savepoint %q; a checkpoint's name is JOB/NAME", c.From)
	}
	for _, name := range c.Reads {
		if f := a.Feeds[name]; f == nil || f.Job != "" {
			return refuse(ErrUnknown, "job %q reads feed %q, and there is none that is shared: create it first", c.Name, name)
		}
		if err := a.checkReader(c.Name, a.Feeds[name]); err != nil {
			return err
		}
	}
	seen := make(map[string]bool)
	for i := range c.Feeds {
		f := c.Feeds[i]
		source := f.Name
		f.Name = string(id) + "." + source
		if err := checkFeed(&f); err != nil {
			return err
		}
		if seen[source] || a.Feeds[f.Name] != nil {
			return refuse(ErrExists, "job %q has source %q twice", c.Name, source)
		}
		seen[source] = true
	}
	if err := a.checkAdopts(c); err != nil {
		return err
	}
	return a.checkSessions(c)
}

func (a *apply) jobDeployed(c *coordinator.JobDeployed) error {
	job, err := a.job(c.Job)
	if err != nil {
		return err
	}
	if err := a.ofTerm(c.Term); err != nil {
		return err
	}
	if err := migration.MayRun(&a.Moves, job.ID, job.Epoch); err != nil {
		return moveError(err)
	}
	switch newest := job.Newest(); {
	case job.Isolated:
		return refuse(ErrStale, "job %s: another site may have it", job.ID)
	case c.Attempt != a.NextAttempt(job):
		return refuse(ErrStale, "job %s: attempt %d is to begin, and the next is %d", job.ID, c.Attempt, a.NextAttempt(job))
	case !job.Status.CanBecome(coordinator.Restoring):
		return refuse(ErrStale, "job %s is %s: it cannot be deployed", job.ID, job.Status)
	case job.Cancel:
		return refuse(ErrStale, "job %s is being cancelled", job.ID)
	case newest != nil && c.From != newest.Name:
		// Invariant: never restored to an older one after a newer was visible.
		return refuse(ErrStale, "job %s: the attempt is to go on from %q, and the newest checkpoint is %q", job.ID, c.From, newest.Name)
	case newest == nil && c.From != job.Begin:
		return refuse(ErrStale, "job %s: the attempt is to go on from %q; there is no checkpoint yet, and the job begins with %q", job.ID, c.From, job.Begin)
	}
	places, err := a.checkPlaces(job.ID, c.Places)
	if err != nil {
		return err
	}
	next := *job
	next.Status, next.Why, next.Since = coordinator.Restoring, "", a.c.At
	next.Attempt, next.Places, next.From = c.Attempt, places, c.From
	a.put(&next)
	return nil
}

func (a *apply) checkPlaces(id coordinator.JobID, places []coordinator.Place) ([]coordinator.Place, error) {
	if len(places) == 0 || len(places) > MaxPlaces {
		return nil, refuse(ErrRefused, "job %s: %d subtasks; 1 to %d are possible", id, len(places), MaxPlaces)
	}
	places = slices.Clone(places)
	sort.SliceStable(places, func(i, j int) bool {
		x, y := &places[i].Subtask, &places[j].Subtask
		return cmp.Or(cmp.Compare(x.Task, y.Task), cmp.Compare(x.Index, y.Index)) < 0
	})
	for i, p := range places {
		switch {
		case i > 0 && p.Subtask == places[i-1].Subtask:
			return nil, refuse(ErrRefused, "job %s: subtask %s has two places", id, p.Subtask)
		case a.Agents[p.Node] == nil:
			return nil, refuse(ErrStale, "job %s: subtask %s is to run on %q, which is no agent of the site any more", id, p.Subtask, p.Node)
		}
	}
	return places, nil
}

func (a *apply) jobBecame(c *coordinator.JobBecame) error {
	job, err := a.job(c.Job)
	if err != nil {
		return err
	}
	switch {
	case c.Attempt != job.Attempt:
		return refuse(ErrStale, "job %s: it is said of attempt %d, and %d is the present one", job.ID, c.Attempt, job.Attempt)
	case c.Status == job.Status && !job.Status.Ended():
		if why := cut(c.Why); why != job.Why {
			next := *job
			next.Why = why
			a.put(&next)
		}
		return nil
	case !c.Status.Known() || !job.Status.CanBecome(c.Status):
		return refuse(ErrStale, "job %s is %s, and cannot become %s from there", job.ID, job.Status, statusName(c.Status))
	case c.Status == coordinator.Restoring:
		return refuse(ErrRefused, "job %s: only a deployment makes it restoring", job.ID)
	case c.Status == coordinator.Moved || c.Status == coordinator.Created || job.Status == coordinator.Suspended:
		return refuse(ErrRefused, "job %s is %s: only a move makes it %s from there", job.ID, job.Status, c.Status)
	case c.Status == coordinator.Quarantined || job.Status == coordinator.Quarantined && c.Status != coordinator.Cancelled:
		return refuse(ErrRefused, "job %s is %s: only what another site says, or a person, makes it %s from there", job.ID, job.Status, c.Status)
	case c.Status == coordinator.Stopped && job.Move != "":
		return refuse(ErrStale, "job %s halts for %s: it is suspended, not stopped", job.ID, job.Move)
	case c.Status == coordinator.Suspended && (job.Move == "" || job.Cancel):
		return refuse(ErrStale, "job %s does not halt for a move, or is being cancelled", job.ID)
	}
	if err := a.checkStop(job, c); err != nil {
		return err
	}
	next := *job
	next.Status, next.Why, next.Since = c.Status, cut(c.Why), a.c.At
	if c.Status == coordinator.Restarting {
		next.Restarts++
	}
	next.Savepoint, next.Isolated = strings.Clone(c.Savepoint), job.Isolated && !c.Status.Ended()
	if c.Status.Ended() {
		next.Places, next.End, next.Move = nil, a.Index, ""
		delete(a.Names, coordinator.NameKey(job.Namespace, job.Name))
	}
	a.put(&next)
	if c.Status.Ended() {
		a.forgetOldest()
	}
	return nil
}

// checkStop checks the savepoint with which a job stops.
func (a *apply) checkStop(job *coordinator.Job, c *coordinator.JobBecame) error {
	s := a.Savepoints[c.Savepoint]
	stops := c.Status == coordinator.Stopped || c.Status == coordinator.Finished || c.Status == coordinator.Suspended
	if c.Savepoint != "" && (!stops || s == nil) || c.Status == coordinator.Suspended && (s == nil || s.Job != job.ID || s.ID.Token != job.Token(a.Site)) {
		return refuse(ErrStale, "job %s: no savepoint %q to stop with", job.ID, c.Savepoint)
	}
	return nil
}

// statusName is a status's name also where there is no such status.
func statusName(s coordinator.Status) string {
	if !s.Known() {
		return fmt.Sprintf("state %d", s)
	}
	return s.String()
}

func (a *apply) jobTold(c *coordinator.JobTold) error {
	job, err := a.job(c.Job)
	if err != nil {
		return err
	}
	next := *job
	switch {
	case job.Status.Ended():
		return refuse(ErrRefused, "job %s has ended: it is %s", job.ID, job.Status)
	case job.Status == coordinator.Suspended:
		return refuse(ErrRefused, "job %s is suspended by %s: cancel the move first", job.ID, job.Move)
	case job.Status == coordinator.Quarantined && !c.Cancel:
		return refuse(ErrRefused, "job %s is quarantined: it does not run; cancel it, or say that it goes on here", job.ID)
	case job.Cancel && c.Cancel, !c.Cancel && !job.Cancel && c.Then != dataflow.GoOn && c.Then == job.Then:
		return nil // the same wish again
	case c.Cancel:
		next.Cancel = true
	case job.Cancel:
		return refuse(ErrRefused, "job %s is being cancelled", job.ID)
	case c.Then != dataflow.Halt && c.Then != dataflow.Drain:
		return refuse(ErrRefused, "job %s: neither a stop nor a cancel", job.ID)
	case job.Move != "":
		return refuse(ErrRefused, "job %s halts for %s: cancel the move first", job.ID, job.Move)
	case job.Then != dataflow.GoOn:
		return refuse(ErrRefused, "job %s was told already to %s", job.ID, job.Then)
	default:
		next.Then = c.Then
	}
	a.put(&next)
	return nil
}

func (a *apply) jobRescaled(c *coordinator.JobRescaled) error {
	job, err := a.job(c.Job)
	if err != nil {
		return err
	}
	switch {
	case job.Status.Ended():
		return refuse(ErrRefused, "job %s has ended: it is %s", job.ID, job.Status)
	case a.Leaving(job.ID) != nil:
		return refuse(ErrRefused, "job %s is moving, by %s: wait, or cancel that", job.ID, a.Leaving(job.ID).ID)
	case job.Cancel || job.Then != dataflow.GoOn:
		return refuse(ErrRefused, "job %s was told to end", job.ID)
	case c.Parallelism < 1 || c.Parallelism > dataflow.MaxMaxParallelism:
		return refuse(ErrRefused, "job %s: parallelism %d; 1 to %d are possible", job.ID, c.Parallelism, dataflow.MaxMaxParallelism)
	case c.Parallelism == job.Parallelism:
		return nil
	}
	next := *job
	next.Parallelism = c.Parallelism
	a.put(&next)
	return nil
}

func (a *apply) jobForgotten(c *coordinator.JobForgotten) error {
	job, err := a.job(c.Job)
	if err != nil {
		return err
	}
	if !job.Status.Ended() {
		return refuse(ErrRefused, "job %s is %s: cancel it first", job.ID, job.Status)
	}
	if move := a.moving(job.ID); move != "" {
		return refuse(ErrRefused, "job %s: %s, which is about it, is not decided: wait, or cancel the move", job.ID, move)
	}
	if by := a.beginsWith(func(from string) bool { return strings.HasPrefix(from, string(job.ID)+"/") }); by != "" {
		return refuse(ErrRefused, "job %s: job %s begins with a checkpoint of it, and has none of its own yet", job.ID, by)
	}
	if feed := a.stayed(job); feed != "" {
		return refuse(ErrRefused, "job %s is at site %s, and reads feed %q, whose session stayed here: delete the feed first, if nobody needs it", job.ID, job.Owner, feed)
	}
	a.forget(job.ID)
	return nil
}

// beginsWith finds a live job that may still have to be begun with something.
func (a *apply) beginsWith(is func(from string) bool) coordinator.JobID {
	for _, id := range sorted(a.Jobs) {
		if job := a.Jobs[id]; !job.Status.Ended() && job.Begin != "" && is(job.Begin) {
			return id
		}
	}
	return ""
}

// forget drops a job, its checkpoints, and those of its feeds in which nothing
// stands that is kept.
func (a *apply) forget(id coordinator.JobID) {
	a.remember(a.Jobs[id])
	delete(a.Jobs, id)
	a.changed(Job, string(id))
	a.dropFeeds()
}

// forgetOldest keeps ended jobs at MaxEndedJobs. One whose checkpoint a live job
// begins with, or that may be about to come back, stays for so long.
func (a *apply) forgetOldest() {
	var ended []*coordinator.Job
	for _, id := range sorted(a.Jobs) {
		if job := a.Jobs[id]; job.Status.Ended() {
			ended = append(ended, job)
		}
	}
	slices.SortStableFunc(ended, func(x, y *coordinator.Job) int { return cmp.Compare(x.End, y.End) })
	for _, job := range ended[:max(0, len(ended)-MaxEndedJobs)] {
		if a.beginsWith(func(from string) bool { return strings.HasPrefix(from, string(job.ID)+"/") }) == "" && a.moving(job.ID) == "" && a.stayed(job) == "" {
			a.forget(job.ID)
		}
	}
}
