package leader

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// An agent may apply a command sooner than the leader itself, which has a slower
// disk, or stands still for a moment: then the agent speaks of an attempt, or of an
// epoch of a log, of which the state here does not know yet. It says that once,
// so it is kept until the state does.

// later tells whether an attempt is one that the state here will have.
func (l *Leader) later(ref coordinator.AttemptRef) bool {
	j := l.st.Jobs[ref.Job]
	return j != nil && j.Token(l.cfg.Site).Less(ref.Token)
}

// isAhead tells whether a message is about what the state here will have. Only what
// an agent says without having been told anything can be.
func (l *Leader) isAhead(m *coordinator.ToLeader) bool {
	epoch := func(feed string, e uint64) bool { f := l.st.Feeds[feed]; return f != nil && f.Log.Epoch < e }
	switch {
	case m.Prepared != nil:
		return l.later(m.Prepared.AttemptRef)
	case m.Failed != nil:
		return l.later(m.Failed.AttemptRef)
	case m.InSync != nil:
		return epoch(m.InSync.Feed, m.InSync.Epoch)
	case m.OutOfSync != nil:
		return epoch(m.OutOfSync.Feed, m.OutOfSync.Epoch)
	}
	return false
}

// keep keeps a message until the state is as new as it. Who says too much of
// that says Hello again.
func (l *Leader) keep(f *From) {
	if l.ahead = append(l.ahead, f); len(l.ahead) > maxEarly {
		l.forget(f.Node)
		l.drop(f.Node)
	}
}

// forget: an agent says all that it has anew.
func (l *Leader) forget(node mesh.NodeID) {
	l.ahead = slices.DeleteFunc(l.ahead, func(f *From) bool { return f.Node == node })
}

// keepHello keeps what an inventory says of a later attempt; false: it is none, or
// one that cannot have come so far without a leader.
func (l *Leader) keepHello(node mesh.NodeID, n *coordinator.AttemptNow) bool {
	if !l.later(n.AttemptRef) {
		return false
	}
	switch n.Phase {
	case coordinator.PhasePreparing:
	case coordinator.PhasePrepared:
		l.keep(&From{Node: node, Message: coordinator.ToLeader{Prepared: n.Prepared}})
	case coordinator.PhaseGone:
		f := n.Failed
		if f == nil {
			f = &coordinator.AttemptFailed{AttemptRef: n.AttemptRef}
		}
		l.keep(&From{Node: node, Message: coordinator.ToLeader{Failed: f}})
	default:
		return false
	}
	return true
}

// catchUp hears what was kept, as far as the state has come, in order; the rest is kept
// again.
func (l *Leader) catchUp() {
	if len(l.ahead) == 0 || !l.news {
		return
	}
	all := l.ahead
	l.ahead = nil
	for _, f := range all {
		switch a := l.agent(f.Node); {
		case !a.there: // it says Hello again
		default:
			l.listen(a, &f.Message)
		}
	}
}
