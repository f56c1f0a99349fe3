package state

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// KeyTable gives every key a small dense id, so that whatever hangs on the key
// is a column indexed by that id. It stores the keys' values, column by column,
// and finds an id by the key's hash and value.
//
// A key lives as long as somebody holds it: Hold and Drop count. A key
// that nobody holds keeps its id until the next Sweep, so that a key whose
// window closed and that comes again at once costs nothing. The owner calls
// Sweep when it uses no id any more that it looked up and did not hold.
type KeyTable struct {
	entries []entry // open addressing, linear probing; a power of two
	mask    uint32
	hashes  []uint64 // by id
	refs    []int32  // by id: holders; -1: the id is free
	free    []int32
	dead    int   // ids in use that nobody holds
	fetched int32 // of no meaning: keeps the compiler from skipping foresee's reads
	cols    []keyColumn
	large   func([]byte) // nil: nobody wants to know
	told    int64        // Bytes when large was called last
}

// entry finds an id: the lower half of the hash, and the id plus one, so that
// zero is an empty entry. The upper half of the hash says where to look: the
// lower one says which key group a key is in, and so which subtask has it, and
// would crowd the keys of a subtask into a part of the table.
type entry struct {
	tag uint32
	id  int32
}

func tagOf(h uint64) uint32 { return uint32(h) }

const minEntries = 64

// bucket is how many entries are looked at in one go: those of a key begin with
// the bucket that its hash says. They lie in one cache line.
const bucket = 4

// home is where the search for a hash begins.
func home(h uint64, mask uint32) uint32 { return uint32(h>>32) & mask &^ (bucket - 1) }

// NewKeyTable makes a table for keys of the given column types; no types: one
// key, the empty one.
func NewKeyTable(types []batch.Type) *KeyTable {
	t := &KeyTable{entries: make([]entry, minEntries), mask: minEntries - 1}
	for _, typ := range types {
		t.cols = append(t.cols, keyColumn{typ: typ, null: -1})
	}
	return t
}

// Len is the number of keys that somebody holds.
func (t *KeyTable) Len() int { return t.used() - t.dead }

// Cap bounds the ids: every id is below it.
func (t *KeyTable) Cap() int { return len(t.hashes) }

func (t *KeyTable) used() int { return len(t.hashes) - len(t.free) }

// Hash is the key's hash.
func (t *KeyTable) Hash(id int32) uint64 { return t.hashes[id] }

// Lookup puts the id of the key at each position into ids, giving new keys one.
// cols are the key's columns of one batch; hashes has the hash for each
// position in the same order.
func (t *KeyTable) Lookup(cols []*batch.Column, positions []int32, hashes []uint64, ids []int32) {
	ids, hashes = ids[:len(positions)], hashes[:len(positions)]
	if len(t.cols) == 0 {
		t.lookupOnly(ids)
		return
	}
	if len(t.entries) < far {
		t.lookup(cols, positions, hashes, ids)
		return
	}
	for from := 0; from < len(ids); from += block {
		to := min(from+block, len(ids))
		t.foresee(hashes[from:to])
		t.lookup(cols, positions[from:to], hashes[from:to], ids[from:to])
	}
	if n := t.Bytes(); t.large != nil && n != t.told {
		t.told = n
		t.tellLarge()
	}
}

// TellLarge has f called with memory that is large, as in Large, when it has
// grown.
func (t *KeyTable) TellLarge(f func([]byte)) { t.large = f }

func (t *KeyTable) tellLarge() {
	Large(t.large, t.entries)
	Large(t.large, t.hashes)
	Large(t.large, t.refs)
	for i := range t.cols {
		Large(t.large, t.cols[i].ints)
		Large(t.large, t.cols[i].cells)
	}
}

// A table with more entries than far does not fit into the nearest caches. Its
// keys are looked up in blocks, of which all places are read first.
const (
	far   = 1 << 14
	block = 256
)

// foresee has the places of the hashes fetched from memory: in a loop as small
// as this one the processor waits for many of them at once.
func (t *KeyTable) foresee(hashes []uint64) {
	entries, mask := t.entries, t.mask
	fetched := int32(0)
	for _, h := range hashes {
		fetched += entries[home(h, mask)].id
	}
	t.fetched = fetched
}

// foreseeCells is foresee for the cells of ids.
func (t *KeyTable) foreseeCells(cells []cell, ids []int32) {
	fetched := int32(0)
	for _, id := range ids {
		if id >= 0 {
			fetched += cells[id].n
		}
	}
	t.fetched = fetched
}

func (t *KeyTable) lookup(cols []*batch.Column, positions []int32, hashes []uint64, ids []int32) {
	t.candidates(hashes, ids)
	if len(cols) == 1 && cols[0].Valid == nil {
		switch c := &t.cols[0]; c.typ {
		case batch.String, batch.Bytes:
			t.verifyBytes(c, cols, positions, hashes, ids)
			return
		case batch.Bigint, batch.Timestamp:
			t.verifyInts(c, cols, positions, hashes, ids)
			return
		}
	}
	for i, id := range ids {
		if id < 0 || !t.equal(id, cols, int(positions[i])) {
			ids[i] = t.find(cols, int(positions[i]), hashes[i])
		}
	}
}

