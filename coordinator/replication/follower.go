package replication

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Follower is the leader's machine for what its site keeps of the jobs of one
// other site. Not safe for concurrent use.
//
// A job of which nothing is on record is offered, then fetched snapshot by
// snapshot: one is fetched to its end even when newer ones come, since the site
// that has it keeps it for so long.
type Follower struct {
	cfg        Config
	self, from mesh.Site
	index      uint64 // of the newest answer
	asked      int64  // the last question
	answered   int64  // that to which the newest answer is
	heard      dataflow.Time
	next       dataflow.Time // when it is asked again
	why        string        // the last question has no answer
	jobs       map[coordinator.JobID]*followed
	waiting    map[coordinator.JobID]bool // those with a proposal under way
	effects    []Effect
}

// followed is what is known of one job.
type followed struct {
	offer    coordinator.OfferedJob
	offered  bool
	taken    string // Record.Taken
	since    int64  // the last question from before that became known
	gone     *coordinator.GoneJob
	moved    *coordinator.MovedJob
	where    map[store.Digest][]mesh.NodeID // agents of the other site that have parts of the snapshot named next
	next     string
	proposed dataflow.Time // MinTime: nothing is under way
	record   *coordinator.Replica
	offering bool   // what was proposed last is to keep what is offered
	refused  string // why the state refused that last
	told     string // the reason that people were told; empty: it is kept, or they were told none
}

// NewFollower makes the machine of a term.
func NewFollower(cfg Config, self, from mesh.Site) *Follower {
	return &Follower{cfg: cfg.filled(), self: self, from: from, heard: dataflow.MinTime, next: dataflow.MinTime, jobs: make(map[coordinator.JobID]*followed), waiting: make(map[coordinator.JobID]bool)}
}

// Step takes one event and returns its effects, valid until the next Step. It looks at
// the jobs that the event is about, and at those whose proposal is due; an answer of the
// site is about all of its jobs, and so is a question.
func (f *Follower) Step(records Records, e Event) []Effect {
	f.effects = nil
	look := e.Jobs
	switch {
	case e.Offer != nil:
		f.hear(e.Now, records, e.Offer, e.Asked)
		look = f.all(records)
	case e.Failed != nil:
		f.next = e.Now.Add(f.cfg.Retry)
		if why := e.Failed.Error(); f.why == "" && f.heard != dataflow.MinTime {
			f.tell("site %s does not say what it has: %s", f.from, why)
		}
		f.why = e.Failed.Error()
	case e.Rejected != nil:
		if j := f.jobs[e.Rejected.Job]; j != nil {
			f.waits(e.Rejected.Job, j, e.Now) // and tried again after a while
			f.refused(e.Rejected, j)
		}
	case e.All:
		look = f.all(records)
	}
	for id := range f.waiting {
		if e.Now >= f.jobs[id].proposed.Add(f.cfg.Retry) {
			look = append(look[:len(look):len(look)], id)
		}
	}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(look))) {
		f.look(e.Now, id, records.Of(id))
	}
	f.ask(e.Now, records)
	return f.effects
}

// refused tells why a job cannot be kept, each reason once: when it is refused for the same
// one again, as some pass by themselves.
func (f *Follower) refused(r *Rejected, j *followed) {
	if !r.Refused || !j.offering {
		return
	}
	why := r.Err.Error()
	if why == j.refused && why != j.told {
		j.told = why
		f.tell("what site %s offers of job %s is not kept here: %s", f.from, r.Job, why)
	}
	j.refused = why
}

// all are the jobs that are known, and those of which something is kept.
func (f *Follower) all(records Records) []coordinator.JobID {
	return append(slices.Collect(maps.Keys(f.jobs)), records.Kept()...)
}

// look does what there is to do for a job.
func (f *Follower) look(now dataflow.Time, id coordinator.JobID, r Record) {
	mine := r.Replica != nil && (r.From == f.from || r.Has().Site == f.from)
	if f.jobs[id] == nil && !mine {
		return
	}
	j := f.job(id)
	if j.record != r.Replica {
		j.record = r.Replica
		f.waits(id, j, dataflow.MinTime)
	}
	if j.taken != r.Taken {
		j.taken, j.since = r.Taken, max(f.asked, int64(now)-1)
	}
	if j.proposed == dataflow.MinTime || now >= j.proposed.Add(f.cfg.Retry) {
		f.waits(id, j, dataflow.MinTime)
		f.decide(now, id, j, r)
	}
	if !j.offered && j.gone == nil && j.moved == nil && !mine {
		delete(f.jobs, id)
		delete(f.waiting, id)
	}
}

// waits notes when something was proposed of a job; MinTime: nothing is under way.
func (f *Follower) waits(id coordinator.JobID, j *followed, since dataflow.Time) {
	if j.proposed = since; since == dataflow.MinTime {
		delete(f.waiting, id)
	} else {
		f.waiting[id] = true
	}
}

