package leader

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// Overlooked looks at everything, right behind a Step, and says what there was to
// do that the Step has not seen; empty: nothing. Times at which something would
// have to be looked at and was not to be are such too.
func (l *Leader) Overlooked(st *coordinator.State) string {
	if !l.leads || st.Term > l.cfg.Term {
		return ""
	}
	wake := l.wake
	l.effects, l.st = nil, st
	defer func() { l.st = nil }()
	l.marks.site, l.marks.room = true, true
	l.markAll()
	for _, a := range l.agents {
		l.silence(a)
	}
	l.look()
	if len(l.effects) > 0 {
		switch f := l.effects[0]; {
		case f.Propose != nil:
			return fmt.Sprintf("a command %+v", f.Propose.Command)
		case f.Send != nil:
			return fmt.Sprintf("a message to %s: %+v", f.Send.To, f.Send.Message)
		default:
			return fmt.Sprintf("%+v", f)
		}
	}
	if missed := l.overlookedCopies(); missed != "" {
		return missed
	}
	if at := l.next(); at < wake {
		return fmt.Sprintf("at %d something is due, and a tick is wanted at %d", at, wake)
	}
	return ""
}

// overlookedCopies looks at all snapshots, whether or not they are marked.
func (l *Leader) overlookedCopies() string {
	c := &l.copying
	if l.st.Level < coordinator.CopiesLevel || !l.settled() {
		return ""
	}
	see := func(ref snapshotRef, s *coordinator.Snapshot, marked bool) string {
		if marked || c.order != nil && c.order.ref == ref {
			return ""
		}
		switch o, short := l.copyPlan(ref, s); {
		case o != nil:
			return fmt.Sprintf("%d parts of %v that %s could have", len(o.parts), ref, o.node)
		case short && !c.short[ref]:
			return fmt.Sprintf("that %v is short of copies", ref)
		}
		return ""
	}
	for id := range l.st.Jobs {
		for _, s := range l.copied(id) {
			if missed := see(snapshotRef{id, s.Name}, s, c.jobs[id]); missed != "" {
				return missed
			}
		}
	}
	for id, r := range l.st.Replicas {
		if r.Next == nil || c.next[id] || c.order != nil || c.proposed || len(c.found) > 0 {
			continue
		}
		if o, _ := l.fetchPlan(r); o != nil {
			return fmt.Sprintf("%d parts of %s of another site that %s could fetch", len(o.parts), r.Next.Name, o.node)
		}
	}
	for name, s := range l.st.Savepoints {
		if missed := see(snapshotRef{name: name}, s, c.savepoints[name]); missed != "" {
			return missed
		}
	}
	return ""
}