// lookupOnly serves a table without columns: its one key has id 0.
func (t *KeyTable) lookupOnly(ids []int32) {
	if len(ids) == 0 {
		return
	}
	if t.used() == 0 {
		t.insert(nil, 0, emptyHash)
	}
	clear(ids)
}

// candidates guesses the id of each hash: that of the first entry in its bucket
// that has the tag; else -1. Nothing depends on a branch or on any other memory,
// so that the misses of many rows overlap. The few keys that stand in a bucket
// further on are left to find.
func (t *KeyTable) candidates(hashes []uint64, ids []int32) {
	entries, mask := t.entries, t.mask
	ids = ids[:len(hashes)]
	for i, h := range hashes {
		tag, j := tagOf(h), home(h, mask)
		near := (*[bucket]entry)(entries[j : j+bucket])
		e0, e1, e2, e3 := near[0], near[1], near[2], near[3] // read them all, so that no branch is needed
		id := int32(0)
		if e3.tag == tag {
			id = e3.id
		}
		if e2.tag == tag {
			id = e2.id
		}
		if e1.tag == tag {
			id = e1.id
		}
		if e0.tag == tag {
			id = e0.id
		}
		ids[i] = id - 1
	}
}

func (t *KeyTable) verifyBytes(c *keyColumn, cols []*batch.Column, positions []int32, hashes []uint64, ids []int32) {
	offsets, data, cells := cols[0].Offsets, cols[0].Data, c.cells
	if len(t.entries) >= far {
		t.foreseeCells(cells, ids)
	}
	for i, p := range positions {
		v := data[offsets[p]:offsets[p+1]]
		if id := ids[i]; id >= 0 {
			if k := &cells[id]; int(k.n) == len(v) {
				if len(v) >= 8 && len(v) <= 16 { // most keys: inlined by hand
					if k.head == binary.LittleEndian.Uint64(v) && k.tail == binary.LittleEndian.Uint64(v[len(v)-8:]) {
						continue
					}
				} else if c.same(k, v) {
					continue
				}
			}
		}
		ids[i] = t.find(cols, int(p), hashes[i])
		cells = c.cells
	}
}

func (t *KeyTable) verifyInts(c *keyColumn, cols []*batch.Column, positions []int32, hashes []uint64, ids []int32) {
	values := cols[0].Ints
	for i, p := range positions {
		if id := ids[i]; id >= 0 && c.ints[id] == values[p] && id != c.null {
			continue
		}
		ids[i] = t.find(cols, int(p), hashes[i])
	}
}

// find is the exact search for one key; it inserts a key that is not there.
func (t *KeyTable) find(cols []*batch.Column, p int, h uint64) int32 {
	tag := tagOf(h)
	for j := home(h, t.mask); ; j = (j + 1) & t.mask {
		e := t.entries[j]
		if e.id == 0 {
			return t.insert(cols, p, h)
		}
		if e.tag == tag && t.equal(e.id-1, cols, p) {
			return e.id - 1
		}
	}
}

// Find is the id of the key at row p, or -1.
func (t *KeyTable) Find(cols []*batch.Column, p int, h uint64) int32 {
	if len(t.cols) == 0 {
		return int32(min(t.used(), 1)) - 1
	}
	tag := tagOf(h)
	for j := home(h, t.mask); t.entries[j].id != 0; j = (j + 1) & t.mask {
		if e := t.entries[j]; e.tag == tag && t.equal(e.id-1, cols, p) {
			return e.id - 1
		}
	}
	return -1
}

// FindAll puts the id of the key at each position into ids, as Lookup does, and
// -1 where there is none. It tells whether there was any.
func (t *KeyTable) FindAll(cols []*batch.Column, positions []int32, hashes []uint64, ids []int32) (any bool) {
	ids, hashes = ids[:len(positions)], hashes[:len(positions)]
	t.candidates(hashes, ids)
	for i, p := range positions {
		if id := ids[i]; len(t.cols) == 0 || id < 0 || !t.equal(id, cols, int(p)) {
			ids[i] = t.Find(cols, int(p), hashes[i])
		}
		any = any || ids[i] >= 0
	}
	return any
}

func (t *KeyTable) equal(id int32, cols []*batch.Column, p int) bool {
	for i := range t.cols {
		if !t.cols[i].equal(id, cols[i], p) {
			return false
		}
	}
	return true
}

