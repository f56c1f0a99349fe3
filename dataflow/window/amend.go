package window

import (
	"errors"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// expectFrom is from how many rows on it is worth to make room for them at once.
const expectFrom = 1 << 12

// Expect is operator.Expecter's: for forms that have about a slot a key.
func (o *core) Expect(table int, rows int64) {
	if table > 0 || rows < expectFrom || rows > math.MaxInt32/2 || len(o.spec.Keys) == 0 {
		return
	}
	n := int(rows)
	switch f := o.form.(type) {
	case *runningForm:
		f.t.reserve(n, true)
	case *counts:
		f.t.reserve(n, false)
		f.heads, f.seen = slices.Grow(f.heads, n), slices.Grow(f.seen, n)
	case *sessions:
		f.t.reserve(n, false)
		f.heads, f.links = slices.Grow(f.heads, n), slices.Grow(f.links, n)
		f.starts, f.ends, f.savedAt = slices.Grow(f.starts, n), slices.Grow(f.ends, n), slices.Grow(f.savedAt, n)
	default:
		return
	}
	o.keys.Reserve(n)
}

// Amends is operator.Amender's: the accumulators, where something tells their
// slots apart, and their sets.
func (o *core) Amends(table int) bool { return o.keep > 0 && table <= len(o.sets) }

// Amend is operator.Amender's.
func (o *core) Amend(table int, b *batch.Batch) error {
	n := b.Len()
	if n == 0 {
		return nil
	}
	b = o.compacted(b)
	defer b.Release()
	rows, ids := make([]int32, n), make([]int32, n)
	o.restoredIDs(b, rows, ids)
	var err error
	if table > 0 {
		o.loadSets(table-1, b, rows, ids)
	} else {
		err = o.amendRows(b, rows, ids)
	}
	o.sweep()
	return err
}

// amendRows unloads the slots of rows that are deleted, and loads the others, in
// the slots that they have or new ones. Sets keep their members, which are rows of
// other tables.
func (o *core) amendRows(b *batch.Batch, rows, ids []int32) error {
	if b.Kinds != nil {
		n := 0
		for i, r := range rows {
			if b.Kinds[r] != batch.Delete {
				rows[n], ids[n] = r, ids[i]
				n++
			} else if err := o.form.unload(ids[i], o.ownOf(b, r)); err != nil {
				return err
			}
		}
		rows, ids = rows[:n], ids[:n]
	}
	o.loadRows(b, rows, ids, true)
	return nil
}

// ownOf is the column of a row of the state that tells a key's slots apart.
func (o *core) ownOf(b *batch.Batch, row int32) int64 {
	if at := len(o.spec.Keys); o.keep > at {
		return b.Cols[at].Ints[row]
	}
	return 0
}

// loadSets takes members of sets, and takes out those that are deleted. Where the
// slot is not there any more they have gone with it.
func (o *core) loadSets(set int, b *batch.Batch, rows, ids []int32) {
	x := o.sets[set]
	d := o.in.dicts[o.in.plan.accs[x].arg]
	values, hashes := make([]int32, len(rows)), make([]uint64, len(rows))
	col := b.Cols[len(b.Cols)-1]
	state.HashColumn(col, rows, hashes)
	d.Lookup([]*batch.Column{col}, rows, hashes, values)
	var holes *distinctSets // its slot at has members that were taken out
	at := int32(-1)
	for i, r := range rows {
		t, s := o.form.slotOf(ids[i], o.ownOf(b, r))
		if s < 0 {
			continue
		}
		sets := t.accs[x].(*distinctSets)
		if holes != nil && (holes != sets || at != s) {
			holes.close(at)
			holes = nil
		}
		switch {
		case b.Kinds != nil && b.Kinds[r] == batch.Delete:
			if sets.remove(s, values[i]) {
				holes, at = sets, s
			}
		case sets.add(s, values[i]):
			sets.members[sets.heads[s]-1].saved = true
		}
	}
	if holes != nil {
		holes.close(at)
	}
}

// remove takes a value out of a slot's set, if it is there; the slot is to be
// closed before anything but remove and add is done with it.
func (a *distinctSets) remove(slot, value int32) bool {
	if len(a.index) == 0 {
		return false
	}
	mask := uint32(len(a.index) - 1)
	for j := a.home(slot, value); a.index[j] != 0; j = (j + 1) & mask {
		m := a.index[j]
		if e := &a.members[m-1]; e.slot == slot && e.value == value {
			a.unlink(m)
			a.dict.Drop(value)
			e.value = removed
			a.counts[slot]--
			a.used--
			return true
		}
	}
	return false
}

// close frees the members of a slot's set that were removed.
func (a *distinctSets) close(slot int32) {
	for at := &a.heads[slot]; *at != 0; {
		m := *at
		e := &a.members[m-1]
		if e.value != removed {
			at = &e.next
			continue
		}
		*at, e.next = e.next, a.free
		a.free = m
	}
}

// clearOwn makes a slot neutral but for its sets.
func (t *table) clearOwn(s int32) {
	t.rows[s], t.dirty[s], t.saved[s] = 0, 0, 0
	for _, n := range t.nulls {
		if len(n) > 0 {
			n[s] = 0
		}
	}
	for i, a := range t.accs {
		if t.plan.accs[i].kind != distinct {
			a.clear(s)
		}
	}
	for _, l := range t.lacks {
		l[s] = false
	}
}

// unload: a slice lets go of its slots only when none of them is left, as it ends
// for all keys at once.
func (f *sliced) unload(id int32, lo int64) error {
	t, slot := f.slotOf(id, lo)
	if slot < 0 {
		return nil
	}
	no, _ := f.g.slice(lo)
	i := f.search(no)
	s := f.live[i]
	if s.dead == nil {
		s.dead = make(map[int32]struct{})
	}
	s.dead[slot] = struct{}{}
	f.count.OpenWindows--
	if len(s.dead) == t.len() {
		f.live = append(f.live[:i], f.live[i+1:]...)
		f.retire(s)
	}
	return nil
}

// retire gives up a slice, which is not live any more.
func (f *sliced) retire(s *slice) {
	f.recycle(s.t)
	if s.t, s.dead = nil, nil; len(f.gone) < f.spares {
		f.gone = append(f.gone, s)
	}
}

func (f *counts) unload(id int32, own int64) error {
	_, s := f.slotOf(id, own)
	if s < 0 {
		return nil
	}
	f.heads[id] = 0
	f.let(s)
	return nil
}

func (f *slidingCounts) unload(id int32, number int64) error {
	_, s := f.slotOf(id, number)
	if s < 0 {
		return nil
	}
	q := &f.keyd[id]
	if i := f.place(q, number); i == 0 {
		q.list = q.list[1:]
	} else {
		q.list = append(q.list[:i], q.list[i+1:]...)
	}
	f.give(s)
	return nil
}

func (f *sessions) unload(id int32, start int64) error {
	if _, s := f.slotOf(id, start); s >= 0 {
		f.t.saved[s] = 0
		f.drop(s)
	}
	return nil
}

func (f *runningForm) unload(int32, int64) error {
	return errors.New("running aggregates of a key were removed, which never happens")
}
