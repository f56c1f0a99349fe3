package migration

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Unasked is the answer to a message for a move of which there is no machine:
// effects as of one. index is what this site's state has applied, peer who sent
// it; one of the two messages is given.
//
// A source without a record says unknown, which gives the job to nobody, and only
// if it has applied the index in the move's id. From there on the record was in
// its state until it was forgotten; so it is forgotten now, not still to come,
// however old this state is. And it was forgotten because the target had recorded
// what became of it: prepared it is not.
//
// A target without a record has forgotten it, or never had it. It tells those who
// ask for it that they may forget it too, but not one that has handed over to
// somebody who seems not to be prepared: this state is an old one then.
func Unasked(m *coordinator.Moves, jobs Jobs, index uint64, peer mesh.Site, from *coordinator.ToSource, to *coordinator.ToTarget) []Effect {
	if from != nil {
		return unaskedSource(jobs, index, peer, from)
	}
	if to != nil {
		return unaskedTarget(m, peer, to)
	}
	return nil
}

func unaskedSource(jobs Jobs, index uint64, peer mesh.Site, from *coordinator.ToSource) []Effect {
	began, _, ok := from.Move.Parts()
	verdict := coordinator.DecisionUnknown
	switch d := from.Done; {
	case !ok || began == 0 || began > index:
		return nil // of a dry run, or this state is an old one
	case d != nil && !d.Forced:
		return nil // it asks nothing
	case d != nil:
		if job := jobs.Job(d.Job); job != (JobFacts{}) && job.Epoch < d.Epoch {
			return []Effect{{Propose: &coordinator.MoveCommand{Fenced: &coordinator.JobFenced{Job: d.Job, Epoch: d.Epoch, Owner: peer}}}}
		}
		verdict = coordinator.DecisionFenced
	}
	return []Effect{{Send: &Send{To: peer, Target: &coordinator.ToTarget{Move: from.Move, Verdict: verdict}}}}
}

func unaskedTarget(m *coordinator.Moves, peer mesh.Site, to *coordinator.ToTarget) []Effect {
	began, site, ok := to.Move.Parts()
	over := began <= m.Forgotten[site]
	if !ok || to.Propose != nil || !over && (to.Verdict == 0 || to.Verdict == coordinator.DecisionHandedOver) {
		return nil
	}
	return []Effect{{Send: &Send{To: peer, Source: &coordinator.ToSource{Move: to.Move, Done: &coordinator.MoveDone{}}}}}
}
