package leader

import (
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// due marks that for which the time has come.
func (l *Leader) due() {
	for {
		s, ok := l.wakes.due(l.now)
		if !ok {
			return
		}
		switch s.kind {
		case theSite:
			l.marks.site = true
		case aFeed:
			l.marks.feeds[s.name] = true
		case aJob:
			l.marks.jobs[coordinator.JobID(s.name)] = true
		case theCopies:
			l.marks.copies = true
		case aMove:
			l.markMove(coordinator.MoveID(s.name))
		case aProbe:
			l.probedInVain(s.name)
		case aReplica:
			l.mark(mesh.Site(s.name))
		case anAgent:
			switch a := l.agents[mesh.NodeID(s.name)]; {
			case !a.lost && l.now >= l.silentAt(a):
				l.lose(a, "it is silent")
			case a.lost && !a.forsaken && l.now >= l.forsakenAt(a):
				a.forsaken = true
				l.markAllCopies()
			default:
				l.silence(a)
			}
		}
	}
}

// look looks at all that is marked, until nothing is.
func (l *Leader) look() {
	m := &l.marks
	for m.site || m.room || m.copies || len(m.feeds) > 0 || len(m.jobs) > 0 {
		if m.site {
			m.site = false
			l.lookAtSite()
		}
		if m.room {
			m.room = false
			maps.Copy(m.jobs, m.waiting)
			maps.Copy(m.feeds, m.wanting)
		}
		for _, name := range take(m.feeds) {
			if r := l.feeds[name]; r != nil {
				l.lookAtFeed(r)
			}
		}
		for _, id := range take(m.jobs) {
			if r := l.jobs[id]; r != nil {
				l.lookAtJob(r)
			}
		}
		if m.copies {
			m.copies = false
			l.lookAtCopies()
		}
	}
}

// take empties a set and returns what was in it, in order.
func take[K ~string](set map[K]bool) []K {
	all := sorted(set)
	clear(set)
	return all
}

// lookAtSite does what concerns no job alone.
func (l *Leader) lookAtSite() {
	l.level()
	at := dataflow.MaxTime
	if settled := l.start.Add(l.cfg.Timing.Lease); !l.marks.calm {
		if l.marks.calm = l.now >= settled || len(l.marks.unheard) == 0; l.marks.calm {
			l.markAll()
			l.markFetches("") // what is whole is so from now on
		} else {
			at = settled
		}
	}
	if l.retry > l.now {
		at = min(at, l.retry)
	}
	before := len(l.apart)
	l.forgetPair(func(p schedule.Pair) bool { return !l.parted(p[0], p[1]) })
	l.marks.room = l.marks.room || len(l.apart) < before
	for _, since := range l.apart {
		at = min(at, since.Add(l.cfg.Timing.Apart))
	}
	l.wakes.set(subject{kind: theSite}, at)
}

func (l *Leader) markAll() {
	l.marks.copies = true
	for name := range l.feeds {
		l.marks.feeds[name] = true
	}
	for id := range l.jobs {
		l.marks.jobs[id] = true
	}
}

// lookAtFeed decides on a feed, and notes what it depends on from now on.
func (l *Leader) lookAtFeed(r *feedRun) {
	why, epoch := r.why, r.epoch
	l.decideFeed(r)
	if r.why != why || r.epoch != epoch {
		l.markReaders(r.name)
	}
	f := l.st.Feeds[r.name]
	nodes := holders(f)
	for node := range r.to {
		if !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	l.hosts(r, nodes)
	if l.wants(r, f) {
		l.marks.wanting[r.name] = true
	} else {
		delete(l.marks.wanting, r.name)
	}
	at := dataflow.MaxTime
	soon := func(t dataflow.Time) {
		if t > l.now {
			at = min(at, t)
		}
	}
	soon(r.retry)
	soon(r.asked.Add(l.cfg.Timing.Silence))
	for _, t := range r.away {
		soon(t.Add(l.cfg.Timing.Replace))
	}
	l.wakes.set(subject{aFeed, r.name}, at)
}

// wants tells whether agents that are no members of a log, or the room of its job,
// may matter to it.
func (l *Leader) wants(r *feedRun, f *coordinator.Feed) bool {
	if !l.feedLives(f) {
		return false
	}
	if j := l.st.Jobs[f.Job]; j != nil && !j.Deployed() {
		return true
	}
	return f.Log.Epoch == 0 || r.epoch > 0 || r.why != "" || r.bring != "" || len(r.bad) > 0 || len(r.away) > 0 ||
		len(f.Log.Members) < l.wanted(f) || slices.ContainsFunc(f.Log.Members, func(n mesh.NodeID) bool { return !l.usable(n) })
}

// hosts notes the agents on which a feed depends.
func (l *Leader) hosts(r *feedRun, nodes []mesh.NodeID) {
	for _, node := range r.hosts {
		leave(l.marks.feedsOn, node, r.name)
	}
	r.hosts = nodes
	for _, node := range nodes {
		enter(l.marks.feedsOn, node, r.name)
	}
}

// lookAtJob decides on a job, and notes what it depends on from now on.
func (l *Leader) lookAtJob(r *jobRun) {
	moves := r.moves
	l.decide(r)
	j := l.st.Jobs[r.id]
	if !maps.Equal(moves, r.moves) {
		for _, name := range r.feeds {
			l.marks.feeds[name] = true
		}
	}
	l.askOwners(r, j)
	l.account(r, j)
	l.index(r)
	l.wakes.set(subject{aJob, string(r.id)}, l.jobWake(r))
}

// jobWake is when something may change for a job by time alone.
func (l *Leader) jobWake(r *jobRun) dataflow.Time {
	at := dataflow.MaxTime
	soon := func(t dataflow.Time) {
		if t > l.now {
			at = min(at, t)
		}
	}
	for _, t := range []dataflow.Time{r.at, r.retry, r.owning.next, r.overAt.Add(l.cfg.Timing.Lease), r.overAt.Add(l.cfg.Timing.Close)} {
		soon(t)
	}
	for node := range r.closing {
		soon(l.safeAt(node))
	}
	if a := r.attempt; a != nil {
		soon(a.sealedAt.Add(l.cfg.Timing.Finish))
		if a.phase == gathering {
			soon(a.since.Add(l.cfg.Timing.Prepare))
		}
		if a.coordinator != nil {
			soon(a.coordinator.Wake())
		}
		for _, node := range a.nodes {
			if g := l.agents[node]; g != nil && len(g.debts) > 0 {
				soon(l.safeAt(node))
			}
		}
	}
	return at
}

// account notes which slots a job has, or is to have.
func (l *Leader) account(r *jobRun, j *coordinator.Job) {
	places := r.placing
	if j.Deployed() {
		places = j.Places
	}
	if was := r.deployed; was != j.Deployed() {
		r.deployed = !was
		for _, name := range r.feeds {
			l.marks.feeds[name] = true
		}
		l.marks.room = true
	}
	if r.deployed {
		delete(l.marks.waiting, r.id)
	} else {
		l.marks.waiting[r.id] = true
	}
	if len(places) == 0 && len(r.used) == 0 || len(places) > 0 && r.usedFor != nil && &places[0] == r.usedFor && r.parallel == j.Parallelism {
		return
	}
	var used map[mesh.NodeID]int
	if r.usedFor = nil; len(places) > 0 {
		if p, err := l.parse(r, j); err == nil {
			used, r.usedFor = schedule.Used(p.Slots, places), &places[0]
		}
	}
	l.uses(r, used)
}

// uses sets what a job has of the agents' slots.
func (l *Leader) uses(r *jobRun, used map[mesh.NodeID]int) {
	if maps.Equal(used, r.used) {
		return
	}
	for node, n := range r.used {
		if l.marks.used[node] -= n; l.marks.used[node] == 0 {
			delete(l.marks.used, node)
		}
	}
	for node, n := range used {
		l.marks.used[node] += n
	}
	r.used, l.marks.room = used, true
	l.markMoves("") // what arrives may have lost its room
}

// index notes the agents and feeds on which a job depends.
func (l *Leader) index(r *jobRun) {
	if r.parsed != nil && len(r.feeds) != len(r.parsed.Feeds) {
		for _, use := range r.parsed.Feeds {
			enter(l.marks.readers, use.Feed, r.id)
			r.feeds = append(r.feeds, use.Feed)
		}
	}
	depends := func(node mesh.NodeID) bool {
		_, closing := r.closing[node]
		return closing || r.suspect.peer == node || r.attempt != nil && r.attempt.parts[node] != nil
	}
	for node := range r.hosts {
		if !depends(node) {
			leave(l.marks.jobsOn, node, r.id)
			delete(r.hosts, node)
		}
	}
	on := func(node mesh.NodeID) {
		if node != "" && !r.hosts[node] {
			r.hosts[node] = true
			enter(l.marks.jobsOn, node, r.id)
		}
	}
	for node := range r.closing {
		on(node)
	}
	on(r.suspect.peer)
	if r.attempt != nil {
		for _, node := range r.attempt.nodes {
			on(node)
		}
	}
}

// unmark: nothing is to be done for a job any more.
func (l *Leader) unmark(r *jobRun) {
	for _, name := range r.feeds {
		leave(l.marks.readers, name, r.id)
		l.marks.feeds[name] = true
	}
	for node := range r.hosts {
		leave(l.marks.jobsOn, node, r.id)
	}
	l.uses(r, nil)
	delete(l.marks.waiting, r.id)
	l.marks.room = true
	l.wakes.set(subject{aJob, string(r.id)}, dataflow.MaxTime)
}

// enter and leave keep an index: what stands under a key.
func enter[K, V comparable](index map[K]map[V]bool, key K, v V) {
	if index[key] == nil {
		index[key] = make(map[V]bool)
	}
	index[key][v] = true
}

func leave[K, V comparable](index map[K]map[V]bool, key K, v V) {
	if delete(index[key], v); len(index[key]) == 0 {
		delete(index, key)
	}
}
