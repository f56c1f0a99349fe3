package leader

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// feedRun is what this term knows of a feed's log.
//
//	resting  the present epoch stands: its owner is there, its members are the best
//	sealing  members were asked to promise epoch `epoch`; sealed has their answers
//	busy     LogEpochBegun is proposed
//
// and these transitions:
//
//	resting --the log was never begun, or is a mirror's that nobody has any more, and there are agents for its copies--> busy
//	resting --the owner is lost; a member is lost and there is another; copies are missing and there is an agent--> sealing
//	resting --the feed is to become a mirror, or to be one no more, or the log here has forked--> sealing
//	resting --a member has promised the next epoch by itself: an owner that was restarted--> sealing
//	resting --the feed is about to leave for another site, or stays after all, or has come: its epoch is held, or is not any more--> sealing
//	sealing --all that were asked and are there have answered, and one has all of the epochs before--> busy
//	busy    --it is applied--> resting
//	busy    --it is refused--> as before
type feedRun struct {
	name   string
	made   uint64 // Feed.Made: of another feed of the name nothing that follows holds
	epoch  uint64 // that is to begin; 0: none
	asked  dataflow.Time
	to     map[mesh.NodeID]bool   // who was asked
	sealed map[mesh.NodeID]int64  // where the log ends on those that have promised
	unfit  map[mesh.NodeID]string // why it cannot start where it ends there
	busy   bool
	retry  dataflow.Time
	ends   map[mesh.NodeID]int64         // of the present epoch, as far as agents said
	bad    map[mesh.NodeID]bool          // members that the owner does not reach, or that cannot write
	away   map[mesh.NodeID]dataflow.Time // members that are lost or bad, since when
	inSync bool                          // all members have everything
	bring  mesh.NodeID                   // who is to own it, because the job has room there; empty: nobody
	why    string                        // for what it waits
	hosts  []mesh.NodeID                 // on which it depends, as marks know it
}

// decideFeed looks whether a log's epoch is as it should be.
func (l *Leader) decideFeed(r *feedRun) {
	f := l.st.Feeds[r.name]
	if r.busy || l.now < r.retry || !l.settled() || !l.feedLives(f) {
		return
	}
	if r.epoch > 0 && r.epoch <= f.Log.Epoch {
		r.epoch, r.to, r.sealed, r.unfit, r.bad = 0, nil, nil, nil, nil
	}
	l.missed(r, f)
	if r.epoch == 0 {
		r.why = ""
	}
	switch {
	case f.Log.Epoch == 0:
		l.firstEpoch(r, f)
	case r.epoch > 0:
		l.nextEpoch(r, f)
	case f.Turned():
		l.leaveOwner(r, f)
	case l.away(f.Log.Owner) || l.spoilt(r, f.Log.Owner):
		l.leaveOwner(r, f)
	case f.Log.Held != l.st.Holds(f) && l.usable(f.Log.Owner): // its session is to end, or to begin again
		l.askSeal(r, f, []mesh.NodeID{f.Log.Owner})
	default:
		l.improve(r, f)
	}
}

// feedLives tells whether anything is to be taken into a log.
func (l *Leader) feedLives(f *coordinator.Feed) bool {
	return !l.st.Rests(f)
}

// missed notes since when members are away.
func (l *Leader) missed(r *feedRun, f *coordinator.Feed) {
	for node := range r.away {
		if !slices.Contains(f.Log.Members, node) {
			delete(r.away, node)
		}
	}
	for _, node := range f.Log.Members {
		_, was := r.away[node]
		switch now := l.away(node) || r.bad[node]; {
		case now && !was:
			r.away[node] = l.now
		case !now:
			delete(r.away, node)
		}
	}
}

// spoilt tells whether a member has been of no use for long enough.
func (l *Leader) spoilt(r *feedRun, node mesh.NodeID) bool {
	since, away := r.away[node]
	return away && l.now >= since.Add(l.cfg.Timing.Replace)
}

// wanted is how many copies a log is to have.
func (l *Leader) wanted(f *coordinator.Feed) int {
	switch {
	case f.Replicas > 0:
		return f.Replicas
	case len(l.st.Agents) >= 2 || len(f.Log.Members) >= 2:
		return 2
	}
	return 1
}

