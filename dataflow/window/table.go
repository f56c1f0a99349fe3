package window

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// table is a column table of accumulators: a slot for each key that has a row
// in the slice it stands for (or for each session), a column for each
// accumulator. Slots are found by key id through the index; forms that keep
// slots in other ways leave the index alone.
type table struct {
	plan  *plan
	keys  []int32   // slot → key id
	rows  []int64   // slot → number of rows
	nulls [][]int64 // by argument: slot → nulls; empty until the first null
	accs  []acc
	index index

	// Slots that were restored without an accumulator that they have now: it
	// knows only what came later, and its aggregates are null. By argument (then
	// its nulls were not counted either), then by accumulator; nil: there are none.
	lacks [][]bool

	// Tables that snapshots hold have these, sums of others are without.
	state bool
	dirty []uint8 // slot → changed since the last snapshot
	saved []uint8 // slot → the last snapshot has it

	held  bool // its slots hold their keys in the key table
	moved []int32

	large func([]byte) // operator.Context.Large
	told  int64        // bytes when large was called last
}

func newTable(p *plan, dicts []*state.KeyTable) *table {
	t := &table{plan: p, nulls: make([][]int64, len(p.args))}
	for _, a := range p.accs {
		t.accs = append(t.accs, newAcc(a.kind, p.args[a.arg].typ, dicts[a.arg]))
	}
	return t
}

func (t *table) len() int { return len(t.keys) }

// grow gives all columns as many slots as there are keys.
func (t *table) grow() {
	n := len(t.keys)
	if n == len(t.rows) {
		return
	}
	t.rows = padded(t.rows, n, 0)
	if t.state {
		t.dirty, t.saved = padded(t.dirty, n, 0), padded(t.saved, n, 0)
	}
	for i := range t.nulls {
		if len(t.nulls[i]) > 0 {
			t.nulls[i] = padded(t.nulls[i], n, 0)
		}
	}
	for _, a := range t.accs {
		a.grow(n)
	}
	for i := range t.lacks {
		t.lacks[i] = padded(t.lacks[i], n, false)
	}
	if 8*n >= state.LargeBytes && t.large != nil {
		t.tellLarge()
	}
}

// reserve makes room for n slots in a table without any; all: of all keys.
func (t *table) reserve(n int, all bool) {
	if len(t.keys) > 0 {
		return
	}
	t.keys, t.rows = slices.Grow(t.keys, n), slices.Grow(t.rows, n)
	if t.state {
		t.dirty, t.saved = slices.Grow(t.dirty, n), slices.Grow(t.saved, n)
	}
	for _, a := range t.accs {
		a.grow(n)
		a.truncate()
	}
	if all {
		t.index.dense = make([]int32, 0, n)
	}
}

// tellLarge tells of large columns, once they have grown.
func (t *table) tellLarge() {
	n := t.bytes()
	if n == t.told {
		return
	}
	t.told = n
	state.Large(t.large, t.rows)
	state.Large(t.large, t.dirty)
	state.Large(t.large, t.index.dense)
	state.Large(t.large, t.index.sparse)
	for _, c := range t.nulls {
		state.Large(t.large, c)
	}
	for _, a := range t.accs {
		a.columns(t.large)
	}
}

// lack notes that a slot was restored without an argument or accumulator.
func (t *table) lack(what int, s int32) {
	if t.lacks == nil {
		t.lacks = make([][]bool, len(t.plan.args)+len(t.accs))
		for i := range t.lacks {
			t.lacks[i] = padded(t.lacks[i], len(t.rows), false)
		}
	}
	t.lacks[what][s] = true
}

// lacksAcc tells whether what an accumulator has of a slot is not all.
func (t *table) lacksAcc(acc int, s int32) bool {
	return t.lacks != nil && (t.lacks[t.plan.accs[acc].arg][s] || t.lacks[len(t.plan.args)+acc][s])
}

// add makes a slot for a key without entering it into the index.
func (t *table) add(id int32) int32 {
	t.keys = append(t.keys, id)
	t.grow()
	return int32(len(t.keys) - 1)
}

// find puts the slot of each key id into slots, making those that are missing;
// keys says how large ids may be. ids and slots may be the same slice.
func (t *table) find(ids, slots []int32, keys *state.KeyTable) {
	old := len(t.keys)
	t.index.find(ids, slots, &t.keys, keys.Cap())
	if len(t.keys) == old {
		return
	}
	t.grow()
	if t.held {
		keys.HoldAll(t.keys[old:])
	}
}

