package leader

import (
	"maps"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A Step looks at what its event touches, and at nothing else: its cost does not
// grow with the site. What is to be looked at is marked, by these rules:
//
//	a job    it changed in the state; an agent speaks of its attempt; a command of it is
//	         applied or refused; an agent that it is placed on, or that has not ended its
//	         last attempt, is lost, comes back, has debts or has none any more; a feed that
//	         it reads changed, or waits for something else; its time has come
//	a feed   it changed in the state; an agent speaks of its log; a command of it is applied
//	         or refused; one of its members is lost, comes back, …; a job that reads it is
//	         deployed, or is not any more; the site's agents are others; its time has come
//	copies   a job or a savepoint changed in the state; an agent was taken out, is lost for
//	         long, comes, or speaks of copies; the time of the next has come (copies.go)
//	a replica  it changed in the state; a log that its job reads has come further; as copies;
//	         its site answers or is reached; its time has come. A question to its site, once
//	         a second, and the answer, name all jobs of that site, and look at those
//	what waits or wants   also when there may be room: an agent comes or goes, a job gives slots back or
//	         takes them, two agents are kept apart or not any more
//
// Marks that come while something is looked at are looked at in the same Step. So
// after each Step a look at everything would find nothing to do; the tests
// look.
type marks struct {
	jobs   map[coordinator.JobID]bool
	feeds  map[string]bool
	room   bool // who waits for room, or wants an agent, is looked at
	site   bool // what concerns no job and no feed alone
	copies bool

	waiting map[coordinator.JobID]bool                 // jobs that are not deployed
	wanting map[string]bool                            // feeds that are not as they should be
	readers map[string]map[coordinator.JobID]bool      // jobs by the feeds that they read
	jobsOn  map[mesh.NodeID]map[coordinator.JobID]bool // jobs by the agents on which they depend
	feedsOn map[mesh.NodeID]map[string]bool
	used    map[mesh.NodeID]int  // slots that jobs have
	unheard map[mesh.NodeID]bool // agents of the site that are neither there nor lost
	calm    bool                 // all agents have had time to say that they are there
}

func newMarks() marks {
	return marks{
		jobs: make(map[coordinator.JobID]bool), feeds: make(map[string]bool), site: true, waiting: make(map[coordinator.JobID]bool),
		wanting: make(map[string]bool), readers: make(map[string]map[coordinator.JobID]bool), used: make(map[mesh.NodeID]int),
		unheard: make(map[mesh.NodeID]bool), jobsOn: make(map[mesh.NodeID]map[coordinator.JobID]bool), feedsOn: make(map[mesh.NodeID]map[string]bool),
	}
}

// sync makes what is known of agents, jobs and feeds follow the state.
func (l *Leader) sync(changed jobmanager.Changed) {
	if changed.All {
		changed.Names = l.everything()
		l.markAllCopies()
	}
	l.news = len(changed.Names) > 0
	for _, c := range changed.Names {
		switch c.What {
		case jobmanager.Agent:
			l.syncAgent(mesh.NodeID(c.Name))
		case jobmanager.Job:
			l.syncJob(coordinator.JobID(c.Name))
			l.markCopies(snapshotRef{job: coordinator.JobID(c.Name)})
			l.markMoves(coordinator.JobID(c.Name))
		case jobmanager.Feed:
			l.syncFeed(c.Name)
			l.markMoves("")
		case jobmanager.Savepoint: // a job may be to begin with it
			l.marks.room = true
			l.markCopies(snapshotRef{name: c.Name})
		case jobmanager.Replica:
			l.syncReplica(coordinator.JobID(c.Name))
		case jobmanager.Level:
			l.marks.site = true
			l.markAllCopies()
			l.markSites()
			for name := range l.feeds { // which of them are held may be otherwise now
				l.marks.feeds[name] = true
			}
		case jobmanager.Leader, jobmanager.Site:
			l.marks.site = true
		case jobmanager.Move:
			l.markMove(coordinator.MoveID(c.Name))
		case jobmanager.Token: // the API's
		}
	}
}

// everything names all that the state has, and all that is known here.
func (l *Leader) everything() []jobmanager.Change {
	all := []jobmanager.Change{{What: jobmanager.Leader}}
	for _, node := range sorted(l.st.Agents) {
		all = append(all, jobmanager.Change{What: jobmanager.Agent, Name: string(node)})
	}
	for _, id := range sorted(l.st.Jobs) {
		all = append(all, jobmanager.Change{What: jobmanager.Job, Name: string(id)})
	}
	for _, id := range sorted(l.jobs) {
		if l.st.Jobs[id] == nil {
			all = append(all, jobmanager.Change{What: jobmanager.Job, Name: string(id)})
		}
	}
	for _, name := range sorted(l.st.Feeds) {
		all = append(all, jobmanager.Change{What: jobmanager.Feed, Name: name})
	}
	for _, name := range sorted(l.feeds) {
		if l.st.Feeds[name] == nil {
			all = append(all, jobmanager.Change{What: jobmanager.Feed, Name: name})
		}
	}
	for _, id := range sorted(l.st.Moves.Departures) {
		all = append(all, jobmanager.Change{What: jobmanager.Move, Name: string(id)})
	}
	for _, id := range sorted(l.st.Moves.Arrivals) {
		all = append(all, jobmanager.Change{What: jobmanager.Move, Name: string(id)})
	}
	for _, id := range sorted(l.moving.runs) {
		all = append(all, jobmanager.Change{What: jobmanager.Move, Name: string(id)})
	}
	for _, id := range sorted(l.st.Replicas) {
		all = append(all, jobmanager.Change{What: jobmanager.Replica, Name: string(id)})
	}
	for _, id := range sorted(l.replicating.index) {
		if l.st.Replicas[id] == nil {
			all = append(all, jobmanager.Change{What: jobmanager.Replica, Name: string(id)})
		}
	}
	for _, node := range sorted(l.agents) {
		if l.st.Agents[node] == nil {
			all = append(all, jobmanager.Change{What: jobmanager.Agent, Name: string(node)})
		}
	}
	return all
}

func (l *Leader) syncAgent(node mesh.NodeID) {
	if l.st.Agents[node] != nil {
		l.agent(node)
	} else {
		l.copierGone(node)
		l.markAllCopies()
		for name := range l.feeds {
			l.forgetMirror(name)
		}
	}
	l.touch(node)
	l.marks.site = true
	for name := range l.feeds { // their copies depend on how many agents there are, and on their labels
		l.marks.feeds[name] = true
	}
}

func (l *Leader) syncJob(id coordinator.JobID) {
	r, j := l.jobs[id], l.st.Jobs[id]
	switch {
	case j == nil && r == nil:
		l.forgetJob(id)
		return
	case j == nil:
		l.forgetJob(id)
		l.ended(r, nil)
		return
	case r == nil && j.Status.Ended():
		return
	case r == nil:
		r = l.newRun(j)
		l.jobs[id] = r
	}
	was := r.seen
	if l.follow(r, j); l.jobs[id] != nil {
		if was != nil && (was.Isolated != j.Isolated || was.Status != j.Status) {
			for _, name := range r.feeds { // they may be to have a session, or none
				l.marks.feeds[name] = true
			}
		}
		l.marks.jobs[id] = true
		l.account(r, j)
		l.index(r)
	}
}

// forgetJob: the state does not have it any more.
func (l *Leader) forgetJob(id coordinator.JobID) {
	delete(l.copying.replicas, id)
	if l.st.Replicas[id] == nil {
		delete(l.heard, id)
	}
}

// syncReplica: what is kept of a job of another site changed.
func (l *Leader) syncReplica(id coordinator.JobID) {
	r := l.st.Replicas[id]
	if r == nil || r.Next == nil {
		delete(l.copying.fetched, id)
	}
	if r == nil {
		delete(l.copying.next, id)
		delete(l.copying.replicas, id)
		if l.st.Jobs[id] == nil {
			delete(l.heard, id)
		}
	}
	l.indexReplica(id)
	l.markCopies(snapshotRef{job: id})
	l.markFetch(id)
	l.markMoves(id)
}

// markSites has all other sites looked at.
func (l *Leader) markSites() {
	for site := range l.replicating.sites {
		l.mark(site)
	}
	for site := range l.moving.reached {
		l.mark(site)
	}
}

func (l *Leader) syncFeed(name string) {
	l.forgetMirror(name)
	f := l.st.Feeds[name]
	if r := l.feeds[name]; r != nil && (f == nil || f.Made != r.made) {
		l.hosts(r, nil)
		delete(l.feeds, name)
		delete(l.marks.wanting, name)
		l.wakes.set(subject{aFeed, name}, dataflow.MaxTime)
	}
	if f != nil && l.feeds[name] == nil {
		l.feeds[name] = &feedRun{name: name, made: f.Made, ends: make(map[mesh.NodeID]int64), away: make(map[mesh.NodeID]dataflow.Time), retry: dataflow.MinTime}
	}
	l.marks.feeds[name] = true
	l.markReaders(name)
}

func (l *Leader) markReaders(feed string) { maps.Copy(l.marks.jobs, l.marks.readers[feed]) }

// touch: an agent is lost, there again, in debt or out of it, or is another in the
// state.
func (l *Leader) touch(node mesh.NodeID) {
	l.marks.room = true
	l.markShort()
	l.markMoves("")
	maps.Copy(l.marks.jobs, l.marks.jobsOn[node])
	maps.Copy(l.marks.feeds, l.marks.feedsOn[node])
	a := l.agents[node]
	if a == nil {
		return
	}
	if l.st.Agents[node] != nil && !a.there && !a.lost {
		l.marks.unheard[node] = true
	} else {
		delete(l.marks.unheard, node)
	}
	l.marks.site = l.marks.site || !l.marks.calm
	l.silence(a)
}

// silence sets when an agent that says nothing is lost, and when one that is lost
// is forsaken. What it says makes that later, which is seen when the time has
// come.
func (l *Leader) silence(a *agent) {
	at := dataflow.MaxTime
	switch {
	case !a.lost:
		at = l.silentAt(a)
	case !a.forsaken:
		at = l.forsakenAt(a)
	}
	l.wakes.set(subject{anAgent, string(a.node)}, at)
}

// about marks what a command of this leader decides, when it is known what became
// of it.
func (l *Leader) about(c *coordinator.Command) {
	switch {
	case c.JobDeployed != nil:
		l.marks.jobs[c.JobDeployed.Job] = true
	case c.JobBecame != nil:
		l.marks.jobs[c.JobBecame.Job] = true
	case c.JobClaimed != nil:
		l.marks.jobs[c.JobClaimed.Job] = true
	case c.JobTold != nil:
		l.marks.jobs[c.JobTold.Job] = true
	case c.SinkCommitted != nil:
		l.marks.jobs[c.SinkCommitted.Job] = true
	case c.CheckpointDone != nil && c.CheckpointDone.Checkpoint != nil:
		l.marks.jobs[c.CheckpointDone.Checkpoint.Job] = true
	case c.CheckpointDone != nil:
		l.marks.jobs[c.CheckpointDone.Savepoint.Job] = true
	case c.LogEpochBegun != nil:
		l.marks.feeds[c.LogEpochBegun.Feed] = true
	case c.CopiesChanged != nil:
		l.marks.copies = true
	default:
		l.marks.site = true
	}
}

// said marks what a message of an agent is about.
func (l *Leader) said(m *coordinator.ToLeader) {
	switch {
	case m.Prepared != nil:
		l.marks.jobs[m.Prepared.Job] = true
	case m.Failed != nil:
		l.marks.jobs[m.Failed.Job] = true
	case m.Stored != nil:
		l.marks.jobs[m.Stored.Job] = true
	case m.NotStored != nil:
		l.marks.jobs[m.NotStored.Job] = true
	case m.Exhausted != nil:
		l.marks.jobs[m.Exhausted.Job] = true
	case m.Committed != nil:
		l.marks.jobs[m.Committed.Job] = true
	case m.Flowed != nil:
		l.marks.jobs[m.Flowed.Job] = true
	case m.Ended != nil:
		l.marks.jobs[m.Ended.Job] = true
	case m.Sealed != nil:
		l.marks.feeds[m.Sealed.Feed] = true
	case m.InSync != nil: // its members reach each other
		l.marks.feeds[m.InSync.Feed], l.marks.room = true, true
	case m.OutOfSync != nil:
		l.marks.feeds[m.OutOfSync.Feed] = true
	case m.Copied != nil:
		l.marks.copies = true
	}
}
