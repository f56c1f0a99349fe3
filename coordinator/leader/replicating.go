package leader

import (
	"errors"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// What is kept of other sites' jobs, and what they keep of this one's: the machines
// of coordinator/replication, made anew in each term. One that follows is there for
// each site that is reached, or of whose jobs something is kept.

// replicating is what is known of it.
type replicating struct {
	sites  map[mesh.Site]*replication.Follower
	marked map[mesh.Site]map[coordinator.JobID]bool // those that follow, and the jobs that are others
	kept   map[mesh.Site]map[coordinator.JobID]bool // of which something is kept, by who has them, or is said to
	index  map[coordinator.JobID]indexed            // where that is noted
	feeds  map[string]map[coordinator.JobID]bool    // and by the feeds that they read, as they are called here
	source *replication.Source                      // nil until somebody asks, or something may be let go
	lanes  map[string][]coordinator.LaneAt          // of mirrors: where their logs are here
	epochs map[string]uint64                        // of mirrors: to which epoch what is known of them belongs
}

func newReplicating() replicating {
	return replicating{sites: make(map[mesh.Site]*replication.Follower), marked: make(map[mesh.Site]map[coordinator.JobID]bool), kept: make(map[mesh.Site]map[coordinator.JobID]bool),
		index: make(map[coordinator.JobID]indexed), feeds: make(map[string]map[coordinator.JobID]bool), lanes: make(map[string][]coordinator.LaneAt), epochs: make(map[string]uint64)}
}

// indexed is where a replica is noted.
type indexed struct {
	from  mesh.Site
	later mesh.Site // who is said to have it; else from
	feeds []string
}

// indexReplica notes where a replica belongs, as it is now, and has those look at it
// that follow a site.
func (l *Leader) indexReplica(id coordinator.JobID) {
	k, r := &l.replicating, l.st.Replicas[id]
	was, known := k.index[id]
	if known {
		drop(k.kept, was.from, id)
		drop(k.kept, was.later, id)
		for _, name := range was.feeds {
			drop(k.feeds, name, id)
		}
		delete(k.index, id)
		l.mark(was.from, id)
		l.mark(was.later, id)
	}
	if r == nil {
		for site := range k.sites { // it may have something to keep of the job
			l.mark(site, id)
		}
		return
	}
	now := indexed{from: r.From, later: r.Has().Site}
	add(k.kept, now.from, id)
	add(k.kept, now.later, id)
	for i := range r.Job.Feeds {
		name := r.Job.NameAt(&r.Job.Feeds[i], r.From, l.cfg.Site, r.Moving)
		now.feeds = append(now.feeds, name)
		add(k.feeds, name, id)
	}
	k.index[id] = now
	l.mark(now.from, id)
	l.mark(now.later, id)
}

func add[K comparable](sets map[K]map[coordinator.JobID]bool, key K, id coordinator.JobID) {
	if sets[key] == nil {
		sets[key] = make(map[coordinator.JobID]bool)
	}
	sets[key][id] = true
}

func drop[K comparable](sets map[K]map[coordinator.JobID]bool, key K, id coordinator.JobID) {
	if delete(sets[key], id); len(sets[key]) == 0 {
		delete(sets, key)
	}
}

// mark has what is kept of a site's jobs looked at: of these, where they are others.
func (l *Leader) mark(site mesh.Site, jobs ...coordinator.JobID) {
	m := l.replicating.marked
	if m[site] == nil {
		m[site] = make(map[coordinator.JobID]bool)
	}
	for _, id := range jobs {
		m[site][id] = true
	}
}

// Offered is what another site answered to an Ask, or that it did not.
type Offered struct {
	Site  mesh.Site
	No    int64 // of the Ask
	Offer *coordinator.Offer
	Err   error
}

// Wanted is a question of another site. It is answered with the same Ref.
type Wanted struct {
	Ref  int
	Want *coordinator.Want
}

// Offer answers a question.
type Offer struct {
	Ref   int
	Offer *coordinator.Offer
}

// follows tells whether a site is asked.
func (l *Leader) follows(site mesh.Site) bool {
	return l.moving.reached[site] || len(l.replicating.kept[site]) > 0
}

// lookAtSites lets those follow whose records, copies or logs are others.
func (l *Leader) lookAtSites() {
	marked := l.replicating.marked
	l.replicating.marked = make(map[mesh.Site]map[coordinator.JobID]bool) // what is marked meanwhile the next Step sees
	for _, site := range sorted(marked) {
		l.followSite(site, replication.Event{Jobs: sorted(marked[site])})
	}
}

func (l *Leader) followSite(site mesh.Site, e replication.Event) {
	if l.st.Level < coordinator.SitesLevel || site == l.cfg.Site {
		return
	}
	f := l.replicating.sites[site]
	switch {
	case !l.follows(site):
		delete(l.replicating.sites, site)
		l.wakes.set(subject{aReplica, string(site)}, dataflow.MaxTime)
		return
	case f == nil:
		f = replication.NewFollower(l.cfg.Replication, l.cfg.Site, site)
		l.replicating.sites[site] = f
		e.All = true
	}
	e.Now = l.now
	for _, effect := range slices.Clone(f.Step(l.records(site), e)) {
		switch {
		case effect.Ask != nil:
			effect.Ask.Want.Settled = l.st.Level >= coordinator.SettledLevel
			l.put(Effect{Ask: effect.Ask})
		case effect.Propose != nil:
			l.proposeReplica(site, effect.Propose)
		case effect.Tell != "":
			l.tell("%s", effect.Tell)
		}
	}
	l.wakes.set(subject{aReplica, string(site)}, max(f.Wake(), l.now+1))
}

func (l *Leader) proposeReplica(site mesh.Site, c *coordinator.Command) {
	var job coordinator.JobID
	switch {
	case c.ReplicaOffered != nil:
		job = c.ReplicaOffered.Job.ID
	case c.ReplicaNext != nil:
		job = c.ReplicaNext.Job
	case c.ReplicaAdvanced != nil:
		job = c.ReplicaAdvanced.Job
	case c.ReplicaDropped != nil:
		job = c.ReplicaDropped.Job
	case c.ReplicaMoved != nil:
		job = c.ReplicaMoved.Job
	}
	if arr := l.st.Arriving(job); arr != nil && c.ReplicaOffered != nil && arr.Holds(c.ReplicaOffered) {
		return // it comes again; below SettledLevel the state would take it
	}
	if c.ReplicaOffered != nil {
		if err := jobmanager.Keeps(l.st, c.ReplicaOffered); err != nil { // until it can be kept nothing of it is in the log
			here := l.st.Jobs[job] != nil && !l.st.Jobs[job].Status.Ended() // who of the two has it is told elsewhere
			l.followSite(site, replication.Event{Rejected: &replication.Rejected{Job: job, Err: err, Refused: !here}})
			return
		}
	}
	l.propose(*c, func(err error) {
		if err != nil {
			l.followSite(site, replication.Event{Rejected: &replication.Rejected{Job: job, Err: err, Refused: !errors.Is(err, errRefused)}})
		}
		l.mark(site, job)
	})
}

// records are the replicas of a site's jobs, as they are now.
func (l *Leader) records(site mesh.Site) replication.Records {
	return replication.Records{
		Of:   func(id coordinator.JobID) replication.Record { return l.recordOf(site, l.st.Replicas[id]) },
		Kept: func() []coordinator.JobID { return sorted(l.replicating.kept[site]) },
	}
}

func (l *Leader) recordOf(site mesh.Site, r *coordinator.Replica) replication.Record {
	rec := replication.Record{Replica: r, Settled: l.st.Level >= coordinator.SettledLevel}
	if r == nil || r.From != site {
		return rec
	}
	rec.Ends = l.endsOf(r)
	rec.Taken = l.takenOf(r)
	if r.Next != nil {
		f := l.fetchedOf(r)
		_, all := l.fetchPlan(r)
		rec.Copied = all && l.settled() // before that nobody knows who could have a copy
		rec.Whole, rec.Void = l.logsOf(r, f.needs, len(rec.Ends))
		rec.Whole = rec.Whole && !f.blind
		rec.Stuck = f.stuck
	}
	return rec
}

// takenOf is the shared feed that a job reads, and that was taken from its site along with
// another one; empty: there is none.
func (l *Leader) takenOf(r *coordinator.Replica) string {
	for i := range r.Job.Feeds {
		m := &r.Job.Feeds[i]
		name := r.Job.NameAt(m, r.From, l.cfg.Site, r.Moving)
		if f := l.st.Feeds[name]; f != nil && m.Origin(r.From).Site == r.From && f.TakenFrom() == r.From { // its mirror is refused here
			return name
		}
	}
	return ""
}

// endsOf is how far the logs of a replica are here, in all their copies. Those of
// which nothing is known yet are not named.
func (l *Leader) endsOf(r *coordinator.Replica) (ends []coordinator.FeedEnd) {
	for i := range r.Job.Feeds {
		f := &r.Job.Feeds[i]
		if e, ok := l.moving.ends[r.Job.NameAt(f, r.From, l.cfg.Site, r.Moving)]; ok {
			ends = append(ends, coordinator.FeedEnd{Feed: f.Name, End: e.End})
		}
	}
	return ends
}

// logsOf tells whether the logs are here up to where Next stands, in each lane; void:
// one of them begins behind that, and never will be.
func (l *Leader) logsOf(r *coordinator.Replica, needs map[string]offsets, known int) (whole, void bool) {
	whole = known == len(r.Job.Feeds)
	for i := range r.Job.Feeds {
		f := &r.Job.Feeds[i]
		here := l.replicating.lanes[r.Job.NameAt(f, r.From, l.cfg.Site, r.Moving)]
		home := f.Origin(r.From).Site == l.cfg.Site // the other site's is a beginning of this one
		for lane, at := range needs[f.Name] {
			if lane >= len(here) {
				whole = whole && home
				continue
			}
			void = void || here[lane].First > at.least
			whole = whole && (home || here[lane].Next >= at.most)
		}
	}
	return whole && !void, void
}

// lanesOf is where a log is, by lane. An agent below GoesOnLevel does not say so: of
// a log of one lane it is the same as over all.
func lanesOf(f *coordinator.Feed, s *coordinator.LogStatus) []coordinator.LaneAt {
	if s.Lanes == nil && lanes(f) == 1 {
		return []coordinator.LaneAt{{First: s.First, Next: s.Shown}}
	}
	return s.Lanes
}

// offered: another site has answered, or has not.
func (l *Leader) offered(o *Offered) {
	f := l.replicating.sites[o.Site]
	if f == nil {
		return
	}
	if o.Err != nil {
		l.followSite(o.Site, replication.Event{Failed: o.Err})
		return
	}
	if l.st.Level < coordinator.SettledLevel { // see readable
		own := *o.Offer
		own.Jobs = slices.Clone(own.Jobs)
		for i := range own.Jobs {
			if j := &own.Jobs[i]; j.Text != nil {
				j.Text = j.Text.Plain()
			}
		}
		o = &Offered{Site: o.Site, No: o.No, Offer: &own}
	}
	for _, j := range o.Offer.Jobs {
		if k := l.copying.fetched[j.Job]; k != nil && len(j.Copies) > 0 {
			k.stuck = false
		}
	}
	l.followSite(o.Site, replication.Event{Offer: o.Offer, Asked: o.No})
	l.markFetches(o.Site)
}

// theSource is the machine that answers other sites.
func (l *Leader) theSource() *replication.Source {
	if l.replicating.source == nil {
		l.replicating.source = replication.NewSource(l.cfg.Replication, l.cfg.Site, max(l.start, 0))
	}
	return l.replicating.source
}

// answerSite answers another site.
func (l *Leader) answerSite(w *Wanted) {
	st := replication.Site{Index: l.st.Index, Find: func(id coordinator.JobID) *coordinator.Job { return l.st.Jobs[id] }, Of: l.snapshotOf, Owner: l.tenureOf, Sure: l.sure(), Settled: l.st.Level >= coordinator.SettledLevel}
	for _, id := range sorted(l.st.Jobs) {
		j, d := l.st.Jobs[id], l.st.Leaving(id)
		if _, site, ok := id.Parts(); j.Status.Ended() || !ok || site == "" {
			continue
		}
		job := replication.Job{Job: j}
		switch {
		case d != nil && d.To == w.Want.Site:
			job.Moving = d.ID
			job.Text, _ = l.st.Moving(d)
		case slices.Contains(l.replicateTo(j), w.Want.Site):
			job.Text, _ = l.st.MovingTo(id, nil, nil, nil)
		default:
			continue
		}
		job.Text.Completed = 0 // it would be another text with each checkpoint
		st.Jobs = append(st.Jobs, job)
	}
	l.put(Effect{Offer: &Offer{w.Ref, l.theSource().Answer(l.now, st, w.Want)}})
}

// tenureOf is who has a job, as is known here.
func (l *Leader) tenureOf(id coordinator.JobID) coordinator.Tenure {
	n := l.ownerOf(id)
	return coordinator.Tenure{Epoch: n.Epoch, Site: n.Owner, At: n.Since}
}

// snapshotOf is a kept snapshot of a job: a job that moves is fetched with its
// savepoint.
func (l *Leader) snapshotOf(job coordinator.JobID, name string) *coordinator.Snapshot {
	if s := l.st.Savepoints[name]; s != nil && s.Job == job {
		return told(s)
	}
	return l.st.Of(job, name)
}

// told is a savepoint as other sites are told of it; nil: of none.
func told(s *coordinator.Snapshot) *coordinator.Snapshot {
	if s == nil || s.Stands == nil {
		return s
	}
	t := *s
	t.Stands = nil
	return &t
}

// replicateTo are the other sites at which a live job is to be kept.
func (l *Leader) replicateTo(j *coordinator.Job) []mesh.Site {
	if r := l.jobs[j.ID]; r != nil {
		if p, err := l.parse(r, j); err == nil {
			return l.keepers(p)
		}
	}
	return nil
}

// pinned tells whether a checkpoint that would be let go is being fetched.
func (l *Leader) pinned(j *coordinator.Job, name string) bool {
	to := l.replicateTo(j)
	if d := l.st.Leaving(j.ID); d != nil {
		to = append(slices.Clone(to), d.To)
	}
	return len(to) > 0 && l.theSource().Pinned(l.now, j.ID, name, to)
}

// release are the checkpoints that go when one more counts.
func (l *Leader) release(j *coordinator.Job) (names []string) {
	for i := range max(0, len(j.Checkpoints)+1-coordinator.RetainedCheckpoints) {
		if name := j.Checkpoints[i].Name; !l.pinned(j, name) {
			names = append(names, name)
		}
	}
	return names
}

// noteMirrors keeps what the owners of mirrors say of their logs.
func (l *Leader) noteMirrors(logs []coordinator.LogStatus) {
	var m Mirrored
	for i := range logs {
		s := &logs[i]
		f := l.st.Feeds[s.Feed]
		if f == nil || f.Log.Epoch != s.Epoch {
			continue
		}
		if f.Log.Mirror == nil && l.comesHome(f) {
			l.replicating.lanes[s.Feed] = lanesOf(f, s)
			m.Ends = append(m.Ends, coordinator.FeedEnd{Feed: s.Feed, End: s.Shown})
		}
		if s.Of == nil || f.Log.Mirror == nil {
			continue
		}
		if m.Lag == nil {
			m.Lag = make(map[string]int64)
		}
		l.replicating.lanes[s.Feed] = lanesOf(f, s)
		m.Lag[s.Feed] = max(0, s.Of.Payload-s.Payload)
		l.moving.behind[s.Feed] = behind{max(0, s.Of.End-s.Shown), dataflow.Duration(max(0, s.Of.Clock-s.Clock)), s.Of.Heard}
		m.Ends = append(m.Ends, coordinator.FeedEnd{Feed: s.Feed, End: s.Shown})
	}
	if len(m.Ends) > 0 {
		sort.Slice(m.Ends, func(i, j int) bool { return m.Ends[i].Feed < m.Ends[j].Feed })
		l.mirrored(&m)
	}
}

// comesHome tells whether a job of which something is kept here reads a mirror of a
// feed whose session is here.
func (l *Leader) comesHome(f *coordinator.Feed) bool {
	for id := range l.replicating.feeds[f.Name] {
		if r := l.st.Replicas[id]; r != nil && slices.ContainsFunc(r.Job.Feeds, func(m coordinator.MovingFeed) bool {
			return m.Of != nil && *m.Of == coordinator.Mirror{Site: l.cfg.Site, Feed: f.Name}
		}) {
			return true
		}
	}
	return false
}

// forgetMirror: a feed is not as it was, or an agent has left the site, and what was
// said of its log may be of an epoch of before, or of a copy that is gone.
func (l *Leader) forgetMirror(name string) {
	f := l.st.Feeds[name]
	if f == nil || f.Log.Epoch != l.replicating.epochs[name] || l.out(f.Log.Owner) {
		delete(l.moving.ends, name)
		delete(l.moving.lag, name)
		delete(l.moving.behind, name)
		delete(l.replicating.lanes, name)
		delete(l.replicating.epochs, name)
	}
	if f != nil && f.Log.Mirror != nil {
		l.replicating.epochs[name] = f.Log.Epoch
	}
}