// update adds the run of rows that in has lined up: row i to slot slots[i].
func (t *table) update(slots []int32, in *input) {
	rows := t.rows
	for _, s := range slots {
		rows[s]++
	}
	t.touch(slots)
	for i := range in.runs {
		r := &in.runs[i]
		sl := slots
		if len(r.gone) > 0 {
			sl = t.split(i, r, slots)
		}
		for _, a := range t.plan.args[i].accs {
			t.accs[a].update(sl, &r.v)
		}
	}
}

// split counts the nulls of a run and returns the slots of the other rows.
func (t *table) split(arg int, r *run, slots []int32) []int32 {
	nulls := t.nullsOf(arg)
	for _, k := range r.gone {
		nulls[slots[k]]++
	}
	t.moved = sized(t.moved, len(r.keep))
	for i, k := range r.keep {
		t.moved[i] = slots[k]
	}
	return t.moved
}

func (t *table) nullsOf(arg int) []int64 {
	if len(t.nulls[arg]) == 0 {
		t.nulls[arg] = padded(t.nulls[arg], len(t.rows), 0)
	}
	return t.nulls[arg]
}

// merge adds slot src[i] of from to slot dst[i]; a nil src means slot i.
func (t *table) merge(dst []int32, from *table, src []int32) {
	t.touch(dst)
	addInts(t.rows, dst, from.rows, src)
	for a, o := range from.nulls {
		if len(o) == 0 {
			continue
		}
		addInts(t.nullsOf(a), dst, o, src)
	}
	for i, a := range t.accs {
		a.merge(dst, from.accs[i], src)
	}
	for what, o := range from.lacks {
		for i, d := range dst {
			if o[at(src, i)] {
				t.lack(what, d)
			}
		}
	}
}

// touch notes that the slots have changed.
func (t *table) touch(slots []int32) {
	if !t.state {
		return
	}
	dirty := t.dirty
	for _, s := range slots {
		dirty[s] = 1
	}
}

// addInts adds from[src[i]] to sum[dst[i]]; a nil src means i.
func addInts(sum []int64, dst []int32, from []int64, src []int32) {
	if src == nil {
		from = from[:len(dst)]
		for i, d := range dst {
			sum[d] += from[i]
		}
		return
	}
	for i, d := range dst {
		sum[d] += from[src[i]]
	}
}

// mergeAll adds all of from, key by key; scratch is returned for reuse.
func (t *table) mergeAll(from *table, keys *state.KeyTable, scratch []int32) []int32 {
	scratch = sized(scratch, from.len())
	t.find(from.keys, scratch, keys)
	t.merge(scratch, from, nil)
	return scratch
}

// copyFrom makes t, which must be empty and neither held nor state, equal to
// from.
func (t *table) copyFrom(from *table) {
	t.keys = cloned(t.keys, from.keys)
	t.index.copyFrom(&from.index)
	t.rows = cloned(t.rows, from.rows)
	for i, o := range from.nulls {
		t.nulls[i] = cloned(t.nulls[i], o)
	}
	for i, a := range t.accs {
		a.copyFrom(from.accs[i])
	}
	t.lacks = nil
	for _, o := range from.lacks {
		t.lacks = append(t.lacks, slices.Clone(o))
	}
}

// clear makes a slot neutral for another use; its key must be set anew.
func (t *table) clear(s int32) {
	t.clearOwn(s)
	for i, a := range t.accs {
		if t.plan.accs[i].kind == distinct {
			a.clear(s)
		}
	}
}

// reset empties the table and keeps its memory.
func (t *table) reset(keys *state.KeyTable) {
	if t.held {
		keys.DropAll(t.keys)
	}
	t.index.clear(t.keys)
	t.keys, t.rows = t.keys[:0], t.rows[:0]
	t.dirty, t.saved = t.dirty[:0], t.saved[:0]
	for i := range t.nulls {
		t.nulls[i] = t.nulls[i][:0]
	}
	for _, a := range t.accs {
		a.truncate()
	}
	t.lacks = nil
}

// present is the number of values of an argument in a slot that are not null.
func (t *table) present(arg int, s int32) int64 {
	if n := t.nulls[arg]; len(n) > 0 {
		return t.rows[s] - n[s]
	}
	return t.rows[s]
}

func (t *table) bytes() int64 {
	n := int64(4*cap(t.keys)+8*cap(t.rows)+cap(t.dirty)+cap(t.saved)) + t.index.bytes()
	for _, c := range t.nulls {
		n += int64(8 * cap(c))
	}
	for _, a := range t.accs {
		n += a.bytes()
	}
	for _, l := range t.lacks {
		n += int64(cap(l))
	}
	return n
}
