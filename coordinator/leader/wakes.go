package leader

import (
	"cmp"
	"container/heap"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// wakes is when what is to be looked at again, the soonest first. Setting and
// taking cost the logarithm of how many there are.
type wakes struct {
	heap  []wake
	index map[subject]int // where each is in heap
}

// subject is what is looked at.
type subject struct {
	kind kind
	name string // of the agent, feed or job; empty: the site's
}

type kind uint8

const (
	theSite kind = iota
	anAgent
	aFeed
	aJob
	theCopies
	aMove
	aReplica // of a site
	aProbe
)

type wake struct {
	at   dataflow.Time
	what subject
}

// set is when a subject is looked at again; MaxTime: not by time alone.
func (w *wakes) set(s subject, at dataflow.Time) {
	i, there := w.index[s]
	switch {
	case there && at == dataflow.MaxTime:
		heap.Remove(w, i)
	case there && w.heap[i].at != at:
		w.heap[i].at = at
		heap.Fix(w, i)
	case !there && at != dataflow.MaxTime:
		heap.Push(w, wake{at, s})
	}
}

// first is the soonest time; MaxTime: there is none.
func (w *wakes) first() dataflow.Time {
	if len(w.heap) == 0 {
		return dataflow.MaxTime
	}
	return w.heap[0].at
}

// due takes the soonest out, if its time has come.
func (w *wakes) due(now dataflow.Time) (subject, bool) {
	if w.first() > now || len(w.heap) == 0 {
		return subject{}, false
	}
	return heap.Pop(w).(wake).what, true
}

// Len, Less, Swap, Push and Pop are heap.Interface's.
func (w *wakes) Len() int { return len(w.heap) }

func (w *wakes) Less(i, j int) bool {
	a, b := w.heap[i], w.heap[j]
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.what.kind, b.what.kind), cmp.Compare(a.what.name, b.what.name)) < 0
}

func (w *wakes) Swap(i, j int) {
	w.heap[i], w.heap[j] = w.heap[j], w.heap[i]
	w.index[w.heap[i].what], w.index[w.heap[j].what] = i, j
}

// Push is heap.Interface's.
func (w *wakes) Push(x any) {
	w.index[x.(wake).what] = len(w.heap)
	w.heap = append(w.heap, x.(wake))
}

// Pop is heap.Interface's.
func (w *wakes) Pop() any {
	last := w.heap[len(w.heap)-1]
	w.heap = w.heap[:len(w.heap)-1]
	delete(w.index, last.what)
	return last
}
