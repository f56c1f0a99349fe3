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

	mu    sync.Mutex // guards free and used; held for a list operation only
	free  map[*Schema][]*Batch
	spare int // batches on all free lists
	used  int64
}

// maxSpare bounds how many released batches a pool keeps for reuse; more are
// left to the garbage collector.
const maxSpare = 256

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

// Get returns an empty batch of the schema with one reference: no rows, no
// marks, Cols pointing nowhere yet.
func (p *Pool) Get(s *Schema) *Batch {
	p.mu.Lock()
	var b *Batch
	if l := p.free[s]; len(l) > 0 {
		b = l[len(l)-1]
		p.free[s] = l[:len(l)-1]
		p.spare--
		p.used += b.counted
	}
	p.mu.Unlock()
	if b == nil {
		b = &Batch{Schema: s, pool: p, own: make([]Column, s.Len()), Cols: make([]*Column, s.Len())}
	}
	b.refs.Store(1)
	return b
}

// Derive returns a batch of schema s with parent's positions: the same Rows,
// Times, Sel, Marks, Kinds and Hashes. Its Cols are unset; the caller points
// them at columns of parent, or fills them with Own. The child holds a
// reference to parent.
func (p *Pool) Derive(parent *Batch, s *Schema) *Batch {
	b := p.Get(s)
	b.parent = parent.Retain()
	b.Rows, b.Times, b.Sel, b.Marks = parent.Rows, parent.Times, parent.Sel, parent.Marks
	b.Kinds, b.Hashes = parent.Kinds, parent.Hashes
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

func (p *Pool) put(b *Batch) {
	for i := range b.own {
		b.own[i].reset()
	}
	for i := range b.Cols {
		b.Cols[i] = nil
	}
	b.Rows, b.Times, b.Sel, b.Kinds, b.Hashes = 0, nil, nil, nil, nil
	b.Marks, b.shared = b.ownMarks[:0], false
	b.ownKinds, b.ownHash = b.ownKinds[:0], b.ownHash[:0]
	size := b.capBytes()

	p.mu.Lock()
	was := p.budget > 0 && p.used >= p.budget
	p.used -= b.counted
	b.counted = size
	if p.spare < maxSpare {
		p.free[b.Schema] = append(p.free[b.Schema], b)
		p.spare++
	}
	freed := was && p.used < p.budget
	p.mu.Unlock()
	if freed && p.notify != nil {
		p.notify()
	}
}

func (b *Batch) capBytes() int64 {
	n := int64(8*cap(b.ownTimes) + 4*cap(b.ownSel) + 24*cap(b.ownMarks) + cap(b.ownKinds) + 8*cap(b.ownHash))
	for i := range b.own {
		n += b.own[i].capBytes()
	}
	return n
}