// Wake is when a tick is wanted.
func (f *Follower) Wake() dataflow.Time {
	wake := f.next
	for id := range f.waiting {
		wake = min(wake, f.jobs[id].proposed.Add(f.cfg.Retry))
	}
	return wake
}

// Where are the agents of the other site that have a part of what is fetched of a
// job, as far as it has said.
func (f *Follower) Where(job coordinator.JobID, next string, part store.Digest) []mesh.NodeID {
	if j := f.jobs[job]; j != nil && j.next == next {
		return j.where[part]
	}
	return nil
}

// Heard is when the site answered last; MinTime: it has not in this term. why is
// what is wrong with it since; empty: nothing.
func (f *Follower) Heard() (at dataflow.Time, why string) { return f.heard, f.why }

func (f *Follower) job(id coordinator.JobID) *followed {
	j := f.jobs[id]
	if j == nil {
		j = &followed{proposed: dataflow.MinTime}
		f.jobs[id] = j
	}
	return j
}

// hear takes the answer to a question. One of an older state is passed over: its site
// has said more already.
func (f *Follower) hear(now dataflow.Time, records Records, o *coordinator.Offer, asked int64) {
	f.next = now.Add(f.cfg.Retry)
	if o.Site != f.from || o.Index < f.index {
		return
	}
	f.index, f.heard, f.why, f.next = o.Index, now, "", now.Add(f.cfg.Calm)
	f.answered = asked
	for _, j := range f.jobs {
		j.offered, j.gone, j.moved = false, nil, nil
	}
	for _, offered := range o.Jobs {
		j := f.job(offered.Job)
		if offered.Text == nil && j.offer.Epoch == offered.Epoch {
			offered.Text = j.offer.Text // said before
		}
		j.offer, j.offered = offered, true
		f.next = now.Add(f.cfg.Every)
		if len(offered.Copies) > 0 {
			if r := records.Of(offered.Job); r.Replica != nil && r.Next != nil {
				j.learn(r.Next.Name, offered.Copies)
			}
		}
	}
	for i := range o.Gone {
		f.job(o.Gone[i].Job).gone = &o.Gone[i]
	}
	for i := range o.Moved {
		f.job(o.Moved[i].Job).moved = &o.Moved[i]
	}
}

// learn notes who has the parts of a snapshot.
func (j *followed) learn(name string, copies []coordinator.PartCopies) {
	j.next, j.where = name, make(map[store.Digest][]mesh.NodeID)
	for _, p := range copies {
		j.where[p.Part] = p.Nodes
	}
}

func (f *Follower) tell(format string, args ...any) {
	f.effects = append(f.effects, Effect{Tell: fmt.Sprintf(format, args...)})
}

func (f *Follower) propose(now dataflow.Time, id coordinator.JobID, j *followed, c coordinator.Command) {
	f.waits(id, j, now)
	j.offering = c.ReplicaOffered != nil
	f.effects = append(f.effects, Effect{Propose: &c})
}

// decide does the next thing for a job.
func (f *Follower) decide(now dataflow.Time, id coordinator.JobID, j *followed, r Record) {
	o := &j.offer
	switch {
	case j.gone != nil && r.Replica != nil && (r.From == f.from || r.Has().Site == f.from) && r.Epoch == j.gone.Epoch:
		f.drop(now, id, j, r, j.gone.Why)
		return
	case j.moved != nil && r.Replica != nil && r.Settled && r.Epoch == j.moved.Epoch && r.Has().Epoch < j.moved.To.Epoch && j.moved.To.Site != f.self:
		f.tell("job %s, which is kept here as it was at site %s, is said to be at site %s, at epoch %d", id, r.From, j.moved.To.Site, j.moved.To.Epoch)
		f.propose(now, id, j, coordinator.Command{ReplicaMoved: &coordinator.ReplicaMoved{Job: id, From: r.From, Epoch: r.Epoch, To: j.moved.To}})
		return
	case f.outlived(j, r):
		f.drop(now, id, j, r, fmt.Sprintf("site %s has it, and feed %s, in which it stands, went on here when another job of that site was taken", f.from, r.Taken))
		return
	case r.Replica != nil && r.From == f.from && r.Next != nil && r.Copied && r.Whole && !r.Void && (!j.offered || r.Epoch >= o.Epoch): // whatever there is besides
		f.propose(now, id, j, coordinator.Command{ReplicaAdvanced: &coordinator.ReplicaAdvanced{Job: id, From: f.from, Epoch: r.Epoch, Name: r.Next.Name, Ends: r.Ends}})
		return
	case !j.offered || r.Replica != nil && r.Epoch > o.Epoch:
		return
	case r.Replica == nil || r.Epoch < o.Epoch || r.From == f.from && (o.Moving != r.Moving || o.Text != nil && codec.TextOf(o.Text) != codec.TextOf(&r.Job)):
		text := o.Text
		if text == nil && r.Replica != nil && r.From == f.from && r.Epoch == o.Epoch {
			text = &r.Job
		}
		if text != nil {
			f.keep(now, id, j, r, text)
		}
		return
	}
	j.refused, j.told = "", ""
	switch {
	case r.From != f.from:
		return
	case r.Next == nil:
		f.begin(now, j, r, false)
	case r.Void:
		f.begin(now, j, r, true)
	case !r.Copied && o.Lost: // else it is here, and only the logs are missing
		f.begin(now, j, r, true)
	}
}

