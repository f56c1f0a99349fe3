package leader

import (
	"fmt"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// deploy begins the next attempt of a job that has none, as soon as it may: its
// time has come, nothing of the last one can act any more, its feeds have owners,
// and there is room.
func (l *Leader) deploy(r *jobRun, j *coordinator.Job) {
	stops := j.Then != dataflow.GoOn && j.Move == "" && !drained(j) // else its last output would be lost: nothing else can go on from there
	if stops && (j.Status == coordinator.Created || r.stopNow) {
		l.become(r, coordinator.Stopped, "it did not run when it was told to stop, so there is no savepoint; "+again(j), "")
		return
	}
	if l.now < r.at || !l.settled() {
		return
	}
	p, err := l.parse(r, j)
	if err != nil {
		l.become(r, coordinator.Failed, err.Error(), "")
		return
	}
	from, err := l.goesOnFrom(j)
	if err != nil {
		l.become(r, coordinator.Failed, err.Error(), "")
		return
	}
	if j.Isolated {
		l.isolated(r, j, p)
		return
	}
	if h, is := l.rival(j); is {
		l.claimed(j, h)
		return
	}
	l.overdue(r)
	if why, soon := l.unclosed(r, j, p); why != "" {
		if !soon {
			l.waits(r, j, why)
		}
		return
	}
	owners, why := l.owners(j, p)
	var places schedule.Placement
	if r.moves = nil; why == "" {
		if places, why = l.place(r, j, p, owners); why != "" {
			r.moves = l.elsewhere(r, j, p)
		}
	}
	switch {
	case why != "" && stops:
		l.become(r, coordinator.Stopped, "it could not run any more to take a savepoint: "+why+"; "+again(j), "")
	case why != "":
		l.waits(r, j, why)
	default:
		r.busy, r.placing = true, places
		c := &coordinator.JobDeployed{Job: r.id, Attempt: l.st.NextAttempt(j), Term: l.cfg.Term, Places: places, From: from}
		l.propose(coordinator.Command{JobDeployed: c}, func(err error) {
			if r.placing = nil; err == nil {
				r.restart.Started(l.now)
				r.own = c.Attempt
			}
			l.decided(r, err)
		})
	}
}

// again says from what a job that has no savepoint can be started again.
func again(j *coordinator.Job) string {
	switch n := j.Newest(); {
	case n != nil:
		return fmt.Sprintf("it can be started again from its last checkpoint, %s/%s", j.ID, n.Name)
	case j.Begin != "":
		return "it has no checkpoint, and can be started again from " + j.Begin + ", as it was"
	}
	return "it has no checkpoint, and can only be started afresh"
}

// goesOnFrom is what the next attempt goes on from.
func (l *Leader) goesOnFrom(j *coordinator.Job) (string, error) {
	if n := j.Newest(); n != nil {
		return n.Name, nil
	}
	if j.Begin == "" {
		return "", nil
	}
	s := l.st.Snapshot(j, j.Begin)
	if s == nil {
		return "", fmt.Errorf("%s, with which it is to begin, is not there any more", j.Begin)
	}
	m, err := manifest.Decode(s.Manifest)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s, with which it is to begin: %w", j.Begin, err)
	case m.Drained:
		return "", fmt.Errorf("%s, with which it is to begin, was drained: its input was ended, and windows that were open have fired; take one that was stopped without drain", j.Begin)
	}
	return j.Begin, nil
}

// fenced tells whether everything that a zombie of the last attempt could do on a
// node is refused by tokens, or needs agents that have gone over to the next
// attempt.
func (l *Leader) fenced(r *jobRun, j *coordinator.Job, p *Parsed, node mesh.NodeID) bool {
	for _, use := range p.Feeds {
		if f := l.st.Feeds[use.Feed]; f == nil || len(f.Log.Members) < 2 {
			return false
		}
	}
	if len(p.Unfenced) == 0 {
		return true
	}
	// Where its sinks were is known if it had the subtasks that the job has now: the
	// same ones have the same operators.
	last := newAttempt(r.left, j.Places)
	if j.Attempt != r.left.Token.Attempt || !p.fits(last) {
		return false
	}
	return !slices.ContainsFunc(j.Places, func(at coordinator.Place) bool { return at.Node == node && p.Unfenced[at.Subtask.Task] })
}

// unclosed says which agent may still act for the last attempt; soon if that will
// pass by itself. Who is there closes it and says so; who is lost cannot act when
// its lease has ended. Where tokens refuse what it would do, nobody waits for one
// that is lost, and not long for others.
func (l *Leader) unclosed(r *jobRun, j *coordinator.Job, p *Parsed) (why string, soon bool) {
	late := l.now >= r.overAt.Add(l.cfg.Timing.Lease)
	for _, node := range sorted(r.closing) {
		if l.safe(node) || (l.away(node) || late) && l.fenced(r, j, p, node) {
			continue
		}
		return fmt.Sprintf("agent %s has not ended attempt %d", l.name(node), r.left.Token.Attempt), !late || l.away(node)
	}
	return "", false
}

// mayAct is until when an agent may still act for the last attempt, as it has neither
// ended nor closed it; 0: none may.
func (l *Leader) mayAct(r *jobRun) (until dataflow.Time) {
	for node, at := range r.closing {
		if at < coordinator.PhaseEnded && !l.safe(node) {
			until = max(until, l.safeAt(node))
		}
	}
	return until
}

