package work

import (
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
)

// bounded reads a file that is on every machine, slowly: a source that ends.
type bounded struct {
	next int64 // the line that is read next
}

// onceFile reads lines, or says that there are no more; false: it has to wait.
func (s *subtask) onceFile() bool {
	f := s.file
	if f.next == world.Lines {
		s.step(task.Input{Kind: task.End})
		return true
	}
	until := min(world.LinesAt(s.a.x.p.W.Now()), f.next+16)
	if f.next >= until {
		s.wakeIn(50 * ms)
		return false
	}
	s.records.Reset(0)
	s.records.First = f.next
	for ; f.next < until; f.next++ {
		s.records.AppendMessage(nil, []byte(world.Timed.Payload(int(f.next))), 0)
	}
	s.records.Next = f.next
	s.step(task.Input{Kind: task.Raw, Records: &s.records})
	return true
}