// choose asks schedule for owner and members. end says what each agent has; heirs
// may own the log whatever that is.
func (l *Leader) choose(r *feedRun, f *coordinator.Feed, end func(mesh.NodeID) int64, heirs map[mesh.NodeID]bool, without func(mesh.NodeID) bool) (schedule.FeedChoice, string) {
	req := schedule.FeedRequest{Feed: f.Name, Site: l.cfg.Site, Log: f.Log, Replicas: l.wanted(f)}
	logs := make(map[mesh.NodeID]int)
	for name, o := range l.st.Feeds {
		for _, node := range o.Log.Members {
			if name != f.Name && l.feedLives(o) {
				logs[node]++
			}
		}
	}
	for _, node := range sorted(l.st.Agents) {
		if a := l.st.Agents[node]; l.usable(node) && !without(node) && !l.strange(f, node) {
			req.Agents = append(req.Agents, schedule.FeedAgent{Node: node, Host: a.Host, Labels: a.Labels, Feeds: logs[node], End: end(node), Heir: heirs[node]})
		}
	}
	if why := l.suits(f, &req); why != "" {
		return schedule.FeedChoice{}, why
	}
	return schedule.Owner(req)
}

// strange tells whether the owner of a log did not reach an agent lately that has
// no copy: it would get none.
func (l *Leader) strange(f *coordinator.Feed, node mesh.NodeID) bool {
	return f.Log.Epoch > 0 && l.usable(f.Log.Owner) && !slices.Contains(f.Log.Members, node) && l.parted(f.Log.Owner, node)
}

// suits adds what the job whose feed it is wants: its source runs where the log
// is owned, so there must be room.
func (l *Leader) suits(f *coordinator.Feed, req *schedule.FeedRequest) string {
	r, j := l.jobs[f.Job], l.st.Jobs[f.Job]
	if r == nil || j.Deployed() {
		return ""
	}
	p, err := l.parse(r, j)
	if err != nil {
		return err.Error()
	}
	var source dataflow.OperatorID
	for _, use := range p.Feeds {
		if use.Feed == f.Name {
			source, req.Wants = use.Source, use.Wants
		}
	}
	if f.Log.Epoch == 0 {
		places, why := l.place(r, j, p, nil)
		for _, place := range places {
			if place.Subtask.Task == dataflow.TaskID(source) && place.Subtask.Index == 0 {
				req.Prefer = []mesh.NodeID{place.Node}
			}
		}
		return why
	}
	for _, node := range f.Log.Members {
		if _, why := l.place(r, j, p, map[dataflow.OperatorID]mesh.NodeID{source: node}); why == "" {
			req.Prefer = append(req.Prefer, node)
		}
	}
	return ""
}

// enough fills the members of a choice up with those that are away: until they
// are back nothing is acknowledged. The sentence says why the log cannot go on.
func (l *Leader) enough(f *coordinator.Feed, c *schedule.FeedChoice) string {
	if c.Short == 0 || f.Degrade {
		return ""
	}
	for _, node := range f.Log.Members {
		if c.Short > 0 && l.st.Agents[node] != nil && !slices.Contains(c.Members, node) {
			c.Members = append(c.Members, node)
			c.Short--
		}
	}
	if c.Short > 0 {
		return fmt.Sprintf("feed %s needs %d agents for its copies, and %d are there; when_short: degrade would go on with those", f.Name, l.wanted(f), len(c.Members))
	}
	return ""
}

func (l *Leader) firstEpoch(r *feedRun, f *coordinator.Feed) {
	c, why := l.choose(r, f, func(mesh.NodeID) int64 { return 0 }, nil, func(mesh.NodeID) bool { return false })
	if why == "" {
		why = l.enough(f, &c)
	}
	if r.why = why; why == "" {
		l.beginEpoch(r, f, c, 0)
	}
}

func (l *Leader) beginEpoch(r *feedRun, f *coordinator.Feed, c schedule.FeedChoice, start int64) {
	r.busy = true
	next := coordinator.LogEpoch{Epoch: f.NextEpoch(), Owner: c.Owner, Members: c.Members, Start: start, Held: l.st.Holds(f)}
	l.propose(coordinator.Command{LogEpochBegun: &coordinator.LogEpochBegun{Feed: f.Name, Term: l.cfg.Term, Log: next}}, func(err error) {
		if r.busy = false; err != nil {
			r.retry = l.now.Add(l.cfg.Timing.Retry)
			return
		}
		clear(r.ends)
		r.inSync = false
		l.tell("feed %s: epoch %d of its log is owned by %s, with copies on %s", f.Name, next.Epoch, l.name(next.Owner), l.names(next.Members))
	})
}

