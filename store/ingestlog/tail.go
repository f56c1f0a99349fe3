package ingestlog

// group is the blocks of one commit, in memory.
type group struct {
	seq, next int64 // of its entries
	blocks    []*block
	bytes     int64
}

// tail holds the latest groups without a gap, for readers at the end, and
// buffers that nobody needs any more. It is under the log's lock.
//
// Full: the oldest group goes; who reads it next reads it from disk.
type tail struct {
	limit  int64
	groups []group
	head   int // groups before it are gone
	bytes  int64
	spare  spares
}

func (t *tail) live() []group { return t.groups[t.head:] }

// first is the sequence from which it has everything; next if it has nothing.
func (t *tail) first(next int64) int64 {
	if t.head < len(t.groups) {
		return t.groups[t.head].seq
	}
	return next
}

func (t *tail) push(g group) {
	if t.head > 64 && 2*t.head > len(t.groups) {
		n := copy(t.groups, t.groups[t.head:])
		clear(t.groups[n:])
		t.groups, t.head = t.groups[:n], 0
	}
	for _, b := range g.blocks {
		b.refs++
	}
	t.groups = append(t.groups, g)
	t.bytes += g.bytes
	for t.bytes > t.limit && t.head < len(t.groups) {
		old := &t.groups[t.head]
		t.bytes -= old.bytes
		for _, b := range old.blocks {
			t.release(b)
		}
		*old = group{}
		t.head++
	}
}

// clear lets all groups go.
func (t *tail) clear() {
	for _, g := range t.live() {
		for _, b := range g.blocks {
			t.release(b)
		}
	}
	t.groups, t.head, t.bytes = t.groups[:0], 0, 0
}

// find is the index in live of the group that begins at seq; it must be there.
func (t *tail) find(seq int64) int {
	live := t.live()
	lo, hi := 0, len(live)
	for lo < hi {
		if m := (lo + hi) / 2; live[m].seq < seq {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// release lets a block go; when nobody has it, its memory is used again.
func (t *tail) release(b *block) {
	if b.refs--; b.refs == 0 {
		t.spare.give(b.data)
		b.data = nil
	}
}

// spares are buffers of blocks that nobody needs any more.
//
// Full: what is given is left to the garbage collector.
type spares struct {
	limit   int
	buffers [][]byte
	bytes   int
}

func (s *spares) give(b []byte) {
	if s.bytes+cap(b) <= s.limit {
		s.buffers = append(s.buffers, b[:0])
		s.bytes += cap(b)
	}
}

// take is an empty buffer for n bytes, if there is one that is not far too
// large; nil otherwise.
func (s *spares) take(n int) []byte {
	i := len(s.buffers) - 1
	if i < 0 || cap(s.buffers[i]) > 1024 && cap(s.buffers[i])/4 > n {
		return nil
	}
	b := s.buffers[i]
	s.buffers = s.buffers[:i]
	s.bytes -= cap(b)
	return b
}
