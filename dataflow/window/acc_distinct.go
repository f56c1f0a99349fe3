package window

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// distinctSets keeps the set of values of each slot, exactly: the values are
// ids of a dictionary that all tables of the operator share, and every member
// of a set holds its value there. A set is a list through members; one hash
// index over (slot, value) serves all sets.
type distinctSets struct {
	dict    *state.KeyTable
	heads   []int32 // by slot: its first member, plus one; 0: none
	counts  []int64 // by slot
	members []member
	free    int32   // first free member, plus one
	index   []int32 // member plus one; open addressing, a power of two
	used    int
}

// removed is the value of a member that was taken out of a slot's set, while it is
// in the slot's list.
const removed = -1

type member struct {
	slot, value int32
	next        int32 // plus one
	saved       bool  // a snapshot has it
}

func (a *distinctSets) grow(n int) { a.heads, a.counts = padded(a.heads, n, 0), padded(a.counts, n, 0) }

// home is where the search for a member begins.
func (a *distinctSets) home(slot, value int32) uint32 {
	h := (uint64(uint32(slot))<<32 | uint64(uint32(value))) * 0x9e3779b97f4a7c15
	return uint32(h>>32) & uint32(len(a.index)-1)
}

// has tells whether a slot's set has the value.
func (a *distinctSets) has(slot, value int32) bool {
	for m := a.heads[slot]; m != 0; m = a.members[m-1].next {
		if a.members[m-1].value == value {
			return true
		}
	}
	return false
}

// add puts a value into a slot's set and tells whether it was new.
func (a *distinctSets) add(slot, value int32) bool {
	if 2*(a.used+1) > len(a.index) {
		a.rehash(max(64, 2*len(a.index)))
	}
	mask := uint32(len(a.index) - 1)
	j := a.home(slot, value)
	for ; a.index[j] != 0; j = (j + 1) & mask {
		if m := &a.members[a.index[j]-1]; m.slot == slot && m.value == value {
			return false
		}
	}
	m := a.free
	if m != 0 {
		a.free = a.members[m-1].next
	} else {
		a.members = append(a.members, member{})
		m = int32(len(a.members))
	}
	a.members[m-1] = member{slot: slot, value: value, next: a.heads[slot]}
	a.heads[slot] = m
	a.index[j] = m
	a.counts[slot]++
	a.used++
	a.dict.Hold(value)
	return true
}

// rehash makes the index anew, of what is in the sets: members that were removed
// are in the lists of slots until these are closed, and in the index no more.
func (a *distinctSets) rehash(size int) {
	a.index = make([]int32, size)
	mask := uint32(size - 1)
	for _, h := range a.heads {
		for m := h; m != 0; m = a.members[m-1].next {
			if a.members[m-1].value == removed {
				continue
			}
			j := a.home(a.members[m-1].slot, a.members[m-1].value)
			for a.index[j] != 0 {
				j = (j + 1) & mask
			}
			a.index[j] = m
		}
	}
}

// unlink takes a member out of the index and closes the gap behind it.
func (a *distinctSets) unlink(m int32) {
	mask := uint32(len(a.index) - 1)
	j := a.home(a.members[m-1].slot, a.members[m-1].value)
	for a.index[j] != m {
		j = (j + 1) & mask
	}
	a.index[j] = 0
	for i := (j + 1) & mask; a.index[i] != 0; i = (i + 1) & mask {
		o := &a.members[a.index[i]-1]
		if h := a.home(o.slot, o.value); (i-h)&mask >= (i-j)&mask {
			a.index[j], a.index[i] = a.index[i], 0
			j = i
		}
	}
}

func (a *distinctSets) update(slots []int32, v *values) {
	for i, s := range slots {
		a.add(s, v.ids[i])
	}
}

func (a *distinctSets) merge(dst []int32, from acc, src []int32) {
	o := from.(*distinctSets)
	for i, d := range dst {
		for m := o.heads[at(src, i)]; m != 0; m = o.members[m-1].next {
			a.add(d, o.members[m-1].value)
		}
	}
}

func (a *distinctSets) clear(s int32) {
	for m := a.heads[s]; m != 0; {
		next := a.members[m-1].next
		a.unlink(m)
		a.dict.Drop(a.members[m-1].value)
		a.members[m-1].next = a.free
		a.free = m
		a.used--
		m = next
	}
	a.heads[s], a.counts[s] = 0, 0
}

func (a *distinctSets) truncate() {
	for _, h := range a.heads {
		for m := h; m != 0; m = a.members[m-1].next {
			a.dict.Drop(a.members[m-1].value)
		}
	}
	clear(a.index)
	a.heads, a.counts, a.members = a.heads[:0], a.counts[:0], a.members[:0]
	a.free, a.used = 0, 0
}

func (a *distinctSets) copyFrom(from acc) {
	o := from.(*distinctSets)
	a.truncate()
	a.heads, a.counts = cloned(a.heads, o.heads), cloned(a.counts, o.counts)
	a.members, a.index = cloned(a.members, o.members), cloned(a.index, o.index)
	a.free, a.used = o.free, o.used
	for _, h := range a.heads {
		for m := h; m != 0; m = a.members[m-1].next {
			a.dict.Hold(a.members[m-1].value)
		}
	}
}

func (a *distinctSets) bytes() int64 {
	return int64(4*cap(a.heads) + 8*cap(a.counts) + 16*cap(a.members) + 4*cap(a.index))
}

func (a *distinctSets) columns(tell func([]byte)) {
	state.Large(tell, a.heads)
	state.Large(tell, a.counts)
	state.Large(tell, a.members)
	state.Large(tell, a.index)
}

// Of a set the number of its members is saved here, so that one that was not
// saved is known; they are rows of a table of their own, see snapshot.go.
func (a *distinctSets) save(cols []*batch.Column, at int, slots []int32) {
	putInts(cols[0], at, a.counts, slots)
}
func (a *distinctSets) load([]*batch.Column, []int32, []int32) {}
