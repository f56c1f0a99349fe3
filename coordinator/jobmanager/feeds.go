package jobmanager

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

func checkFeed(f *coordinator.Feed) error {
	if err := manifest.CheckName(f.Name); err != nil {
		return refuse(ErrRefused, "the feed's name %q: use 1 to 128 letters, digits, '-', '_', '.', and a letter or digit first", f.Name)
	}
	switch {
	case f.Namespace != "" && f.Namespace != coordinator.DefaultNamespace:
		return refuse(ErrRefused, "feed %q: namespace %q: there is only %q", f.Name, f.Namespace, coordinator.DefaultNamespace)
	case f.Job != "":
		return refuse(ErrRefused, "feed %q: a job's own feeds come with its submission", f.Name)
	case f.Replicas < 0 || f.Replicas > MaxReplicas:
		return refuse(ErrRefused, "feed %q: %d replicas; 1 to %d are possible", f.Name, f.Replicas, MaxReplicas)
	case len(f.Config) > MaxSpec:
		return refuse(ErrRefused, "feed %q: its config has more than %d bytes", f.Name, MaxSpec)
	}
	return nil
}

// newFeed is what the state keeps of a feed that was asked for.
func newFeed(f *coordinator.Feed, at dataflow.Time) *coordinator.Feed {
	return &coordinator.Feed{Name: f.Name, Namespace: coordinator.DefaultNamespace, Config: bytes.Clone(f.Config), Replicas: f.Replicas, Degrade: f.Degrade, Created: at}
}

func (a *apply) feedCreated(c *coordinator.Feed) error {
	if err := checkFeed(c); err != nil {
		return err
	}
	switch {
	case a.likeOwn(c.Name):
		return refuse(ErrRefused, "feed %q: such names are of jobs' own feeds", c.Name)
	case a.Feeds[c.Name] != nil:
		return refuse(ErrExists, "feed %q is there already", c.Name)
	case len(a.Feeds) >= MaxFeeds:
		return refuse(ErrRefused, "there are %d feeds: delete some first", MaxFeeds)
	}
	f := newFeed(c, a.c.At)
	if err := a.checkSession(f, ""); err != nil {
		return err
	}
	f.Made = a.made()
	a.Feeds[c.Name] = f
	a.changed(Feed, c.Name)
	return nil
}

// made is Feed.Made of one that is made by this entry.
func (a *apply) made() uint64 {
	if a.Level < coordinator.SettledLevel {
		return 0
	}
	return a.Index
}

// likeOwn tells whether a name could be that of a job's own feed: j7.in,
// j7-north.in.
func (a *apply) likeOwn(name string) bool {
	job, _, ok := strings.Cut(name, ".")
	digits, j := strings.CutPrefix(job, "j")
	if a.Level >= coordinator.SitesLevel {
		digits, _, _ = strings.Cut(digits, "-")
	}
	return ok && j && digits != "" && strings.Trim(digits, "0123456789") == ""
}

func (a *apply) feedDeleted(c *coordinator.FeedDeleted) error {
	f := a.Feeds[c.Name]
	switch {
	case f == nil:
		return refuse(ErrUnknown, "no feed %q", c.Name)
	case a.mirroredFor(f) != "":
		return refuse(ErrRefused, "feed %q is a mirror of feed %s of site %s: it is kept for job %s", c.Name, f.Mirror.Feed, f.Mirror.Site, a.mirroredFor(f))
	case a.takenBesides(f) != "":
		return refuse(ErrRefused, "feed %q: what is kept of job %s of site %s stands in its log", c.Name, a.takenBesides(f), f.TakenFrom())
	case a.ArrivingFeed(f) != nil:
		return refuse(ErrRefused, "feed %q is on its way here, by %s", c.Name, a.ArrivingFeed(f).ID)
	case a.homeOf(c.Name) != "":
		return refuse(ErrRefused, "feed %q: job %s, which reads it, is on its way here", c.Name, a.homeOf(c.Name))
	case f.Job != "" && a.Jobs[f.Job] == nil:
		return refuse(ErrRefused, "feed %q: %s stands in its log; the feed goes with the last that does", c.Name, a.standsIn(f))
	case f.Job != "":
		return refuse(ErrRefused, "feed %q belongs to job %s: it goes when the job is forgotten", c.Name, f.Job)
	}
	for _, id := range sorted(a.Jobs) {
		if job := a.Jobs[id]; !job.Status.Ended() && slices.Contains(job.Reads, c.Name) {
			return refuse(ErrRefused, "feed %q: job %s (%q) reads it: stop the job first", c.Name, id, job.Name)
		}
	}
	delete(a.Feeds, c.Name)
	a.changed(Feed, c.Name)
	a.isBack(func(_ *coordinator.Departure, feed string) bool { return feed == c.Name }) // a person knows who may have it
	return nil
}

