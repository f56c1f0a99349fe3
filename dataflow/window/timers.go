package window

import (
	"math"
	"sort"
)

// timers is a heap (of four branches) with one timer a slot. A timer may ring too early, never
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

func (t *timer) before(o *timer) bool {
	return t.at < o.at || t.at == o.at && t.slot < o.slot
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
	t := timer{at, slot, h.round[slot]}
	h.heap = append(h.heap, t)
	i := len(h.heap) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !t.before(&h.heap[up]) {
			break
		}
		h.heap[i] = h.heap[up]
		i = up
	}
	h.heap[i] = t
}

// first is the timer that rings first; live is false if it is void.
func (h *timers) first() (slot int32, at int64, live bool) {
	t := h.heap[0]
	return t.slot, t.at, h.round[t.slot] == t.round
}

// again makes the first timer, which is live, ring at a later time.
func (h *timers) again(at int64) {
	t := h.heap[0]
	t.at = at
	h.at[t.slot] = at
	h.sink(t)
}

// pop takes the first timer out.
func (h *timers) pop() {
	t, n := h.heap[0], len(h.heap)-1
	if h.round[t.slot] == t.round {
		h.armed[t.slot] = false
	}
	last := h.heap[n]
	h.heap = h.heap[:n]
	if n > 0 {
		h.sink(last)
	}
}

// sink puts t where the first timer was, and in order.
func (h *timers) sink(t timer) {
	heap, i := h.heap, 0
	for {
		c := 4*i + 1
		if c >= len(heap) {
			break
		}
		least := c
		for k := c + 1; k < min(c+4, len(heap)); k++ {
			if heap[k].before(&heap[least]) {
				least = k
			}
		}
		if !heap[least].before(&t) {
			break
		}
		heap[i] = heap[least]
		i = least
	}
	heap[i] = t
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
