package jobmanager

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// revive: the site was recovered with less than its majority knew. What the lost ones took
// into logs in epochs that nobody knows here may be with other sites, under the numbers that
// come next: so each log with a session begins a reign with what is left of it. An attempt
// gets a number of this life from State.NextAttempt.
//
// Not those that a job reads at another site, or is about to, as their session stayed: nobody
// would tell that site of the reign, and its mirror would get nothing any more.
func (a *apply) revive(life uint64) {
	if a.Level < coordinator.SettledLevel {
		return
	}
	for _, name := range sorted(a.Feeds) {
		f := a.Feeds[name]
		if f.Mirror != nil || f.Owner != "" || a.readAway(f) {
			continue
		}
		next := *f
		next.Life = life
		a.Feeds[name] = &next
		a.changed(Feed, name)
	}
}

// readAway tells whether a job reads a shared feed at another site, or may by now, as far as
// that is remembered: one that has moved, is on its way, or is kept here.
func (a *apply) readAway(f *coordinator.Feed) bool {
	if f.Job != "" {
		return false
	}
	for _, j := range a.Jobs {
		if j.Status == coordinator.Moved && (f.Of(j.ID) || slices.Contains(j.Reads, f.Name)) {
			return true
		}
	}
	for _, d := range a.Moves.Departures {
		if !d.Phase.Decided() && slices.Contains(d.Stay, f.Name) { // the other site may have been told how
			return true
		}
	}
	mirrors := func(m coordinator.MovingFeed) bool {
		return m.Of != nil && *m.Of == coordinator.Mirror{Site: a.Site, Feed: f.Name}
	}
	for _, arr := range a.Moves.Arrivals {
		if !arr.Phase.Decided() && slices.ContainsFunc(arr.Job.Feeds, mirrors) {
			return true
		}
	}
	for _, r := range a.Replicas {
		if slices.ContainsFunc(r.Job.Feeds, mirrors) {
			return true
		}
	}
	return false
}