// checkAdopts checks that the feeds which a job takes over are those in which its
// savepoint stands, and nobody's any more.
func (a *apply) checkAdopts(c *coordinator.JobSubmitted) error {
	for i, ad := range c.Adopts {
		f, from := a.Feeds[ad.Feed], a.Snapshot(nil, c.From)
		same := func(o coordinator.Adoption) bool { return o.Source == ad.Source || o.Feed == ad.Feed }
		switch {
		case f == nil:
			return refuse(ErrUnknown, "job %q: source %q is to go on with feed %q, and there is none", c.Name, ad.Source, ad.Feed)
		case from == nil || !f.Of(from.Job) || f.Source() != ad.Source:
			return refuse(ErrRefused, "job %q: source %q is to go on with feed %q, which is not the one that %q stands in", c.Name, ad.Source, ad.Feed, c.From)
		case slices.ContainsFunc(c.Adopts[:i], same) || !slices.ContainsFunc(c.Feeds, func(own coordinator.Feed) bool { return own.Name == string(ad.Source) }):
			return refuse(ErrRefused, "job %q: source %q is to go on with a feed, and is none of its mqtt sources, or is there twice", c.Name, ad.Source)
		}
		if f.Job == "" {
			return refuse(ErrRefused, "job %q: source %q is to go on with feed %q, which stayed here when its job moved", c.Name, ad.Source, ad.Feed)
		}
		if f.Owner != "" {
			return refuse(ErrRefused, "job %q: source %q is to go on with feed %q, which is site %s's now", c.Name, ad.Source, ad.Feed, f.Owner)
		}
		if f.Mirror != nil && a.Level >= coordinator.SettledLevel {
			return refuse(ErrRefused, "job %q: source %q is to go on with feed %q, whose session is at site %s: move the job back there first", c.Name, ad.Source, ad.Feed, f.Mirror.Site)
		}
		if j := a.Jobs[f.Job]; j != nil && !j.Status.Ended() {
			return refuse(ErrRefused, "job %q: source %q is to go on with feed %q, which is that of job %s (%q), and that is %s: stop it first", c.Name, ad.Source, ad.Feed, j.ID, j.Name, j.Status)
		}
	}
	return nil
}

// checkSessions checks that the sessions of a job's own feeds are nobody's. Who submits
// looks, too, and says more; but two may come at once.
func (a *apply) checkSessions(c *coordinator.JobSubmitted) error {
	for i := range c.Feeds {
		f, but := &c.Feeds[i], ""
		for _, ad := range c.Adopts {
			if string(ad.Source) == f.Name {
				but = ad.Feed
			}
		}
		if err := a.checkSession(f, but); err != nil {
			return err
		}
		want := a.SessionOf(f)
		if n := slices.IndexFunc(c.Feeds[:i], func(o coordinator.Feed) bool { return a.SessionOf(&o) == want }); n >= 0 {
			if err := a.sessionTwice(c.Name, want, c.Feeds[n].Name, f.Name, "give them different ones"); err != nil {
				return err
			}
		}
	}
	return nil
}

// twice refuses a feed of a job of a site that comes with the session of another one of it.
func (a *apply) twice(m *coordinator.MovingJob, f *coordinator.MovingFeed, from mesh.Site, mend string) error {
	if o := a.ComesTwice(m, f, from); o != nil {
		return a.sessionTwice(m.Name, a.Comes(m, f, from), o.Name, f.Name, mend)
	}
	return nil
}

func (a *apply) sessionTwice(job string, is coordinator.Session, one, other, mend string) error {
	if is == (coordinator.Session{}) || a.Level < coordinator.SettledLevel {
		return nil
	}
	return refuse(ErrRefused, "job %q: client id %q at broker %s is that of its feeds %q and %q, and a session is one feed's: %s", job, is.Client, is.Broker, one, other, mend)
}

// checkSession checks that no feed but one has the session that another one is to have.
func (a *apply) checkSession(f *coordinator.Feed, but string) error {
	if a.Level < coordinator.SettledLevel {
		return nil
	}
	want := a.SessionOf(f)
	by := a.sessions.Taken(want, but)
	if a.sessions == nil {
		by = a.SessionTaken(want, but)
	}
	if by != nil {
		return refuse(ErrExists, "feed %q: client id %q at broker %s is that of %s", f.Name, want.Client, want.Broker, a.Occupies(by, "give this one another client_id"))
	}
	return nil
}

// pastOf are the jobs that had a feed which gets another one: those of which the
// state still has something.
func (a *apply) pastOf(f *coordinator.Feed) (past []coordinator.JobID) {
	for _, id := range append(slices.Clone(f.Past), f.Job) {
		saved := slices.ContainsFunc(sorted(a.Savepoints), func(name string) bool { return a.Savepoints[name].Job == id })
		if a.Jobs[id] != nil || saved {
			past = append(past, id)
		}
	}
	return past
}

// homeOf is a job that is on its way to where the session of a feed has stayed that
// it reads; empty: there is none.
func (a *apply) homeOf(name string) coordinator.JobID {
	for _, id := range sorted(a.Moves.Arrivals) {
		arr := a.Moves.Arrivals[id]
		if !arr.Phase.Decided() && slices.ContainsFunc(arr.Job.Feeds, func(m coordinator.MovingFeed) bool {
			return m.Origin(arr.From) == coordinator.Mirror{Site: a.Site, Feed: name}
		}) {
			return arr.Job.ID
		}
	}
	return ""
}

