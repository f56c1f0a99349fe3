package jobmanager

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// mirror makes a feed a mirror of another site's, whose lineage is known. One that
// is not there is made: like has its config, replicas and job. One that is there
// keeps its log up to where the two lineages part; where the feed there is another one
// of that name, it is made anew. Saying it again is nothing.
func (a *apply) mirror(name string, of coordinator.Mirror, lineage []coordinator.Reign, like *coordinator.Feed) error {
	if err := a.checkMirror(name, of, lineage, like); err != nil {
		return err
	}
	f := a.Feeds[name]
	another := f != nil && a.another(f, lineage, like)
	if f == nil || another {
		next := newFeed(like, a.c.At)
		next.Name, next.Job, next.Mirror, next.Lineage, next.Made = name, like.Job, &of, slices.Clone(lineage), a.made()
		if another {
			next.Owner, next.Move = f.Owner, f.Move
			a.cutOff(name, lineage)
		}
		a.Feeds[name] = next
		a.changed(Feed, name)
		return nil
	}
	had := coordinator.LineageOf(f, a.Site)
	adopted := a.adopted(f, like)
	if f.Mirror != nil && *f.Mirror == of && slices.Equal(had, lineage) && !adopted {
		return nil
	}
	next := *f
	if adopted { // the job went on from a savepoint of the one before
		next.Job, next.Past = like.Job, append(without(f.Past, like.Job), f.Job)
	}
	next.Mirror, next.Lineage, next.Reigns, next.Life = &of, slices.Clone(lineage), 0, 0
	if like != nil {
		next.Config = bytes.Clone(like.Config)
	}
	if at := logepoch.Common(had, lineage); at < math.MaxInt64 && f.Log.Epoch > 0 {
		if f.Fork != nil {
			at = min(at, f.Fork.At)
		}
		next.Fork = &coordinator.Fork{At: at}
	}
	a.Feeds[name] = &next
	a.changed(Feed, name)
	return nil
}

// adopted tells whether a feed of another site, of which there is one here, went over
// there to a job that goes on from a savepoint of the one that had it.
func (a *apply) adopted(f, like *coordinator.Feed) bool {
	if a.Level < coordinator.SettledLevel || like == nil || like.Job == "" || f.Job == "" || f.Job == like.Job {
		return false
	}
	j := a.Jobs[f.Job]
	return f.Mirror != nil || f.Owner != "" && (j == nil || j.Status == coordinator.Moved)
}

// another tells whether the shared feed that one here is a copy of was deleted, and
// made again under its name: nothing here is of its log. One from before that is told
// from it by the first reign, whose epoch grows with each feed that its site makes.
func (a *apply) another(f *coordinator.Feed, lineage []coordinator.Reign, like *coordinator.Feed) bool {
	had := coordinator.LineageOf(f, a.Site)
	if a.Level < coordinator.SettledLevel || like == nil || like.Job != "" || f.Whose() != "" || f.Mirror == nil && f.Owner == "" || logepoch.Common(had, lineage) > 0 {
		return false
	}
	return had[0].Site != lineage[0].Site || had[0].Epoch < lineage[0].Epoch
}

// standsOn says what cannot do without the log of a mirror; empty: nothing. A job that is
// on its way here with a log that has nothing in common with that can: it needs another one.
func (a *apply) standsOn(f *coordinator.Feed) string {
	if id := a.reader(f, ""); id != "" {
		return "job " + string(id)
	}
	for _, id := range sorted(a.Moves.Arrivals) {
		arr := a.Moves.Arrivals[id]
		if !arr.Phase.Decided() && slices.ContainsFunc(arr.Job.Feeds, func(m coordinator.MovingFeed) bool {
			return arr.Job.NameAt(&m, arr.From, a.Site, id) == f.Name && logepoch.Common(m.Reigns(arr.From), coordinator.LineageOf(f, a.Site)) > 0
		}) {
			return "job " + string(arr.Job.ID) + ", which is on its way here by " + string(id) + ","
		}
	}
	return ""
}

