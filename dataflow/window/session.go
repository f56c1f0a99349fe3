package window

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// sessions is the form of session windows: one table, a slot a session. The
// sessions of a key form a list, latest first; they neither overlap nor touch.
type sessions struct {
	*core
	gap, lateness int64

	t      *table
	heads  []int32 // by key id: its latest session, plus one
	starts []int64 // by slot
	ends   []int64
	links  []int32 // by slot: the next earlier session of the key, plus one
	timers timers
	free   []int32
	dying  []int32 // dropped once the results that show them are out

	// The rows of the segment that have a session and are not added yet.
	run  []int32
	into []int32
	one  [2][1]int32

	pending []int32 // slots that fire again at the next watermark
	waits   []bool  // by slot: it is in pending

	savedAt []int64 // by slot: its start in the last snapshot
	over    bool    // some that were restored may be gone: see letGo

	resSlots         []int32
	resStart, resEnd []int64
	resAfter         []int32
}

func newSessions(o *core) *sessions {
	f := &sessions{core: o, gap: int64(o.spec.Gap), lateness: int64(o.spec.AllowedLateness), t: o.stateTable(false)}
	f.nextWM = f.timers.next()
	return f
}

// rows finds each row's session and adds runs of rows at once. It stops after
// a row that fires a session again, or after which a mark of the segment has
// become due.
func (f *sessions) rows(from, to int) int {
	f.letGo()
	ids := f.idsOf(from, to)
	f.heads = padded(f.heads, f.keys.Cap(), 0)
	last := f.wmAt(f.pos[to-1])
	f.run, f.into = f.run[:0], f.into[:0]
	i := from
	for ; i < to; i++ {
		p := f.pos[i]
		t, id := f.times[p], ids[i-from]
		if h := f.heads[id] - 1; h >= 0 && f.starts[h] <= t && t <= f.ends[h] && f.ends[h]-1 > last {
			f.ends[h] = max(f.ends[h], plus(t, f.gap)) // the usual row: its timer looks again when it rings
			f.run, f.into = append(f.run, p), append(f.into, h)
			continue
		}
		if f.place(p, id, t, last) {
			i++
			break
		}
	}
	f.flush()
	return i - from
}

// place finds or makes the session of a row that does not simply extend the
// key's latest open one. True means that the segment has to stop here.
func (f *sessions) place(p, id int32, t, last int64) bool {
	start, end := t, plus(t, f.gap)
	later, c := int32(-1), f.heads[id]-1 // a place in the list: behind later
	for c >= 0 && f.starts[c] > end {
		later, c = c, f.links[c]-1
	}
	s := int32(-1)
	for ; c >= 0 && f.ends[c] >= start; c = f.links[c] - 1 {
		start, end = min(start, f.starts[c]), max(end, f.ends[c])
		if s >= 0 {
			f.absorb(c, s)
			f.relink(id, later, c)
		}
		s = c
	}
	wm := f.wmAt(p)
	if s < 0 {
		if f.isGone(end, wm) {
			f.late = append(f.late, p)
			return false
		}
		s = f.link(id, later, c)
		f.starts[s] = start
	}
	if f.starts[s] != start {
		f.bury(f.t, s, f.savedAt[s])
	}
	f.starts[s], f.ends[s] = start, end
	f.run, f.into = append(f.run, p), append(f.into, s)
	return f.rearm(s, p, wm, last)
}

// isGone tells whether a session that ends then is gone at the watermark wm.
func (f *sessions) isGone(end, wm int64) bool {
	return plus(end-1, f.lateness) <= wm || end-1 < f.before
}

// link makes an empty session of a key, in its list between later and c.
func (f *sessions) link(id, later, c int32) int32 {
	s := f.open(id)
	f.links[s] = c + 1
	f.relink(id, later, s)
	return s
}

// relink makes s what follows later, or the key's latest session.
func (f *sessions) relink(id, later, s int32) {
	if later < 0 {
		f.heads[id] = s + 1
	} else {
		f.links[later] = s + 1
	}
}

// absorb adds session c to s and frees it. The earlier one of two absorbs the
// other, because the state knows a session by its start.
func (f *sessions) absorb(s, c int32) {
	f.flush()
	f.one[0][0], f.one[1][0] = s, c
	f.t.merge(f.one[0][:], f.t, f.one[1][:])
	f.release(c)
}

