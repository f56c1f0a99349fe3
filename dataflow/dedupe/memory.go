package dedupe

import (
	"sort"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// memory is what is remembered of one split: a queue of ids in the order of
// their arrival, and an index of it. Arrivals never go back, so the oldest is
// the first to be too old, and the first to be forgotten.
type memory struct {
	number int64 // of the split, in the job
	ring   []entry
	index  []uint32 // place in ring, plus one; open addressing; twice as many as ring
	head   int64    // sequence number of the oldest entry
	tail   int64    // of the next one; number q is at q modulo len(ring)
	saved  int64    // entries below it are in the last snapshot

	graves []xxh3.Uint128 // in the last snapshot, and gone
	loose  []loose        // restored, not yet in order
}

// entry is an id and the arrival of the first row that had it.
type entry struct {
	id xxh3.Uint128
	at dataflow.Time
}

type loose struct {
	seq int64
	entry
}

func (m *memory) at(seq int64) *entry { return &m.ring[seq&int64(len(m.ring)-1)] }

// latest is the arrival of the newest entry.
func (m *memory) latest() dataflow.Time {
	if m.head == m.tail {
		return dataflow.MinTime
	}
	return m.at(m.tail - 1).at
}

// slot is where id is in the index, or where it would be.
func (m *memory) slot(id xxh3.Uint128) (i uint32, found bool) {
	mask := uint32(len(m.index) - 1)
	for i = uint32(id.Lo) & mask; m.index[i] != 0; i = (i + 1) & mask {
		if m.ring[m.index[i]-1].id == id {
			return i, true
		}
	}
	return i, false
}

func (m *memory) find(id xxh3.Uint128) bool {
	if len(m.index) == 0 {
		return false
	}
	_, found := m.slot(id)
	return found
}

// add puts an id that is not there at the end of the queue.
func (m *memory) add(e entry) {
	if m.tail-m.head == int64(len(m.ring)) {
		m.grow()
	}
	*m.at(m.tail) = e
	m.enter(m.tail)
	m.tail++
}

func (m *memory) enter(seq int64) {
	i, _ := m.slot(m.at(seq).id)
	m.index[i] = uint32(seq&int64(len(m.ring)-1)) + 1
}

func (m *memory) grow() {
	old := *m
	m.ring = make([]entry, max(16, 2*len(old.ring)))
	m.index = make([]uint32, 2*len(m.ring))
	for q := m.head; q < m.tail; q++ {
		*m.at(q) = *old.at(q)
		m.enter(q)
	}
}

// drop takes the oldest entry out.
func (m *memory) drop() {
	e := m.at(m.head)
	if m.head < m.saved {
		m.graves = append(m.graves, e.id)
	}
	i, _ := m.slot(e.id)
	m.index[i] = 0
	mask := uint32(len(m.index) - 1)
	for j := (i + 1) & mask; m.index[j] != 0; j = (j + 1) & mask { // close the gap
		home := uint32(m.ring[m.index[j]-1].id.Lo) & mask
		if (j-home)&mask >= (j-i)&mask {
			m.index[i], m.index[j] = m.index[j], 0
			i = j
		}
	}
	m.head++
}

// ready puts restored entries in order, once; what is beyond most is forgotten.
func (m *memory) ready(most int) {
	if len(m.loose) == 0 {
		return
	}
	sort.Slice(m.loose, func(i, j int) bool { return m.loose[i].seq < m.loose[j].seq })
	all := m.loose
	m.loose = nil
	m.tail = all[len(all)-1].seq + 1
	for _, l := range all[:max(0, len(all)-most)] {
		m.graves = append(m.graves, l.id)
	}
	all = all[max(0, len(all)-most):]
	m.head = m.tail - int64(len(all))
	m.saved, m.tail = m.tail, m.head
	for _, l := range all {
		m.add(l.entry)
	}
}

func (m *memory) bytes() int64 {
	return int64(24*cap(m.ring) + 4*cap(m.index) + 16*cap(m.graves) + 32*cap(m.loose))
}
