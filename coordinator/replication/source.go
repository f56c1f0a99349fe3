package replication

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Source answers other sites, and knows what they are fetching. Not safe for
// concurrent use. It holds what each site asked last, of the jobs that were to be kept
// there then.
type Source struct {
	cfg   Config
	self  mesh.Site
	start dataflow.Time
	asked map[mesh.Site]map[coordinator.JobID]asked
	last  map[mesh.Site]coordinator.JobID // of which something was said before not all fit into an answer
}

// offerBytes is how much an answer has, about; one job is always told of. What does not
// fit comes with the next answers.
const offerBytes = 4 << 20

// asked is what a site said of a job when it asked last.
type asked struct {
	at   dataflow.Time
	has  string
	next string
	ends []coordinator.FeedEnd
	// offered are the snapshots of the answer: it may be about to say that it fetches
	// one of them.
	offered []*coordinator.Snapshot
}

// Job is one that is to be kept at another site.
type Job struct {
	*coordinator.Job
	Text   coordinator.MovingJob
	Moving coordinator.MoveID // it is to go there; empty: replicate_to says so
}

// Site is what the source must know of its state.
type Site struct {
	Index uint64
	Jobs  []Job                                                 // that are to be kept at the site that asked, by id
	Find  func(coordinator.JobID) *coordinator.Job              // any of the state's; nil: there is none
	Of    func(coordinator.JobID, string) *coordinator.Snapshot // coordinator.State.Of
	Owner func(coordinator.JobID) coordinator.Tenure            // who has a job, as is known here; Epoch 0: nobody is
	Sure  bool                                                  // no newer state says otherwise
	// Settled: SettledLevel is in force, and what is forgotten is on record from then on.
	Settled bool
}

// NewSource makes the machine of a term that begins at now.
func NewSource(cfg Config, self mesh.Site, now dataflow.Time) *Source {
	return &Source{cfg: cfg.filled(), self: self, start: now, asked: make(map[mesh.Site]map[coordinator.JobID]asked), last: make(map[mesh.Site]coordinator.JobID)}
}

// Answer says what a site should keep, and notes what it is fetching.
func (s *Source) Answer(now dataflow.Time, st Site, w *coordinator.Want) *coordinator.Offer {
	o := &coordinator.Offer{Site: s.self, Index: st.Index}
	said := make(map[coordinator.JobID]asked, len(st.Jobs))
	s.asked[w.Site] = said // of a job that is not to be there any more nothing stays
	for i := range st.Jobs {
		j := &st.Jobs[i]
		at := slices.IndexFunc(w.Jobs, func(k coordinator.WantedJob) bool { return k.Job == j.ID && !k.At(s.self) })
		if at < 0 {
			o.Jobs = append(o.Jobs, coordinator.OfferedJob{Job: j.ID, Epoch: j.Epoch, Moving: j.Moving, Text: readBy(w, j), Newest: newest(j.Job, "")})
			said[j.ID] = asked{at: now}
			continue
		}
		o.Jobs = append(o.Jobs, s.offer(st, j, w, &w.Jobs[at]))
		said[j.ID] = asked{at: now, has: w.Jobs[at].Has, next: w.Jobs[at].Next, ends: w.Jobs[at].Ends}
	}
	s.shorten(w.Site, o.Jobs)
	for _, j := range o.Jobs {
		a := said[j.Job]
		a.offered = j.Newest
		said[j.Job] = a
	}
	for _, k := range w.Jobs {
		if slices.ContainsFunc(st.Jobs, func(j Job) bool { return j.ID == k.Job }) {
			continue
		}
		if why := s.gone(st, &k); why != "" {
			o.Gone = append(o.Gone, coordinator.GoneJob{Job: k.Job, Epoch: k.Epoch, Why: why})
		} else if to := st.Owner(k.Job); to.Epoch > k.Known() && to.Site != s.self && to.Site != w.Site {
			o.Moved = append(o.Moved, coordinator.MovedJob{Job: k.Job, Epoch: k.Epoch, To: to})
		}
	}
	return o
}

// shorten leaves out of an answer what is too much for it. The next one begins behind
// what this one has.
func (s *Source) shorten(site mesh.Site, jobs []coordinator.OfferedJob) {
	first := slices.IndexFunc(jobs, func(j coordinator.OfferedJob) bool { return j.Job > s.last[site] })
	delete(s.last, site)
	var last coordinator.JobID
	bytes := 0
	for i := range jobs {
		j := &jobs[(max(0, first)+i)%len(jobs)]
		switch n := bytesOf(j); {
		case n == 0:
		case bytes > 0 && bytes+n > offerBytes:
			j.Text, j.Newest, j.Copies = nil, nil, nil
			if s.last[site] == "" {
				s.last[site] = last
			}
		default:
			bytes, last = bytes+n, j.Job
		}
	}
}

// bytesOf is about how many bytes what can be left out has.
func bytesOf(j *coordinator.OfferedJob) (n int) {
	copies := func(all []coordinator.PartCopies) {
		for _, p := range all {
			n += 38
			for _, node := range p.Nodes {
				n += len(node) + 2
			}
		}
	}
	if j.Text != nil {
		n += len(j.Text.Spec) + 100
		for _, f := range j.Text.Feeds {
			n += len(f.Config) + 100
		}
	}
	for _, s := range j.Newest {
		n += len(s.Manifest) + 100
		copies(s.Copies)
	}
	copies(j.Copies)
	return n
}