// stayed is a feed whose session stayed here when a job moved that reads it; empty:
// there is none. As long as the job is remembered the log waits for its site.
func (a *apply) stayed(j *coordinator.Job) string {
	for _, name := range sorted(a.Feeds) {
		f := a.Feeds[name]
		if j.Status == coordinator.Moved && f.Job == "" && f.Mirror == nil && f.Owner == "" && (f.Of(j.ID) || slices.Contains(j.Reads, name)) {
			return name
		}
	}
	return ""
}

// without are jobs but for one.
func without(past []coordinator.JobID, job coordinator.JobID) []coordinator.JobID {
	return slices.DeleteFunc(slices.Clone(past), func(p coordinator.JobID) bool { return p == job })
}

// standsIn says what is kept that stands in the log of a job's own feed; empty:
// nothing.
func (a *apply) standsIn(f *coordinator.Feed) string {
	for _, id := range append(slices.Clone(f.Past), f.Job) {
		if a.Jobs[id] != nil {
			return "job " + string(id)
		}
	}
	for _, name := range sorted(a.Savepoints) {
		if f.Of(a.Savepoints[name].Job) {
			return "savepoint " + name
		}
	}
	for _, id := range append(slices.Clone(f.Past), f.Job) {
		if a.Replicas[id] != nil {
			return "what is kept of job " + string(id) + " of another site"
		}
	}
	return ""
}

// dropFeeds drops jobs' own feeds in which nothing stands any more: their jobs are
// forgotten, and their savepoints deleted.
func (a *apply) dropFeeds() {
	for _, name := range sorted(a.Feeds) {
		f := a.Feeds[name]
		if f.Job == "" || a.Jobs[f.Job] != nil || a.ArrivingFeed(f) != nil {
			continue
		}
		if a.Level >= coordinator.AdoptLevel && a.standsIn(f) != "" || a.Level >= coordinator.SettledLevel && a.mirroredFor(f) != "" {
			continue
		}
		delete(a.Feeds, name)
		a.changed(Feed, name)
	}
}

func (a *apply) logEpochBegun(c *coordinator.LogEpochBegun) error {
	f := a.Feeds[c.Feed]
	if f == nil {
		return refuse(ErrUnknown, "no feed %q", c.Feed)
	}
	if err := a.ofTerm(c.Term); err != nil {
		return err
	}
	old, log := f.Log, c.Log
	if f.Fork != nil {
		old = logepoch.Forked(&old, f.Fork.At)
	}
	switch {
	case log.Epoch != f.NextEpoch():
		return refuse(ErrStale, "feed %q: epoch %d is to begin, and the present one is %d", f.Name, log.Epoch, old.Epoch)
	case !slices.Contains(log.Members, log.Owner):
		return refuse(ErrRefused, "feed %q: the owner %q is not one of the members", f.Name, log.Owner)
	case log.Start < 0 || f.Fork != nil && log.Start > f.Fork.At:
		return refuse(ErrRefused, "feed %q: epoch %d is to start at %d", f.Name, log.Epoch, log.Start)
	case log.Held != a.Holds(f):
		return refuse(ErrStale, "feed %q: epoch %d is to be held: %t, and that is otherwise now", f.Name, log.Epoch, log.Held)
	case len(log.Members) > MaxReplicas:
		return refuse(ErrRefused, "feed %q: %d members; at most %d are possible", f.Name, len(log.Members), MaxReplicas)
	}
	for i, node := range log.Members {
		if a.Agents[node] == nil || slices.Contains(log.Members[:i], node) {
			return refuse(ErrStale, "feed %q: member %q is there twice, or no agent of the site any more", f.Name, node)
		}
	}
	if now := logepoch.Of(f, a.Site, a.out); now.Mirror != nil && a.Level >= coordinator.SettledLevel {
		old = logepoch.Fewer(&old, log.Start, a.out) // a mirror that began anew: what it lacks its source has
	}
	anew := log.Start == 0 && a.beginsAnew(f)
	if why := logepoch.Refuse(&old, log.Owner, log.Start); why != "" && !anew {
		return refuse(ErrRefused, "feed %q: %s", f.Name, why)
	}
	if old.Epoch == 0 { // what copies of before have is of another feed
		old.Epoch = f.NextEpoch() - 1
		old.Forgotten = old.Epoch
	}
	next := *f
	next.Log = logepoch.Next(&old, log.Owner, log.Members, log.Start)
	next.Log.Held = log.Held
	next.Log.Heirs = slices.DeleteFunc(next.Log.Heirs, func(h coordinator.Heir) bool { return a.Agents[h.Node] == nil })
	if drop := len(next.Log.Starts) - MaxStarts; drop > 0 {
		next.Log.Starts = slices.Clone(next.Log.Starts[drop:])
		next.Log.Forgotten += uint64(drop)
	}
	a.settled(&next)
	a.Feeds[f.Name] = &next
	a.changed(Feed, f.Name)
	return nil
}
