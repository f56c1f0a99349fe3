package window

import (
	"cmp"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// slidingCounts is the form of count windows that overlap: every each rows of
// a key, over its last size ones. Rows are gathered in panes of the greatest
// common divisor of both; a key's panes are a queue in two parts, so that a
// window is the sum of two slots, whatever their number: the front panes each
// hold the sum from themselves to the last front pane, and one slot sums up
// the panes behind.
type slidingCounts struct {
	*core
	pane   int64 // rows a pane
	window int64 // panes a window
	each   int64 // panes between firings

	t    *table
	keyd []queue // by key id
	free []int32

	run, into []int32
	results   completed
	numbers   []int64 // by slot, while state is saved or loaded: the pane's number
	sumTo     []int64 // and the last pane that its sum contains
	one       [2][1]int32
}

// queue is the panes of one key.
type queue struct {
	list  []int32 // slots of full panes, oldest first, from head on
	head  int
	front int   // how many of them hold the sum up to the last of these
	first int64 // the number of the oldest pane; numbers count from the key's first row
	back  int32 // slot with the sum of the panes behind the front, plus one
	open  int32 // slot of the pane being filled, plus one
	rows  int64 // rows in it
}

func (q *queue) panes() []int32 { return q.list[q.head:] }

// pop takes the oldest pane out.
func (q *queue) pop() int32 {
	s := q.list[q.head]
	q.head++
	q.front--
	q.first++
	if q.head > 16 && 2*q.head > len(q.list) {
		q.list = q.list[:copy(q.list, q.list[q.head:])]
		q.head = 0
	}
	return s
}

func newSlidingCounts(o *core) *slidingCounts {
	a, b := o.spec.Rows, o.spec.EachRows
	for b != 0 {
		a, b = b, a%b
	}
	f := &slidingCounts{core: o, pane: a, window: o.spec.Rows / a, each: o.spec.EachRows / a, t: o.stateTable(false)}
	f.nextWM = math.MaxInt64
	return f
}

func (f *slidingCounts) rows(from, to int) int {
	ids := f.idsOf(from, to)
	f.queues()
	f.run, f.into = f.run[:0], f.into[:0]
	for i, id := range ids {
		q, p := &f.keyd[id], f.pos[from+i]
		if q.open == 0 {
			q.open = f.slot(id) + 1
			q.rows = 0
		}
		f.run, f.into = append(f.run, p), append(f.into, q.open-1)
		if q.rows++; q.rows == f.pane {
			f.flush()
			f.shift(q, id)
			if f.number(q)%f.each == 0 {
				f.results.add(f.total(q, id), p, f.times[p])
			}
		}
	}
	f.flush()
	if len(f.results.slots) > 0 {
		f.res = f.results.result(f.t)
	}
	return to - from
}

func (f *slidingCounts) queues() {
	f.keyd = padded(f.keyd, f.keys.Cap(), queue{})
}

func (f *slidingCounts) flush() {
	if len(f.run) > 0 {
		f.in.line(f.run)
		f.t.update(f.into, f.in)
		f.run, f.into = f.run[:0], f.into[:0]
	}
}

// number is how many panes the key has filled.
func (f *slidingCounts) number(q *queue) int64 { return q.first + int64(len(q.panes())) }

// shift moves the pane that is full into the queue and drops the one that no
// window holds any more.
func (f *slidingCounts) shift(q *queue, id int32) {
	s := q.open - 1
	q.open, q.rows = 0, 0
	q.list = append(q.list, s)
	if q.back == 0 {
		q.back = f.slot(id) + 1
	}
	f.merge(q.back-1, s)
	panes := q.panes()
	if int64(len(panes)) <= f.window {
		return
	}
	if q.front == 0 {
		for i := len(panes) - 2; i >= 0; i-- {
			f.merge(panes[i], panes[i+1])
		}
		q.front = len(panes)
		f.t.clear(q.back - 1)
	}
	f.bury(f.t, panes[0], q.first)
	f.give(q.pop())
}

func (f *slidingCounts) merge(d, s int32) {
	f.one[0][0], f.one[1][0] = d, s
	f.t.merge(f.one[0][:], f.t, f.one[1][:])
}

// total is a slot with the sum of the key's last panes.
func (f *slidingCounts) total(q *queue, id int32) int32 {
	s := f.slot(id)
	if q.front > 0 {
		f.merge(s, q.panes()[0])
	}
	f.merge(s, q.back-1)
	return s
}

func (f *slidingCounts) slot(id int32) int32 {
	f.keys.Hold(id)
	if n := len(f.free); n > 0 {
		s := f.free[n-1]
		f.free = f.free[:n-1]
		f.t.keys[s] = id
		return s
	}
	return f.t.add(id)
}

func (f *slidingCounts) give(s int32) {
	f.keys.Drop(f.t.keys[s])
	f.t.clear(s)
	f.free = append(f.free, s)
}

func (f *slidingCounts) advance() {}

func (f *slidingCounts) next() bool {
	for _, s := range f.results.slots {
		f.give(s)
	}
	f.results.reset()
	if f.at == len(f.pos) {
		f.measure()
	}
	return false
}

func (f *slidingCounts) measure() {
	f.count.KeysLive = int64(f.keys.Len())
	f.count.OpenWindows = f.count.KeysLive
	f.count.StateBytes = f.baseBytes() + f.t.bytes() + int64(56*cap(f.keyd)+4*cap(f.free)) + int64(4*f.t.len())
}

// The state columns: the pane's number, and the number of the last pane that
// its sum contains (its own, unless it is in the front).
func (f *slidingCounts) extra() ([]batch.Field, int) {
	return []batch.Field{{Name: f.spec.shape() + "_pane", Type: batch.Bigint}, {Name: "sum_to", Type: batch.Bigint}}, 1
}

func (f *slidingCounts) saveAll(save func(*table, []int32, putExtra) error) error {
	f.numbers, f.sumTo = padded(f.numbers, f.t.len(), 0), padded(f.sumTo, f.t.len(), 0)
	f.slots = f.slots[:0]
	for id := range f.keyd {
		q := &f.keyd[id]
		for i, s := range q.panes() {
			n := q.first + int64(i)
			f.numbers[s], f.sumTo[s] = n, n
			if i < q.front {
				f.sumTo[s] = q.first + int64(q.front) - 1
			}
			f.slots = append(f.slots, s)
		}
		if s := q.open - 1; s >= 0 {
			f.numbers[s], f.sumTo[s] = f.number(q), f.number(q)
			f.slots = append(f.slots, s)
		}
	}
	return save(f.t, f.slots, func(cols []*batch.Column, at int, slots []int32) {
		putInts(cols[0], at, f.numbers, slots)
		putInts(cols[1], at, f.sumTo, slots)
	})
}

// load notes each pane at its key; restored puts them in order.
func (f *slidingCounts) load(b *batch.Batch, row int, id int32) (*table, int32) {
	f.queues()
	s := f.slot(id)
	f.numbers, f.sumTo = padded(f.numbers, f.t.len(), 0), padded(f.sumTo, f.t.len(), 0)
	f.reload(b, row, s)
	f.keyd[id].list = append(f.keyd[id].list, s)
	return f.t, s
}

func (f *slidingCounts) reload(b *batch.Batch, row int, s int32) {
	at := len(f.spec.Keys)
	f.numbers[s], f.sumTo[s] = b.Cols[at].Ints[row], b.Cols[at+1].Ints[row]
}

func (f *slidingCounts) slotOf(id int32, number int64) (*table, int32) {
	f.queues()
	q := &f.keyd[id]
	if i := f.place(q, number); i >= 0 {
		return f.t, q.list[i]
	}
	return f.t, -1
}

// place is where a pane is in its key's list, while that is loaded; -1: nowhere.
// Parts hold panes mostly in order.
func (f *slidingCounts) place(q *queue, number int64) int {
	if len(q.list) == 0 {
		return -1
	}
	if i := number - f.numbers[q.list[0]]; i >= 0 && i < int64(len(q.list)) && f.numbers[q.list[i]] == number {
		return int(i)
	}
	return slices.IndexFunc(q.list, func(s int32) bool { return f.numbers[s] == number })
}

func (f *slidingCounts) restored() {
	for id := range f.keyd {
		q := &f.keyd[id]
		if len(q.list) == 0 || q.back != 0 {
			continue
		}
		slices.SortFunc(q.list, func(a, b int32) int { return cmp.Compare(f.numbers[a], f.numbers[b]) })
		q.first = f.numbers[q.list[0]]
		if s := q.list[len(q.list)-1]; f.t.rows[s] < f.pane {
			q.open, q.rows = s+1, f.t.rows[s]
			q.list = q.list[:len(q.list)-1]
		}
		for i, s := range q.list {
			if f.sumTo[s] > f.numbers[s] {
				q.front = max(q.front, i+1+int(f.sumTo[s]-f.numbers[s]))
			}
		}
		q.back = f.slot(int32(id)) + 1
		for _, s := range q.list[q.front:] {
			f.merge(q.back-1, s)
		}
	}
	f.measure()
}
