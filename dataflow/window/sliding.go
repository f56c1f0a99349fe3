package window

// sums adds slices up to the windows of a sliding step without ever subtracting
// one. A window [s, e) is the sum of a front [s, mid) and a back [mid, e):
//
//   - back is one running sum; every slice is added to it once, when the first
//     window that ends behind it fires;
//   - front is one table for each slice that a window may begin with, the sum
//     from there to mid. To hold few of them at a time, the slices before mid
//     lie in blocks of about sqrt(n): each block keeps the sum from its start to
//     mid, and only the leftmost one is spread out into a table a slice.
//
// When the windows have left the front behind, everything becomes front and the
// back begins anew. So a slice is added four times in its life, and a firing
// is one addition of two tables, whatever the number of slices in a window.
type sums struct {
	f      *sliced
	block  int // live slices a block
	mid    int64
	end    int64   // slices before it are in the sums
	front  []sum   // of the leftmost block, ascending; each from its slice to mid
	ahead  []sum   // the blocks right of it, ascending; each from its first slice to mid
	back   *table  // from mid to end
	recent []sum   // the blocks of the back, each its own slices
	count  int     // slices in the last block of recent
	slots  []int32 // scratch
}

// sum is a table that adds up slices from a number on.
type sum struct {
	from int64
	t    *table
}

func newSums(f *sliced) *sums {
	b := 1
	for int64(b)*int64(b) < f.g.count {
		b++
	}
	return &sums{f: f, block: b, mid: -1 << 63, end: -1 << 63}
}

// window is the sum of window k, nil if it is empty. A temporary table is the
// caller's to recycle.
func (u *sums) window(k int64) (t *table, temporary bool) {
	s, e := u.f.g.span(k)
	u.extend(s, e)
	if s >= u.mid {
		u.flip(s)
	}
	u.drop(s)
	for len(u.front) == 0 && len(u.ahead) > 0 {
		u.spread(s)
	}
	switch {
	case len(u.front) == 0:
		if u.back == nil || u.back.len() == 0 {
			return nil, false
		}
		return u.back, false
	case u.back == nil || u.back.len() == 0:
		return u.front[0].t, false
	}
	if top := u.front[0]; top.from < plus(s, u.f.g.per) {
		t = top.t // the next window does not begin here any more
		u.front = append(u.front[:0], u.front[1:]...)
	} else {
		t = u.f.sumTable()
		t.copyFrom(top.t)
	}
	u.slots = t.mergeAll(u.back, u.f.keys, u.slots)
	return t, true
}

// extend adds the slices up to e to the back; those before s count no more.
func (u *sums) extend(s, e int64) {
	f := u.f
	for i := f.search(max(u.end, s)); i < len(f.live) && f.live[i].no < e; i++ {
		if u.back == nil {
			u.back = f.sumTable()
		}
		if len(u.recent) == 0 || u.count == u.block {
			u.recent = append(u.recent, sum{from: f.live[i].no, t: f.sumTable()})
			u.count = 0
		}
		u.slots = u.back.mergeAll(f.live[i].t, f.keys, u.slots)
		u.slots = u.recent[len(u.recent)-1].t.mergeAll(f.live[i].t, f.keys, u.slots)
		u.count++
	}
	u.end = max(u.end, e)
}

// flip makes the back the front.
func (u *sums) flip(s int64) {
	u.clearFront()
	u.mid = u.end
	if u.back != nil {
		u.f.recycle(u.back)
		u.back = nil
	}
	for i := len(u.recent) - 1; i > 0; i-- {
		if u.recent[i].from <= s {
			// s is in this block or after it: the ones before count no more
			for j := range i {
				u.f.recycle(u.recent[j].t)
			}
			u.recent = append(u.recent[:0], u.recent[i:]...)
			break
		}
		if i+1 < len(u.recent) {
			u.slots = u.recent[i].t.mergeAll(u.recent[i+1].t, u.f.keys, u.slots)
		}
	}
	u.ahead, u.recent, u.count = u.recent, u.ahead[:0], 0
}