// overdue takes the lease from agents that are there and do not end the last
// attempt: when it has run out they cannot act, for this job or another.
func (l *Leader) overdue(r *jobRun) {
	if len(r.closing) == 0 || l.now < r.overAt.Add(l.cfg.Timing.Close) {
		return
	}
	for _, node := range sorted(r.closing) {
		if g := l.agents[node]; g != nil && g.there && !g.debts[r.left] {
			g.debts[r.left] = true
			l.touch(node)
			l.tell("agent %s has not ended attempt %d of job %s in %v: it gets no lease until it has", l.name(node), r.left.Token.Attempt, l.st.Jobs[r.id].Name, l.cfg.Timing.Close)
		}
	}
}

// owners are the agents that own the logs of a job's feeds, by source.
func (l *Leader) owners(j *coordinator.Job, p *Parsed) (map[dataflow.OperatorID]mesh.NodeID, string) {
	owners := make(map[dataflow.OperatorID]mesh.NodeID)
	for _, use := range p.Feeds {
		f, run := l.st.Feeds[use.Feed], l.feeds[use.Feed]
		switch {
		case f == nil:
			return nil, fmt.Sprintf("feed %s is not there", use.Feed)
		case f.Log.Epoch == 0 || f.Log.Held || !l.usable(f.Log.Owner) || run.epoch > f.Log.Epoch:
			if run.why != "" {
				return nil, run.why
			}
			return nil, fmt.Sprintf("feed %s gets an owner", use.Feed)
		}
		owners[use.Source] = f.Log.Owner
	}
	return owners, ""
}

// place finds room for a job.
func (l *Leader) place(r *jobRun, j *coordinator.Job, p *Parsed, owners map[dataflow.OperatorID]mesh.NodeID) (schedule.Placement, string) {
	before := j.Places
	if len(before) == 0 {
		before = l.warmAt(j.ID)
	}
	req := schedule.Request{Site: l.cfg.Site, Agents: l.free(r), Memory: schedule.SlotMemory, Before: before, Avoid: sorted(r.slow), Apart: l.pairs()}
	near := near(j, p)
	for _, s := range p.Slots {
		var slot schedule.Slot
		for _, t := range s.Subtasks {
			t.Near = near[t.ID]
			for _, use := range p.Feeds {
				if owner := owners[use.Source]; owner != "" && l.readsLanes(use, t.ID) {
					t.Pin, t.PinWhy = owner, "feed "+use.Feed
				}
			}
			slot.Subtasks = append(slot.Subtasks, t)
		}
		req.Slots = append(req.Slots, slot)
	}
	places, why := schedule.Place(req)
	if len(why) > 0 {
		return nil, why[0]
	}
	return places, ""
}

// elsewhere says where the logs of a job's own feeds would have to be owned, so
// that there is room for it.
func (l *Leader) elsewhere(r *jobRun, j *coordinator.Job, p *Parsed) map[string]mesh.NodeID {
	moves, owners := make(map[string]mesh.NodeID), make(map[dataflow.OperatorID]mesh.NodeID)
	places, _ := l.place(r, j, p, nil)
	for _, use := range p.Feeds {
		f := l.st.Feeds[use.Feed]
		owners[use.Source] = f.Log.Owner
		for _, place := range places {
			if f.Job == r.id && l.readsLanes(use, place.Subtask) && place.Node != f.Log.Owner {
				moves[use.Feed], owners[use.Source] = place.Node, place.Node
			}
		}
	}
	if _, why := l.place(r, j, p, owners); why != "" {
		return nil // it would be no better there
	}
	return moves
}

// readsLanes tells whether a subtask of a source has lanes of its feed. It runs
// where the log is owned; others may run anywhere.
func (l *Leader) readsLanes(use FeedUse, s dataflow.SubtaskID) bool {
	f := l.st.Feeds[use.Feed]
	if f == nil || dataflow.TaskID(use.Source) != s.Task {
		return false
	}
	n := lanes(f)
	return n == 0 || s.Index < n
}

// free are the agents that something can be given to, and their free slots.
func (l *Leader) free(r *jobRun) []schedule.Agent {
	var agents []schedule.Agent
	for _, node := range sorted(l.st.Agents) {
		if a := l.st.Agents[node]; l.usable(node) {
			used, memory := l.marks.used[node]-r.used[node], int64(math.MaxInt64)
			if a.Memory > 0 { // else it was admitted, and has not said what it has
				memory = a.Memory - int64(used)*schedule.SlotMemory
			}
			agents = append(agents, schedule.Agent{Node: node, Name: a.Name, Labels: a.Labels, Slots: a.Slots - used, Memory: memory})
		}
	}
	return agents
}

// near says who has how much of each subtask's state on disk, as long as it has
// as many subtasks as then.
func near(j *coordinator.Job, p *Parsed) map[dataflow.SubtaskID][]schedule.Near {
	n := j.Newest()
	if n == nil {
		return nil
	}
	m, err := manifest.Decode(n.Manifest)
	if err != nil {
		return nil
	}
	nodes := make(map[store.Digest][]mesh.NodeID)
	for _, c := range n.Copies {
		nodes[c.Part] = c.Nodes
	}
	near := make(map[dataflow.SubtaskID][]schedule.Near)
	for _, o := range m.Operators {
		task, _ := p.Graph.Job.Task(o.ID)
		if task == nil || task.Parallelism != o.Parallelism {
			continue
		}
		for _, t := range o.Tables {
			for _, s := range t.Shards {
				id := dataflow.SubtaskID{Task: task.ID, Index: s.Subtask}
				for _, part := range s.Parts {
					for _, node := range nodes[part.Digest] {
						near[id] = append(near[id], schedule.Near{Node: node, Bytes: part.Size})
					}
				}
			}
		}
	}
	return near
}