// readBy is a job's text as the site that asked reads it.
func readBy(w *coordinator.Want, j *Job) *coordinator.MovingJob {
	text := j.Text
	if !w.Settled {
		return text.Plain()
	}
	return &text
}

func (s *Source) offer(st Site, j *Job, w *coordinator.Want, k *coordinator.WantedJob) coordinator.OfferedJob {
	o := coordinator.OfferedJob{Job: j.ID, Epoch: j.Epoch, Moving: j.Moving}
	// Who has it whole keeps it: that it is settled it may not have been able to say.
	if k.Epoch != j.Epoch || k.Text != codec.TextOf(&j.Text) {
		if text := readBy(w, j); k.Epoch != j.Epoch || k.Text != codec.TextOf(text) {
			o.Text = text
		}
	}
	fetched := st.Of(j.ID, k.Next)
	if o.Lost = k.Next != "" && fetched == nil; k.Next == "" || o.Lost {
		o.Newest = newest(j.Job, k.Has)
	}
	if k.Where && fetched != nil {
		o.Copies = fetched.Copies
	}
	return o
}

// newest are the snapshots to offer to who has one of that name: the newest, and
// one before it of which it was merged.
func newest(j *coordinator.Job, has string) []*coordinator.Snapshot {
	n := j.Newest()
	if n == nil || n.Name == has {
		return nil
	}
	after := j.Checkpoints[1+slices.IndexFunc(j.Checkpoints, func(c *coordinator.Snapshot) bool { return c.Name == has }):]
	for i := len(after) - 2; i >= 0; i-- {
		if mergedFrom(n, after[i]) {
			return []*coordinator.Snapshot{after[i], n}
		}
	}
	return []*coordinator.Snapshot{n}
}

// mergedFrom tells whether a part of a snapshot that an older one does not have was
// merged of parts that it has, all of them.
func mergedFrom(n, older *coordinator.Snapshot) bool {
	has := make(map[store.Digest]bool)
	for _, p := range older.Copies {
		has[p.Part] = true
	}
	return slices.ContainsFunc(merged(n), func(u manifest.PartUse) bool {
		return !has[u.Digest] && !slices.ContainsFunc(u.From, func(d store.Digest) bool { return !has[d] })
	})
}

// gone is why a job is not to be kept at the site that asked; empty: that is not
// known. One that has ended stays there for as long as it is remembered here; when it is
// not it goes where it is on record that it ended here (coordinator.Forgotten). Of one that
// moved on only who has it says so: what is kept may be all that there is by now. The same
// if nothing is known of it here, or if it was here at the very epoch at which it is kept of
// another site: what became of the one says nothing of the other. But below SettledLevel
// nothing is on record, and what was submitted here and is not here any more is over, as
// sites below it have always said.
func (s *Source) gone(st Site, k *coordinator.WantedJob) string {
	j, has := st.Find(k.Job), st.Owner(k.Job)
	switch {
	case j == nil && st.Sure && has.Site == s.self && (has.Epoch > k.Known() || has.Epoch == k.Known() && (k.Later == nil || k.At(s.self) && has.Epoch > k.Epoch)):
		return "it ended at its site, and was forgotten there"
	case j == nil && st.Sure && !st.Settled && has.Epoch == 0 && s.had(st, k):
		return "it was forgotten at its site"
	case j == nil || j.Status.Ended() || j.Epoch < k.Known() || k.At(s.self) && j.Epoch <= k.Epoch:
		return ""
	}
	return "it is not to be kept at this site"
}

// had tells whether a job was submitted here, as its id says, at an index that this site has
// applied and not lost since; and nobody else is known to have it.
func (s *Source) had(st Site, k *coordinator.WantedJob) bool {
	index, site, ok := k.Job.Parts()
	return ok && k.Later == nil && (site == "" || site == s.self) && index <= st.Index && coordinator.Life(index) == coordinator.Life(st.Index)
}

// Pinned tells whether a checkpoint must stay, because another site is fetching it,
// or may be: to is where the job is kept.
func (s *Source) Pinned(now dataflow.Time, job coordinator.JobID, name string, to []mesh.Site) bool {
	for _, site := range to {
		a, said := s.asked[site][job]
		switch {
		case !said && now < s.start.Add(s.cfg.Grace):
			return true // nobody has asked this leader yet
		case said && now < a.at.Add(s.cfg.Pin) && (a.next == name || slices.ContainsFunc(a.offered, func(o *coordinator.Snapshot) bool { return o.Name == name })):
			return true
		}
	}
	return false
}

// Kept is what a site said of a job when it asked last: what is complete there, and
// where its logs end. at is MinTime if it has not asked in this term.
func (s *Source) Kept(job coordinator.JobID, site mesh.Site) (has string, ends []coordinator.FeedEnd, at dataflow.Time) {
	a, said := s.asked[site][job]
	if !said {
		return "", nil, dataflow.MinTime
	}
	return a.has, a.ends, a.at
}
