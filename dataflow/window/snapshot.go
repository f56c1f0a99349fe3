package window

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// kept is the part of the core that takes and gives back what is kept. Columns
// are named after what is accumulated, not after the job's names for it: see
// docs/STATE_TABLES.md. Its
// tables are: the accumulators of each key and window; for each count(distinct
// x) the values of its sets; what is to fire again at the next watermark; the
// clock.
type kept struct {
	tables  []operator.StateTable
	keep    int   // accumulator table: columns that identify a row
	sets    []int // accumulators that are sets, in the order of their tables
	refires int   // the table of what fires again; -1: none
	clock   int   // the clock's table

	graves  [][]*batch.Batch // by table: rows deleted since the last snapshot
	ground  *batch.Pool      // of the graves: they are state, no rows in flight
	revived bool             // the clock has been restored
	noted   bool             // with what was gone by it
	before  int64            // windows that end before it, as was restored, are gone whatever the lateness is now
	scratch []*batch.Column
	id      [1]int32
	value   [1]int32
}

// describe lays out the state tables once the form is known.
func (o *core) describe(f form) {
	used := map[string]bool{}
	var key []batch.Field
	for _, k := range o.spec.Keys {
		key = append(key, o.spec.Input.Field(k))
		used[o.spec.Input.Field(k).Name] = true
	}
	name := func(n string) string {
		for used[n] {
			n += "_"
		}
		used[n] = true
		return n
	}
	extra, identity := f.extra()
	fields := append([]batch.Field(nil), key...)
	for _, x := range extra {
		fields = append(fields, batch.Field{Name: name(x.Name), Type: x.Type})
	}
	own := fields[:len(key)+identity]
	o.keep = len(own)
	fields = append(fields, batch.Field{Name: name("rows"), Type: batch.Bigint})
	p := o.in.plan
	for _, a := range p.args {
		fields = append(fields, batch.Field{Name: name("nulls__" + a.name), Type: batch.Bigint})
	}
	for i, a := range p.accs {
		if a.kind == distinct {
			o.sets = append(o.sets, i)
		}
		for _, x := range a.kind.fields(p.args[a.arg].typ) {
			fields = append(fields, batch.Field{Name: name(x.Name + "__" + p.args[a.arg].name), Type: x.Type})
		}
	}
	o.tables = append(o.tables, operator.StateTable{Name: "windows", Schema: batch.MustSchema(fields...), Keyed: true, Identity: o.keep})
	for _, i := range o.sets {
		a := p.accs[i]
		v := batch.Field{Name: name("value"), Type: p.args[a.arg].typ}
		delete(used, v.Name) // of each table: what other sets there are must not matter
		s := batch.MustSchema(append(append([]batch.Field(nil), own...), v)...)
		o.tables = append(o.tables, operator.StateTable{Name: "values__" + p.args[a.arg].name, Schema: s, Keyed: true, Identity: s.Len()})
	}
	o.refires = -1
	if o.spec.Form.Timed() && o.spec.Form != Session && o.spec.AllowedLateness > 0 && o.spec.Firing == FireAtWatermark {
		o.refires = len(o.tables)
		s := batch.MustSchema(append(append([]batch.Field(nil), key...), batch.Field{Name: name("window"), Type: batch.Bigint})...)
		o.tables = append(o.tables, operator.StateTable{Name: "refire", Schema: s, Keyed: true})
	}
	o.clock = len(o.tables)
	o.tables = append(o.tables, operator.StateTable{Name: "clock", Spread: operator.Union, Schema: clockSchema()})
	o.ground = batch.NewPool(0, nil)
	o.graves = make([][]*batch.Batch, len(o.tables))
}

func clockSchema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "watermark", Type: batch.Bigint}, batch.Field{Name: "arrival", Type: batch.Bigint}, batch.Field{Name: "seq", Type: batch.Bigint})
}

// StateTables names the tables.
func (o *core) StateTables() []operator.StateTable { return o.tables }

