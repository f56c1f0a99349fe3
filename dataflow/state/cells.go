package state

import (
	"math"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// shape is how many entries a key has in a state.
type shape uint8

const (
	single  shape = iota // at most one
	list                 // in order, numbered
	mapping              // one for each map key
)

// The flags of an entry.
const (
	live   uint8 = 1 << iota // it is there; without it, it is free or a tombstone
	dirty                    // changed since the last snapshot
	saved                    // the last snapshot has it: removed, it stays as a tombstone
	logged                   // the journal has it as it was
	used                     // not on the free list

)

// untouched is the touch of an entry that expires only after its next write.
const untouched = math.MinInt64

// cells are the entries of one state: a chain of them for each key.
type cells struct {
	store  *Store
	name   string
	number int // of its table
	shape  shape
	spread spread
	domain Domain // of timers; else 0
	fields []batch.Field
	ttl    TTL

	heads, tails []int32 // by key: entry plus one; 0: none

	cols    []column
	subs    column // map keys
	sub     batch.Field
	numbers []int64 // list: place of the element; ascending along a chain
	touched []int64
	flags   []uint8
	owner   []int32
	next    []int32 // entry plus one
	prev    []int32

	hashes []uint64 // mapping
	table  []int32  // mapping: open addressing, entry plus one
	free   []int32

	count    int    // entries in use, tombstones too
	unsorted bool   // restored elements did not come in order
	scrap    *cells // takes what is written without a key
}

// spread is what becomes of a state when the parallelism changes.
type spread uint8

const (
	keyed spread = iota
	split
	union
	broadcast
)

// each is what an entry costs, without its bytes.
func (c *cells) each() int64 {
	n := int64(8 + 1 + 4 + 4 + 4)
	for i := range c.cols {
		n += c.cols[i].bytesEach()
	}
	switch c.shape {
	case list:
		n += 8
	case mapping:
		n += c.subs.bytesEach() + 8 + 12
	}
	return n
}

func (c *cells) memory() int64 {
	n := int64(c.count)*c.each() + 8*int64(len(c.heads))
	for i := range c.cols {
		n += int64(len(c.cols[i].data) - c.cols[i].waste)
	}
	return n + int64(len(c.subs.data)-c.subs.waste)
}

func (c *cells) widen(keys int) {
	for len(c.heads) < keys {
		c.heads, c.tails = append(c.heads, 0), append(c.tails, 0)
	}
}

// expired tells whether the entry's time has come.
func (c *cells) expired(e int32) bool {
	return c.ttl.After > 0 && c.touched[e] != untouched && dataflow.Time(c.touched[e]).Add(c.ttl.After) <= c.store.now
}

// there tells whether a reader may see the entry.
func (c *cells) there(e int32) bool { return c.flags[e]&live != 0 && !c.expired(e) }

// alloc is a fresh entry of a key at the end of its chain, all null. The caller
// sets its number or map key.
func (c *cells) alloc(key int32) int32 {
	var e int32
	if n := len(c.free); n > 0 {
		e = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		e = int32(len(c.flags))
		c.lengthen()
	}
	c.count++
	c.flags[e], c.owner[e], c.touched[e] = used, key, untouched
	c.link(e, key)
	if c.spread == keyed {
		c.store.hold(key)
	}
	return e
}

func (c *cells) lengthen() {
	for i := range c.cols {
		c.cols[i].grow()
	}
	c.flags, c.owner, c.touched = append(c.flags, 0), append(c.owner, 0), append(c.touched, 0)
	c.next, c.prev = append(c.next, 0), append(c.prev, 0)
	switch c.shape {
	case list:
		c.numbers = append(c.numbers, 0)
	case mapping:
		c.subs.grow()
		c.hashes = append(c.hashes, 0)
	}
}

func (c *cells) link(e, key int32) {
	c.next[e], c.prev[e] = 0, c.tails[key]
	if c.tails[key] == 0 {
		c.heads[key] = e + 1
	} else {
		c.next[c.tails[key]-1] = e + 1
	}
	c.tails[key] = e + 1
}

// release frees an entry.
func (c *cells) release(e int32) {
	key := c.owner[e]
	if p := c.prev[e]; p == 0 {
		c.heads[key] = c.next[e]
	} else {
		c.next[p-1] = c.next[e]
	}
	if n := c.next[e]; n == 0 {
		c.tails[key] = c.prev[e]
	} else {
		c.prev[n-1] = c.prev[e]
	}
	if c.shape == mapping {
		c.unindex(e)
		c.subs.setNull(e)
	}
	for i := range c.cols {
		c.cols[i].setNull(e)
	}
	c.flags[e] = 0
	c.free = append(c.free, e)
	c.count--
	if c.spread == keyed {
		c.store.drop(key)
	}
}

// hashSub is the hash by which an entry of a key is found by its map key.
func hashSub(key int32, v int64, b []byte, variable bool) uint64 {
	if variable {
		return xxh3.HashSeed(b, uint64(key))
	}
	h := (uint64(v) ^ uint64(key)*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>29) * 0x94d049bb133111eb
	return h ^ h>>32
}

// findSub is the entry of a key with a map key, tombstones too, or -1.
func (c *cells) findSub(key int32, v int64, b []byte, h uint64) int32 {
	if len(c.table) == 0 {
		return -1
	}
	mask := uint64(len(c.table) - 1)
	for j := h & mask; c.table[j] != 0; j = (j + 1) & mask {
		if e := c.table[j] - 1; c.hashes[e] == h && c.owner[e] == key && c.subs.holds(e, v, b) {
			return e
		}
	}
	return -1
}

func (c *column) holds(e int32, v int64, b []byte) bool {
	if c.typ.Variable() {
		return string(c.bytes(e)) == string(b)
	}
	return c.ints[e] == v
}

// index enters a new entry under its map key.
func (c *cells) index(e int32, v int64, b []byte, h uint64) {
	if c.subs.typ.Variable() {
		c.subs.setBytes(e, b)
	} else {
		c.subs.setInt(e, v)
	}
	c.hashes[e] = h
	if 2*c.count > len(c.table) {
		c.rehash()
	}
	c.enter(e)
}

func (c *cells) rehash() {
	old := c.table
	c.table = make([]int32, max(64, 2*len(old)))
	for _, e := range old {
		if e != 0 {
			c.enter(e - 1)
		}
	}
}

func (c *cells) enter(e int32) {
	mask := uint64(len(c.table) - 1)
	j := c.hashes[e] & mask
	for c.table[j] != 0 {
		j = (j + 1) & mask
	}
	c.table[j] = e + 1
}

// unindex takes an entry out and moves those behind it that had to step over it.
func (c *cells) unindex(e int32) {
	mask := uint64(len(c.table) - 1)
	j := c.hashes[e] & mask
	for c.table[j] != e+1 {
		j = (j + 1) & mask
	}
	for k := (j + 1) & mask; c.table[k] != 0; k = (k + 1) & mask {
		home := c.hashes[c.table[k]-1] & mask
		if (k-home)&mask >= (k-j)&mask {
			c.table[j] = c.table[k]
			j = k
		}
	}
	c.table[j] = 0
}
