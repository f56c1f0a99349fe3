package coordinator

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// What the moves of jobs mean for the jobs and feeds of a site.

// Leaving is the departure of a job that is not decided; nil: there is none.
func (s *State) Leaving(job JobID) *Departure {
	return first(s.Moves.Departures, func(d *Departure) bool { return d.Job == job && !d.Phase.Decided() })
}

// Arriving is the arrival of a job that is not decided; nil: there is none.
func (s *State) Arriving(job JobID) *Arrival {
	return first(s.Moves.Arrivals, func(a *Arrival) bool { return a.Job.ID == job && !a.Phase.Decided() })
}

// Holds tells whether what another site says of the job is to wait until the arrival is
// decided: it is prepared, and needs what was fetched as it is. What its source says of the
// job as it was goes with it.
func (a *Arrival) Holds(c *ReplicaOffered) bool {
	return a.Phase == ArrivalPrepared && (c.From != a.From || c.Epoch >= a.Epoch)
}

// LeavingFeed is the departure with which a feed's session goes, while it is not
// decided; nil: there is none.
func (s *State) LeavingFeed(f *Feed) *Departure {
	return first(s.Moves.Departures, func(d *Departure) bool {
		j := s.Jobs[d.Job]
		return !d.Phase.Decided() && j != nil && d.Takes(j, f)
	})
}

// Takes tells whether a feed's session goes with the job. One that another site has
// stays there.
func (d *Departure) Takes(j *Job, f *Feed) bool {
	return f.Mirror == nil && (f.Job == j.ID || f.Job == "" && slices.Contains(j.Reads, f.Name)) && !slices.Contains(d.Stay, f.Name)
}

// ArrivingFeed is the arrival with which a feed's session comes, while it is not
// decided; nil: there is none.
func (s *State) ArrivingFeed(f *Feed) *Arrival {
	return first(s.Moves.Arrivals, func(a *Arrival) bool {
		return !a.Phase.Decided() && slices.ContainsFunc(a.Job.Feeds, func(m MovingFeed) bool { return m.Name == f.Name && !m.Stay })
	})
}

// Rests tells whether nothing is to be taken into a feed's log: the job whose feed
// it is has ended, or another site has it, and it is not on its way here.
func (s *State) Rests(f *Feed) bool {
	switch {
	case f.Mirror != nil:
		return f.Job != "" && !s.mirrors(f.Job)
	case f.Owner != "":
		return s.ArrivingFeed(f) == nil
	}
	if f.Job == "" {
		return false
	}
	j := s.Jobs[f.Job]
	return j == nil || j.Status.Ended()
}

// mirrors tells whether the mirrors of a job's own feeds are needed: the job runs
// here though the sessions are elsewhere, or something is kept of it, or will be.
func (s *State) mirrors(job JobID) bool {
	j := s.Jobs[job]
	return j != nil && !j.Status.Ended() || s.Replicas[job] != nil || s.Arriving(job) != nil
}

// Holds tells whether the present epoch of a feed's log is to be a held one. It is
// where another site has the feed; and while the job with which it leaves is
// suspended, from when on the log's end must not move. Not before: the job reads
// the log, and would fail if its epoch ended. And where nobody can tell whether the
// job is this site's.
func (s *State) Holds(f *Feed) bool {
	switch {
	case f.Mirror != nil: // its owner has no session anyhow
		return false
	case f.Owner != "", s.contested(f):
		return true
	}
	d := s.LeavingFeed(f)
	return d != nil && (d.Phase == DepartureHalting || d.Phase == DepartureOffered) && s.Jobs[d.Job].Status == Suspended
}

// contested tells whether another site may have a feed's job, and a session of the
// same name. With a job that was offered to a site a shared feed may be there, too, as
// long as the move is on record: until that site has said what became of it.
func (s *State) contested(f *Feed) bool {
	if j := s.Jobs[f.Job]; f.Job != "" || s.Level < SettledLevel {
		return j != nil && j.Contested()
	}
	return nil != first(s.Moves.Departures, func(d *Departure) bool {
		j := s.Jobs[d.Job]
		return d.MayBePrepared() && d.Offers(f) && (j != nil && j.Contested() || d.Phase == DepartureFenced && !s.Disputed(d))
	})
}

