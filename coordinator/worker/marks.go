package worker

import (
	"cmp"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// marks are what a Step compares with the state: what has changed there, and
// what an event is about. All else is as it was when it was compared last.
type marks struct {
	jobs       map[coordinator.JobID]bool
	feeds      map[string]bool
	savepoints bool
	failing    map[string]bool // logs that are left alone until a time
}

func newMarks() marks {
	return marks{jobs: make(map[coordinator.JobID]bool), feeds: make(map[string]bool), failing: make(map[string]bool)}
}

// sync marks what has changed in the state.
func (w *Worker) sync(st *coordinator.State, changed jobmanager.Changed) {
	m := &w.marks
	if changed.All {
		w.markAll(st)
	}
	for _, c := range changed.Names {
		switch c.What {
		case jobmanager.Job:
			id := coordinator.JobID(c.Name)
			m.jobs[id] = true
			if j := st.Jobs[id]; j == nil || j.Status.Ended() { // its feeds rest
				for name := range w.logs {
					m.feeds[name] = true
				}
			}
		case jobmanager.Replica: // what is kept of a job
			m.jobs[coordinator.JobID(c.Name)] = true
		case jobmanager.Feed:
			m.feeds[c.Name] = true
		case jobmanager.Savepoint:
			m.savepoints = true
		case jobmanager.Leader, jobmanager.Site, jobmanager.Level, jobmanager.Agent, jobmanager.Token, jobmanager.Move:
		}
	}
}

// markAll marks all that there is here or in the state.
func (w *Worker) markAll(st *coordinator.State) {
	m := &w.marks
	m.savepoints = true
	mark(m.jobs, st.Jobs)
	mark(m.jobs, st.Replicas)
	mark(m.jobs, w.attempts)
	mark(m.jobs, w.gone)
	mark(m.jobs, w.lost)
	mark(m.jobs, w.kept)
	mark(m.jobs, w.found)
	mark(m.feeds, st.Feeds)
	mark(m.feeds, w.logs)
}

func mark[K comparable, V any](marks map[K]bool, what map[K]V) {
	for k := range what {
		marks[k] = true
	}
}

// told marks what a message of the leader is about.
func (m *marks) told(t *coordinator.ToAgent) {
	switch {
	case t.Begin != nil:
		m.jobs[t.Begin.Job] = true
	case t.Trigger != nil:
		m.jobs[t.Trigger.Job] = true
	case t.Finish != nil:
		m.jobs[t.Finish.Job] = true
	case t.Over != nil:
		m.jobs[t.Over.Job] = true
	case t.Seal != nil:
		m.feeds[t.Seal.Feed] = true
	}
}

// said marks what the executor says something of.
func (m *marks) said(e *LogEvent) {
	switch {
	case e.Opened != nil:
		m.feeds[e.Opened.Feed] = true
	case e.Sealed != nil:
		m.feeds[e.Sealed.Feed] = true
	case e.InSync != nil:
		m.feeds[e.InSync.Feed] = true
	case e.OutOfSync != nil:
		m.feeds[e.OutOfSync.Feed] = true
	case e.Failed != nil:
		m.feeds[e.Failed.Feed] = true
	}
}

// reconcile compares what is marked with the state, and does what is missing.
func (w *Worker) reconcile(st *coordinator.State) {
	m := &w.marks
	for name := range m.failing {
		if w.now >= w.logs[name].again {
			m.feeds[name] = true
		}
	}
	jobs, feeds := sorted(m.jobs), sorted(m.feeds)
	clear(m.jobs)
	clear(m.feeds)
	w.reconcileAttempts(st, jobs)
	w.reconcileLogs(st, feeds)
	for _, name := range feeds {
		if l := w.logs[name]; l != nil && l.again != dataflow.MaxTime {
			m.failing[name] = true
		} else {
			delete(m.failing, name)
		}
	}
	if st.Index > 0 {
		w.reconcileKept(st, jobs)
		w.reconcileCopies(st)
		w.reconcileWarm(st)
	}
}

// reconcileKept says which snapshots are kept of whom, where that has changed.
func (w *Worker) reconcileKept(st *coordinator.State, jobs []coordinator.JobID) {
	var all []*Kept
	if w.marks.savepoints { // first: what is said of a job lets go what is held for it up to there
		w.marks.savepoints = false
		var savepoints []*coordinator.Snapshot
		for _, name := range sorted(st.Savepoints) {
			savepoints = append(savepoints, st.Savepoints[name])
		}
		all = w.keep(all, "", savepoints)
	}
	for _, id := range jobs {
		if st.Jobs[id] != nil || st.Replicas[id] != nil {
			all = w.keep(all, id, st.Kept(id))
		}
	}
	for _, id := range jobs {
		if _, said := w.kept[id]; id == "" || !said && !w.found[id] || st.Jobs[id] != nil || st.Replicas[id] != nil {
			continue
		}
		if coming(st, id) {
			w.marks.jobs[id] = true // what the move becomes does not say of which job it is
			continue
		}
		delete(w.kept, id)
		delete(w.found, id)
		all = append(all, &Kept{Job: id})
	}
	for i, k := range all {
		k.More = i < len(all)-1
		w.put(Effect{Kept: k})
	}
}

// coming tells whether a job is on its way here: what is fetched for it may be on this
// disk before the state has a copy of the job.
func coming(st *coordinator.State, id coordinator.JobID) bool {
	for _, arr := range st.Moves.Arrivals {
		if arr.Job.ID == id && !arr.Phase.Decided() {
			return true
		}
	}
	return false
}

// finds marks the jobs that had a folder on this disk at the start. Other names, as
// of jobs that one process ran alone in this folder, are none of the site's.
func (w *Worker) finds(folders []string) {
	for _, name := range folders {
		id := coordinator.JobID(name)
		if _, _, ok := id.Parts(); ok {
			w.found[id], w.marks.jobs[id] = true, true
		}
	}
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