// rearm sees to it that the timer of a changed session rings in time, and that
// it fires again if its end has passed. True means that the segment has to
// stop.
func (f *sessions) rearm(s, p int32, wm, last int64) bool {
	due := f.ends[s] - 1
	passed := due <= wm
	if passed {
		due = plus(due, f.lateness)
	}
	gone := f.isGone(f.ends[s], wm) // but for an update that was due when it was restored
	if !gone {
		f.timers.atMost(s, due)
		f.nextWM = min(f.nextWM, f.timers.next())
	}
	if !passed {
		f.waits[s] = false
		return due <= last
	}
	if f.spec.Firing == FireAtWatermark || gone {
		if !f.waits[s] {
			f.waits[s] = true
			f.pending = append(f.pending, s)
		}
		f.nextWM = min(f.nextWM, plus(wm, 1))
		return true
	}
	f.waits[s] = false // as it may since a restore
	f.flush()
	f.resSlots = f.resSlots[:0]
	f.resStart, f.resEnd, f.resAfter = f.resStart[:0], f.resEnd[:0], f.resAfter[:0]
	f.show(s)
	f.resAfter = append(f.resAfter, p)
	f.res = f.shown(batch.UpdateAfter)
	f.res.after = f.resAfter
	return true
}

// flush adds the rows that have found their sessions.
func (f *sessions) flush() {
	if len(f.run) == 0 {
		return
	}
	f.in.line(f.run)
	f.t.update(f.into, f.in)
	f.run, f.into = f.run[:0], f.into[:0]
}

// open makes an empty session of a key.
func (f *sessions) open(id int32) int32 {
	var s int32
	if n := len(f.free); n > 0 {
		s = f.free[n-1]
		f.free = f.free[:n-1]
		f.t.keys[s] = id
	} else {
		s = f.t.add(id)
		n := f.t.len()
		f.starts, f.ends = padded(f.starts, n, 0), padded(f.ends, n, 0)
		f.links, f.waits = padded(f.links, n, 0), padded(f.waits, n, false)
		f.savedAt = padded(f.savedAt, n, 0)
	}
	f.keys.Hold(id)
	f.timers.open(s)
	f.waits[s] = false
	f.count.OpenWindows++
	return s
}

// release frees the slot of a session that is in no list any more.
func (f *sessions) release(s int32) {
	f.bury(f.t, s, f.savedAt[s])
	f.t.clear(s)
	f.keys.Drop(f.t.keys[s])
	f.timers.close(s)
	f.waits[s] = false
	f.free = append(f.free, s)
	f.count.OpenWindows--
}

// drop takes a session out of its key's list and frees its slot.
func (f *sessions) drop(s int32) {
	at := &f.heads[f.t.keys[s]]
	for *at != s+1 {
		at = &f.links[*at-1]
	}
	*at = f.links[s]
	f.release(s)
}

func (f *sessions) advance() { f.letGo() }

// next fires sessions in the order of their ends, a batch full at a time.
func (f *sessions) next() bool {
	if f.phase == taking {
		return false
	}
	f.reap()
	f.resSlots, f.resStart, f.resEnd = f.resSlots[:0], f.resStart[:0], f.resEnd[:0]
	kind := batch.UpdateAfter
	if f.showPending(); len(f.resSlots) == 0 {
		kind = batch.Insert
		f.ring()
	}
	if len(f.resSlots) == 0 {
		f.settle()
		return false
	}
	f.res = f.shown(kind)
	return true
}

func (f *sessions) show(s int32) {
	f.resSlots = append(f.resSlots, s)
	f.resStart, f.resEnd = append(f.resStart, f.starts[s]), append(f.resEnd, f.ends[s])
}

func (f *sessions) shown(k batch.Kind) result {
	return result{t: f.t, slots: f.resSlots, bounds: ownWindows, starts: f.resStart, ends: f.resEnd, kind: k}
}

// ring shows the sessions whose end the watermark has passed, and lets go of
// those whose lateness is over.
func (f *sessions) ring() {
	for len(f.resSlots) < batch.MaxRows && f.timers.next() <= f.wm && f.timers.len() > 0 {
		s, at, live := f.timers.first()
		end := f.ends[s] - 1
		gone := plus(end, f.lateness)
		switch {
		case !live:
			f.timers.pop()
		case at < end: // it was extended
			f.timers.again(end)
		case at == end && f.lateness > 0:
			f.show(s)
			f.timers.again(gone)
		case at == end:
			f.show(s)
			f.let(s)
		case at < gone:
			f.timers.again(gone)
		default:
			f.let(s)
		}
	}
}

// let lets go of a session once what shows it is out.
func (f *sessions) let(s int32) {
	f.timers.pop()
	f.dying = append(f.dying, s)
}

