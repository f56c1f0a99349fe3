package coordinator

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// JobID names a submitted job: "j", the Raft index at which it was accepted, and
// the site where that was, as in j17-north. So no other job of the mesh ever has
// it, wherever it moves. Jobs from before SitesLevel have no site in it: j17.
type JobID string

// NewJobID is the id of a job that is accepted at a Raft index of a site; "" as
// the site: one without it.
func NewJobID(index uint64, site mesh.Site) JobID {
	if site == "" {
		return JobID(fmt.Sprintf("j%d", index))
	}
	return JobID(fmt.Sprintf("j%d-%s", index, site))
}

// Parts are the index and the site in an id; the site is empty where it has none.
// false: it is no job's.
func (j JobID) Parts() (index uint64, site mesh.Site, ok bool) {
	digits, name, _ := strings.Cut(strings.TrimPrefix(string(j), "j"), "-")
	index, err := strconv.ParseUint(digits, 10, 64)
	site = mesh.Site(name)
	return index, site, err == nil && NewJobID(index, site) == j
}

// A site whose majority is lost goes on with what an agent had that is left, and its log
// further up, so that no index comes again under which something else was decided and told
// to others. Life counts that: what a site said at an index of another life may be lost.
func Life(index uint64) uint64 { return index >> lifeBits }

// NextLife is where the log of a site goes on that is recovered with what it had at an index.
func NextLife(index uint64) uint64 { return (Life(index) + 1) << lifeBits }

// lifeBits: at a thousand entries a second one life has 35 years.
const lifeBits = 40

// NextAttempt is the number of a job's next attempt. The lost ones of a recovered site may
// have begun some that nobody knows here: so the numbers of each life of the site begin
// further up, counted from the life in which it accepted the job. It is never less than what
// comes after the last, which may be of another site that was recovered more often.
func (s *State) NextAttempt(j *Job) uint64 {
	if s.Level < SettledLevel {
		return j.Attempt + 1
	}
	life := Life(s.Index)
	if index, site, ok := j.ID.Parts(); ok && site == s.Site {
		life -= min(life, Life(index))
	}
	next := j.Attempt + 1 // of a job that came from a recovered site, of a life there
	return max(next, life<<lifeBits|next&(1<<lifeBits-1))
}

// AcceptedAt is a job that a site accepted, of all that is known here: one that is or was
// here, is kept here, is on its way, or has a savepoint here; or one that is kept here of
// the site, wherever it was accepted. Empty: there is none. Who founds a site of that name
// anew would give the ids of such jobs to others, and speak as the site that had them.
func (s *State) AcceptedAt(site mesh.Site) (least JobID) {
	take := func(id JobID) {
		if least == "" || id < least {
			least = id
		}
	}
	note := func(id JobID) {
		if _, at, ok := id.Parts(); ok && at == site {
			take(id)
		}
	}
	for id := range s.Jobs {
		note(id)
	}
	for id := range s.Forgotten {
		note(id)
	}
	for id, r := range s.Replicas {
		if note(id); r.From == site {
			take(id)
		}
	}
	for _, a := range s.Moves.Arrivals {
		note(a.Job.ID)
	}
	for _, p := range s.Savepoints {
		note(p.Job)
	}
	return least
}

// Own tells whether a feed's name is that of a job's own feed, and of which job it
// was first: j17-north.in. No site's name has a '.'.
func Own(feed string) (first JobID, own bool) {
	job, _, dot := strings.Cut(feed, ".")
	_, _, ok := JobID(job).Parts()
	return JobID(job), dot && ok
}
