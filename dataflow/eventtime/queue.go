package eventtime

// queue finds the device with the least time, where times only grow. Its keys
// are lower bounds: a device's time may run ahead of its key, at no cost to
// the queue, until the key is the least one; only then does the owner raise it.
//
// Keys that come in order, as times do, go to the end of a run in O(1); those
// that do not go to a heap in O(log n). An entry whose device is gone stays
// until it is the least or the owner compacts.
type queue struct {
	run  []entry // a ring: ascending keys from head on, n of them; its length is a power of two
	head int
	n    int
	heap []entry // four children to a node: those of i are 4i+1 to 4i+4
}

// entry is a device's place in a queue. gen tells whether the slot is still the
// same device's.
type entry struct {
	key int64
	id  int32
	gen uint32
}

func (q *queue) len() int { return q.n + len(q.heap) }

// least is the entry with the least key, and whether it leads the run.
func (q *queue) least() (e entry, inRun, ok bool) {
	switch {
	case q.n > 0 && (len(q.heap) == 0 || q.run[q.head].key <= q.heap[0].key):
		return q.run[q.head], true, true
	case len(q.heap) > 0:
		return q.heap[0], false, true
	}
	return entry{}, false, false
}

// push adds an entry. If it would stand before the end of the run, the later of
// the two goes to the heap, so that one far-off time does not close the run to
// all that follow; if it would stand even before the last but one, it goes.
func (q *queue) push(e entry) {
	if q.n == 0 {
		q.append(e)
		return
	}
	end := &q.run[(q.head+q.n-1)&(len(q.run)-1)]
	if e.key >= end.key {
		q.append(e)
		return
	}
	if q.n == 1 || e.key >= q.run[(q.head+q.n-2)&(len(q.run)-1)].key {
		e, *end = *end, e
	}
	q.heap = append(q.heap, e)
	q.up(len(q.heap) - 1)
}

func (q *queue) append(e entry) {
	if q.n == len(q.run) {
		grown := make([]entry, max(16, 2*q.n))
		for i := range q.n {
			grown[i] = q.run[(q.head+i)&(q.n-1)]
		}
		q.run, q.head = grown, 0
	}
	q.run[(q.head+q.n)&(len(q.run)-1)] = e
	q.n++
}

// drop removes the least entry.
func (q *queue) drop(inRun bool) {
	if inRun {
		q.head = (q.head + 1) & (len(q.run) - 1)
		q.n--
		return
	}
	last := len(q.heap) - 1
	q.heap[0] = q.heap[last]
	q.heap = q.heap[:last]
	if last > 0 {
		q.down(0)
	}
}

// raise gives the least entry, e, a greater key.
func (q *queue) raise(e entry, inRun bool, key int64) {
	e.key = key
	if !inRun && q.n > 0 && key < q.run[(q.head+q.n-1)&(len(q.run)-1)].key {
		q.heap[0] = e
		q.down(0)
		return
	}
	q.drop(inRun)
	q.push(e)
}

func (q *queue) up(i int) {
	e := q.heap[i]
	for i > 0 {
		parent := (i - 1) / 4
		if q.heap[parent].key <= e.key {
			break
		}
		q.heap[i] = q.heap[parent]
		i = parent
	}
	q.heap[i] = e
}

func (q *queue) down(i int) {
	h := q.heap
	e := h[i]
	for {
		c := 4*i + 1
		if c >= len(h) {
			break
		}
		least := c
		for k := c + 1; k < min(c+4, len(h)); k++ {
			if h[k].key < h[least].key {
				least = k
			}
		}
		if h[least].key >= e.key {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = e
}

// each calls f with every entry, in no order that means anything.
func (q *queue) each(f func(e entry)) {
	for i := range q.n {
		f(q.run[(q.head+i)&(len(q.run)-1)])
	}
	for _, e := range q.heap {
		f(e)
	}
}

// clear empties the queue and keeps its memory.
func (q *queue) clear() { q.head, q.n, q.heap = 0, 0, q.heap[:0] }