func (l *Leader) names(nodes []mesh.NodeID) string {
	var all []string
	for _, n := range nodes {
		all = append(all, l.name(n))
	}
	return strings.Join(all, ", ")
}

// holders are who may have everything that was acknowledged: members, and heirs.
func holders(f *coordinator.Feed) []mesh.NodeID {
	all := slices.Clone(f.Log.Members)
	for _, h := range f.Log.Heirs {
		if !slices.Contains(all, h.Node) {
			all = append(all, h.Node)
		}
	}
	return all
}

// leaveOwner asks all that are there, of use lately or not: who has the whole log
// only they know, and it may be any one of them.
func (l *Leader) leaveOwner(r *feedRun, f *coordinator.Feed) {
	to := slices.DeleteFunc(holders(f), func(node mesh.NodeID) bool { return !l.usable(node) })
	if log := logepoch.Of(f, l.cfg.Site, l.out); len(to) == 0 && l.st.Level >= coordinator.SettledLevel && f.Mirror != nil && logepoch.Anew(&log, l.out) {
		l.beginAnew(r, f)
		return
	}
	if len(to) == 0 {
		r.why = fmt.Sprintf("the log of feed %s is on %s, and none of them is there", f.Name, l.names(f.Log.Members))
		return
	}
	l.askSeal(r, f, to)
}

// beginAnew begins a mirror's next epoch with nothing: nobody has any of it any more.
func (l *Leader) beginAnew(r *feedRun, f *coordinator.Feed) {
	anybody := make(map[mesh.NodeID]bool)
	for node := range l.st.Agents {
		anybody[node] = true
	}
	c, why := l.choose(r, f, func(mesh.NodeID) int64 { return 0 }, anybody, func(mesh.NodeID) bool { return false })
	if why == "" {
		why = l.enough(f, &c)
	}
	if r.why = why; why == "" {
		l.beginEpoch(r, f, c, 0)
	}
}

// out tells whether a node is no agent of the site.
func (l *Leader) out(node mesh.NodeID) bool { return l.st.Agents[node] == nil }

// improve changes members while the owner is there: one that is missing is
// replaced when it was away for long enough, copies that are missing are made. A
// log that would only lose a member keeps it, unless fewer copies are allowed.
func (l *Leader) improve(r *feedRun, f *coordinator.Feed) {
	c, why := l.choose(r, f, func(node mesh.NodeID) int64 {
		if node == f.Log.Owner {
			return max(r.ends[node], f.Log.Start)
		}
		return r.ends[node]
	}, nil, func(node mesh.NodeID) bool { return l.spoilt(r, node) })
	if why != "" || !l.usable(f.Log.Owner) || l.moveLog(r, f) || c.Same(f.Log) {
		return
	}
	more := slices.ContainsFunc(c.Members, func(n mesh.NodeID) bool { return !slices.Contains(f.Log.Members, n) })
	replaces := false
	for _, node := range f.Log.Members {
		if !slices.Contains(c.Members, node) {
			replaces = true
			if !l.spoilt(r, node) && !f.Degrade {
				return
			}
		}
	}
	switch {
	case c.Owner != f.Log.Owner && l.read(f.Name): // it would end jobs that run
	case !more && !(replaces && f.Degrade):
	default:
		l.askSeal(r, f, []mesh.NodeID{c.Owner})
	}
}

// moveLog makes another agent the owner of a log, because the job that reads it
// has no room where it is owned. That one gets a copy first.
func (l *Leader) moveLog(r *feedRun, f *coordinator.Feed) bool {
	run := l.jobs[f.Job]
	if run == nil || run.moves[f.Name] == "" || l.st.Jobs[f.Job].Deployed() {
		r.bring = ""
		return false
	}
	r.bring = run.moves[f.Name]
	switch to := r.bring; {
	case !slices.Contains(f.Log.Members, to):
		l.askSeal(r, f, []mesh.NodeID{f.Log.Owner})
	case r.inSync:
		l.askSeal(r, f, []mesh.NodeID{to})
	}
	return true
}

