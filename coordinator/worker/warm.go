package worker

import "github.com/tidemark-mesh/tidemark/coordinator"

// warm is a job on its way here that this agent is to restore before it comes.
//
//	asked     the state here is not as new as the leader's was
//	warm      the executor was told
//
// and these transitions:
//
//	none         --Warm with places--> asked
//	asked        --the state has the job on its way, and the snapshot--> warm
//	warm         --Warm with places: another snapshot--> asked
//	warm         --Prepare: the executor makes use of it, or not--> none
//	asked, warm  --the job comes to others, or not at all; Warm without places; another leader--> none: Cool
type warm struct {
	asked *coordinator.Warm // nil: the executor was told
	move  coordinator.MoveID
	told  bool // the executor has something of it
}

// warm is what the leader wants restored early.
func (w *Worker) warm(m *coordinator.Warm) {
	h := w.warms[m.Job]
	if len(m.Places) == 0 || h != nil && h.move != m.Move {
		w.cool(m.Job)
		h = nil
	}
	switch {
	case len(m.Places) == 0:
	case h == nil:
		w.warms[m.Job] = &warm{asked: m, move: m.Move}
	default:
		h.asked = m
	}
}

// cool lets go what is restored early of a job.
func (w *Worker) cool(id coordinator.JobID) {
	if h := w.warms[id]; h != nil && h.told {
		w.put(Effect{Cool: &id})
	}
	delete(w.warms, id)
}

// newTerm: what is restored early another leader asks for anew, where it wants it.
func (w *Worker) newTerm(term uint64) {
	if term > w.warmTerm {
		for _, id := range sorted(w.warms) {
			w.cool(id)
		}
	}
	w.link.term, w.warmTerm = term, max(w.warmTerm, term)
}

// reconcileWarm compares what is to be restored early with the state.
func (w *Worker) reconcileWarm(st *coordinator.State) {
	for _, id := range sorted(w.warms) {
		h := w.warms[id]
		arr, old := st.Moves.Arrivals[h.move], h.asked != nil && st.Index < h.asked.Index
		switch {
		case arr == nil && old: // it is not known here yet
		case arr == nil || arr.Phase == coordinator.ArrivalDropped:
			w.cool(id)
		case arr.Phase == coordinator.ArrivalActive && w.came(st, id):
		case h.asked == nil || old:
		default:
			if s := st.Of(id, h.asked.Name); s != nil {
				h.told = true
				j := arr.Job.As(arr.Epoch)
				j.Places = h.asked.Places
				w.put(Effect{Warm: &Warm{Job: j, From: s}})
			}
			h.asked = nil
		}
	}
}

// came tells whether it is known what became of a job that is here now: the
// executor was told to prepare it, and made use of what there was, or it never will
// be.
func (w *Worker) came(st *coordinator.State, id coordinator.JobID) bool {
	j, a, gone, want := st.Jobs[id], w.attempts[id], w.gone[id], w.wanted(st, id)
	switch {
	case want != nil && a != nil && a.AttemptRef == *want:
		delete(w.warms, id)
	case j == nil || j.Status.Ended() || j.Deployed() && want == nil || want != nil && gone != nil && gone.AttemptRef == *want:
		w.cool(id)
	default:
		return false // it waits for room, or for an attempt of before to end
	}
	return true
}