// Snapshot emits all rows, or those changed since the last one, after those
// deleted since.
func (o *core) Snapshot(delta bool, emit func(table int, b *batch.Batch) error) error {
	for t, graves := range o.graves {
		for _, b := range graves {
			if o.finish(b, t); delta && b.Len() > 0 {
				if err := emit(t, b); err != nil {
					return err
				}
			}
			b.Release()
		}
		o.graves[t] = o.graves[t][:0]
	}
	w := &stateWriter{o: o, delta: delta, emit: emit}
	if err := o.form.saveAll(w.save); err != nil {
		return err
	}
	if o.refires >= 0 {
		if err := o.form.(*sliced).saveRefires(w); err != nil {
			return err
		}
	}
	return o.saveClock(w)
}

// newState is an empty batch of a state table.
func (o *core) newState(p *batch.Pool, table int) *batch.Batch {
	b := p.Get(o.tables[table].Schema)
	for i := range b.Cols {
		b.Own(i, 0)
	}
	return b
}

// finish completes a batch of deletions. What has come back since under the
// same identity is left out: the next count window of a key, a session that a
// late row has carried back to the start of one that was gone, the same value
// in their sets.
func (o *core) finish(b *batch.Batch, table int) {
	clear(b.OwnTimes(b.Rows))
	kinds := b.OwnKinds(b.Rows)
	for i := range kinds {
		kinds[i] = batch.Delete
	}
	var heads *[]int32 // of the forms that begin again what they have let go of
	switch f := o.form.(type) {
	case *counts:
		heads = &f.heads
	case *sessions:
		heads = &f.heads
	default:
		return
	}
	rows, ids := make([]int32, b.Rows), make([]int32, b.Rows)
	for i := range rows {
		rows[i] = int32(i)
	}
	nkeys := len(o.spec.Keys)
	o.keys.Lookup(b.Cols[:nkeys], rows, b.Hashes, ids)
	*heads = padded(*heads, o.keys.Cap(), 0)
	b.Sel = b.OwnSel(b.Rows)
	for i, id := range ids {
		own := int64(0)
		if o.keep > nkeys {
			own = b.Cols[nkeys].Ints[i]
		}
		t, s := o.form.slotOf(id, own)
		back := s >= 0
		if back && table > 0 {
			back = o.holds(table-1, t, s, b.Cols[len(b.Cols)-1], rows[i:i+1])
		}
		if !back {
			b.Sel = append(b.Sel, rows[i])
		}
	}
}

// holds tells whether the set of a slot has the value at a row.
func (o *core) holds(set int, t *table, s int32, c *batch.Column, row []int32) bool {
	x := o.sets[set]
	var hash [1]uint64
	var id [1]int32
	state.HashColumn(c, row, hash[:])
	o.in.dicts[o.in.plan.accs[x].arg].Lookup([]*batch.Column{c}, row, hash[:], id[:])
	return t.accs[x].(*distinctSets).has(s, id[0])
}

// stateWriter is one Snapshot under way.
type stateWriter struct {
	o     *core
	delta bool
	emit  func(int, *batch.Batch) error
	chunk []int32
	ids   []int32
}

func (w *stateWriter) send(table int, b *batch.Batch, rows int, ids []int32) error {
	b.Rows = rows
	clear(b.OwnTimes(rows))
	if ids != nil {
		h := b.OwnHashes(rows)
		for i, id := range ids {
			h[i] = w.o.keys.Hash(id)
		}
	}
	err := w.emit(table, b)
	b.Release()
	return err
}

