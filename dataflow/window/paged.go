package window

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// paged is running aggregates, which with a Backing may have more keys than
// memory has room for. Keys that a batch needs are read together. When memory
// is used up, all of it is written and the table begins anew: in a stream of
// few keys at a time each of them costs one read then.
//
// Sets (count(distinct x)), a step without a key, and keys longer than
// state.MaxKey are kept in memory whatever there is.
type paged struct {
	*core
	running *runningForm
	backing operator.Backing // nil: all is in memory

	held   *batch.Batch // its keys have been asked for
	rows   []int32
	bl     *batch.Builder
	reader *state.RowReader
	taken  bool // there was a snapshot, or a restore
	buf    []byte
	err    error
}

// The tables of the Backing.
const (
	pagedRows  = 0 // key: a row of the state's table without its key
	pagedDirty = 1 // keys that were written with changes since the last snapshot
)

// Open is operator.Operator's.
func (o *paged) Open(ctx *operator.Context) error {
	if err := o.core.Open(ctx); err != nil {
		return err
	}
	if ctx.Backing == nil || len(o.sets) > 0 || len(o.spec.Keys) == 0 {
		return nil
	}
	o.backing = ctx.Backing
	s := o.tables[0].Schema
	o.bl = batch.NewBuilder(o.ground, s)
	o.reader = state.NewRowReader(s.Fields()[:len(o.spec.Keys)])
	return nil
}

// Process is operator.Operator's.
func (o *paged) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	if o.backing == nil {
		return o.core.Process(b, out)
	}
	wrote, err := o.makeRoom()
	if err != nil {
		return operator.Done, err
	}
	if o.want(b) || wrote {
		o.held = b.Retain()
		return operator.Need, nil
	}
	return o.counted(o.core.Process(b, out))
}

// Resume is operator.Operator's.
func (o *paged) Resume(out operator.Output) (operator.Progress, error) {
	b := o.held
	if b == nil {
		return o.counted(o.core.Resume(out))
	}
	o.held = nil
	defer b.Release()
	if err := o.arrive(); err != nil {
		return operator.Done, err
	}
	return o.counted(o.core.Process(b, out))
}

// counted sets right what the core counts of the keys in memory alone.
func (o *paged) counted(p operator.Progress, err error) (operator.Progress, error) {
	if o.backing != nil {
		o.count.KeysLive = o.count.OpenWindows
	}
	return p, err
}

// want asks for the keys of b that are not in memory.
func (o *paged) want(b *batch.Batch) bool {
	n := b.Len()
	o.rows, o.hashes, o.ids = o.rows[:0], sized(o.hashes, n), sized(o.ids, n)
	for k := range n {
		o.rows = append(o.rows, int32(b.Position(k)))
	}
	o.keyCols = o.keyCols[:0]
	for _, k := range o.spec.Keys {
		o.keyCols = append(o.keyCols, b.Cols[k])
	}
	state.HashRows(b, o.spec.Keys, o.rows, o.hashes)
	any := false
	for i, p := range o.rows {
		id := o.keys.Find(o.keyCols, int(p), o.hashes[i])
		if id >= 0 && o.running.t.index.get(id, o.running.t.keys) >= 0 {
			continue
		}
		if o.buf = state.AppendKey(o.buf[:0], o.keyCols, int(p)); len(o.buf) <= state.MaxKey {
			o.backing.Want(pagedRows, o.buf)
			any = true
		}
	}
	return any
}

// arrive takes what was read into memory.
func (o *paged) arrive() error {
	o.backing.Take(func(_ int, key, value []byte) {
		if value == nil || o.err != nil {
			return
		}
		if o.err = o.reader.Read(key, value, o.bl); o.err == nil && o.bl.Full() {
			o.err = o.load()
		}
	})
	if o.err == nil {
		o.err = o.load()
	}
	return o.err
}

// load makes slots of the rows that were read. Their keys were counted when
// they came to be.
func (o *paged) load() error {
	b := o.bl.Take()
	if b == nil {
		return nil
	}
	o.count.OpenWindows -= int64(b.Len())
	err := o.core.Restore(0, b)
	b.Release()
	return err
}