// MayBePrepared tells whether the target may have all of the job, and a person have
// forced it there, though this site has not handed it over: until the move is forgotten.
func (d *Departure) MayBePrepared() bool {
	return d.Savepoint != "" && (d.Phase == DepartureOffered || d.Phase == DepartureAborted || d.Phase == DepartureFenced)
}

// Offers tells whether a shared feed's session was offered with the job, and has not come
// back since: what the job reads by now may be another feed.
func (d *Departure) Offers(f *Feed) bool {
	return f.Job == "" && f.Mirror == nil && slices.ContainsFunc(d.Ends, func(e FeedEnd) bool { return e.Feed == f.Name })
}

// Disputed tells whether this site has the job of a departure, and nobody can say yet that
// it has it rightly, if the target was forced: the target's epoch is not below its own.
func (s *State) Disputed(d *Departure) bool {
	j := s.Jobs[d.Job]
	return j != nil && !j.Status.Ended() && (j.Contested() || j.Epoch <= d.Epoch+1)
}

// Contested tells whether another site may have the job.
func (j *Job) Contested() bool { return j.Isolated || j.Status == Quarantined }

// Barred tells whether the present epoch of a feed's log is not to be owned, though
// it was given to somebody: it is one with a session, and was begun before it was
// known that another site may have the job. The next one is a held one.
func (s *State) Barred(f *Feed) bool { return f.Mirror == nil && !f.Log.Held && s.contested(f) }

// Moving is what the target of a departure must know of the job, as it is now.
// false: the job is not there.
func (s *State) Moving(d *Departure) (MovingJob, bool) {
	return s.MovingTo(d.Job, d.Stay, d.Sets, d.Configs)
}

// MovingTo is what a target would have to know of a job; the feeds in stay would
// not move, and sets would hold there besides the job's own, with configs of feeds.
func (s *State) MovingTo(job JobID, stay, sets []string, configs []FeedConfig) (MovingJob, bool) {
	j := s.Jobs[job]
	if j == nil {
		return MovingJob{}, false
	}
	m := MovingJob{
		ID: j.ID, Namespace: j.Namespace, Name: j.Name, Spec: j.Spec, Sets: append(slices.Clip(j.Sets), sets...), Parallelism: j.Parallelism, Created: j.Created,
		Reads: j.Reads, Adopted: j.Adopted, Overwrite: j.Overwrite, Lossy: j.AllowNonRestored, Completed: j.Completed, History: j.reigns(s.Site),
	}
	for _, name := range sortedNames(s.Feeds) {
		f := s.Feeds[name]
		if f.Job == j.ID || f.Job == "" && slices.Contains(j.Reads, name) {
			config := f.Config
			if i := slices.IndexFunc(configs, func(c FeedConfig) bool { return c.Feed == name }); i >= 0 {
				config = configs[i].Config
			}
			m.Feeds = append(m.Feeds, MovingFeed{Name: name, Config: config, Stay: f.Mirror != nil || slices.Contains(stay, name), Of: f.Mirror, Replicas: f.Replicas, Degrade: f.Degrade, Created: f.Created, Lineage: LineageOf(f, s.Site)})
		}
	}
	return m, true
}

// reigns is the history of a job that this site has.
func (j *Job) reigns(site mesh.Site) []Tenure {
	if len(j.History) == 0 {
		return []Tenure{{Epoch: j.Epoch, Site: site, At: j.Created}}
	}
	return j.History
}

// Passed is a job's history when another site gets it.
func (j *Job) Passed(from mesh.Site, to Tenure) []Tenure {
	return append(slices.Clone(j.reigns(from)), to)
}

// first finds a record, the same one on every agent.
func first[R any](records map[MoveID]*R, is func(*R) bool) (found *R) {
	var least MoveID
	for id, r := range records {
		if is(r) && (found == nil || id < least) {
			found, least = r, id
		}
	}
	return found
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
