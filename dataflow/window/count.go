package window

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

// counts is the form of count windows that do not overlap: a slot a key, until
// it has its number of rows. No watermark fires them, and none is late.
type counts struct {
	*core
	size  int64
	t     *table
	heads []int32 // by key id: its slot, plus one
	seen  []int64 // by slot: rows so far
	free  []int32
	full  completed
}

// completed are windows that have become full, in order.
type completed struct {
	slots []int32
	after []int32
	times []int64
}

func (c *completed) add(s, p int32, t int64) {
	c.slots, c.after, c.times = append(c.slots, s), append(c.after, p), append(c.times, t)
}

func (c *completed) reset() { c.slots, c.after, c.times = c.slots[:0], c.after[:0], c.times[:0] }

func (c *completed) result(t *table) result {
	return result{t: t, slots: c.slots, bounds: noWindow, times: c.times, after: c.after, kind: batch.Insert}
}

func newCounts(o *core) *counts {
	f := &counts{core: o, size: o.spec.Rows, t: o.stateTable(false)}
	f.nextWM = 1<<63 - 1
	return f
}

// rows gives each row its slot. A window that is full keeps its slot until its
// result is out; the key's next row gets another one.
func (f *counts) rows(from, to int) int {
	ids := f.idsOf(from, to)
	f.heads = padded(f.heads, f.keys.Cap(), 0)
	f.slots = sized(f.slots, len(ids))
	for i, id := range ids {
		s := f.heads[id] - 1
		if s < 0 {
			s = f.open(id)
		}
		f.slots[i] = s
		if f.seen[s]++; f.seen[s] >= f.size { // more only where the job's windows were larger before
			p := f.pos[from+i]
			f.full.add(s, p, f.times[p])
			f.heads[id] = 0
		}
	}
	f.in.line(f.pos[from:to])
	f.t.update(f.slots, f.in)
	if len(f.full.slots) > 0 {
		f.res = f.full.result(f.t)
	}
	return to - from
}

func (f *counts) open(id int32) int32 {
	var s int32
	if n := len(f.free); n > 0 {
		s = f.free[n-1]
		f.free = f.free[:n-1]
		f.t.keys[s] = id
	} else {
		s = f.t.add(id)
		f.seen = padded(f.seen, f.t.len(), 0)
	}
	f.seen[s] = 0
	f.heads[id] = s + 1
	f.keys.Hold(id)
	f.count.OpenWindows++
	return s
}

func (f *counts) advance() {}

func (f *counts) next() bool {
	if len(f.full.slots) > 0 {
		for _, s := range f.full.slots {
			f.bury(f.t, s, 0)
			f.let(s)
		}
		f.full.reset()
	}
	if f.at == len(f.pos) {
		f.known = span{}
		f.sweep()
		f.count.KeysLive = int64(f.keys.Len())
		f.count.StateBytes = f.baseBytes() + f.t.bytes() + int64(4*(cap(f.heads)+cap(f.free))+8*cap(f.seen))
	}
	return false
}

// let frees the slot of a window that its key has let go of.
func (f *counts) let(s int32) {
	f.keys.Drop(f.t.keys[s])
	f.t.clear(s)
	f.free = append(f.free, s)
	f.count.OpenWindows--
}

func (f *counts) extra() ([]batch.Field, int) { return nil, 0 }

func (f *counts) saveAll(save func(*table, []int32, putExtra) error) error {
	f.slots = f.slots[:0]
	for _, h := range f.heads {
		if h > 0 {
			f.slots = append(f.slots, h-1)
		}
	}
	return save(f.t, f.slots, nil)
}

func (f *counts) load(_ *batch.Batch, _ int, id int32) (*table, int32) {
	f.heads = padded(f.heads, f.keys.Cap(), 0)
	return f.t, f.open(id)
}

func (f *counts) reload(*batch.Batch, int, int32) {}

func (f *counts) slotOf(id int32, _ int64) (*table, int32) {
	f.heads = padded(f.heads, f.keys.Cap(), 0)
	return f.t, f.heads[id] - 1
}

func (f *counts) restored() {
	for s := range f.seen {
		f.seen[s] = f.t.rows[s]
	}
}