// makeRoom writes all that is in memory if that is more than is allowed, and
// forgets it.
func (o *paged) makeRoom() (wrote bool, err error) {
	f := o.running
	if f.t.len() == 0 || o.baseBytes()+f.t.bytes() <= o.backing.Memory() {
		return false, nil
	}
	long := batch.NewBuilder(o.ground, o.tables[0].Schema)
	dirty := slices.Clone(f.t.dirty)
	w := &stateWriter{o: o.core}
	w.emit = func(_ int, b *batch.Batch) error {
		n := len(o.spec.Keys)
		for i, s := range w.chunk {
			key := state.AppendKey(nil, b.Cols[:n], i)
			if len(key) > state.MaxKey {
				long.Append(b, []int32{int32(i)})
				continue
			}
			o.buf = state.AppendRow(o.buf[:0], b.Cols[n:], i)
			o.backing.Put(pagedRows, key, o.buf)
			if o.taken && dirty[s] != 0 {
				o.backing.Put(pagedDirty, key, o.buf[:1])
			}
		}
		return nil
	}
	if err := f.saveAll(w.save); err != nil {
		return false, err
	}
	f.t.reset(o.keys)
	f.t = o.stateTable(true)
	f.stamp, o.known = f.stamp[:0], span{}
	o.sweep()
	return true, o.keepLong(long.Take())
}

// keepLong takes rows back whose keys are too long to be written. They count as
// changed.
func (o *paged) keepLong(b *batch.Batch) error {
	if b == nil {
		return nil
	}
	defer b.Release()
	o.count.OpenWindows -= int64(b.Len())
	if err := o.core.Restore(0, b); err != nil {
		return err
	}
	for i := range o.running.t.dirty {
		o.running.t.dirty[i] = 1
	}
	return nil
}

// Snapshot is operator.Stateful's: what is on disk, then what is in memory.
func (o *paged) Snapshot(delta bool, emit func(int, *batch.Batch) error) error {
	if o.backing != nil {
		if err := o.snapshotDisk(delta, emit); err != nil {
			return err
		}
		o.backing.Clear(pagedDirty)
		o.taken = true
	}
	return o.core.Snapshot(delta, emit)
}

func (o *paged) snapshotDisk(delta bool, emit func(int, *batch.Batch) error) error {
	put := func(key, value []byte) error {
		if err := o.reader.Read(key, value, o.bl); err != nil || !o.bl.Full() {
			return err
		}
		return o.emitDisk(emit)
	}
	var err error
	if delta && o.taken {
		err = o.backing.Scan(pagedDirty, func(key, _ []byte) error {
			value, err := o.backing.Get(pagedRows, key)
			if err != nil || value == nil {
				return err
			}
			return put(key, value)
		})
	} else {
		err = o.backing.Scan(pagedRows, put)
	}
	if err == nil {
		err = o.emitDisk(emit)
	}
	return err
}

// emitDisk hands on the rows that were read, but those of which memory has newer
// ones.
func (o *paged) emitDisk(emit func(int, *batch.Batch) error) error {
	b := o.bl.Take()
	if b == nil {
		return nil
	}
	defer b.Release()
	keys := make([]int, len(o.spec.Keys))
	for i := range keys {
		keys[i] = i
	}
	state.HashKeys(b, keys)
	sel := b.OwnSel(b.Rows)
	for p := range b.Rows {
		id := o.keys.Find(b.Cols[:len(keys)], p, b.Hashes[p])
		if id < 0 || o.running.t.index.get(id, o.running.t.keys) < 0 {
			sel = append(sel, int32(p))
		}
	}
	if b.Sel = sel; len(sel) == 0 {
		return nil
	}
	return emit(0, b)
}

// Restore is operator.Stateful's.
func (o *paged) Restore(table int, b *batch.Batch) error {
	err := o.core.Restore(table, b)
	if o.backing == nil || err != nil {
		return err
	}
	o.taken = true
	if table == 0 {
		var wrote bool
		if wrote, err = o.makeRoom(); wrote && err == nil {
			_, err = o.backing.Get(pagedRows, o.buf) // has it written: nobody syncs during a restore
		}
	}
	o.count.KeysLive = o.count.OpenWindows
	return err
}

// Amends is operator.Amender's: what is not on disk.
func (o *paged) Amends(table int) bool { return o.backing == nil && o.core.Amends(table) }

// Expect is operator.Expecter's; with a disk memory has room for some only.
func (o *paged) Expect(table int, rows int64) {
	if o.backing == nil {
		o.core.Expect(table, rows)
	}
}
