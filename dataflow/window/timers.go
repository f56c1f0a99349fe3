package window

import (
	"cmp"
	"math"
	"sort"
)

// timers is a heap with one timer a slot. A timer may ring too early, never
// too late: a session that grows leaves its timer where it is, and is asked
// again when it rings.
type timers struct {
	heap  []timer
	at    []int64 // by slot: when its timer rings, if armed
	armed []bool
	round []int32 // by slot: a timer of an earlier round is void
}

type timer struct {
	at    int64
	slot  int32
	round int32
}

func (t timer) before(o timer) bool {
	return cmp.Or(cmp.Compare(t.at, o.at), cmp.Compare(t.slot, o.slot), cmp.Compare(t.round, o.round)) < 0
}

func (h *timers) len() int { return len(h.heap) }

// next is when the first timer rings.
func (h *timers) next() int64 {
	if len(h.heap) == 0 {
		return math.MaxInt64
	}
	return h.heap[0].at
}

// open begins the use of a slot, without a timer.
func (h *timers) open(slot int32) {
	n := int(slot) + 1
	h.at, h.armed, h.round = padded(h.at, n, 0), padded(h.armed, n, false), padded(h.round, n, 0)
	h.armed[slot] = false
	h.round[slot]++
}

// close voids the slot's timer.
func (h *timers) close(slot int32) { h.round[slot]++ }

// atMost makes the slot's timer ring no later than at.
func (h *timers) atMost(slot int32, at int64) {
	if h.armed[slot] && h.at[slot] <= at {
		return
	}
	h.round[slot]++
	h.at[slot], h.armed[slot] = at, true
	h.heap = append(h.heap, timer{at, slot, h.round[slot]})
	i := len(h.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !h.heap[i].before(h.heap[up]) {
			break
		}
		h.heap[i], h.heap[up] = h.heap[up], h.heap[i]
		i = up
	}
}

// pop takes the first timer out; live is false if it was void.
func (h *timers) pop() (slot int32, at int64, live bool) {
	t := h.heap[0]
	n := len(h.heap) - 1
	h.heap[0] = h.heap[n]
	h.heap = h.heap[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && h.heap[c+1].before(h.heap[c]) {
			c++
		}
		if !h.heap[c].before(h.heap[i]) {
			break
		}
		h.heap[i], h.heap[c] = h.heap[c], h.heap[i]
		i = c
	}
	live = h.round[t.slot] == t.round
	if live {
		h.armed[t.slot] = false
	}
	return t.slot, t.at, live
}

func (h *timers) bytes() int64 { return int64(16*cap(h.heap) + 8*cap(h.at) + 4*cap(h.round)) }

// byEnd sorts what is shown of sessions by their ends.
type byEnd struct {
	slots        []int32
	starts, ends []int64
}

func sortByEnd(slots []int32, starts, ends []int64) { sort.Stable(byEnd{slots, starts, ends}) }

func (b byEnd) Len() int           { return len(b.slots) }
func (b byEnd) Less(i, j int) bool { return b.ends[i] < b.ends[j] }
func (b byEnd) Swap(i, j int) {
	b.slots[i], b.slots[j] = b.slots[j], b.slots[i]
	b.starts[i], b.starts[j] = b.starts[j], b.starts[i]
	b.ends[i], b.ends[j] = b.ends[j], b.ends[i]
}
