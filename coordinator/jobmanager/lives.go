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
// Not those that a job reads which has moved away while the session stayed: nobody would
// tell its site of the reign, and its mirror would get nothing any more.
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

// readAway tells whether a job that is at another site by now reads a feed, as far as that
// is remembered.
func (a *apply) readAway(f *coordinator.Feed) bool {
	for _, j := range a.Jobs {
		if j.Status == coordinator.Moved && f.Job == "" && (f.Of(j.ID) || slices.Contains(j.Reads, f.Name)) {
			return true
		}
	}
	return false
}
