package window

import (
	"math"
	"sort"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// slice is a piece of time with at least one row, and its accumulators.
type slice struct {
	no     int64
	lo, hi int64 // first and last instant
	behind bool  // a window that covers it has fired
	t      *table
	run    []int32 // positions of the segment that fall into it

	dead map[int32]struct{} // slots that are unloaded, while state is restored
}

// sliced is the form of tumbling and sliding windows.
type sliced struct {
	*core
	g    grid
	live []*slice // by number
	gone []*slice // kept for their memory
	hot  [4]*slice
	last int // where hot is replaced next

	ended   bool  // the watermark is MAX: all is late
	from    int64 // rows before it are late
	touched []*slice
	sum     *sums // of sliding windows; nil: a window is one slice

	fired int64 // last window that has fired
	due   int64 // windows up to here fire at this watermark
	scan  int   // tumbling: live slices before it have fired

	again again  // rows that enter windows already fired
	done  *table // result table to recycle once emitted
}

func newSliced(o *core) *sliced {
	s := o.spec
	slide := s.Slide
	if s.Form == Tumbling {
		slide = s.Size
	}
	f := &sliced{core: o, g: newGrid(int64(s.Size), int64(slide), int64(s.Offset), int64(s.AllowedLateness))}
	if f.g.count > 1 {
		f.sum = newSums(f)
		f.spares += 2 * f.sum.block // a block is spread out at once, and used up one by one
	}
	f.thresholds()
	return f
}

// thresholds derives from the watermark what the rows are measured by.
func (f *sliced) thresholds() {
	f.fired = f.g.fired(f.wm)
	f.ended = f.wm == math.MaxInt64
	if !f.ended {
		f.from = f.g.start(f.lastGone() + 1)
	}
	f.nextWM = f.g.next(f.wm)
	if len(f.again.pending) > 0 {
		f.nextWM = min(f.nextWM, plus(f.wm, 1))
	}
	f.hot = [4]*slice{}
	for _, s := range f.live {
		s.behind = f.g.earliest(s.no) <= f.fired
	}
}

// lastGone is the last window that is gone.
func (f *sliced) lastGone() int64 {
	gone := f.g.gone(f.wm)
	if f.before > math.MinInt64 {
		gone = max(gone, f.g.fired(f.before-1))
	}
	return gone
}

// rows takes in a segment: it sorts the rows by slice and feeds each slice its
// rows, all at once. Where windows fire again at the next watermark it stops
// after the row that asks for that, because any mark may be the next one.
func (f *sliced) rows(from, to int) int {
	pos := f.pos[from:to]
	var cur *slice
	for len(pos) > 0 {
		if cur != nil {
			n := cur.leading(f.times, pos)
			if n == len(pos) && len(f.touched) == 0 {
				f.feed(cur, pos) // the usual segment: one slice
				return to - from
			}
			if n > 0 {
				f.give(cur, pos[:n])
				pos = pos[n:]
				continue
			}
		}
		if cur = f.route(pos[0]); cur == nil {
			pos = pos[1:]
			if f.again.waiting() && f.spec.Firing == FireAtWatermark {
				break
			}
		}
	}
	for _, s := range f.touched {
		f.feed(s, s.run)
		s.run = s.run[:0]
	}
	f.touched = f.touched[:0]
	return to - from - len(pos)
}

// leading is how many of the rows, from the first on, lie in the slice.
func (s *slice) leading(times []int64, pos []int32) int {
	lo, hi := s.lo, s.hi
	for i, p := range pos {
		if t := times[p]; t < lo || t > hi {
			return i
		}
	}
	return len(pos)
}

func (f *sliced) give(s *slice, pos []int32) {
	if len(s.run) == 0 {
		f.touched = append(f.touched, s)
	}
	s.run = append(s.run, pos...)
}

// route finds the slice of a row that is not in the one before. It is nil if
// the row is late, in no window, or enters windows that have fired and must
// fire again.
func (f *sliced) route(p int32) *slice {
	t := f.times[p]
	for _, s := range f.hot {
		if s != nil && s.lo <= t && t <= s.hi {
			return s
		}
	}
	no, in := f.g.slice(t)
	switch {
	case !in && plus(t, f.g.lateness) > f.wmAt(p) && t >= f.before:
		f.count.NoWindow++
		return nil
	case !in || f.ended || t < f.from:
		f.late = append(f.late, p)
		return nil
	case f.g.lateness > 0 && f.g.earliest(no) <= f.fired:
		f.again.rows = append(f.again.rows, p)
		return nil
	}
	s := f.slice(no)
	f.hot[f.last] = s
	f.last = (f.last + 1) % len(f.hot)
	return s
}

// slice is the live slice with the number, made if need be.
func (f *sliced) slice(no int64) *slice {
	i := f.search(no)
	if i < len(f.live) && f.live[i].no == no {
		return f.live[i]
	}
	var s *slice
	if n := len(f.gone); n > 0 {
		s = f.gone[n-1]
		f.gone = f.gone[:n-1]
	} else {
		s = &slice{}
	}
	s.no, s.t, s.behind = no, f.stateTable(true), f.g.earliest(no) <= f.fired
	s.lo, s.hi = f.g.bounds(no)
	f.live = append(f.live, nil)
	copy(f.live[i+1:], f.live[i:])
	f.live[i] = s
	return s
}

// search is the index of the first live slice whose number is no or more.
func (f *sliced) search(no int64) int {
	if n := len(f.live); n > 0 && f.live[n-1].no < no {
		return n
	}
	return sort.Search(len(f.live), func(i int) bool { return f.live[i].no >= no })
}

// feed adds rows to a slice, and to the sums that contain it already.
func (f *sliced) feed(s *slice, pos []int32) {
	ids := f.lookup(pos)
	f.slots = sized(f.slots, len(pos))
	f.in.line(pos)
	before := s.t.len()
	s.t.find(ids, f.slots, f.keys)
	s.t.update(f.slots, f.in)
	f.count.OpenWindows += int64(s.t.len() - before)
	if s.behind && f.sum != nil {
		f.sum.repair(s, ids)
	}
}

// advance begins the firings of a new watermark.
func (f *sliced) advance() {
	f.due = f.g.fired(f.wm)
	f.scan = 0
}

// next makes the next result: late rows, then windows that fire again at the
// watermark, then windows that fire.
func (f *sliced) next() bool {
	if f.done != nil {
		f.recycle(f.done)
		f.done = nil
	}
	if f.phase == taking {
		return f.nextLate()
	}
	if f.nextPending() || f.nextWindow() {
		return true
	}
	f.settle()
	return false
}

// nextWindow fires the next window up to due that has a row.
func (f *sliced) nextWindow() bool {
	if f.sum != nil {
		return f.nextSum()
	}
	for ; f.scan < len(f.live); f.scan++ {
		s := f.live[f.scan]
		k := f.g.latest(s.no)
		if k > f.due {
			return false
		}
		if k > f.fired {
			f.scan++
			f.fire(s.t, k)
			return true
		}
	}
	return false
}

// nextSum is nextWindow for windows of several slices.
func (f *sliced) nextSum() bool {
	for f.fired < f.due {
		k := f.fired + 1
		from, _ := f.g.span(k)
		i := f.search(from)
		if i == len(f.live) {
			return false
		}
		// the first window that reaches the first slice that counts
		k = max(k, f.g.earliest(f.live[i].no))
		if k > f.due {
			return false
		}
		f.fired = k
		t, temporary := f.sum.window(k)
		if t == nil {
			continue
		}
		if temporary {
			f.done = t
		}
		f.fire(t, k)
		return true
	}
	return false
}

// fire makes all of t the result of window k.
func (f *sliced) fire(t *table, k int64) {
	f.res = result{t: t, slots: f.all(t), bounds: oneWindow, start: f.g.start(k), end: f.g.end(k), kind: batch.Insert}
}

// all lists the slots of a table.
func (f *sliced) all(t *table) []int32 {
	f.slots = sized(f.slots, t.len())
	for i := range f.slots {
		f.slots[i] = int32(i)
	}
	return f.slots
}

// settle drops what no row and no window needs any more, once all results of a
// watermark are out.
func (f *sliced) settle() {
	f.sweep()
	gone := f.lastGone()
	n := 0
	for ; n < len(f.live) && f.g.latest(f.live[n].no) <= gone; n++ {
		s := f.live[n]
		f.count.OpenWindows -= int64(s.t.len())
		for i := range s.t.keys {
			f.bury(s.t, int32(i), s.lo)
		}
		f.retire(s)
	}
	if n > 0 {
		kept := copy(f.live, f.live[n:])
		clear(f.live[kept:])
		f.live = f.live[:kept]
	}
	if f.sum != nil {
		f.sum.expire()
	}
	f.thresholds()
	f.measure()
}

func (f *sliced) measure() {
	n := f.baseBytes()
	for _, s := range f.live {
		n += s.t.bytes()
	}
	if f.sum != nil {
		n += f.sum.bytes()
	}
	f.count.StateBytes, f.count.KeysLive = n, int64(f.keys.Len())
}

// The state column: the first instant of the slice.
func (f *sliced) extra() ([]batch.Field, int) {
	return []batch.Field{{Name: f.spec.shape() + "_start", Type: batch.Timestamp}}, 1
}

func (f *sliced) saveAll(save func(*table, []int32, putExtra) error) error {
	for _, s := range f.live {
		err := save(s.t, f.all(s.t), func(cols []*batch.Column, at int, slots []int32) {
			cols[0].Ints = extended(cols[0].Ints, at, len(slots))
			for i := range slots {
				cols[0].Ints[at+i] = s.lo
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *sliced) load(b *batch.Batch, row int, id int32) (*table, int32) {
	f.count.OpenWindows++
	no, _ := f.g.slice(b.Cols[len(f.spec.Keys)].Ints[row])
	s := f.slice(no)
	f.again.one[0][0] = id
	s.t.find(f.again.one[0][:], f.again.one[1][:], f.keys)
	slot := f.again.one[1][0]
	delete(s.dead, slot)
	return s.t, slot
}

func (f *sliced) reload(*batch.Batch, int, int32) {}

func (f *sliced) slotOf(id int32, lo int64) (*table, int32) {
	no, _ := f.g.slice(lo)
	i := f.search(no)
	if i == len(f.live) || f.live[i].no != no {
		return nil, -1
	}
	s := f.live[i]
	slot := s.t.index.get(id, s.t.keys)
	if _, dead := s.dead[slot]; dead {
		slot = -1
	}
	return s.t, slot
}

func (f *sliced) restored() {
	for _, s := range f.live {
		if len(s.dead) > 0 {
			panic("window: of a slice that is gone keys are left")
		}
	}
	f.thresholds()
	f.measure()
}
