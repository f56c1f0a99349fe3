package batch

import "sync"

// Pool recycles batches and counts the bytes of those that are out. It is safe
// for use by several goroutines; a batch may be released by another goroutine
// than the one that got it.
//
// The budget is a bound on the bytes in flight: a source asks Full before it
// reads on, and waits while it is; nothing else ever waits, because only
// finishing work frees memory. Full therefore means back-pressure.
type Pool struct {
	budget int64 // bytes; 0: none
	notify func()

	mu     sync.Mutex // guards what follows; held for a list operation only
	free   map[*Schema][]*Batch
	spare  int64 // bytes of the batches on all free lists
	used   int64 // bytes of the batches that are out
	out    int
	poison bool
}

// A pool keeps at most so many released batches of one schema, and bytes in
// all, for reuse; more are left to the garbage collector.
const (
	maxSpare      = 64
	maxSpareBytes = 16 << 20
)

// NewPool makes a pool with a budget in bytes (0: none). notify, if not nil, is
// called without a lock held when the bytes in flight fall below the budget
// again; it must not block.
func NewPool(budget int64, notify func()) *Pool {
	return &Pool{budget: budget, notify: notify, free: make(map[*Schema][]*Batch)}
}

// Full tells whether the batches in flight have reached the budget.
func (p *Pool) Full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.budget > 0 && p.used >= p.budget
}

// Used is the bytes held by the batches that are out.
func (p *Pool) Used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// Out is the number of batches that have not been released.
func (p *Pool) Out() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// PoisonReleased makes the pool overwrite the memory of every batch that is
// released, so that a test sees who still reads it.
func (p *Pool) PoisonReleased() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.poison = true
}

// Get returns an empty batch of the schema with one reference: no rows, no
// marks, Cols pointing nowhere yet.
func (p *Pool) Get(s *Schema) *Batch {
	p.mu.Lock()
	var b *Batch
	if l := p.free[s]; len(l) > 0 {
		b = l[len(l)-1]
		l[len(l)-1] = nil
		p.free[s] = l[:len(l)-1]
		p.spare -= b.counted
		p.used += b.counted
	}
	p.out++
	p.mu.Unlock()
	if b == nil {
		b = &Batch{Schema: s, pool: p, own: make([]Column, s.Len()), Cols: make([]*Column, s.Len())}
	}
	b.refs.Store(1)
	return b
}

// Derive returns a batch of schema s with parent's positions: the same Rows,
// Times, Sel, Marks, Kinds and hashes. Its Cols are unset; the caller points
// them at columns of parent, or fills them with Own. The child holds a
// reference to parent.
func (p *Pool) Derive(parent *Batch, s *Schema) *Batch {
	parent.Retain() // before Get, which might hand out a parent that was released
	b := p.Get(s)
	b.parent = parent
	b.Rows, b.Times, b.Sel, b.Marks = parent.Rows, parent.Times, parent.Sel, parent.Marks
	b.Kinds, b.Hashes = parent.Kinds, parent.Hashes
	b.HashedColumn, b.ColumnHashes = parent.HashedColumn, parent.ColumnHashes
	b.shared = true
	return b
}

// DeriveAll is Derive with the same schema and all columns shared: the start
// of a filter, or of new marks.
func (p *Pool) DeriveAll(parent *Batch) *Batch {
	b := p.Derive(parent, parent.Schema)
	copy(b.Cols, parent.Cols)
	return b
}

// Account tells the pool how large b has become. Builders call it once when a
// batch is finished.
func (p *Pool) Account(b *Batch) {
	n := b.capBytes()
	p.mu.Lock()
	p.used += n - b.counted
	b.counted = n
	p.mu.Unlock()
}

// put takes back the memory of a batch that nobody refers to.
func (p *Pool) put(b *Batch) {
	b.clear()
	size := b.capBytes()

	p.mu.Lock()
	was := p.budget > 0 && p.used >= p.budget
	p.out--
	p.used -= b.counted
	b.counted = size
	if p.poison {
		b.poison()
	}
	if l := p.free[b.Schema]; len(l) < maxSpare && p.spare+size <= maxSpareBytes {
		p.free[b.Schema] = append(l, b)
		p.spare += size
	}
	freed := was && p.used < p.budget
	p.mu.Unlock()
	if freed && p.notify != nil {
		p.notify()
	}
}

// clear empties b but keeps its memory.
func (b *Batch) clear() {
	for i := range b.own {
		b.own[i].reset()
		b.Cols[i] = nil
	}
	b.Rows, b.Times, b.Sel, b.Kinds, b.Hashes = 0, nil, nil, nil, nil
	b.HashedColumn, b.ColumnHashes = nil, nil
	b.Marks, b.shared = b.ownMarks[:0], false
	b.ownTimes, b.ownSel, b.ownKinds, b.ownHash = b.ownTimes[:0], b.ownSel[:0], b.ownKinds[:0], b.ownHash[:0]
}

// poison overwrites all memory of b with values that no test expects.
func (b *Batch) poison() {
	fill(b.ownTimes, -0x5a5a5a5a5a5a5a5a)
	fill(b.ownSel, 0x5a5a5a5a)
	fill(b.ownMarks, Mark{Row: 0x5a5a5a5a, Watermark: -0x5a5a5a5a5a5a5a5a, Arrival: -0x5a5a5a5a5a5a5a5a})
	fill(b.ownKinds, 0x5a)
	fill(b.ownHash, 0x5a5a5a5a5a5a5a5a)
	for i := range b.own {
		c := &b.own[i]
		fill(c.spareValid, 0x5a5a5a5a5a5a5a5a)
		fill(c.Ints, -0x5a5a5a5a5a5a5a5a)
		fill(c.Doubles, -5.5555e55)
		fill(c.Bits, 0x5a5a5a5a5a5a5a5a)
		fill(c.Offsets, 0x5a5a5a5a)
		fill(c.Data, 0x5a)
	}
}

// fill overwrites s up to its capacity.
func fill[T any](s []T, v T) {
	s = s[:cap(s)]
	for i := range s {
		s[i] = v
	}
}

func (b *Batch) capBytes() int64 {
	n := int64(8*cap(b.ownTimes) + 4*cap(b.ownSel) + 24*cap(b.ownMarks) + cap(b.ownKinds) + 8*cap(b.ownHash))
	for i := range b.own {
		n += b.own[i].capBytes()
	}
	return n
}