// save writes the slots of a table of accumulators, and their sets.
func (w *stateWriter) save(t *table, slots []int32, put putExtra) error {
	for _, x := range w.o.sets {
		if err := w.saveSets(t, x, slots, put); err != nil {
			return err
		}
	}
	all := !w.delta || w.o.keep == 0
	w.chunk = w.chunk[:0]
	for i, s := range slots {
		if all || t.dirty[s] != 0 {
			w.chunk = append(w.chunk, s)
		}
		if n := len(w.chunk); n == batch.MaxRows || n > 0 && i == len(slots)-1 {
			if err := w.saveChunk(t, put); err != nil {
				return err
			}
			w.chunk = w.chunk[:0]
		}
	}
	return nil
}

func (w *stateWriter) saveChunk(t *table, put putExtra) error {
	o, n := w.o, len(w.chunk)
	b := o.newState(o.ctx.Pool, 0)
	w.identify(b, t, w.chunk)
	c := len(o.spec.Keys)
	if put != nil {
		put(b.Cols[c:], 0, w.chunk)
		x, _ := o.form.extra()
		c += len(x)
	}
	putInts(b.Cols[c], 0, t.rows, w.chunk)
	c++
	for i := range t.nulls {
		if len(t.nulls[i]) > 0 {
			putInts(b.Cols[c], 0, t.nulls[i], w.chunk)
		} else {
			b.Cols[c].Ints = padded(b.Cols[c].Ints, n, 0)
		}
		c++
	}
	for i, a := range o.in.plan.accs {
		f := a.kind.fields(o.in.plan.args[a.arg].typ)
		t.accs[i].save(b.Cols[c:c+len(f)], 0, w.chunk)
		c += len(f)
	}
	if t.lacks != nil {
		w.lacking(b, t, c)
	}
	for _, s := range w.chunk {
		t.dirty[s], t.saved[s] = 0, 1
	}
	return w.send(0, b, n, w.ids)
}

// lacking makes null what slots do not know all of: the columns before end.
func (w *stateWriter) lacking(b *batch.Batch, t *table, end int) {
	p := w.o.in.plan
	for a := len(p.accs) - 1; a >= 0; a-- {
		n := len(p.accs[a].kind.fields(p.args[p.accs[a].arg].typ))
		end -= n
		for i, s := range w.chunk {
			if t.lacksAcc(a, s) {
				setNulls(b.Cols[end:end+n], i)
			}
		}
	}
	end -= len(p.args)
	for a := range p.args {
		for i, s := range w.chunk {
			if t.lacks[a][s] {
				setNulls(b.Cols[end+a:end+a+1], i)
			}
		}
	}
}

func setNulls(cols []*batch.Column, i int) {
	for _, c := range cols {
		c.SetNull(i, batch.MaxRows)
	}
}

// identify writes the keys of slots.
func (w *stateWriter) identify(b *batch.Batch, t *table, slots []int32) {
	w.ids = w.ids[:0]
	for _, s := range slots {
		w.ids = append(w.ids, t.keys[s])
	}
	for i := range w.o.spec.Keys {
		w.o.keys.Gather(i, w.ids, b.Cols[i], 0)
	}
}

