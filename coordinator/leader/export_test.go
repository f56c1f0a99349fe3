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
	if at := l.next(); at < wake {
		return fmt.Sprintf("at %d something is due, and a tick is wanted at %d", at, wake)
	}
	return ""
}