// cutOff: what is kept of jobs and stands in the log that a mirror had before it was
// made anew can be restored no more, and what is being fetched will not be.
func (a *apply) cutOff(name string, lineage []coordinator.Reign) {
	for _, id := range sorted(a.Replicas) {
		r := a.Replicas[id]
		if !slices.ContainsFunc(r.Job.Feeds, func(m coordinator.MovingFeed) bool {
			return r.Job.NameAt(&m, r.From, a.Site, r.Moving) == name && logepoch.Common(m.Reigns(r.From), lineage) == 0
		}) {
			continue
		}
		next := *r
		next.Cut, next.Next = r.Snapshot != nil, nil
		a.putReplica(&next)
	}
}

// checkMirror says what stands in the way of mirror.
func (a *apply) checkMirror(name string, of coordinator.Mirror, lineage []coordinator.Reign, like *coordinator.Feed) error {
	if err := checkLineage(name, lineage); err != nil {
		return err
	}
	f := a.Feeds[name]
	switch {
	case of.Site == a.Site || of.Site == "" || of.Feed == "":
		return refuse(ErrRefused, "feed %q: a mirror of feed %q of site %q", name, of.Feed, of.Site)
	case f == nil && like == nil:
		return refuse(ErrUnknown, "no feed %q", name)
	case f == nil && manifest.CheckName(name) != nil:
		return refuse(ErrRefused, "feed %q: a mirror of feed %q of site %s cannot be called so: the name is too long", name, of.Feed, of.Site)
	case f == nil && len(a.Feeds) >= MaxFeeds:
		return refuse(ErrRefused, "there are %d feeds: delete some first", MaxFeeds)
	case f == nil:
		return nil
	case f.TakenFrom() == of.Site && !a.wentHome(f, lineage):
		return refuse(ErrRefused, "feed %q went on here, with a session of its own, when a job of site %s was taken, and is in the way of a mirror: delete it when no job reads it", name, of.Site)
	}
	switch mine, its := newest(coordinator.LineageOf(f, a.Site)), newest(lineage); {
	case a.another(f, lineage, like) && a.standsOn(f) != "":
		return refuse(ErrRefused, "feed %q: feed %q of site %s was deleted there, and made again, and %s reads the log of the one before: stop it first", name, of.Feed, of.Site, a.standsOn(f))
	case a.another(f, lineage, like):
		return nil
	case f.Reigns > its.Epoch || mine.Follows(its):
		return refuse(ErrStale, "feed %q: its newest reign is of epoch %d, that of its source of %d", name, max(mine.Epoch, f.Reigns), its.Epoch)
	case a.promised(name) != "" && (f.Mirror == nil || *f.Mirror != of || !slices.Equal(coordinator.LineageOf(f, a.Site), lineage)):
		return refuse(ErrStale, "feed %q: move %s, which is prepared here, needs its log as it is", name, a.promised(name))
	case mine.Epoch == its.Epoch && mine.Site != its.Site:
		return refuse(ErrRefused, "feed %q: sites %s and %s both had it at epoch %d", name, mine.Site, its.Site, mine.Epoch)
	case f.Mirror == nil && (like != nil && f.Job != like.Job && !a.adopted(f, like) || f.Owner == "" && logepoch.Common(coordinator.LineageOf(f, a.Site), lineage) <= 0):
		return refuse(ErrRefused, "feed %q is another one at site %s, and is in the way of a mirror of feed %q of site %s: delete it", name, a.Site, of.Feed, of.Site)
	}
	return nil
}

// wentHome tells whether the session of a shared feed that was taken has left for another
// site, and a log goes on with what was here: then it is not in the way of that any more. A
// reign that began as this site was recovered, while it left, may be known nowhere else.
func (a *apply) wentHome(f *coordinator.Feed, lineage []coordinator.Reign) bool {
	if a.Level < coordinator.SettledLevel || f.Owner == "" || f.Reigns != 0 {
		return false
	}
	had := coordinator.LineageOf(f, a.Site)
	for n := len(had); n > 1 && had[n-1].Relives(had[n-2]) && !slices.Contains(lineage, had[n-1]); n-- {
		had = had[:n-1]
	}
	return slices.Contains(lineage, newest(had))
}

