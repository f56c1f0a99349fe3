package leader

import (
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A job that is on its way here is restored where it is going to run, from what of
// it was fetched: when it comes, only what has changed since is missing. Nothing
// depends on it. If the job is deployed at other places, or an agent has forgotten,
// it is restored as any job.
//
// The places are chosen when the first snapshot is here, and again when one of their
// agents is not usable any more or its slots were given to another job; the job gets
// them when it is deployed, if they are free. Each agent is asked for each snapshot,
// and once more when it has said Hello. A new leader chooses anew: the agents let go
// what another one asked for.

// warmth is what agents were asked to restore of a job that arrives.
type warmth struct {
	run    *jobRun // the job as it is going to be, for its text
	places schedule.Placement
	used   map[mesh.NodeID]int    // slots
	told   map[mesh.NodeID]string // nil: nobody; the snapshot that each was asked for last
	tried  string                 // the snapshot for which there was no room

	done  map[mesh.NodeID]string // the snapshot that each has restored
	since dataflow.Time          // when what was fetched last was
	of    string                 // its name
	waits bool                   // the source has not heard of it
}

// warmLimit is how long a snapshot that was fetched counts as not here because it is
// not restored: a machine that is slow holds a move up, and no more.
const warmLimit = 10 * dataflow.Second

// awaited tells whether a checkpoint that was fetched is to be restored before the
// source hears that it is here: it would stop the job, and have it wait for that. What
// the job is stopped with does not wait.
func (l *Leader) awaited(m *moveRun, s *coordinator.Snapshot) bool {
	w := &m.warm
	if w.of != s.Name {
		w.of, w.since = s.Name, l.now
	}
	w.waits = false
	if m.arrival.Phase != coordinator.ArrivalReceiving || !strings.HasPrefix(s.Name, "chk-") || l.now >= w.since.Add(warmLimit) {
		return false
	}
	l.warm(m)
	for node := range w.used {
		w.waits = w.waits || w.done[node] != s.Name
	}
	return w.waits
}

// late: it is waited for no more.
func (w *warmth) late(now dataflow.Time) bool { return w.waits && now >= w.since.Add(warmLimit) }

// heardWarmed: an agent has restored a snapshot early.
func (l *Leader) heardWarmed(node mesh.NodeID, said *coordinator.Warmed) {
	for id, m := range l.moving.runs {
		if m.job == said.Job && m.warm.told[node] == said.Name {
			if m.warm.done == nil {
				m.warm.done = make(map[mesh.NodeID]string)
			}
			m.warm.done[node] = said.Name
			l.markMove(id)
		}
	}
}

// warm has an arriving job restored early.
func (l *Leader) warm(m *moveRun) {
	arr, kept := m.arrival, l.st.Replicas[m.job]
	if l.st.Level < coordinator.GoesOnLevel || m.target == nil || arr == nil || arr.Phase.Decided() || kept == nil || kept.Moving != m.id || kept.Restorable() == nil || !l.settled() {
		return // what there is the agents let go by themselves
	}
	w, name := &m.warm, kept.Snapshot.Name
	if !l.roomy(w) && w.tried != name {
		l.warmPlaces(m, arr, name)
	}
	for _, node := range sorted(w.told) {
		if w.used[node] == 0 {
			l.send(node, coordinator.ToAgent{Warm: &coordinator.Warm{Index: l.st.Index, Move: m.id, Job: m.job}})
			delete(w.told, node)
		}
	}
	for _, node := range sorted(w.used) {
		if w.told[node] != name {
			if w.told == nil {
				w.told = make(map[mesh.NodeID]string)
			}
			w.told[node] = name
			l.send(node, coordinator.ToAgent{Warm: &coordinator.Warm{Index: l.st.Index, Move: m.id, Job: m.job, Name: name, Places: w.places}})
		}
	}
}

// roomy tells whether the places that were chosen can still be had.
func (l *Leader) roomy(w *warmth) bool {
	for _, node := range sorted(w.used) {
		if a := l.st.Agents[node]; a == nil || !l.usable(node) || a.Slots-l.marks.used[node] < w.used[node] {
			return false
		}
	}
	return len(w.used) > 0
}

// warmPlaces chooses places for an arriving job; there may be none.
func (l *Leader) warmPlaces(m *moveRun, arr *coordinator.Arrival, name string) {
	w, j := &m.warm, arr.Job.As(arr.Epoch)
	was := w.places
	w.places, w.used, w.tried = nil, nil, name
	if w.run == nil {
		w.run = l.newRun(j)
	}
	p, err := l.parse(w.run, j)
	if err != nil {
		return
	}
	here := *p
	here.Feeds = slices.Clone(p.Feeds)
	owners := make(map[dataflow.OperatorID]mesh.NodeID)
	for i, use := range here.Feeds {
		k := slices.IndexFunc(arr.Job.Feeds, func(f coordinator.MovingFeed) bool { return f.Name == use.Feed })
		if k < 0 {
			return
		}
		here.Feeds[i].Feed = arr.Job.NameAt(&arr.Job.Feeds[k], arr.From, l.cfg.Site, arr.ID)
		f := l.st.Feeds[here.Feeds[i].Feed]
		if f == nil || !l.usable(f.Log.Owner) {
			return
		}
		owners[use.Source] = f.Log.Owner
	}
	j.Places, w.run.used = was, l.reserved(m.job)
	if places, why := l.place(w.run, j, &here, owners); why == "" {
		w.places, w.used, w.tried = places, schedule.Used(here.Slots, places), ""
		if !slices.Equal(was, places) {
			for node := range w.used { // it begins anew there
				delete(w.told, node)
				delete(w.done, node)
			}
		}
	}
}

// warmAt is where a job that has just arrived was restored early.
func (l *Leader) warmAt(id coordinator.JobID) []coordinator.Place {
	for _, move := range sorted(l.moving.runs) {
		if m := l.moving.runs[move]; m.job == id && m.target != nil && len(m.warm.places) > 0 {
			return m.warm.places
		}
	}
	return nil
}

// chilled: an agent has begun a new stream, and may have heard nothing, or be
// another process.
func (l *Leader) chilled(node mesh.NodeID) {
	for id, m := range l.moving.runs {
		if _, told := m.warm.told[node]; told {
			delete(m.warm.told, node)
			delete(m.warm.done, node)
			l.markMove(id)
		}
	}
}
