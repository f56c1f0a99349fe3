package jobmanager

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// The shared feeds that were offered with a job, where nobody knows whether its target was
// forced.

// checkTakenAway says why a move whose target has taken the job is not to be forgotten
// yet: this site has it, too, and who has it is known when one of the two has lost it.
func (a *apply) checkTakenAway(c *coordinator.MoveForgotten) error {
	d := a.Moves.Departures[c.ID]
	switch {
	case a.Level < coordinator.SettledLevel:
		return refuse(ErrRefused, "move %s: what its target has taken is said from feature level %d on, and level %d is in force", c.ID, coordinator.SettledLevel, a.Level)
	case d != nil && d.MayBePrepared() && a.Disputed(d):
		return refuse(ErrStale, "move %s: job %s is here, too: it is to be decided first whose it is", d.ID, d.Job)
	}
	return nil
}

// takenAway: the target of a move was forced, and has the sessions of the shared feeds
// that it was offered.
func (a *apply) takenAway(d *coordinator.Departure) {
	for _, name := range sorted(a.Feeds) {
		if f := a.Feeds[name]; d.Offers(f) && f.Owner == "" {
			a.disownFeed(f, d)
		}
	}
}

// isBack: sessions of shared feeds are this site's again, whatever became of moves that
// offered them.
func (a *apply) isBack(of func(d *coordinator.Departure, feed string) bool) {
	if a.Level < coordinator.SettledLevel {
		return
	}
	before := a.Moves.Clone()
	for _, id := range sorted(a.Moves.Departures) {
		d := a.Moves.Departures[id]
		if is := func(e coordinator.FeedEnd) bool { return of(d, e.Feed) }; d.MayBePrepared() && d.Phase.Decided() && slices.ContainsFunc(d.Ends, is) {
			next := *d
			next.Ends = slices.DeleteFunc(slices.Clone(d.Ends), is)
			a.Moves.Departures[id] = &next
		}
	}
	a.changedMoves(&before)
}
