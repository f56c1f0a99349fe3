package jobmanager

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// This file is who reads a shared feed, where its session would leave them.

// CheckReaders says why a leader does not propose a MoveBegan that the state would take
// below SettledLevel: the session of a shared feed would leave its readers elsewhere.
func CheckReaders(st *coordinator.State, c *coordinator.MoveBegan) error {
	if st.Jobs[c.Job] == nil {
		return nil // that is said by who applies it
	}
	return (&apply{State: st}).checkAway(&coordinator.Departure{Job: c.Job, Stay: c.Stay})
}

// checkAway refuses to take a session away from who reads a mirror of it.
func (a *apply) checkAway(d *coordinator.Departure) error {
	job := a.Jobs[d.Job]
	for _, name := range sorted(a.Feeds) {
		f := a.Feeds[name]
		if away := a.readerAway(name, job.ID); f.Job == "" && d.Takes(job, f) && away != "" {
			return refuse(ErrRefused, "job %s: job %s, which moved, reads a mirror of feed %q: let it stay", job.ID, away, name)
		}
	}
	return nil
}

// reader is a live job, but for one, that reads a shared feed; empty: there is none.
func (a *apply) reader(f *coordinator.Feed, but coordinator.JobID) coordinator.JobID {
	for _, id := range sorted(a.Jobs) {
		if j := a.Jobs[id]; id != but && !j.Status.Ended() && slices.Contains(j.Reads, f.Name) {
			return id
		}
	}
	return ""
}

// readerAway is a job, but for one, that reads a mirror of a shared feed at another site,
// or is on its way back from there; empty: there is none. It would get nothing more if the
// session left. Of one that has ended there this site does not hear.
func (a *apply) readerAway(name string, but coordinator.JobID) coordinator.JobID {
	for _, id := range sorted(a.Jobs) {
		if j := a.Jobs[id]; id != but && j.Status == coordinator.Moved && slices.Contains(j.Reads, name) {
			return id
		}
	}
	return a.homeOf(name)
}
