package eventtime

import (
	"math"
	"math/bits"
)

// queue finds the device whose time is least, where times only grow: a radix
// heap. Its keys are lower bounds: a device's time may run ahead of its key at
// no cost to the queue, until refill looks at it again; so a device that is
// busy costs next to nothing, however many there are.
//
// A key is 16 hex digits. Keys that equal last are in `here`; any other is in
// the bucket of the highest digit in which it differs from last, and of its
// value there: each bucket's keys are all less than the next one's. An entry
// only ever moves to a lower bucket, unless its time has grown. No key pushed is
// less than last, because last is never beyond the least; an empty queue takes
// any key.
//
// Devices that come in turn have times in order. Keys that come in order go
// into a ring before the heap, in which nothing ever moves.
//
// The entry of a device that is gone stays until it is looked at, or until the
// owner compacts.
type queue struct {
	last    uint64 // as sortable has it
	n       int
	ring    []entry // ascending keys; its length is a power of two
	head    int     // of the ring
	ringed  int     // entries in the ring
	inRing  bool    // the entry that least returned is the ring's
	here    *chunk
	full    [4]uint64   // which buckets are not empty
	buckets [256]*chunk // 16*place+digit; lists of chunks, all full but the first
	spare   *chunk      // for reuse
}

// entry is a device's place in a queue. gen tells whether the slot is still the
// same device's.
type entry struct {
	key int64
	id  int32
	gen uint32
}

// chunk is a part of a bucket. In chunks, what all buckets hold on to is bounded
// by the most entries there ever were.
type chunk struct {
	next    *chunk
	n       int
	entries [15]entry
}

// sortable maps times to unsigned numbers of the same order.
func sortable(key int64) uint64 { return uint64(key) ^ 1<<63 }

// push adds an entry whose key is not less than the least.
func (q *queue) push(e entry) {
	if q.n == 0 {
		q.last = 0
	}
	q.n++
	if q.ringed > 0 && e.key < q.ring[(q.head+q.ringed-1)&(len(q.ring)-1)].key {
		q.put(e)
		return
	}
	if q.ringed == len(q.ring) {
		ring := make([]entry, max(16, 2*q.ringed))
		for i := range q.ringed {
			ring[i] = q.ring[(q.head+i)&(q.ringed-1)]
		}
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.ringed)&(len(q.ring)-1)] = e
	q.ringed++
}

// put adds an entry to the heap.
func (q *queue) put(e entry) {
	key := sortable(e.key)
	list := &q.here
	if key != q.last {
		place := uint(bits.Len64(key^q.last)-1) / 4
		i := uint8(place*16 + uint(key>>(4*place))&15)
		q.full[i/64] |= 1 << (i % 64)
		list = &q.buckets[i]
	}
	c := *list
	if c == nil || c.n == len(c.entries) {
		if c = q.spare; c != nil {
			q.spare = c.next
		} else {
			c = new(chunk)
		}
		c.next, c.n = *list, 0
		*list = c
	}
	c.entries[c.n] = e
	c.n++
}

// least is an entry with the least key. If there is none now although the queue
// is not empty, refill has to be called first.
func (q *queue) least() (e entry, ok bool) {
	if c := q.here; c != nil {
		q.inRing = false
		return c.entries[c.n-1], true
	}
	if q.ringed == 0 {
		return entry{}, false
	}
	e = q.ring[q.head]
	if q.ringed < q.n && sortable(e.key) > q.below() {
		return entry{}, false
	}
	q.inRing = true
	return e, true
}

// below is a bound under all keys of the heap, when nothing is here.
func (q *queue) below() uint64 {
	for w, set := range q.full {
		if set != 0 {
			i := uint(64*w + bits.TrailingZeros64(set))
			low := uint64(1)<<(4*(i/16)) - 1
			return q.last&^(low<<4|15) | uint64(i%16)<<(4*(i/16))
		}
	}
	return math.MaxUint64
}

// drop removes the entry that least returned.
func (q *queue) drop() {
	q.n--
	if q.inRing {
		q.head = (q.head + 1) & (len(q.ring) - 1)
		q.ringed--
		return
	}
	c := q.here
	c.n--
	if c.n == 0 {
		q.here = c.next
		c.next, q.spare = q.spare, c
	}
}

// lowest empties the lowest bucket, and returns what was in it and the greatest
// key that can be.
func (q *queue) lowest() (list *chunk, greatest uint64) {
	for w, set := range q.full {
		if set == 0 {
			continue
		}
		i := uint(64*w + bits.TrailingZeros64(set))
		q.full[w] &^= 1 << (i % 64)
		list, q.buckets[i] = q.buckets[i], nil
		below := uint64(1)<<(4*(i/16)) - 1
		above := ^(below<<4 | 15)
		return list, q.last&above | uint64(i%16)<<(4*(i/16)) | below
	}
	return nil, 0
}

// refill looks at the entries of the lowest bucket again, and moves them to
// where they belong now: now is an entry's time, which may have grown, or ok is
// false if its device is gone. It returns false if the queue is empty. There
// may be no least yet afterwards, but last has grown, or the ring has it.
func (q *queue) refill(now func(e entry) (key int64, ok bool)) bool {
	list, least := q.lowest()
	if list == nil {
		return false
	}
	if q.ringed > 0 {
		least = min(least, sortable(q.ring[q.head].key))
	}
	for c := list; c != nil; c = c.next {
		stay := 0
		for _, e := range c.entries[:c.n] {
			key, ok := now(e)
			if !ok {
				continue
			}
			e.key = key
			least = min(least, sortable(key))
			c.entries[stay] = e
			stay++
		}
		q.n -= c.n - stay
		c.n = stay
	}
	q.last = least
	for c := list; c != nil; {
		for _, e := range c.entries[:c.n] {
			q.put(e)
		}
		next := c.next
		c.next, q.spare = q.spare, c
		c = next
	}
	return true
}

// each calls f with every entry, in no order that means anything.
func (q *queue) each(f func(e entry)) {
	for i := range q.ringed {
		f(q.ring[(q.head+i)&(len(q.ring)-1)])
	}
	list := q.here
	for i := 0; ; i++ {
		for c := list; c != nil; c = c.next {
			for _, e := range c.entries[:c.n] {
				f(e)
			}
		}
		if i == len(q.buckets) {
			return
		}
		list = q.buckets[i]
	}
}