// promised is the prepared move with which a feed's session comes: its log is there up to
// where that needs it. Empty: there is none.
func (a *apply) promised(name string) coordinator.MoveID {
	for _, id := range sorted(a.Moves.Arrivals) {
		if arr := a.Moves.Arrivals[id]; a.Level >= coordinator.SettledLevel && arr.Phase == coordinator.ArrivalPrepared && brings(arr, name) {
			return id
		}
	}
	return ""
}

// keptFeed is a feed that comes with what is kept of a job of another site: how it is
// called here, whose mirror it is, and what it is like.
func (a *apply) keptFeed(m *coordinator.MovingJob, f *coordinator.MovingFeed, from mesh.Site, move coordinator.MoveID) (string, coordinator.Mirror, *coordinator.Feed) {
	like := &coordinator.Feed{Config: f.Config, Replicas: f.Replicas, Degrade: f.Degrade}
	if !slices.Contains(m.Reads, f.Name) {
		like.Job = m.ID
	}
	return m.NameAt(f, from, a.Site, move), f.Origin(from), like
}

// checkMirrors says what stands in the way of the feeds that come with a job.
func (a *apply) checkMirrors(c *coordinator.ReplicaOffered) error {
	room := MaxFeeds - len(a.Feeds)
	for i := range c.Job.Feeds {
		f := &c.Job.Feeds[i]
		name, of, like := a.keptFeed(&c.Job, f, c.From, c.Moving)
		if of.Site == a.Site {
			if err := a.checkHome(c.Job.ID, f, name, c.From); err != nil {
				return err
			}
			continue
		}
		if first, own := coordinator.Own(name); like.Job != "" && !(own && named(first)) {
			return refuse(ErrRefused, "job %s: feed %q is from before feature level %d: another site may have one of that name", c.Job.ID, name, coordinator.SitesLevel)
		}
		if err := a.checkMirror(name, of, f.Reigns(c.From), like); err != nil {
			return err
		}
		if a.Feeds[name] == nil {
			room--
		}
	}
	if room < 0 && a.Level >= coordinator.SettledLevel { // before that some were made, and the rest refused
		return refuse(ErrRefused, "job %s: its feeds would be %d too many: delete some first", c.Job.ID, -room)
	}
	return nil
}

// mirrors makes the feeds that come with a job mirrors.
func (a *apply) mirrors(c *coordinator.ReplicaOffered) error {
	for i := range c.Job.Feeds {
		f := &c.Job.Feeds[i]
		name, of, like := a.keptFeed(&c.Job, f, c.From, c.Moving)
		if of.Site == a.Site {
			continue
		}
		rested := a.Feeds[name] != nil && a.Rests(a.Feeds[name])
		if err := a.mirror(name, of, f.Reigns(c.From), like); err != nil {
			return err
		}
		if rested {
			a.changed(Feed, name)
		}
	}
	return nil
}

// checkHome checks that the feed is here of which a job reads a mirror elsewhere: the
// mirror is a beginning of its log, but for what is lost where this site was recovered: its
// site does not hear of that.
func (a *apply) checkHome(job coordinator.JobID, m *coordinator.MovingFeed, name string, from mesh.Site) error {
	f := a.Feeds[name]
	_, own := coordinator.Own(name)
	its := newest(m.Reigns(from))
	switch {
	case f == nil || f.Mirror != nil || f.Owner != "" || own && f.Job != "" && f.Job != job || !own && f.Job != "":
		return refuse(ErrRefused, "job %s reads a mirror of feed %q of this site, whose session is here no more", job, name)
	case a.LeavingFeed(f) != nil:
		return refuse(ErrRefused, "job %s reads feed %q of this site, which leaves for another, by %s", job, name, a.LeavingFeed(f).ID)
	case newest(coordinator.LineageOf(f, a.Site)) != its && !newest(coordinator.LineageOf(f, a.Site)).Relives(its):
		return refuse(ErrRefused, "job %s: the mirror of feed %q that it reads at site %s is of another time of it", job, name, from)
	}
	return nil
}