// read tells whether a job that is deployed reads a feed.
func (l *Leader) read(feed string) bool {
	for id, r := range l.jobs {
		if j := l.st.Jobs[id]; j != nil && j.Deployed() && r.parsed != nil {
			if slices.ContainsFunc(r.parsed.Feeds, func(u FeedUse) bool { return u.Feed == feed }) {
				return true
			}
		}
	}
	return false
}

func (l *Leader) askSeal(r *feedRun, f *coordinator.Feed, to []mesh.NodeID) {
	r.epoch, r.asked = f.Log.Epoch+1, l.now
	r.to, r.sealed, r.unfit = make(map[mesh.NodeID]bool), make(map[mesh.NodeID]int64), make(map[mesh.NodeID]string)
	for _, node := range to {
		r.to[node] = true
		l.seal(r, node)
	}
}

// seal asks a node that has to answer and has not.
func (l *Leader) seal(r *feedRun, node mesh.NodeID) {
	if _, done := r.sealed[node]; r.to[node] && !done {
		l.send(node, coordinator.ToAgent{Seal: &coordinator.Seal{Feed: r.name, Epoch: r.epoch}})
	}
}

// nextEpoch begins the next epoch when those that were asked have answered. Where
// none of them can say where it starts, all members that are there are asked, and
// asked again.
func (l *Leader) nextEpoch(r *feedRun, f *coordinator.Feed) {
	late := l.now >= r.asked.Add(l.cfg.Timing.Silence)
	awaited := func(without func(mesh.NodeID) bool) bool {
		return !late && slices.ContainsFunc(sorted(r.to), func(node mesh.NodeID) bool {
			_, done := r.sealed[node]
			return !done && r.unfit[node] == "" && !l.away(node) && !without(node)
		})
	}
	// Those that were of no use lately, and heirs, are not waited for while others do.
	poor := func(node mesh.NodeID) bool { return l.spoilt(r, node) || !slices.Contains(f.Log.Members, node) }
	if awaited(poor) {
		return
	}
	c, why := l.successor(r, f, func(node mesh.NodeID) bool { return l.spoilt(r, node) })
	if why != "" {
		if awaited(func(mesh.NodeID) bool { return false }) {
			return
		}
		c, why = l.successorOfPoor(r, f)
	}
	if why == "" && r.bring != "" && !slices.Contains(c.Members, r.bring) && l.usable(r.bring) {
		if last := len(c.Members) - 1; last > 0 && c.Members[last] != c.Owner {
			c.Members = c.Members[:last]
		}
		c.Members = append(c.Members, r.bring)
	}
	if why == "" {
		why = l.enough(f, &c)
	}
	if why != "" {
		for _, node := range sorted(r.unfit) {
			why += fmt.Sprintf("; %s: %s", l.name(node), r.unfit[node])
		}
		r.why = why
		others := slices.ContainsFunc(holders(f), func(node mesh.NodeID) bool { return !r.to[node] && l.usable(node) })
		if late || others {
			l.leaveOwner(r, f)
		}
		return
	}
	l.beginEpoch(r, f, c, counts(f, r.sealed[c.Owner]))
}

// successor chooses who owns and copies the next epoch, of those that have
// promised it.
func (l *Leader) successor(r *feedRun, f *coordinator.Feed, without func(mesh.NodeID) bool) (schedule.FeedChoice, string) {
	return l.choose(r, f, func(node mesh.NodeID) int64 {
		if end, ok := r.sealed[node]; ok {
			return counts(f, end)
		}
		return -1 // it has not promised: it cannot own the next, and may copy it
	}, l.ownersOf(r, f), without)
}

// counts is how much counts of what a copy has that ends there: what is behind a
// fork never will.
func counts(f *coordinator.Feed, end int64) int64 {
	if f.Fork != nil {
		return min(end, f.Fork.At)
	}
	return end
}