// spread makes the next block the leftmost one. Its own sum may contain slices
// before s, so its tables are made from the slices and the block after it.
func (u *sums) spread(s int64) {
	f := u.f
	b := u.ahead[0]
	f.recycle(b.t)
	u.ahead = append(u.ahead[:0], u.ahead[1:]...)
	right, next := u.mid, (*table)(nil)
	if len(u.ahead) > 0 {
		right, next = u.ahead[0].from, u.ahead[0].t
	}
	lo, hi := f.search(max(s, b.from)), f.search(right)
	for i := lo; i < hi; i++ {
		u.front = append(u.front, sum{from: f.live[i].no})
	}
	for i := hi - 1; i >= lo; i-- {
		next = u.cloneOf(next)
		u.slots = next.mergeAll(f.live[i].t, f.keys, u.slots)
		u.front[i-lo].t = next
	}
}

// cloneOf is a copy of t; an empty table for nil.
func (u *sums) cloneOf(t *table) *table {
	c := u.f.sumTable()
	if t != nil {
		c.copyFrom(t)
	}
	return c
}

// drop gives up the front's tables that begin before s.
func (u *sums) drop(s int64) {
	n := 0
	for ; n < len(u.front) && u.front[n].from < s; n++ {
		u.f.recycle(u.front[n].t)
	}
	u.front = append(u.front[:0], u.front[n:]...)
}

// repair adds the rows that core.in has lined up, of the given keys, to all
// sums that contain slice s: rows behind the watermark whose later windows are
// still to come.
func (u *sums) repair(s *slice, ids []int32) {
	need, _ := u.f.g.span(u.f.fired + 1)
	if s.no < need || s.no >= u.end {
		return
	}
	if s.no >= u.mid {
		u.repairBack(s, ids)
		return
	}
	right := u.mid
	if len(u.ahead) > 0 {
		right = u.ahead[0].from
	}
	if s.no < right {
		u.openFront(s.no)
	}
	for _, l := range [][]sum{u.front, u.ahead} {
		for i := range l {
			if l[i].from <= s.no {
				u.add(l[i].t, ids)
			}
		}
	}
}

func (u *sums) repairBack(s *slice, ids []int32) {
	if u.back == nil {
		u.back = u.f.sumTable()
	}
	u.add(u.back, ids)
	i := len(u.recent) - 1
	for i > 0 && u.recent[i].from > s.no {
		i--
	}
	if i < 0 {
		u.recent = append(u.recent, sum{from: s.no, t: u.f.sumTable()})
		i, u.count = 0, 1
	}
	u.recent[i].from = min(u.recent[i].from, s.no)
	u.add(u.recent[i].t, ids)
}

// openFront makes sure that the front has a table which begins at the slice.
func (u *sums) openFront(no int64) {
	i := 0
	for i < len(u.front) && u.front[i].from < no {
		i++
	}
	if i < len(u.front) && u.front[i].from == no {
		return
	}
	var next *table
	switch {
	case i < len(u.front):
		next = u.front[i].t
	case len(u.ahead) > 0:
		next = u.ahead[0].t
	}
	c := u.cloneOf(next)
	u.front = append(u.front, sum{})
	copy(u.front[i+1:], u.front[i:])
	u.front[i] = sum{from: no, t: c}
}

func (u *sums) add(t *table, ids []int32) {
	u.slots = sized(u.slots, len(ids))
	t.find(ids, u.slots, u.f.keys)
	t.update(u.slots, u.f.in)
}

// expire gives up what no window to come needs.
func (u *sums) expire() {
	if len(u.f.live) == 0 {
		u.clear()
		return
	}
	need, _ := u.f.g.span(u.f.fired + 1)
	u.drop(need)
}

// clear forgets all sums; they are made anew from the slices that live.
func (u *sums) clear() {
	u.clearFront()
	for _, b := range u.recent {
		u.f.recycle(b.t)
	}
	u.recent, u.count = u.recent[:0], 0
	if u.back != nil {
		u.f.recycle(u.back)
		u.back = nil
	}
	u.mid, u.end = -1<<63, -1<<63
}

func (u *sums) clearFront() {
	for _, l := range [][]sum{u.front, u.ahead} {
		for _, b := range l {
			u.f.recycle(b.t)
		}
	}
	u.front, u.ahead = u.front[:0], u.ahead[:0]
}

func (u *sums) bytes() int64 {
	n := int64(0)
	for _, l := range [][]sum{u.front, u.ahead, u.recent} {
		for _, b := range l {
			n += b.t.bytes()
		}
	}
	if u.back != nil {
		n += u.back.bytes()
	}
	return n
}