// keep puts on record what is offered: by the newest answer.
func (f *Follower) keep(now dataflow.Time, id coordinator.JobID, j *followed, r Record, text *coordinator.MovingJob) {
	f.propose(now, id, j, coordinator.Command{ReplicaOffered: &coordinator.ReplicaOffered{Job: *text, From: f.from, Epoch: j.offer.Epoch, Moving: j.offer.Moving}})
}

// outlived tells whether a job whose feed was taken here along with another one is at its
// site, which is back: that has said so since. Until then it may have to be taken, too.
func (f *Follower) outlived(j *followed, r Record) bool {
	return r.Replica != nil && r.From == f.from && r.Taken != "" && j.offered && j.offer.Epoch >= r.Epoch && f.answered > j.since
}

func (f *Follower) drop(now dataflow.Time, id coordinator.JobID, j *followed, r Record, why string) {
	f.tell("job %s is not kept here any more: %s", id, why)
	f.propose(now, id, j, coordinator.Command{ReplicaDropped: &coordinator.ReplicaDropped{Job: id, From: r.From, Epoch: r.Epoch, Why: why}})
}

// begin begins to fetch a snapshot, in the place of another one that cannot be had
// any more.
func (f *Follower) begin(now dataflow.Time, j *followed, r Record, replace bool) {
	s := f.choose(j, r)
	if s == nil {
		return
	}
	j.learn(s.Name, s.Copies)
	next := *s
	next.Copies = nil
	for _, p := range s.Copies {
		next.Copies = append(next.Copies, coordinator.PartCopies{Part: p.Part, Nodes: []mesh.NodeID{}})
	}
	f.propose(now, r.Job.ID, j, coordinator.Command{ReplicaNext: &coordinator.ReplicaNext{Job: r.Job.ID, From: f.from, Epoch: r.Epoch, Snapshot: &next, Replace: replace}})
}

// choose is the snapshot to fetch: the newest, unless it has parts that were merged
// from others, and those come with one before it: then that one comes first, and
// the merges are made here.
func (f *Follower) choose(j *followed, r Record) (best *coordinator.Snapshot) {
	for _, s := range j.offer.Newest {
		last := r.Restorable()
		switch {
		case last != nil && !last.ID.Less(s.ID): // a savepoint and the checkpoint of its barrier are the same
			continue
		case r.Next != nil && (r.Next.Name == s.Name || s.ID.Less(r.Next.ID)):
			continue
		}
		if best == nil || last == nil || mergesHere(s, last) { // nothing to merge from is here at first: the newest is fetched
			best = s
		}
	}
	return best
}

// mergesHere tells whether all parts of a snapshot that were merged are here, or
// can be merged of what is.
func mergesHere(s, here *coordinator.Snapshot) bool {
	has := make(map[store.Digest]bool)
	for _, p := range here.Copies {
		has[p.Part] = true
	}
	for _, u := range merged(s) {
		all := has[u.Digest]
		if !all {
			all = !slices.ContainsFunc(u.From, func(d store.Digest) bool { return !has[d] })
		}
		if !all {
			return false
		}
	}
	return true
}

// merged are the parts of a snapshot that were merged.
func merged(s *coordinator.Snapshot) (all []manifest.PartUse) {
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		return nil
	}
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			for _, sh := range t.Shards {
				for _, u := range sh.Parts {
					if len(u.From) > 0 {
						all = append(all, u)
					}
				}
			}
		}
	}
	return all
}

// ask asks the other site, if it is time.
func (f *Follower) ask(now dataflow.Time, records Records) {
	if now < f.next {
		return
	}
	f.next = now.Add(f.cfg.Lost)
	f.asked = max(f.asked+1, int64(now)) // also above those of a machine of before, in the same term
	w := coordinator.Want{Site: f.self}
	for _, id := range records.Kept() {
		r := records.Of(id)
		j := coordinator.WantedJob{Job: id, Epoch: r.Epoch, Later: r.Later}
		if r.From != f.from { // it has offered nothing of what is here
			w.Jobs = append(w.Jobs, j)
			continue
		}
		j.Text, j.Ends = codec.TextOf(&r.Job), r.Ends
		if s := r.Restorable(); s != nil {
			j.Has = s.Name
		}
		if r.Next != nil && !r.Void {
			k := f.jobs[id]
			j.Next, j.Where = r.Next.Name, !r.Copied && (r.Stuck || k == nil || k.next != r.Next.Name)
		}
		w.Jobs = append(w.Jobs, j)
	}
	f.effects = append(f.effects, Effect{Ask: &Ask{Site: f.from, No: f.asked, Want: w}})
}