// ownersOf are those of the sealed who may own the next epoch.
func (l *Leader) ownersOf(r *feedRun, f *coordinator.Feed) map[mesh.NodeID]bool {
	log, ends := logepoch.Of(f, l.cfg.Site, l.out), r.sealed
	if f.Fork != nil {
		log, ends = logepoch.Forked(&log, f.Fork.At), make(map[mesh.NodeID]int64)
		for node, end := range r.sealed {
			ends[node] = counts(f, end)
		}
	}
	owners := logepoch.Owners(&log, ends)
	if l.st.Level >= coordinator.SettledLevel && !slices.ContainsFunc(sorted(owners), func(node mesh.NodeID) bool { return owners[node] && !l.out(node) }) {
		return logepoch.Again(&log, ends, l.out)
	}
	return owners
}

// successorOfPoor is for when all that could own the next epoch were of no use
// lately: they get another chance, the owner of now last.
func (l *Leader) successorOfPoor(r *feedRun, f *coordinator.Feed) (schedule.FeedChoice, string) {
	owners := l.ownersOf(r, f)
	c, why := l.successor(r, f, func(node mesh.NodeID) bool { return l.spoilt(r, node) && (!owners[node] || node == f.Log.Owner) })
	if why != "" {
		c, why = l.successor(r, f, func(node mesh.NodeID) bool { return l.spoilt(r, node) && !owners[node] })
	}
	return c, why
}

// heardSealed: a member has promised, asked or by itself.
func (l *Leader) heardSealed(node mesh.NodeID, s *coordinator.Sealed) {
	r, f := l.feeds[s.Feed], l.st.Feeds[s.Feed]
	if r == nil || s.Epoch != f.Log.Epoch+1 || !slices.Contains(holders(f), node) {
		return
	}
	if r.epoch != s.Epoch {
		if !slices.Contains(f.Log.Members, node) {
			return // the epoch goes on without it
		}
		r.epoch, r.asked = s.Epoch, l.now
		r.to, r.sealed, r.unfit = map[mesh.NodeID]bool{node: true}, make(map[mesh.NodeID]int64), make(map[mesh.NodeID]string)
	}
	if s.Why != "" {
		delete(r.sealed, node)
		r.unfit[node] = s.Why
		return
	}
	delete(r.unfit, node)
	r.sealed[node] = s.End
}

// logNow is what an agent has of a log: what it took of older epochs behind their
// end does not count.
func (l *Leader) logNow(node mesh.NodeID, n *coordinator.LogNow) {
	r, f := l.feeds[n.Feed], l.st.Feeds[n.Feed]
	if r == nil {
		return
	}
	if r.ends[node] = min(n.End, f.Log.Cut(n.Epoch)); n.Epoch > f.Log.Epoch && !n.Sealed {
		r.ends[node] = 0 // it has promised without knowing of the epoch before
	}
	if n.Sealed {
		l.heardSealed(node, &coordinator.Sealed{Feed: n.Feed, Epoch: n.Epoch, End: n.End})
	}
	if n.InSync {
		l.listen(l.agent(node), &coordinator.ToLeader{InSync: &coordinator.InSync{Feed: n.Feed, Epoch: n.Epoch}})
	}
}

// heardInSync: all members have all.
func (l *Leader) heardInSync(node mesh.NodeID, s *coordinator.InSync) {
	r, f := l.feeds[s.Feed], l.st.Feeds[s.Feed]
	if r == nil || s.Epoch != f.Log.Epoch || node != f.Log.Owner {
		return
	}
	r.bad, r.inSync = nil, true
	for _, m := range f.Log.Members {
		delete(l.apart, schedule.PairOf(node, m))
		r.ends[m] = max(r.ends[m], f.Log.Start)
	}
}

func (l *Leader) heardOutOfSync(s *coordinator.OutOfSync) {
	r, f := l.feeds[s.Feed], l.st.Feeds[s.Feed]
	if r == nil || s.Epoch != f.Log.Epoch || !slices.Contains(f.Log.Members, s.Member) {
		return
	}
	if r.bad == nil {
		r.bad = make(map[mesh.NodeID]bool)
	}
	r.bad[s.Member], r.inSync = true, false
	if s.Member != f.Log.Owner && !l.away(s.Member) {
		l.part(f.Log.Owner, s.Member)
	}
	l.tell("feed %s: agent %s is not in step: %s", s.Feed, l.name(s.Member), s.Why)
}