// showPending shows the sessions that late rows have changed, by their ends.
func (f *sessions) showPending() {
	for _, s := range f.pending {
		if f.waits[s] {
			f.waits[s], f.t.dirty[s] = false, 1
			f.show(s)
			if !f.timers.armed[s] { // it is gone but for this
				f.dying = append(f.dying, s)
			}
		}
	}
	f.pending = f.pending[:0]
	if len(f.resSlots) > 1 {
		sortByEnd(f.resSlots, f.resStart, f.resEnd)
	}
}

func (f *sessions) reap() {
	for _, s := range f.dying {
		f.drop(s)
	}
	f.dying = f.dying[:0]
}

func (f *sessions) settle() {
	f.reap()
	f.sweep()
	f.nextWM = f.timers.next()
	if len(f.pending) > 0 {
		f.nextWM = min(f.nextWM, plus(f.wm, 1))
	}
	f.count.KeysLive = int64(f.keys.Len())
	f.count.StateBytes = f.baseBytes() + f.t.bytes() + f.timers.bytes() +
		int64(4*(cap(f.heads)+cap(f.links)+cap(f.free))+8*(cap(f.starts)+cap(f.ends)))
}

// The state columns: start and end, and whether it fires at the next watermark.
func (f *sessions) extra() ([]batch.Field, int) {
	return []batch.Field{{Name: f.spec.shape() + "_start", Type: batch.Timestamp}, {Name: "session_end", Type: batch.Timestamp}, {Name: "refire", Type: batch.Boolean}}, 1
}

func (f *sessions) saveAll(save func(*table, []int32, putExtra) error) error {
	f.slots = f.slots[:0]
	for _, h := range f.heads {
		for s := h - 1; s >= 0; s = f.links[s] - 1 {
			f.slots = append(f.slots, s)
			f.savedAt[s] = f.starts[s]
		}
	}
	return save(f.t, f.slots, func(cols []*batch.Column, at int, slots []int32) {
		putInts(cols[0], at, f.starts, slots)
		putInts(cols[1], at, f.ends, slots)
		c := cols[2]
		for i, s := range slots {
			for len(c.Bits) < batch.Words(at+i+1) {
				c.Bits = append(c.Bits, 0)
			}
			c.Bits.Put(at+i, f.waits[s])
		}
	})
}

func (f *sessions) load(b *batch.Batch, row int, id int32) (*table, int32) {
	f.heads = padded(f.heads, f.keys.Cap(), 0)
	at := len(f.spec.Keys)
	start := b.Cols[at].Ints[row]
	later, c := int32(-1), f.heads[id]-1
	for c >= 0 && f.starts[c] > start {
		later, c = c, f.links[c]-1
	}
	s := f.link(id, later, c)
	f.starts[s], f.savedAt[s] = start, start
	f.reload(b, row, s)
	return f.t, s
}

func (f *sessions) reload(b *batch.Batch, row int, s int32) {
	at := len(f.spec.Keys)
	f.ends[s], f.waits[s] = b.Cols[at+1].Ints[row], b.Cols[at+2].Bits.Get(row)
	if f.waits[s] {
		f.pending = append(f.pending, s)
	}
}

func (f *sessions) slotOf(id int32, start int64) (*table, int32) {
	f.heads = padded(f.heads, f.keys.Cap(), 0)
	s := f.heads[id] - 1
	for s >= 0 && f.starts[s] != start {
		s = f.links[s] - 1
	}
	return f.t, s
}

// restored sets the timers, which depend on what the watermark has passed. What
// is gone, with a smaller lateness than it was saved with, gets none.
func (f *sessions) restored() {
	f.over = false
	for _, h := range f.heads {
		for s := h - 1; s >= 0; s = f.links[s] - 1 {
			f.timers.open(s)
			due := f.ends[s] - 1
			if due <= f.wm {
				due = plus(due, f.lateness)
			}
			if f.isGone(f.ends[s], f.wm) {
				f.over = true
				continue
			}
			f.timers.atMost(s, due)
		}
	}
	f.settle()
	if f.over {
		f.nextWM = min(f.nextWM, plus(f.wm, 1))
	}
}

// letGo lets go of what was gone when it was restored: after all clocks have been
// restored, as the first may be ahead of others. A session that is to fire again
// goes when it has.
func (f *sessions) letGo() {
	if !f.over {
		return
	}
	f.over = false
	for _, h := range f.heads {
		for s := h - 1; s >= 0; {
			next := f.links[s] - 1
			if !f.timers.armed[s] && !f.waits[s] {
				f.drop(s)
			}
			s = next
		}
	}
}
