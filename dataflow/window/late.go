package window

import (
	"cmp"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// again serves rows that enter windows which have fired and are still kept.
// They are taken row by row: each window that takes the row fires once more, at
// once or at the next watermark.
type again struct {
	rows []int32 // of the segment
	at   int     // those before it are done

	pending []refiring // FireAtWatermark
	known   map[refiring]struct{}
	results *table // the content of the windows that fire again
	before  *table // content of the windows up to the row's slice, from each slice on
	after   *table // content from there on, up to each slice

	slots        []int32
	starts, ends []int64
	places       []int32
	one          [2][1]int32
}

// refiring is a window of a key that is to fire again.
type refiring struct {
	window int64
	key    int32
}

func (a *again) waiting() bool { return a.at < len(a.rows) }

// nextLate takes the next row that enters windows which have fired, and makes
// its firings the result.
func (f *sliced) nextLate() bool {
	a := &f.again
	for a.waiting() {
		p := a.rows[a.at]
		a.at++
		if f.takeLate(p) {
			return true
		}
	}
	a.rows, a.at = a.rows[:0], 0
	return false
}

func (f *sliced) takeLate(p int32) bool {
	a := &f.again
	no, _ := f.g.slice(f.times[p])
	s := f.slice(no)
	a.one[0][0] = p
	f.feed(s, a.one[0][:])
	id := f.ids[0]
	lo, hi := max(f.g.earliest(no), plus(f.lastGone(), 1)), min(f.g.latest(no), f.fired)
	if f.spec.Firing == FireAtWatermark {
		for k := lo; k <= hi; k++ {
			f.pend(refiring{window: k, key: id})
		}
		f.nextWM = min(f.nextWM, plus(f.wmAt(p), 1))
		return false
	}
	if lo > hi {
		return false
	}
	f.openResults()
	f.refireAll(s, id, lo, hi)
	a.places = a.places[:0]
	for range a.slots {
		a.places = append(a.places, p)
	}
	f.res = result{t: a.results, slots: a.slots, bounds: ownWindows, starts: a.starts, ends: a.ends, kind: batch.UpdateAfter, after: a.places}
	return true
}

func (f *sliced) openResults() {
	a := &f.again
	if a.results == nil {
		a.results, a.before, a.after = f.sumTable(), f.sumTable(), f.sumTable()
	}
	for _, t := range []*table{a.results, a.before, a.after} {
		t.reset(f.keys)
	}
	a.slots, a.starts, a.ends = a.slots[:0], a.starts[:0], a.ends[:0]
}

// open adds an empty row for window k of the key to the results.
func (f *sliced) open(k int64, id int32) int32 {
	a := &f.again
	slot := a.results.add(id)
	a.slots = append(a.slots, slot)
	a.starts, a.ends = append(a.starts, f.g.start(k)), append(a.ends, f.g.end(k))
	return slot
}

// refireAll computes the content of the windows lo to hi, all of which cover
// slice s, for one key. Each is the sum of the slices up to s from some slice
// on, and of those after s up to some slice: two running sums serve all.
func (f *sliced) refireAll(s *slice, id int32, lo, hi int64) {
	a := &f.again
	first, _ := f.g.span(lo)
	_, last := f.g.span(hi)
	j := f.search(s.no)
	i0, i1 := f.search(first), f.search(last)
	for i := j; i >= i0; i-- {
		f.accumulate(a.before, f.live[i], id)
	}
	for i := j + 1; i < i1; i++ {
		f.accumulate(a.after, f.live[i], id)
	}
	for k := lo; k <= hi; k++ {
		from, to := f.g.span(k)
		slot := f.open(k, id)
		f.mergeOne(a.results, slot, a.before, int32(j-f.search(from)))
		if n := f.search(to) - j - 2; n >= 0 {
			f.mergeOne(a.results, slot, a.after, int32(n))
		}
	}
}

// accumulate appends to sum its last slot plus what slice s has for the key.
func (f *sliced) accumulate(sum *table, s *slice, id int32) {
	slot := sum.add(id)
	if slot > 0 {
		f.mergeOne(sum, slot, sum, slot-1)
	}
	if from := s.t.index.get(id, s.t.keys); from >= 0 {
		f.mergeOne(sum, slot, s.t, from)
	}
}

func (f *sliced) mergeOne(dst *table, d int32, src *table, s int32) {
	one := &f.again.one
	one[0][0], one[1][0] = d, s
	dst.merge(one[0][:], src, one[1][:])
}

// pend notes a window that is to fire again at the next watermark.
func (f *sliced) pend(r refiring) {
	a := &f.again
	if a.known == nil {
		a.known = map[refiring]struct{}{}
	}
	if _, is := a.known[r]; is {
		return
	}
	a.known[r] = struct{}{}
	a.pending = append(a.pending, r)
}

// nextPending makes all windows that wait for the watermark the result, in the
// order of their ends.
func (f *sliced) nextPending() bool {
	a := &f.again
	if len(a.pending) == 0 {
		return false
	}
	slices.SortStableFunc(a.pending, func(x, y refiring) int { return cmp.Compare(x.window, y.window) })
	f.openResults()
	for _, r := range a.pending {
		slot := f.open(r.window, r.key)
		from, to := f.g.span(r.window)
		for _, s := range f.live[f.search(from):f.search(to)] {
			if src := s.t.index.get(r.key, s.t.keys); src >= 0 {
				f.mergeOne(a.results, slot, s.t, src)
			}
		}
	}
	a.pending = a.pending[:0]
	clear(a.known)
	f.res = result{t: a.results, slots: a.slots, bounds: ownWindows, starts: a.starts, ends: a.ends, kind: batch.UpdateAfter}
	return true
}

// saveRefires writes what waits for the next watermark.
func (f *sliced) saveRefires(w *stateWriter) error {
	for at := 0; at < len(f.again.pending); at += batch.MaxRows {
		part := f.again.pending[at:min(at+batch.MaxRows, len(f.again.pending))]
		b := f.newState(f.ctx.Pool, f.refires)
		w.ids = w.ids[:0]
		for _, r := range part {
			w.ids = append(w.ids, r.key)
		}
		for i := range f.spec.Keys {
			f.keys.Gather(i, w.ids, b.Cols[i], 0)
		}
		c := b.Cols[len(f.spec.Keys)]
		for _, r := range part {
			c.Ints = append(c.Ints, r.window)
		}
		if err := w.send(f.refires, b, len(part), w.ids); err != nil {
			return err
		}
	}
	return nil
}

func (f *sliced) loadRefires(b *batch.Batch, ids []int32) {
	for i, id := range ids {
		f.pend(refiring{window: b.Cols[len(f.spec.Keys)].Ints[i], key: id})
	}
}
