package exchange

import (
	"math/bits"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// Config says how one subtask deals its rows out.
type Config struct {
	Exchange       graph.Exchange
	Channels       int // to how many subtasks; channel k leads to the k-th of Connection.Targets
	Schema         *batch.Schema
	Keys           []int // Hash: columns of the key
	MaxParallelism int   // Hash: number of key groups
	Subtask        int   // the sender; spreads where round robin begins, and the seed
	Seed           uint64
}

// Partitioner deals batches out to channels. It belongs to one goroutine.
//
// Whatever the exchange, every mark goes to every channel, at its place among
// the rows of that channel; of marks with no row between them only the last is
// sent. The rows of a channel keep their order.
type Partitioner struct {
	cfg   Config
	lanes []lane
	dest  []int32 // channel of each row that is there

	groups []int32 // Hash: channel of each key group
	mask   uint64  // Hash: MaxParallelism-1 if that is a power of two, else 0
	next   int     // Rebalance, Rescale: where the next row goes
	random uint64  // Shuffle: state of the generator
}

// lane is what one batch has for one channel.
type lane struct {
	rows  []int32      // positions in the batch
	marks []batch.Mark // Row counts rows
	seen  int          // how many of the batch's marks have been put in marks, or left out for a later one
}

// New makes a partitioner.
func New(cfg Config) *Partitioner {
	p := &Partitioner{cfg: cfg, lanes: make([]lane, cfg.Channels), dest: make([]int32, 0, batch.MaxRows)}
	p.next = cfg.Subtask % cfg.Channels
	p.random = cfg.Seed ^ uint64(cfg.Subtask+1)*0x9e3779b97f4a7c15
	if cfg.Exchange == graph.Hash {
		p.groups = make([]int32, cfg.MaxParallelism)
		for g := range p.groups {
			p.groups[g] = int32(dataflow.SubtaskOf(dataflow.KeyGroup(g), cfg.Channels, cfg.MaxParallelism))
		}
		if cfg.MaxParallelism&(cfg.MaxParallelism-1) == 0 {
			p.mask = uint64(cfg.MaxParallelism - 1)
		}
	}
	return p
}

// Split borrows b and gives emit what each channel gets of it; emit takes over
// the reference. Where a channel gets everything, that is b itself, not a copy.
//
// Key hashes travel on a hash exchange only: those that b may carry are of
// another exchange's key.
func (p *Partitioner) Split(b *batch.Batch, emit func(channel int, b *batch.Batch)) {
	if b.Len() == 0 && len(b.Marks) == 0 {
		return
	}
	if b.Hashes != nil {
		b = b.Pool().DeriveAll(b)
		b.Hashes = nil
		defer b.Release()
	}
	switch {
	case b.Len() == 0:
		p.marksOnly(b, emit)
	case len(p.lanes) == 1:
		emit(0, b.Retain())
	case p.cfg.Exchange == graph.BroadcastAll:
		for c := range p.lanes {
			emit(c, b.Retain())
		}
	case p.cfg.Exchange == graph.Hash:
		p.hash(b, emit)
	default:
		p.route(b.Len())
		p.deal(b, emit)
	}
}

// hash hashes the keys into a batch derived from b, so that the hashes travel
// with the rows and b stays as it is.
func (p *Partitioner) hash(b *batch.Batch, emit func(int, *batch.Batch)) {
	if 2*b.Len() < b.Rows { // HashKeys takes every position, there or not
		b = b.Compact()
		defer b.Release()
	}
	h := b.Pool().DeriveAll(b)
	defer h.Release()
	state.HashKeys(h, p.cfg.Keys)
	p.dest = p.dest[:h.Len()]
	switch {
	case p.mask == 0 && len(p.groups) > 1:
		for k := range p.dest {
			p.dest[k] = p.groups[dataflow.KeyGroupOf(h.Hashes[h.Position(k)], len(p.groups))]
		}
	case h.Sel == nil:
		for k, x := range h.Hashes[:len(p.dest)] {
			p.dest[k] = p.groups[x&p.mask]
		}
	default:
		for k, pos := range h.Sel {
			p.dest[k] = p.groups[h.Hashes[pos]&p.mask]
		}
	}
	p.deal(h, emit)
}

// route fills dest for the n rows of a batch by the exchanges that do not look
// at them.
func (p *Partitioner) route(n int) {
	p.dest = p.dest[:n]
	switch p.cfg.Exchange {
	case graph.Rebalance, graph.Rescale:
		for k := range p.dest {
			p.dest[k] = int32(p.next)
			if p.next++; p.next == len(p.lanes) {
				p.next = 0
			}
		}
	case graph.Shuffle:
		for k := range p.dest {
			hi, _ := bits.Mul64(p.draw(), uint64(len(p.lanes)))
			p.dest[k] = int32(hi)
		}
	default: // Global; Forward has one channel
		clear(p.dest)
	}
}

// draw is the next number of splitmix64.
func (p *Partitioner) draw() uint64 {
	p.random += 0x9e3779b97f4a7c15
	z := p.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// deal gathers the rows of b by dest and emits what each channel gets.
func (p *Partitioner) deal(b *batch.Batch, emit func(int, *batch.Batch)) {
	if len(b.Marks) == 0 {
		p.scatter(b)
	} else {
		p.scatterMarked(b)
	}
	var marks *batch.Batch // what channels without rows get: one for all
	for c := range p.lanes {
		l := &p.lanes[c]
		switch {
		case len(l.rows) == len(p.dest):
			emit(c, b.Retain())
		case len(l.rows) > 0:
			emit(c, b.Gather(l.rows, l.marks))
		case len(b.Marks) > 0:
			if marks == nil {
				marks = b.Pool().MarksOnly(b.Schema, b.Marks[len(b.Marks)-1])
			}
			emit(c, marks.Retain())
		}
		l.rows, l.marks, l.seen = l.rows[:0], l.marks[:0], 0
	}
	if marks != nil {
		marks.Release()
	}
}

func (p *Partitioner) scatter(b *batch.Batch) {
	lanes := p.lanes
	if b.Sel == nil {
		for k, c := range p.dest {
			l := &lanes[c]
			l.rows = append(l.rows, int32(k))
		}
		return
	}
	for k, c := range p.dest {
		l := &lanes[c]
		l.rows = append(l.rows, b.Sel[k])
	}
}

// scatterMarked gives a channel a mark only when a row of its own follows, and
// at the end: the work is per row, not per mark and channel.
func (p *Partitioner) scatterMarked(b *batch.Batch) {
	before := 0 // marks that stand before the row
	for k, c := range p.dest {
		pos := int32(b.Position(k))
		for before < len(b.Marks) && b.Marks[before].Row <= pos {
			before++
		}
		l := &p.lanes[c]
		if l.seen < before {
			l.mark(b.Marks[before-1])
			l.seen = before
		}
		l.rows = append(l.rows, pos)
	}
	for c := range p.lanes {
		if l := &p.lanes[c]; l.seen < len(b.Marks) && len(l.rows) > 0 {
			l.mark(b.Marks[len(b.Marks)-1])
		}
	}
}

// mark puts m after the rows that the lane has.
func (l *lane) mark(m batch.Mark) {
	m.Row = int32(len(l.rows))
	l.marks = append(l.marks, m)
}

// marksOnly sends the last mark of a batch without rows to every channel.
func (p *Partitioner) marksOnly(b *batch.Batch, emit func(int, *batch.Batch)) {
	m := b.Retain()
	if b.Rows > 0 || len(b.Marks) > 1 {
		m.Release()
		m = b.Pool().MarksOnly(b.Schema, b.Marks[len(b.Marks)-1])
	}
	for c := range p.lanes {
		emit(c, m.Retain())
	}
	m.Release()
}
