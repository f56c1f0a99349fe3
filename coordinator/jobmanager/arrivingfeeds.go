package jobmanager

import (
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// The feeds that come with a job.

// receiveFeed makes the record of a feed that comes, if it was not here before.
func (a *apply) receiveFeed(arr *coordinator.Arrival, m *coordinator.MovingFeed) {
	if m.Stay {
		if f := a.Feeds[m.Name]; f != nil && f.Job == arr.Job.ID {
			a.changed(Feed, m.Name) // it may have rested
		}
		return
	}
	fresh := a.Feeds[m.Name] == nil
	name, of, like := a.keptFeed(&arr.Job, m, arr.From, arr.ID)
	if a.mirror(name, of, m.Reigns(arr.From), like) != nil {
		return // never: it was checked, and what came on record since, the arrival and its other feeds, is not in its way
	}
	next := *a.Feeds[name]
	next.Owner = arr.From // it may have come there from yet another one
	if fresh {
		next.Move, next.Created = arr.ID, m.Created
	}
	a.Feeds[name] = &next
	a.changed(Feed, name)
}

// unmirror has the feeds rest that were here before a job came, which then did not, and
// drops what nothing needs.
func (a *apply) unmirror(arr *coordinator.Arrival) {
	if arr.Phase != coordinator.ArrivalDropped {
		return
	}
	for i := range arr.Job.Feeds {
		m := &arr.Job.Feeds[i]
		if f := a.Feeds[m.Name]; f != nil && !m.Stay && f.Mirror != nil && f.Owner == arr.From && a.mirroredFor(f) == "" {
			next := *f
			next.Mirror = nil
			a.Feeds[f.Name] = &next
			a.changed(Feed, f.Name)
		}
	}
	if a.Level < coordinator.SettledLevel {
		return
	}
	a.dropMirrors(func(f *coordinator.Feed) bool { // another site may have been said to have the job meanwhile
		return slices.ContainsFunc(arr.Job.Feeds, func(m coordinator.MovingFeed) bool { return m.Origin(arr.From) == *f.Mirror })
	})
}

// takenMeanwhile: a job comes whose log has a reign of yet another site, of its own epoch
// or above. Nobody would have a session of it: a person says who has it.
func (a *apply) takenMeanwhile(id coordinator.JobID, f *coordinator.Feed) {
	if a.Level < coordinator.SettledLevel {
		return
	}
	next := *a.Jobs[id]
	next.Status, next.Why = coordinator.Quarantined, coordinator.Quarantine(newest(coordinator.LineageOf(f, a.Site)).Site)
	a.put(&next)
}

// readsNoMore: a shared feed comes with its session, which no site lets go while a job of
// its own reads it. So those that moved away from here read no mirror of it.
func (a *apply) readsNoMore(name string) {
	if a.Level < coordinator.SettledLevel {
		return
	}
	for _, id := range sorted(a.Jobs) {
		if j := a.Jobs[id]; j.Status == coordinator.Moved && slices.Contains(j.Reads, name) {
			next := *j
			next.Reads = slices.DeleteFunc(slices.Clone(j.Reads), func(r string) bool { return r == name })
			a.put(&next)
		}
	}
}

func (a *apply) checkReceivingFeed(arr *coordinator.Arrival, m *coordinator.MovingFeed) error {
	if err := checkFeed(&coordinator.Feed{Name: m.Name, Config: m.Config, Replicas: m.Replicas}); err != nil {
		return err
	}
	name, of, like := a.keptFeed(&arr.Job, m, arr.From, arr.ID)
	f := a.Feeds[name]
	first, own := coordinator.Own(m.Name)
	shared := slices.Contains(arr.Job.Reads, m.Name)
	switch {
	case m.Of != nil && !m.Stay:
		return refuse(ErrRefused, "move %s: the session of feed %q, which is site %s's, is to come with the job", arr.ID, m.Name, m.Of.Site)
	case of.Site == a.Site:
		return a.checkHome(arr.Job.ID, m, name, arr.From)
	case m.Stay && f != nil && f.Job == arr.Job.ID && (f.Mirror != nil || f.Owner != ""): // the job was here before
		return a.checkMirror(name, of, m.Reigns(arr.From), like)
	case m.Stay && f != nil && (f.Mirror == nil || *f.Mirror != of):
		return refuse(ErrRefused, "move %s: feed %q stays at site %s, and a feed %q is at site %s too", arr.ID, m.Name, arr.From, name, a.Site)
	case m.Stay:
		return a.checkMirror(name, of, m.Reigns(arr.From), like)
	case shared == own || own && !named(first):
		return refuse(ErrRefused, "move %s: feed %q is not one of the job's own, nor one that it reads", arr.ID, m.Name)
	case f != nil && f.Mirror != nil && *f.Mirror != of && f.Job != arr.Job.ID:
		return refuse(ErrRefused, "move %s: feed %q is a mirror of feed %s of site %s", arr.ID, m.Name, f.Mirror.Feed, f.Mirror.Site)
	case f != nil && f.Mirror == nil && (f.Owner == "" && f.Job != arr.Job.ID || f.Move != "" || shared != (f.Job == "")):
		return refuse(ErrRefused, "a feed %q is at site %s already: delete it first", m.Name, a.Site)
	}
	if err := a.twice(&arr.Job, m, arr.From, "give them different ones"); err != nil {
		return err
	}
	if err := a.checkSession(&coordinator.Feed{Name: name, Config: m.Config, Lineage: m.Reigns(arr.From)}, name); err != nil {
		return err
	}
	return a.checkMirror(name, of, m.Reigns(arr.From), like)
}

// checkCopy checks that what is here of a feed is still a copy of the log that a job reads
// which is on its way, or that log itself.
func (a *apply) checkCopy(arr *coordinator.Arrival, m *coordinator.MovingFeed) error {
	of, name := m.Origin(arr.From), arr.Job.NameAt(m, arr.From, a.Site, arr.ID)
	f := a.Feeds[name]
	home := of.Site == a.Site
	switch {
	case a.Level < coordinator.SettledLevel:
	case home && (f == nil || f.Mirror != nil || f.Owner != ""):
		return refuse(ErrStale, "move %s: the session of feed %q of this site is here no more", arr.ID, name)
	case !home && (f == nil || f.Mirror == nil || *f.Mirror != of):
		return refuse(ErrStale, "move %s: the log of feed %q here is no copy of feed %q of site %s any more", arr.ID, name, of.Feed, of.Site)
	}
	return nil
}

// sane tells whether ends of logs can be such.
func sane(ends []coordinator.FeedEnd) bool {
	return len(ends) <= 2*MaxSources && !slices.ContainsFunc(ends, func(e coordinator.FeedEnd) bool {
		return e.End < 0 || len(e.Feed) > MaxName || strings.TrimSpace(e.Feed) == ""
	})
}