// dropMirrors drops shared mirrors for which there is no reason any more, and has
// looked at a job's own.
func (a *apply) dropMirrors(is func(f *coordinator.Feed) bool) {
	for _, name := range sorted(a.Feeds) {
		f := a.Feeds[name]
		if f.Mirror == nil || !is(f) {
			continue
		}
		if f.Job == "" && name == coordinator.MirrorName(f.Mirror.Feed, f.Mirror.Site) && a.mirroredFor(f) == "" && a.reader(f, "") == "" {
			delete(a.Feeds, name)
		}
		a.changed(Feed, name)
	}
}

// own makes a feed this site's: the next epoch of its log begins a reign of the
// given epoch, and has a session. Saying it again is nothing.
func (a *apply) own(name string, epoch uint64) error {
	f := a.Feeds[name]
	if f == nil {
		return refuse(ErrUnknown, "no feed %q", name)
	}
	had := coordinator.LineageOf(f, a.Site)
	switch mine := newest(had); {
	case f.Mirror == nil && (f.Reigns == epoch || mine.Epoch == epoch && mine.Site == a.Site):
		return nil
	case max(mine.Epoch, f.Reigns) >= epoch:
		return refuse(ErrStale, "feed %q: a reign of epoch %d is to begin, and its newest is of %d", name, epoch, max(mine.Epoch, f.Reigns))
	}
	next := *f
	next.Mirror, next.Lineage, next.Reigns = nil, had, epoch
	a.Feeds[name] = &next
	a.changed(Feed, name)
	return nil
}

// mirroredFor is a job of another site of which something is kept here, for which a
// mirror is; empty: there is none.
func (a *apply) mirroredFor(f *coordinator.Feed) coordinator.JobID {
	if f.Mirror == nil {
		return ""
	}
	for _, id := range sorted(a.Replicas) {
		if mirrorsFor(a.Replicas[id], f) {
			return id
		}
	}
	return ""
}

func newest(lineage []coordinator.Reign) (r coordinator.Reign) {
	if n := len(lineage); n > 0 {
		r = lineage[n-1]
	}
	return r
}

func checkLineage(name string, lineage []coordinator.Reign) error {
	if n := len(lineage); n == 0 || n > MaxReigns {
		return refuse(ErrRefused, "feed %q: a lineage of %d reigns; 1 to %d are possible", name, n, MaxReigns)
	}
	for i, r := range lineage {
		if r.Epoch == 0 || r.Site == "" || r.Start < 0 || i > 0 && !r.Follows(lineage[i-1]) {
			return refuse(ErrRefused, "feed %q: a lineage with a reign of epoch %d of site %q that starts at %d", name, r.Epoch, r.Site, r.Start)
		}
	}
	return nil
}

// beginsAnew tells whether nobody has a mirror's log any more, and the next epoch of it
// begins with nothing.
func (a *apply) beginsAnew(f *coordinator.Feed) bool {
	log := logepoch.Of(f, a.Site, a.out)
	return a.Level >= coordinator.SettledLevel && f.Mirror != nil && logepoch.Anew(&log, a.out)
}

// out tells whether a node is no agent of the site.
func (a *apply) out(node mesh.NodeID) bool { return a.Agents[node] == nil }

// settled is a feed whose log begins an epoch: the epoch is as the feed is to be,
// and with it a reign begins that was to, of the site's life: it may have begun in one of
// before that nobody here knows.
func (a *apply) settled(f *coordinator.Feed) {
	f.Log.Mirror, f.Fork = f.Mirror, nil
	if f.Reigns != 0 || f.Life != 0 {
		had := coordinator.LineageOf(f, a.Site)
		r := coordinator.Reign{Epoch: cmp.Or(f.Reigns, newest(had).Epoch), Site: a.Site, Start: f.Log.Start}
		if a.Level >= coordinator.SettledLevel {
			r.Life = coordinator.Life(a.Index)
		}
		f.Lineage = append(had, r)
		if drop := len(f.Lineage) - MaxReigns; drop > 0 {
			f.Lineage = f.Lineage[drop:]
		}
		f.Reigns, f.Life = 0, 0
	}
	if len(f.Lineage) > 0 || f.Made > 0 {
		f.Log.Reign = new(newest(coordinator.LineageOf(f, a.Site)))
	}
}
