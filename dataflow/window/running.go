package window

import (
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// runningForm keeps the aggregates of each key for ever and emits them after
// every row: a stream of updates.
type runningForm struct {
	*core
	t     *table
	stamp []int32 // by slot: the last run it is in
	run   int32
	shown completed
	one   [1]int32
}

func newRunning(o *core) *runningForm {
	f := &runningForm{core: o, t: o.stateTable(true)}
	f.nextWM = math.MaxInt64
	return f
}

// rows takes in rows up to the first whose key is there already, so that the
// slots show, once for all of them, what each row gave.
func (f *runningForm) rows(from, to int) int {
	if f.known.from > from || f.known.to < to {
		ids := f.idsOf(from, to)
		f.slots = sized(f.slots, len(ids))
		before := f.t.len()
		f.t.find(ids, f.slots, f.keys)
		f.count.OpenWindows += int64(f.t.len() - before)
		f.stamp = padded(f.stamp, f.t.len(), 0)
	}
	if f.run == math.MaxInt32 {
		clear(f.stamp)
		f.run = 0
	}
	f.run++
	f.shown.reset()
	for i, s := range f.slots[from-f.known.from : to-f.known.from] {
		if f.stamp[s] == f.run {
			break
		}
		f.stamp[s] = f.run
		p := f.pos[from+i]
		f.shown.add(s, p, f.times[p])
	}
	n := len(f.shown.slots)
	f.in.line(f.pos[from : from+n])
	f.t.update(f.shown.slots, f.in)
	f.res = f.shown.result(f.t)
	f.res.bounds, f.res.kind = running, batch.UpdateAfter
	return n
}

func (f *runningForm) advance() {}

func (f *runningForm) next() bool {
	if f.at == len(f.pos) {
		f.count.KeysLive = int64(f.keys.Len())
		f.count.StateBytes = f.baseBytes() + f.t.bytes()
	}
	return false
}

func (f *runningForm) extra() ([]batch.Field, int) { return nil, 0 }

func (f *runningForm) saveAll(save func(*table, []int32, putExtra) error) error {
	f.slots = sized(f.slots, f.t.len())
	for i := range f.slots {
		f.slots[i] = int32(i)
	}
	return save(f.t, f.slots, nil)
}

func (f *runningForm) load(_ *batch.Batch, _ int, id int32) (*table, int32) {
	f.one[0] = id
	t, _ := f.loadAll(f.one[:], f.one[:])
	return t, f.one[0]
}

func (f *runningForm) loadAll(ids, slots []int32) (*table, int) {
	before := f.t.len()
	f.t.find(ids, slots, f.keys)
	return f.t, f.t.len() - before
}

func (f *runningForm) reload(*batch.Batch, int, int32) {}

func (f *runningForm) slotOf(id int32, _ int64) (*table, int32) {
	return f.t, f.t.index.get(id, f.t.keys)
}

func (f *runningForm) restored() {}
