package leader

import (
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// phase is what a deployment is at, as the leader sees it.
//
//	gathering  not all agents have said that they are prepared, or run it
//	begun      all have: Begin was sent, and the checkpoints are taken care of
//	finishing  its last checkpoint is complete: Finish was sent
//	over       it failed, or was given up: the job's next status is proposed
//
// and these transitions:
//
//	none       --JobDeployed is applied; a new leader finds it in the state--> gathering
//	gathering  --the last of its agents says prepared, running or ended--> begun
//	begun      --CheckpointDone of the last checkpoint is applied--> finishing
//	gathering, begun --an agent failed it, lost it or is lost; the job was rescaled; too many checkpoints failed--> over
//	any        --the state has another status or attempt--> none
//
// What a new leader finds is gathered like what it deployed: only that agents
// already run it. They are told Begin again if they have missed it, and notice
// nothing else.
type phase uint8

const (
	gathering phase = iota
	begun
	finishing
	over
)

// attempt is the present deployment of a job.
type attempt struct {
	ref   coordinator.AttemptRef
	phase phase
	since dataflow.Time // when this leader began to gather it
	nodes []mesh.NodeID // in order
	parts map[mesh.NodeID]*part
	at    map[dataflow.SubtaskID]mesh.NodeID

	coordinator *checkpoint.Coordinator // from when the state says that it runs
	barrier     uint64                  // the greatest counter that anybody has seen
	current     dataflow.Barrier        // that shares are collected of; zero: none
	triggered   dataflow.Time           // when
	shares      map[dataflow.SubtaskID]*coordinator.Stored
	exhausted   map[dataflow.SubtaskID]bool
	held        *held                                        // a checkpoint that waits for commits; nil: none
	commits     []*coordinator.Committed                     // that are not proposed yet
	committing  bool                                         // a SinkCommitted is proposed
	recorded    map[dataflow.SubtaskID]dataflow.CheckpointID // the last commit of each that the state has
	stopping    bool                                         // the coordinator knows that the job is to stop
	asks        map[int]ask                                  // wishes by the coordinator's refs
	asked       int
	sealedAt    dataflow.Time // when Finish was sent
}

// part is a deployment on one agent.
type part struct {
	phase    coordinator.Phase // 0: nothing was heard of it in this term
	prepared *coordinator.Prepared
}

func newAttempt(ref coordinator.AttemptRef, places []coordinator.Place) *attempt {
	a := &attempt{
		ref: ref, parts: make(map[mesh.NodeID]*part), at: make(map[dataflow.SubtaskID]mesh.NodeID), sealedAt: dataflow.MinTime,
		shares: make(map[dataflow.SubtaskID]*coordinator.Stored), exhausted: make(map[dataflow.SubtaskID]bool), asks: make(map[int]ask),
		recorded: make(map[dataflow.SubtaskID]dataflow.CheckpointID),
	}
	for _, p := range places {
		a.at[p.Subtask] = p.Node
		if a.parts[p.Node] == nil {
			a.parts[p.Node] = &part{}
		}
	}
	a.nodes = sorted(a.parts)
	return a
}

// ready tells whether all agents are prepared, or further.
func (a *attempt) ready() bool {
	for _, p := range a.parts {
		if p.prepared == nil || p.phase < coordinator.PhasePrepared || p.phase == coordinator.PhaseGone {
			return false
		}
	}
	return true
}

// facts are those of all subtasks, in the order of agents.
func (a *attempt) facts() (all []coordinator.PreparedSubtask, moved bool) {
	for _, node := range a.nodes {
		p := a.parts[node].prepared
		all = append(all, p.Subtasks...)
		moved = moved || p.Moved
	}
	return all, moved
}

// sources are the agents that put barriers into the streams.
func (a *attempt) sources() []mesh.NodeID {
	var nodes []mesh.NodeID
	for _, node := range a.nodes {
		if slices.ContainsFunc(a.parts[node].prepared.Subtasks, func(s coordinator.PreparedSubtask) bool { return s.Source }) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// present tells whether an attempt is the one that its job is to have.
func (l *Leader) present(ref coordinator.AttemptRef) bool {
	r := l.jobs[ref.Job]
	return r != nil && r.attempt != nil && r.attempt.ref == ref
}

// begin lets rows flow: everybody is prepared, so nobody's rows are lost.
func (l *Leader) beginAttempt(a *attempt) {
	a.phase = begun
	for _, node := range a.nodes {
		l.sendBegin(a, node)
	}
}

// sendBegin is for an agent that has not begun.
func (l *Leader) sendBegin(a *attempt, node mesh.NodeID) {
	if a.parts[node].phase != coordinator.PhasePrepared {
		return
	}
	all, moved := a.facts()
	l.send(node, coordinator.ToAgent{Begin: &coordinator.Begin{AttemptRef: a.ref, Subtasks: all, Moved: moved}})
}

// sendOver asks an agent to say when nothing of an attempt is left there: it may be
// one that never knew of it.
func (l *Leader) sendOver(node mesh.NodeID, ref coordinator.AttemptRef) {
	l.send(node, coordinator.ToAgent{Over: &coordinator.Over{AttemptRef: ref}})
}

// remind says again what an agent may not have heard before its stream broke.
func (l *Leader) remind(node mesh.NodeID) {
	for _, id := range sorted(l.marks.jobsOn[node]) {
		a := l.jobs[id].attempt
		if a == nil || a.parts[node] == nil || a.phase == over || a.phase == gathering {
			continue
		}
		l.sendBegin(a, node)
		if a.current.ID.Counter > 0 && slices.Contains(a.sources(), node) {
			l.send(node, coordinator.ToAgent{Trigger: &coordinator.Trigger{AttemptRef: a.ref, Barrier: a.current}})
		}
		if a.phase == finishing {
			l.send(node, coordinator.ToAgent{Finish: &coordinator.Finish{AttemptRef: a.ref}})
		}
	}
	for _, name := range sorted(l.marks.feedsOn[node]) {
		l.seal(l.feeds[name], node)
	}
}

// inventory compares what an agent says it has of a job with what it should have.
func (l *Leader) inventory(r *jobRun, g *agent, h *coordinator.Hello) {
	find := func(ref coordinator.AttemptRef) *coordinator.AttemptNow {
		for i := range h.Attempts {
			if h.Attempts[i].AttemptRef == ref {
				return &h.Attempts[i]
			}
		}
		return nil
	}
	if n := find(r.left); n == nil || n.Phase == coordinator.PhaseGone {
		if _, was := r.closing[g.node]; n == nil && was {
			l.sendOver(g.node, r.left) // its state may be behind, and still lead up to it
		}
		delete(r.closing, g.node)
		if n != nil && n.Failed != nil {
			l.excused(r, g.node, n.Failed)
		}
	}
	a := r.attempt
	if a == nil || a.parts[g.node] == nil {
		return
	}
	p, n := a.parts[g.node], find(a.ref)
	switch {
	case n == nil && p.phase == 0 && l.st.Jobs[r.id].Status == coordinator.Restoring: // it does not know of it yet
	case n == nil:
		p.phase = coordinator.PhaseGone
		l.fail(r, fmt.Sprintf("agent %s was restarted", l.name(g.node)), false)
	case n.Phase == coordinator.PhaseGone:
		p.phase = coordinator.PhaseGone
		f := n.Failed
		if f == nil {
			f = &coordinator.AttemptFailed{AttemptRef: n.AttemptRef}
		}
		l.suspect(r, g.node, f)
		at := l.now
		if f.Peer != "" { // what broke is the peer's silence
			at = l.silentSince(f.Peer)
		}
		l.failSince(r, l.whyFailed(g.node, f), f.Final, at)
	default:
		p.phase, p.prepared = n.Phase, n.Prepared
		a.barrier = max(a.barrier, n.Barrier)
		for _, s := range n.Exhausted {
			l.exhausted(r, s)
		}
		for i := range n.Committed {
			l.committed(r, &n.Committed[i])
		}
	}
}

// heardFailed: nothing of an attempt is left on an agent.
func (l *Leader) heardFailed(g *agent, f *coordinator.AttemptFailed) {
	if g.debts[f.AttemptRef] {
		delete(g.debts, f.AttemptRef)
		l.touch(g.node)
	}
	r := l.jobs[f.Job]
	if r == nil {
		return
	}
	if r.left == f.AttemptRef {
		delete(r.closing, g.node)
		l.markMoves(r.id)
	}
	l.excused(r, g.node, f)
	if a := r.attempt; a != nil && a.ref == f.AttemptRef && a.parts[g.node] != nil {
		a.parts[g.node].phase = coordinator.PhaseGone
		l.suspect(r, g.node, f)
		l.fail(r, l.whyFailed(g.node, f), f.Final)
	}
}

// unsent: the agent would wait for ever, and so would the next attempt's.
func (l *Leader) unsent(u *Unsent) {
	var ref coordinator.AttemptRef
	switch m := &u.Message; {
	case m.Begin != nil:
		ref = m.Begin.AttemptRef
	case m.Trigger != nil:
		ref = m.Trigger.AttemptRef
	case m.Finish != nil:
		ref = m.Finish.AttemptRef
	}
	why := fmt.Sprintf("agent %s cannot be told what it needs to know: %v", l.name(u.To), u.Err)
	if r := l.jobs[ref.Job]; r != nil && r.attempt != nil && r.attempt.ref == ref {
		l.fail(r, why, true)
		return
	}
	l.tell("%s", why)
}

func (l *Leader) whyFailed(node mesh.NodeID, f *coordinator.AttemptFailed) string {
	what := "agent " + l.name(node)
	if f.Subtask.Task != "" {
		what = fmt.Sprintf("subtask %s on %s", f.Subtask, what)
	}
	why := f.Why
	if why == "" {
		why = "it was closed there"
	}
	return what + ": " + why
}

// heardOfAttempt is what an agent says of the present attempt; of others it is of
// no account, but for what was committed.
func (l *Leader) heardOfAttempt(g *agent, m *coordinator.ToLeader) {
	find := func(ref coordinator.AttemptRef) (*jobRun, *attempt, *part) {
		if r := l.jobs[ref.Job]; r != nil && r.attempt != nil && r.attempt.ref == ref && r.attempt.parts[g.node] != nil {
			return r, r.attempt, r.attempt.parts[g.node]
		}
		return nil, nil, nil
	}
	switch {
	case m.Prepared != nil:
		if _, _, p := find(m.Prepared.AttemptRef); p != nil && p.phase < coordinator.PhasePrepared {
			p.phase, p.prepared = coordinator.PhasePrepared, m.Prepared
		}
	case m.Ended != nil:
		if _, _, p := find(m.Ended.AttemptRef); p != nil && p.phase < coordinator.PhaseEnded {
			p.phase = coordinator.PhaseEnded
		}
	case m.Stored != nil:
		if r, a, _ := find(m.Stored.AttemptRef); a != nil && a.at[m.Stored.Subtask] == g.node {
			l.stored(r, m.Stored)
		}
	case m.NotStored != nil:
		if r, a, _ := find(m.NotStored.AttemptRef); a != nil {
			l.notStored(r, m.NotStored)
		}
	case m.Exhausted != nil:
		if r, a, _ := find(m.Exhausted.AttemptRef); a != nil {
			l.exhausted(r, m.Exhausted.Subtask)
		}
	case m.Committed != nil:
		if r, a, _ := find(m.Committed.AttemptRef); a != nil {
			l.committed(r, m.Committed)
		}
	case m.Flowed != nil:
		if r, _, _ := find(m.Flowed.AttemptRef); r != nil {
			l.flowed(r, m.Flowed)
		}
	}
}
