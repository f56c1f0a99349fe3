package worker

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Worker is what one process of an agent knows. Not safe for concurrent use.
type Worker struct {
	cfg  Config
	self mesh.NodeID
	now  dataflow.Time
	link link
	// behind: this process does not know yet that the state here is as new as what
	// the leader had when it granted the first lease. Until then nothing is
	// prepared, owned or deleted: an old state may say that this agent owns what
	// has long been another's.
	behind   bool
	attempts map[coordinator.JobID]*attempt // at most one a job
	gone     map[coordinator.JobID]*coordinator.AttemptFailed
	leaving  bool                        // Leave was told
	lost     map[coordinator.JobID]files // of jobs of which files of sinks are here, as last seen
	logs     map[string]*feedLog
	doing    map[string]*doing                             // by feed: what the executor has not done yet, or has a session open
	kept     map[coordinator.JobID][]*coordinator.Snapshot // as last said; of savepoints under the empty id
	// found are jobs that had a folder on this disk at the start, until it was said that
	// nothing is kept of them. kept is of this process alone, and a job may have been
	// forgotten before it began, or before its folder was removed.
	found    map[coordinator.JobID]bool
	copies   copies
	warms    map[coordinator.JobID]*warm
	warmTerm uint64 // of the leader who asked for them
	marks    marks
	effects  []Effect
}

// New makes the worker of a process.
func New(cfg Config) *Worker {
	w := &Worker{
		cfg: cfg, self: cfg.Agent.Node, behind: true, attempts: make(map[coordinator.JobID]*attempt), lost: make(map[coordinator.JobID]files), logs: make(map[string]*feedLog), doing: make(map[string]*doing), marks: newMarks(),
		gone: make(map[coordinator.JobID]*coordinator.AttemptFailed), kept: make(map[coordinator.JobID][]*coordinator.Snapshot), found: make(map[coordinator.JobID]bool), warms: make(map[coordinator.JobID]*warm),
		copies: copies{lacks: make(map[snapshotRef]*coordinator.Copied)},
		link:   link{sent: make(map[uint64]dataflow.Time), beat: dataflow.MaxTime, dial: dataflow.MaxTime, until: dataflow.MinTime, lease: dataflow.MinTime},
	}
	w.finds(cfg.Folders)
	return w
}

// Step takes one event and returns what must be done, in order. st is the
// replicated state of this agent, as it is now; it is not kept, but what its
// pointers lead to is. changed is what is not as it was at the last Step.
func (w *Worker) Step(st *coordinator.State, changed jobmanager.Changed, e Event) []Effect {
	w.effects, w.now = nil, max(w.now, e.Now)
	w.link.term = max(w.link.term, st.Term)
	w.sync(st, changed)
	switch {
	case e.Leader != nil:
		w.led(*e.Leader)
	case e.Connected != nil:
		w.connected(st, *e.Connected)
	case e.Message != nil:
		w.message(st, e.Message)
	case e.Attempt != nil:
		w.attemptSays(st, e.Attempt)
	case e.Log != nil:
		w.marks.said(e.Log)
		w.logSays(e.Log)
	case e.Copied != nil:
		w.copied(e.Copied)
	case e.Warmed != nil:
		w.say(coordinator.ToLeader{Warmed: e.Warmed})
	case e.Probed != nil:
		w.say(coordinator.ToLeader{Probed: e.Probed})
	case e.Leave:
		w.leave(st)
	case e.Beat && w.link.up:
		w.link.beat = w.now
	case e.Unsent != nil:
		w.unsent(e.Unsent)
	}
	w.tick(st)
	w.behind = w.behind && (w.link.granted == 0 || st.Index < w.link.granted)
	if !w.behind {
		w.reconcile(st)
	}
	w.act(st)
	return w.effects
}

// Wake is when a tick is wanted; MaxTime: not until something else happens. It is
// always later than the last Step: what was due then and could not be done waits
// for another event.
func (w *Worker) Wake() dataflow.Time {
	at := dataflow.MaxTime
	soon := func(t dataflow.Time) {
		if t > w.now {
			at = min(at, t)
		}
	}
	soon(w.link.beat)
	soon(w.link.dial)
	for name := range w.marks.failing {
		soon(w.logs[name].again)
	}
	return at
}

func (w *Worker) put(e Effect) { w.effects = append(w.effects, e) }

// say tells the leader something, if it is there. Who comes later learns it from
// Hello and from what repeat says after it.
func (w *Worker) say(m coordinator.ToLeader) {
	if w.link.up {
		w.put(Effect{Send: &m})
	}
}

// message is what the leader says. That of an older term says nothing any more.
func (w *Worker) message(st *coordinator.State, m *coordinator.ToAgent) {
	if m.Term < w.link.term {
		return
	}
	w.newTerm(m.Term)
	w.marks.told(m)
	switch {
	case m.Granted != nil:
		w.granted(m.Granted)
	case m.Begin != nil:
		w.begin(m.Begin)
	case m.Trigger != nil:
		w.trigger(m.Trigger)
	case m.Finish != nil:
		w.finish(m.Finish)
	case m.Seal != nil:
		w.seal(st, m.Seal)
	case m.Copy != nil:
		w.copies.asked = m.Copy
	case m.Warm != nil:
		w.warm(m.Warm)
	case m.Probe != nil:
		w.put(Effect{Probe: m.Probe})
	case m.Over != nil:
		w.ends(m.Over.AttemptRef)
	case m.Refused != nil:
		w.link.refused = true
	}
}

// keep adds to all what is kept of a job, if that is to be said.
func (w *Worker) keep(all []*Kept, job coordinator.JobID, now []*coordinator.Snapshot) []*Kept {
	if was, said := w.kept[job]; said && slices.Equal(was, now) {
		return all
	}
	w.kept[job] = slices.Clone(now)
	return append(all, &Kept{Job: job, Snapshots: now})
}