func (t *KeyTable) insert(cols []*batch.Column, p int, h uint64) int32 {
	if 2*(t.used()+1) > len(t.entries) {
		t.rebuild(t.used() + 1)
	}
	id := int32(len(t.hashes))
	if n := len(t.free); n > 0 {
		id = t.free[n-1]
		t.free = t.free[:n-1]
		t.hashes[id], t.refs[id] = h, 0
	} else {
		t.hashes = append(t.hashes, h)
		t.refs = append(t.refs, 0)
	}
	for i := range t.cols {
		t.cols[i].put(id, cols[i], p)
	}
	t.dead++
	t.enter(id, h)
	return id
}

func (t *KeyTable) enter(id int32, h uint64) {
	j := home(h, t.mask)
	for t.entries[j].id != 0 {
		j = (j + 1) & t.mask
	}
	t.entries[j] = entry{tag: tagOf(h), id: id + 1}
}

// rebuild makes the entries anew for n ids, at most half full afterwards.
func (t *KeyTable) rebuild(n int) {
	size := max(minEntries, 1<<bits.Len(uint(2*n)))
	if size == len(t.entries) {
		clear(t.entries)
	} else {
		t.entries = make([]entry, size)
	}
	t.mask = uint32(size - 1)
	for id, h := range t.hashes {
		if t.refs[id] >= 0 {
			t.enter(int32(id), h)
		}
	}
}

// Reserve makes room for so many keys, in a table that has none.
func (t *KeyTable) Reserve(n int) {
	if len(t.hashes) > 0 || len(t.cols) == 0 {
		return
	}
	t.hashes, t.refs = slices.Grow(t.hashes, n), slices.Grow(t.refs, n)
	for i := range t.cols {
		if c := &t.cols[i]; c.typ.Variable() {
			c.cells = slices.Grow(c.cells, n)
		} else {
			c.ints = slices.Grow(c.ints, n)
		}
	}
	t.rebuild(n)
}

// Hold holds the key once more.
func (t *KeyTable) Hold(id int32) {
	if t.refs[id]++; t.refs[id] == 1 {
		t.dead--
	}
}

// Drop gives back one hold on the key.
func (t *KeyTable) Drop(id int32) {
	if t.refs[id]--; t.refs[id] == 0 {
		t.dead++
	}
}

// HoldAll is Hold for each of the keys.
func (t *KeyTable) HoldAll(ids []int32) {
	for _, id := range ids {
		t.Hold(id)
	}
}

// DropAll is Drop for each of the keys.
func (t *KeyTable) DropAll(ids []int32) {
	for _, id := range ids {
		t.Drop(id)
	}
}

// Sweep frees the ids that nobody holds, once they are many: more than twice
// the keys that are held, and a few thousand. What it costs is thus paid by
// the keys that went, and the memory stays within a small multiple of the keys
// that live. It tells whether it did.
func (t *KeyTable) Sweep() bool {
	const few = 4096
	live := t.used() - t.dead
	if t.dead < few+2*live {
		return false
	}
	t.sweep(nil)
	return true
}

// sweep frees the ids that nobody holds, but those to be kept.
func (t *KeyTable) sweep(keep []bool) {
	kept := 0
	for id, n := range t.refs {
		switch {
		case n != 0:
		case id < len(keep) && keep[id]:
			kept++
		default:
			t.refs[id] = -1
			t.free = append(t.free, int32(id))
		}
	}
	t.dead = kept
	t.trim()
	for i := range t.cols {
		t.cols[i].compact(t.refs)
	}
	t.rebuild(t.used())
}

// trim gives up the ids at the end that are free, so that a table that was
// large once does not stay so.
func (t *KeyTable) trim() {
	n := len(t.refs)
	for n > 0 && t.refs[n-1] < 0 {
		n--
	}
	t.free = slices.DeleteFunc(t.free, func(id int32) bool { return int(id) >= n })
	slices.SortFunc(t.free, func(a, b int32) int { return int(b - a) }) // low ids are taken first
	t.refs, t.hashes, t.free = fitted(t.refs, n), fitted(t.hashes, n), fitted(t.free, len(t.free))
	for i := range t.cols {
		t.cols[i].cut(n)
	}
}

// fitted is s cut to n, in memory of its own if it would waste most of it.
func fitted[T any](s []T, n int) []T {
	if cap(s) > 4*n+1024 {
		return append(make([]T, 0, n+n/4), s[:n]...)
	}
	return s[:n]
}

// Gather writes column col of the keys to dst at position at and on. dst has
// the column's type and at values so far.
func (t *KeyTable) Gather(col int, ids []int32, dst *batch.Column, at int) {
	t.cols[col].gather(ids, dst, at)
}

// Bytes is the memory of the table.
func (t *KeyTable) Bytes() int64 {
	n := int64(8*cap(t.entries) + 8*cap(t.hashes) + 4*cap(t.refs) + 4*cap(t.free))
	for i := range t.cols {
		c := &t.cols[i]
		n += int64(8*cap(c.ints) + 32*cap(c.cells) + cap(c.data) + cap(c.nulls))
	}
	return n
}
