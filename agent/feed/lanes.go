package feed

import (
	"sync"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// shownLanes are what all copies of a log have, by lane. The log knows that over all
// lanes only; so where its lanes end is noted, and counts when all have that.
type shownLanes struct {
	mu    sync.Mutex // guards what follows
	id    ingestlog.LogID
	epoch uint64
	known lanesEnd
	next  lanesEnd
}

// lanesEnd is where lanes end at a place in the log.
type lanesEnd struct {
	seq   int64
	lanes []int64
}

// of is where the lanes are now, in this epoch, or were when it was asked before; nil:
// it is not known yet.
func (s *shownLanes) of(log *ingestlog.Log, epoch uint64) (all []coordinator.LaneAt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := log.ID(); id != s.id || epoch != s.epoch { // it may have been cut
		s.id, s.epoch, s.known, s.next = id, epoch, lanesEnd{}, lanesEnd{}
	}
	shown := log.Shown()
	if s.next.lanes != nil && s.next.seq <= shown {
		s.known, s.next = s.next, lanesEnd{}
	}
	switch seq, lanes := log.Nexts(); {
	case seq <= shown:
		s.known, s.next = lanesEnd{seq, lanes}, lanesEnd{}
	case s.next.lanes == nil:
		s.next = lanesEnd{seq, lanes}
	}
	for i, next := range s.known.lanes {
		all = append(all, coordinator.LaneAt{First: log.Lane(i).First, Next: next})
	}
	return all
}