// saveSets writes the members of the slots' sets, the new ones only in a delta.
func (w *stateWriter) saveSets(t *table, x int, slots []int32, put putExtra) error {
	sets := t.accs[x].(*distinctSets)
	var owners, values []int32
	flush := func() error {
		if len(owners) == 0 {
			return nil
		}
		n := w.o.setTable(x)
		b := w.o.newState(w.o.ctx.Pool, n)
		w.identify(b, t, owners)
		w.o.putOwn(b, owners, put)
		sets.dict.Gather(0, values, b.Cols[len(b.Cols)-1], 0)
		err := w.send(n, b, len(owners), w.ids)
		owners, values = owners[:0], values[:0]
		return err
	}
	for _, s := range slots {
		for m := sets.heads[s]; m != 0; m = sets.members[m-1].next {
			e := &sets.members[m-1]
			if w.delta && e.saved {
				continue
			}
			e.saved = true
			owners, values = append(owners, s), append(values, e.value)
			if len(owners) == batch.MaxRows {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// setTable is the state table of an accumulator that is a set.
func (o *core) setTable(acc int) int {
	for i, x := range o.sets {
		if x == acc {
			return 1 + i
		}
	}
	return -1
}

// putOwn writes the extra columns that identify the slots, in a table that has
// only these.
func (o *core) putOwn(b *batch.Batch, slots []int32, put putExtra) {
	if put == nil {
		return
	}
	extra, _ := o.form.extra()
	o.scratch = o.scratch[:0]
	for i, x := range extra {
		c := &batch.Column{Type: x.Type}
		if at := len(o.spec.Keys) + i; at < o.keep {
			c = b.Cols[at]
		} else {
			c.Resize(0)
		}
		o.scratch = append(o.scratch, c)
	}
	put(o.scratch, 0, slots)
}

// bury notes a slot that is about to go: what a snapshot has of it is deleted
// with the next one. own is its identifying extra column, if there is one.
func (o *core) bury(t *table, s int32, own int64) {
	if t.saved[s] == 0 {
		return
	}
	if o.keep > 0 {
		b := o.grave(0, t.keys[s], own)
		for _, c := range b.Cols[o.keep:] {
			addNull(c, b.Rows)
		}
		b.Rows++
	}
	for i, x := range o.sets {
		sets := t.accs[x].(*distinctSets)
		for m := sets.heads[s]; m != 0; m = sets.members[m-1].next {
			e := &sets.members[m-1]
			if !e.saved {
				continue
			}
			e.saved = false
			b := o.grave(1+i, t.keys[s], own)
			o.value[0] = e.value
			sets.dict.Gather(0, o.value[:], b.Cols[len(b.Cols)-1], b.Rows)
			b.Rows++
		}
	}
	t.saved[s], t.dirty[s] = 0, 1
}

// grave begins the row of a slot in the deletions of a table. The caller adds
// what is missing and counts the row.
func (o *core) grave(table int, id int32, own int64) *batch.Batch {
	g := o.graves[table]
	if n := len(g); n == 0 || g[n-1].Rows == batch.MaxRows {
		b := o.newState(o.ground, table)
		b.OwnHashes(batch.MaxRows)
		g = append(g, b)
		o.graves[table] = g
	}
	b := g[len(g)-1]
	o.id[0] = id
	for i := range o.spec.Keys {
		o.keys.Gather(i, o.id[:], b.Cols[i], b.Rows)
	}
	if at := len(o.spec.Keys); o.keep > at {
		b.Cols[at].Ints = append(b.Cols[at].Ints, own)
	}
	b.Hashes = append(b.Hashes[:b.Rows], o.keys.Hash(id))
	return b
}

// addNull appends a null to a column with n values.
func addNull(c *batch.Column, n int) {
	switch c.Type {
	case batch.Boolean:
		if len(c.Bits) < batch.Words(n+1) {
			c.Bits = append(c.Bits, 0)
		}
	case batch.Double:
		c.Doubles = append(c.Doubles, 0)
	case batch.Bigint, batch.Timestamp:
		c.Ints = append(c.Ints, 0)
	default:
		c.AppendBytes(nil)
	}
	c.SetNull(n, batch.MaxRows)
}

// Restore takes back rows of a table.
func (o *core) Restore(table int, b *batch.Batch) error {
	n := b.Len()
	if n == 0 {
		return nil
	}
	if table == o.clock {
		o.restoreClock(b)
		return nil
	}
	b = o.compacted(b)
	defer b.Release()
	rows, ids := make([]int32, n), make([]int32, n)
	o.restoredIDs(b, rows, ids)
	switch {
	case table == o.refires:
		o.form.(*sliced).loadRefires(b, ids)
	case table > 0:
		o.loadSets(table-1, b, rows, ids)
	default:
		o.loadRows(b, rows, ids, false)
	}
	return nil
}

// restoredIDs numbers the rows of a state table, and puts the ids of their keys
// into ids.
func (o *core) restoredIDs(b *batch.Batch, rows, ids []int32) {
	keys := make([]int, len(o.spec.Keys))
	for i := range rows {
		rows[i] = int32(i)
	}
	for i := range keys {
		keys[i] = i
	}
	hashes := make([]uint64, len(rows))
	state.HashRows(b, keys, rows, hashes)
	o.keys.Lookup(b.Cols[:len(keys)], rows, hashes, ids)
}

// compacted is b without a selection, with a reference.
func (o *core) compacted(b *batch.Batch) *batch.Batch {
	if b.Sel == nil {
		return b.Retain()
	}
	bl := batch.NewBuilder(o.ctx.Pool, b.Schema)
	bl.Append(b, b.Sel)
	return bl.Take()
}

// bulk is a form whose slots all lie in one table, and need nothing but their
// keys: it finds or makes those of many rows at once, and tells how many it made.
type bulk interface {
	loadAll(ids, slots []int32) (t *table, made int)
}

// loadRows loads rows into new slots, or (again) also into those that they have.
func (o *core) loadRows(b *batch.Batch, rows, ids []int32, again bool) {
	slots := make([]int32, len(rows))
	if f, is := o.form.(bulk); is {
		t, made := f.loadAll(ids, slots)
		if !again {
			made = len(rows)
		}
		o.count.OpenWindows += int64(made)
		o.loadRun(t, b, rows, slots, again)
		return
	}
	var t *table
	from := 0
	for i, r := range rows {
		next, s := (*table)(nil), int32(-1)
		if again {
			next, s = o.form.slotOf(ids[i], o.ownOf(b, r))
		}
		if s < 0 {
			next, s = o.form.load(b, int(r), ids[i])
		} else {
			o.form.reload(b, int(r), s)
		}
		if next != t && i > from {
			o.loadRun(t, b, rows[from:i], slots[from:i], again)
			from = i
		}
		t, slots[i] = next, s
	}
	if from < len(rows) {
		o.loadRun(t, b, rows[from:], slots[from:], again)
	}
}

// loadRun fills slots of one table, which have been made, column by column. What
// they have they lose, if they have anything (again).
func (o *core) loadRun(t *table, b *batch.Batch, rows, slots []int32, again bool) {
	if again {
		for _, s := range slots {
			t.clearOwn(s)
		}
	}
	extra, _ := o.form.extra()
	c := len(o.spec.Keys) + len(extra)
	counts := b.Cols[c].Ints
	for i, s := range slots {
		t.rows[s] = counts[rows[i]]
		t.dirty[s], t.saved[s] = 0, 1
	}
	c++
	for a := range t.nulls {
		o.loadNulls(t, a, b.Cols[c], rows, slots)
		c++
	}
	for a, p := range o.in.plan.accs {
		n := len(p.kind.fields(o.in.plan.args[p.arg].typ))
		if cols := b.Cols[c : c+n]; cols[n-1].Valid == nil {
			t.accs[a].load(cols, rows, slots)
		} else {
			o.loadSome(t, a, cols, rows, slots)
		}
		c += n
	}
}

func (o *core) loadNulls(t *table, arg int, col *batch.Column, rows, slots []int32) {
	for i, s := range slots {
		if r := int(rows[i]); col.IsNull(r) {
			t.lack(arg, s)
		} else if v := col.Ints[r]; v != 0 {
			t.nullsOf(arg)[s] = v
		}
	}
}

// loadSome is for an accumulator that some rows have no value of.
func (o *core) loadSome(t *table, acc int, cols []*batch.Column, rows, slots []int32) {
	last, arg := cols[len(cols)-1], o.in.plan.accs[acc].arg
	for i, s := range slots {
		switch {
		case !last.IsNull(int(rows[i])):
			t.accs[acc].load(cols, rows[i:i+1], slots[i:i+1])
		case t.present(arg, s) > 0: // it has values, and what they made was not saved
			t.lack(len(t.nulls)+acc, s)
		}
	}
}
