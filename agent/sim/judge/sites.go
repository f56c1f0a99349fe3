package judge

import (
	"maps"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Sites is what is judged of several sites together, beside what each one's judge
// sees: 9, a job has one owner.
type Sites struct {
	// Erred: a person has said that a site is lost that was not: until they meet two
	// may have the job.
	Erred bool
	// Forced: a person has had a job go on at another site than its own without that
	// one's word. What that one did since its last replica is beside.
	Forced bool
	// Two: two sites had the job at the same time.
	Two bool
	// Overs counts hand-overs and failovers that are in force.
	Overs int
	// Longest is the longest time between two rows that were published, since First.
	Longest, First, Last dataflow.Time
	Repeated             int // rows that were published more than once

	w        *world.World
	judges   []*Judge
	gone     mesh.Site                                   // from which a job was taken: what it put out there besides stays
	tokens   map[coordinator.JobID]dataflow.FencingToken // the greatest that was deployed
	deployed map[coordinator.JobID]map[mesh.Site]uint64  // at which epoch a site has it deployed, by its newest state
	handed   map[coordinator.JobID]string                // the savepoint of the last hand-over
	reigns   map[string]coordinator.Reign                // the greatest with which a session was opened
	sessions map[string]mesh.Site                        // whose the session of a feed is, by what was handed over or taken
	lost     map[string]map[int]bool                     // messages that a forced owner has not got
}

// Together makes the judges of some sites one court: what a job did at one site
// counts at the other. Call it before anything happens.
func Together(w *world.World, all ...*Judge) *Sites {
	s := &Sites{w: w, judges: all, tokens: make(map[coordinator.JobID]dataflow.FencingToken), deployed: make(map[coordinator.JobID]map[mesh.Site]uint64),
		handed: make(map[coordinator.JobID]string), reigns: make(map[string]coordinator.Reign), sessions: make(map[string]mesh.Site), lost: make(map[string]map[int]bool)}
	for _, j := range all {
		a := all[0]
		j.sites = s
		j.barriers, j.complete, j.newest, j.begun = a.barriers, a.complete, a.newest, a.begun
		j.snapshots, j.actors, j.published = a.snapshots, a.actors, a.published
	}
	return s
}

// applied judges an entry that a site's first agent has applied.
func (s *Sites) applied(j *Judge, c *coordinator.Command, st *coordinator.State) {
	if d := c.JobDeployed; d != nil {
		t := st.Jobs[d.Job].Token(st.Site)
		if was, ok := s.tokens[d.Job]; ok && !was.Less(t) && !s.Erred {
			s.w.Fail(9, "fencing tokens do not ascend: job %s is deployed at site %s with %v, and was with %v", d.Job, st.Site, t, was)
		}
		s.tokens[d.Job] = t
	}
	if m := c.Move; m != nil {
		s.moved(j, m, st)
	}
	if o := c.JobFailedOver; o != nil {
		s.failedOver(j, o, st)
	}
	for id, job := range st.Jobs {
		s.owns(id, job, st.Site)
	}
}

// owns: 9, no job is deployed at two sites.
func (s *Sites) owns(id coordinator.JobID, job *coordinator.Job, at mesh.Site) {
	if s.deployed[id] == nil {
		s.deployed[id] = make(map[mesh.Site]uint64)
	}
	delete(s.deployed[id], at)
	if !job.Deployed() {
		return
	}
	s.deployed[id][at] = job.Epoch
	for _, o := range slices.Sorted(maps.Keys(s.deployed[id])) {
		if o != at && !s.Erred && (!s.Forced || o != s.gone && at != s.gone) { // what is on record of a lost site is old
			s.w.Fail(9, "two owners: job %s is %s at site %s at epoch %d, and deployed at site %s at epoch %d", id, job.Status, at, job.Epoch, o, s.deployed[id][o])
		}
	}
}

func (s *Sites) moved(j *Judge, m *coordinator.MoveCommand, st *coordinator.State) {
	switch {
	case m.Decided != nil && m.Decided.HandedOver:
		d := st.Moves.Departures[m.Decided.ID]
		s.handed[d.Job] = d.Savepoint
		s.w.Tell("site %s hands job %s over with %s", st.Site, d.Job, d.Savepoint)
	case m.ArrivalPrepared != nil:
		s.prepared(j, st.Moves.Arrivals[m.ArrivalPrepared.ID], st)
	case m.ArrivalDecided != nil:
		arr := st.Moves.Arrivals[m.ArrivalDecided.ID]
		s.w.Tell("site %s: move %s is %s", st.Site, arr.ID, arr.Phase)
		if arr.Phase == coordinator.ArrivalActive {
			s.active(arr, st)
		}
	case m.Halting != nil:
		s.w.Tell("site %s: move %s is halting", st.Site, m.Halting.ID)
	case m.Offered != nil:
		s.w.Tell("site %s: move %s is offered with %s, ends %v", st.Site, m.Offered.ID, m.Offered.Savepoint, m.Offered.Ends)
	}
}

// prepared: 9, each part of S is on the disks that are said to have it, and all
// members of the logs have everything up to E.
func (s *Sites) prepared(j *Judge, arr *coordinator.Arrival, st *coordinator.State) {
	s.w.Tell("site %s: move %s is prepared with %s", st.Site, arr.ID, arr.Savepoint.Name)
	m, err := manifest.Decode(arr.Savepoint.Manifest)
	if err != nil {
		s.w.Fail(9, "the manifest of %s cannot be read: %v", arr.Savepoint.Name, err)
		return
	}
	copies := make(map[store.Digest][]mesh.NodeID)
	for _, k := range arr.Savepoint.Copies {
		copies[k.Part] = k.Nodes
	}
	for _, p := range manifest.Needed(m) {
		s.has(j, arr, p, copies[p.Digest])
	}
	for _, e := range arr.Ends {
		name := e.Feed
		for i := range arr.Job.Feeds {
			if m := &arr.Job.Feeds[i]; m.Name == e.Feed {
				name = arr.Job.NameAt(m, arr.From, st.Site, arr.ID)
			}
		}
		f := st.Feeds[name]
		if f == nil {
			s.w.Fail(9, "move %s is prepared, and there is no feed %s", arr.ID, name)
			return
		}
		for _, id := range f.Log.Members {
			if l := s.w.Node(id).Disk.Logs[name]; l == nil || l.End() < e.End {
				s.w.Fail(9, "move %s is prepared, and the log of feed %s is not on %s up to %d", arr.ID, name, id, e.End)
			}
		}
	}
}

func (s *Sites) has(j *Judge, arr *coordinator.Arrival, p store.Part, nodes []mesh.NodeID) {
	if len(nodes) == 0 {
		s.w.Fail(9, "move %s is prepared, and nobody has part %s", arr.ID, p.Digest)
	}
	for _, id := range nodes {
		n := s.w.Node(id)
		if n.Place != string(j.site()) || n.Disk.Parts[p.Digest] == nil {
			s.w.Fail(9, "move %s is prepared, and agent %s has not part %s of %s on disk", arr.ID, id, p.Digest, arr.Savepoint.Name)
		}
	}
}

// active: 9, the job begins with what was handed over.
func (s *Sites) active(arr *coordinator.Arrival, st *coordinator.State) {
	s.Overs++
	s.Forced = s.Forced || arr.Forced
	id := arr.Job.ID
	handed, ok := s.handed[id]
	switch n := st.Jobs[id].Newest(); {
	case !ok && !arr.Forced:
		s.w.Fail(9, "site %s takes job %s, and site %s has not handed it over", st.Site, id, arr.From)
	case ok && (n == nil || n.Name != handed):
		s.w.Fail(9, "site %s is to go on with job %s from %v, and %s was handed over", st.Site, id, n, handed)
	}
	for _, f := range arr.Job.Feeds {
		if !f.Stay {
			s.sessions[s.origin(f.Name)] = st.Site
		}
	}
}

// failedOver: a job goes on from what is kept at another site, which may be less
// than there was.
func (s *Sites) failedOver(j *Judge, c *coordinator.JobFailedOver, st *coordinator.State) {
	s.Overs++
	s.Forced = true
	s.gone = c.From
	job := st.Jobs[c.Job]
	n := job.Newest()
	if n == nil || c.From != st.Site && n.Name != c.Snapshot {
		s.w.Fail(9, "job %s is taken with %v, and %s was complete at site %s", c.Job, n, c.Snapshot, st.Site)
		return
	}
	s.w.Tell("site %s takes job %s of site %s with %s", st.Site, c.Job, c.From, n.Name)
	j.newest[c.Job] = n.ID
	for name, f := range st.Feeds {
		if (f.Job == c.Job || slices.Contains(job.Reads, name)) && f.Mirror == nil {
			s.sessions[name] = st.Site
		}
	}
}

// Met ends what a person's error excuses: each site knows what the other one has, and
// one has the job.
func (s *Sites) Met(owner *coordinator.Job) {
	s.Erred = false
	if n := owner.Newest(); n != nil {
		s.judges[0].newest[owner.ID] = n.ID // it is all judges'
	}
}

// Session is the site whose a feed's session is.
func (s *Sites) Session(feed string) mesh.Site { return s.sessions[s.origin(feed)] }

// origin is the name of a feed where its session is, whatever a mirror is called. A
// mirror has a session of its own under its name once its job was taken from a site that
// is lost.
func (s *Sites) origin(feed string) string {
	for s != nil && s.sessions[feed] == "" {
		at := strings.LastIndex(feed, ".at.")
		if at < 0 {
			break
		}
		feed = feed[:at]
	}
	return feed
}

// begins: a log goes on at a site with its copy. 9, nothing that was acknowledged at
// any site is missing, unless a person forced it.
func (s *Sites) begins(feed string, log *coordinator.LogEpoch) {
	acked := int64(0)
	for _, o := range s.judges {
		acked = max(acked, o.acked[feed])
	}
	if log.Start >= acked {
		return
	}
	if !s.Forced {
		s.w.Fail(9, "the session of feed %s goes on at %d with epoch %d of its log, and %d records were acknowledged", feed, log.Start, log.Epoch, acked)
		return
	}
	if s.lost[feed] == nil {
		s.lost[feed] = make(map[int]bool)
	}
	for _, n := range s.w.Nodes { // what any copy elsewhere has behind it is lost
		if l := n.Disk.Logs[feed]; l != nil && !slices.Contains(log.Members, n.ID) {
			for _, r := range l.Entries[min(log.Start, l.End()):] {
				s.lost[feed][r.Number] = true
			}
		}
	}
	for _, o := range s.judges {
		o.acked[feed] = min(o.acked[feed], log.Start)
	}
}

// Connects: 9, nobody opens a session for a log that is held or a mirror, or that is
// another site's, or when another site has gone on with it.
func (j *Judge) Connects(node mesh.NodeID, site mesh.Site, feed string, e *coordinator.LogEpoch) {
	if e.Held || e.Mirror != nil {
		j.w.Fail(9, "agent %s opens a session of feed %s in epoch %d, which has none", node, feed, e.Epoch)
		return
	}
	s := j.sites
	if s == nil {
		return
	}
	if s.Session(feed) == "" {
		s.sessions[feed] = site
	}
	if its := s.Session(feed); its != site && !s.Erred {
		j.w.Fail(9, "agent %s opens the session of feed %s at site %s, and it is site %s's", node, feed, site, its)
	}
	mine := coordinator.Reign{Epoch: 1, Site: site}
	if e.Reign != nil {
		mine = *e.Reign
	}
	was, ok := s.reigns[feed]
	if ok && !s.Erred && (mine.Epoch < was.Epoch || mine.Epoch == was.Epoch && mine.Site != was.Site) {
		j.w.Fail(9, "agent %s opens the session of feed %s for epoch %d of the job at site %s, and it was opened for epoch %d at site %s", node, feed, mine.Epoch, mine.Site, was.Epoch, was.Site)
	}
	if !ok || was.Epoch < mine.Epoch {
		s.reigns[feed] = mine
	}
}

// acts: 9, nothing of a job acts at a site when it has begun to at another one with
// a greater token.
func (s *Sites) acts(j *Judge, node mesh.NodeID, what string, ref coordinator.AttemptRef) {
	if last := j.begun[ref.Job]; last.Site != ref.Token.Site && ref.Token.Less(last) && !s.Erred {
		s.w.Fail(9, "agent %s %s for attempt %v of job %s, and attempt %v has begun at another site", node, what, ref.Token, ref.Job, last)
	}
}

// starts: 9, no attempt that may act begins while one of another site may: what is
// begun without a lease is judged when it acts.
func (s *Sites) starts(a Actor, others []Actor) {
	for _, o := range others {
		if o.Ref.Token.Site != a.Ref.Token.Site && o.Lease.Err() == nil && a.Lease.Err() == nil && !s.Erred {
			s.w.Fail(9, "two owners: agent %s begins %v, and agent %s has a lease and acts for %v", a.Node, a.Ref.Token, o.Node, o.Ref.Token)
		}
	}
}

// published notes when rows come out, and which come again.
func (s *Sites) published(times int) {
	now := s.w.Now()
	if s.First == 0 {
		s.First, s.Last = now, now
	}
	s.Longest, s.Last = max(s.Longest, now-s.Last), now
	if times > 1 {
		s.Repeated++
	}
}

// site of this judge.
func (j *Judge) site() mesh.Site { return j.state().Site }

// with is the judge of the site that has the session of a feed.
func (j *Judge) with(feed string) *Judge {
	if s := j.sites; s != nil {
		for _, o := range s.judges {
			if o.site() == s.Session(feed) {
				return o
			}
		}
	}
	return j
}

// Mirrors: 1, 2, all copies of the logs of mirrors that a job reads here are as the log
// is where the session is.
func (j *Judge) Mirrors(job *coordinator.Job) {
	name := FeedOf(job)
	f := j.state().Feeds[name]
	if f == nil || f.Mirror == nil {
		return
	}
	own := j.log(name)
	for _, id := range f.Log.Members {
		l := j.w.Node(id).Disk.Logs[name]
		if l == nil || len(l.Entries) != len(own) {
			j.w.Fail(1, "the copy of the mirror %s on %s is not as long as the log, with %d", name, id, len(own))
			return
		}
		for i, r := range l.Entries {
			if r.Number != own[i].Number || r.Lane != own[i].Lane {
				j.w.Fail(2, "the copy of the mirror %s on %s has message %d at %d, and the log has %d", name, id, r.Number, i, own[i].Number)
				return
			}
		}
	}
}

// Beside: 2 of a job that a person has forced: every row that follows from the log is
// in a file, and the files of the site that has it hold no other, and none twice.
// What the other site has written stands beside, and so does what a site had written that
// was lost and has the job again.
func (j *Judge) Beside(job *coordinator.Job, path string, oracle Oracle) {
	want := oracle(j.log(FeedOf(job)))
	all := j.filesOf(job, path, nil)
	here := j.filesOf(job, path, func(n *world.Node) bool { return n.Place == string(j.site()) })
	for _, r := range slices.Sorted(maps.Keys(want)) {
		if all[r] == 0 {
			j.w.Fail(2, "row %s is in no file %s, of any site:%s", r, path, j.filesText(job, path))
			return
		}
	}
	for _, r := range slices.Sorted(maps.Keys(here)) {
		if here[r] > want[r] && (here[r] > 1 || j.site() != j.sites.gone) {
			j.w.Fail(2, "row %s is %d times in the files %s of site %s, and %d are right", r, here[r], path, j.site(), want[r])
			return
		}
	}
}

// elsewhere tells whether a message is in a log of a feed that counts no more: two sites
// had its session.
func (s *Sites) elsewhere(feed string, message int, members []mesh.NodeID) bool {
	for _, n := range s.w.Nodes {
		l := n.Disk.Logs[feed]
		if l != nil && !slices.Contains(members, n.ID) && slices.ContainsFunc(l.Entries, func(r world.Record) bool { return r.Number == message }) {
			return true
		}
	}
	return false
}

// Lost says how many messages that were acknowledged are in no log any more.
func (s *Sites) Lost() (n int) {
	for _, l := range s.lost {
		n += len(l)
	}
	return n
}
