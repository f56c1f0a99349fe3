package leader

import (
	"cmp"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// suspicion: an agent says that an attempt failed because its channels to
// another one broke. The other's own word decides: if it had no other reason to
// end the attempt, and is the same process as before, they do not reach each
// other.
type suspicion struct {
	ref      coordinator.AttemptRef
	by, peer mesh.NodeID
}

// maxApart is how many pairs are known at most; of more the oldest are forgotten.
const maxApart = 64

// suspect notes whom the first failure of an attempt is laid to.
func (l *Leader) suspect(r *jobRun, by mesh.NodeID, f *coordinator.AttemptFailed) {
	if a := r.attempt; a.phase != over && f.Peer != by && a.parts[f.Peer] != nil {
		r.suspect = suspicion{f.AttemptRef, by, f.Peer}
		l.index(r)
	}
}

// excused hears why the other one ended the attempt.
func (l *Leader) excused(r *jobRun, node mesh.NodeID, f *coordinator.AttemptFailed) {
	s := r.suspect
	if s.ref != f.AttemptRef || s.peer != node {
		return
	}
	r.suspect = suspicion{}
	if f.Peer == s.by || f.Why == "" {
		l.part(s.by, node)
	}
}

// part keeps two agents apart for a while.
func (l *Leader) part(a, b mesh.NodeID) {
	p := schedule.PairOf(a, b)
	if _, known := l.apart[p]; !known {
		l.tell("agents %s and %s do not reach each other: for %v jobs run on one of them only, where there is room elsewhere",
			l.name(a), l.name(b), l.cfg.Timing.Apart)
	}
	l.apart[p] = l.now
	l.marks.site, l.marks.room = true, true
	if len(l.apart) > maxApart {
		delete(l.apart, l.oldestPair())
	}
}

// parted tells whether two agents did not reach each other lately.
func (l *Leader) parted(a, b mesh.NodeID) bool {
	at, known := l.apart[schedule.PairOf(a, b)]
	return known && l.now < at.Add(l.cfg.Timing.Apart)
}

// pairs are those that are kept apart.
func (l *Leader) pairs() (all []schedule.Pair) {
	for p := range l.apart {
		all = append(all, p)
	}
	return all // schedule sorts
}

// another: what was said of a process that has ended, or is lost, is not said of
// the next.
func (l *Leader) another(node mesh.NodeID) {
	l.forgetPair(func(p schedule.Pair) bool { return p[0] == node || p[1] == node })
	for id := range l.marks.jobsOn[node] {
		if r := l.jobs[id]; r.suspect.peer == node {
			r.suspect = suspicion{}
		}
	}
}

func (l *Leader) forgetPair(which func(schedule.Pair) bool) {
	for p := range l.apart {
		if which(p) {
			delete(l.apart, p)
		}
	}
}

// oldestPair is the pair that was last parted longest ago; of several the first by
// name.
func (l *Leader) oldestPair() schedule.Pair {
	return slices.MinFunc(l.pairs(), func(p, q schedule.Pair) int {
		return cmp.Or(cmp.Compare(l.apart[p], l.apart[q]), slices.Compare(p[:], q[:]))
	})
}
