package window

// index finds the slot of a key id in one table. A table that has a good part
// of all keys is indexed by the id itself; one that has few of many keys has a
// small hash table, so that memory follows what lives.
type index struct {
	dense  []int32 // by key id: slot plus one; nil: sparse is in use
	sparse []int32 // slot plus one; open addressing, a power of two
	shift  uint8   // of the sparse hash
}

// denseFrom is the share of all keys, one in so many, from which an index is
// dense.
const denseFrom = 4

const minSparse = 64

// find looks the ids up and appends to keys those that are missing. limit is
// above every id.
func (x *index) find(ids, slots []int32, keys *[]int32, limit int) {
	slots = slots[:len(ids)]
	if x.dense == nil && x.suits(len(*keys), limit) {
		x.rebuild(*keys, limit)
	}
	if x.dense == nil {
		x.findSparse(ids, slots, keys, limit)
		return
	}
	x.dense = padded(x.dense, limit, 0)
	dense := x.dense
	for i, id := range ids {
		s := dense[id]
		if s == 0 {
			*keys = append(*keys, id)
			s = int32(len(*keys))
			dense[id] = s
		}
		slots[i] = s - 1
	}
}

// suits tells whether n keys of limit are enough for a dense index.
func (x *index) suits(n, limit int) bool { return limit <= 1024 || n*denseFrom >= limit }

func (x *index) findSparse(ids, slots []int32, keys *[]int32, limit int) {
	for i, id := range ids {
		if 2*(len(*keys)+1) > len(x.sparse) {
			x.rebuild(*keys, limit)
			if x.dense != nil {
				x.find(ids[i:], slots[i:], keys, limit)
				return
			}
		}
		mask := uint32(len(x.sparse) - 1)
		j := uint32(id) * 0x9e3779b1 >> x.shift
		for ; x.sparse[j] != 0 && (*keys)[x.sparse[j]-1] != id; j = (j + 1) & mask {
		}
		if x.sparse[j] == 0 {
			*keys = append(*keys, id)
			x.sparse[j] = int32(len(*keys))
		}
		slots[i] = x.sparse[j] - 1
	}
}

// get is the slot of one key id, or -1.
func (x *index) get(id int32, keys []int32) int32 {
	if x.dense != nil {
		if int(id) < len(x.dense) {
			return x.dense[id] - 1
		}
		return -1
	}
	if len(x.sparse) == 0 {
		return -1
	}
	mask := uint32(len(x.sparse) - 1)
	for j := uint32(id) * 0x9e3779b1 >> x.shift; x.sparse[j] != 0; j = (j + 1) & mask {
		if keys[x.sparse[j]-1] == id {
			return x.sparse[j] - 1
		}
	}
	return -1
}

// rebuild makes the index anew for the keys and as many again.
func (x *index) rebuild(keys []int32, limit int) {
	if x.suits(len(keys), limit) {
		x.sparse = nil
		x.dense = padded(x.dense, limit, 0)
		for s, id := range keys {
			x.dense[id] = int32(s + 1)
		}
		return
	}
	x.dense = nil
	size := minSparse
	x.shift = 32 - 6
	for size < 4*(len(keys)+1) {
		size *= 2
		x.shift--
	}
	x.sparse = make([]int32, size)
	mask := uint32(size - 1)
	for s, id := range keys {
		j := uint32(id) * 0x9e3779b1 >> x.shift
		for x.sparse[j] != 0 {
			j = (j + 1) & mask
		}
		x.sparse[j] = int32(s + 1)
	}
}

// copyFrom makes x equal to from.
func (x *index) copyFrom(from *index) {
	x.shift = from.shift
	x.sparse = cloned(x.sparse, from.sparse)
	if from.dense == nil {
		x.dense = nil
		return
	}
	x.dense = cloned(x.dense, from.dense)
}

// clear forgets the keys, which are all that are in it.
func (x *index) clear(keys []int32) {
	if x.dense == nil || len(keys)*16 < len(x.dense) {
		x.dense = nil
		clear(x.sparse)
		return
	}
	for _, id := range keys {
		if int(id) < len(x.dense) { // keys of slots that were added without the index
			x.dense[id] = 0
		}
	}
}

func (x *index) bytes() int64 { return int64(4 * (cap(x.dense) + cap(x.sparse))) }
