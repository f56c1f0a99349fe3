package state

import (
	"fmt"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// clockTable keeps how far the clocks have come: it is not replayed after a
// restore.
const clockTable = "clock"

// describe lays out the tables: of each state the key's columns, the number of
// a list's element or the map key, the values, and when it was touched last; of
// timers the key's columns and the time. Names that are there already get a
// `_` behind them.
func (s *Store) describe() {
	for _, c := range s.states {
		d := layout{}
		t := operator.StateTable{Name: c.name}
		if c.spread == keyed {
			d.add(s.key...)
			t.Keyed = true
		} else {
			t.Spread = [...]operator.Spread{split: operator.Split, union: operator.Union, broadcast: operator.Broadcast}[c.spread]
		}
		switch {
		case c.shape == mapping:
			d.add(c.sub)
		case c.shape == list && t.Keyed:
			d.add(batch.Field{Name: "number", Type: batch.Bigint})
		}
		if t.Keyed {
			t.Identity = len(d.fields)
		}
		d.add(c.fields...)
		if t.Keyed && c.domain == 0 {
			d.add(batch.Field{Name: "touched", Type: batch.Timestamp})
		}
		t.Schema = batch.MustSchema(d.fields...)
		s.tables = append(s.tables, t)
	}
	s.tables = append(s.tables, operator.StateTable{Name: clockTable, Spread: operator.Union, Schema: batch.MustSchema(
		batch.Field{Name: "watermark", Type: batch.Timestamp}, batch.Field{Name: "arrival", Type: batch.Timestamp})})
}

type layout struct{ fields []batch.Field }

func (d *layout) add(fields ...batch.Field) {
	for _, f := range fields {
		for slices.ContainsFunc(d.fields, func(o batch.Field) bool { return o.Name == f.Name }) {
			f.Name += "_"
		}
		d.fields = append(d.fields, f)
	}
}

// StateTables names the tables.
func (s *Store) StateTables() []operator.StateTable { return s.tables }

// Snapshot is operator.Stateful's. No run is under way.
func (s *Store) Snapshot(delta bool, emit func(table int, b *batch.Batch) error) error {
	w := &writer{store: s, delta: delta, emit: emit}
	for _, c := range s.states {
		if err := w.save(c); err != nil {
			return err
		}
	}
	if s.cache != nil {
		if err := w.saveEvicted(); err != nil {
			return err
		}
	}
	s.epoch++
	return w.saveClock()
}

type writer struct {
	store *Store
	delta bool
	emit  func(int, *batch.Batch) error
	chunk []int32
	owner []int32
	build []*batch.Builder // of what is read from the Backing
	keys  []int
	key   []*batch.Column
}

// save writes a state's entries that are in memory.
func (w *writer) save(c *cells) error {
	if c.spread != keyed {
		return w.saveOperatorState(c)
	}
	w.chunk = w.chunk[:0]
	for from := 0; from < len(c.flags); {
		n := w.collect(c, from)
		if err := w.rows(c); err != nil {
			return err
		}
		from = n
	}
	return nil
}

// collect gathers entries to be written, up to a batch, from one on; it
// returns where to go on.
func (w *writer) collect(c *cells, from int) int {
	w.chunk = w.chunk[:0]
	skip := ^dirty
	if !w.delta {
		skip = 0
	}
	bytes := 0
	for e := from; e < len(c.flags); e++ {
		f := c.flags[e]
		if f&^skip == 0 && skip != 0 || f&(live|saved) == 0 {
			continue
		}
		if w.chunk = append(w.chunk, int32(e)); f&live != 0 {
			bytes += c.sizeOf(int32(e))
		}
		if len(w.chunk) == batch.MaxRows || bytes > maxChunkBytes {
			return e + 1
		}
	}
	return len(c.flags)
}

// maxChunkBytes is how many bytes of variable length a batch of state gets
// before the next one is begun.
const maxChunkBytes = 16 << 20

func (c *cells) sizeOf(e int32) int {
	n := 0
	for i := range c.cols {
		if c.cols[i].typ.Variable() {
			n += int(max(c.cols[i].spans[e].n, 0))
		}
	}
	return n
}

// rows writes the entries of the chunk, tombstones as deletions; in a full
// snapshot they are just freed.
func (w *writer) rows(c *cells) error {
	kept := w.chunk[:0]
	var dead []int32
	for _, e := range w.chunk {
		if c.flags[e]&live == 0 {
			dead = append(dead, e)
		} else {
			kept = append(kept, e)
		}
	}
	if err := w.send(c, kept, false); err != nil {
		return err
	}
	for _, e := range kept {
		c.flags[e] = c.flags[e]&^dirty | saved
	}
	if w.delta {
		if err := w.send(c, dead, true); err != nil {
			return err
		}
	}
	for _, e := range dead {
		c.release(e)
	}
	return nil
}

func (w *writer) send(c *cells, entries []int32, deletions bool) error {
	if len(entries) == 0 {
		return nil
	}
	s, n := w.store, len(entries)
	b := s.pool.Get(s.tables[c.number].Schema)
	for i := range b.Cols {
		b.Own(i, 0)
	}
	i := 0
	if c.spread == keyed {
		w.owner = w.owner[:0]
		hashes := b.OwnHashes(n)
		for k, e := range entries {
			w.owner = append(w.owner, c.owner[e])
			hashes[k] = s.keys.Hash(c.owner[e])
		}
		for ; i < len(s.key); i++ {
			s.keys.Gather(i, w.owner, b.Cols[i], 0)
		}
	}
	switch {
	case c.shape == mapping:
		c.subs.gather(entries, b.Cols[i])
		i++
	case c.shape == list && c.spread == keyed:
		for k, e := range entries {
			b.Cols[i].PutInt(k, c.numbers[e])
		}
		i++
	}
	for k := range c.cols {
		c.cols[k].gatherUnless(deletions, entries, b.Cols[i])
		i++
	}
	if i < len(b.Cols) {
		for k, e := range entries {
			if b.Cols[i].PutInt(k, c.touched[e]); c.touched[e] == untouched || deletions {
				b.Cols[i].PutNull(k)
			}
		}
	}
	return w.finish(c.number, b, n, deletions)
}

func (w *writer) finish(table int, b *batch.Batch, n int, deletions bool) error {
	for _, c := range b.Cols {
		trimColumn(c, n)
	}
	b.Rows = n
	clear(b.OwnTimes(n))
	if deletions {
		for i := range b.OwnKinds(n) {
			b.Kinds[i] = batch.Delete
		}
	}
	err := w.emit(table, b)
	b.Release()
	return err
}

// trimColumn cuts the slices that Put methods have made longer.
func trimColumn(c *batch.Column, n int) {
	switch c.Type {
	case batch.Bigint, batch.Timestamp:
		c.Ints = c.Ints[:n]
	case batch.Double:
		c.Doubles = c.Doubles[:n]
	case batch.String, batch.Bytes:
		c.Offsets = c.Offsets[:n+1]
		c.Data = c.Data[:c.Offsets[n]]
	}
}

func (c *column) gatherUnless(nulls bool, entries []int32, to *batch.Column) {
	if !nulls {
		c.gather(entries, to)
		return
	}
	for k := range entries {
		to.PutNull(k)
	}
}

func (c *column) gather(entries []int32, to *batch.Column) {
	for k, e := range entries {
		switch {
		case c.isNull(e):
			to.PutNull(k)
		case c.typ.Variable():
			to.PutBytes(k, c.bytes(e))
		case c.typ == batch.Double:
			to.PutDouble(k, math.Float64frombits(uint64(c.ints[e])))
		case c.typ == batch.Boolean:
			to.PutBool(k, c.ints[e] != 0)
		default:
			to.PutInt(k, c.ints[e])
		}
	}
}

// saveOperatorState writes all of a state that belongs to no key, lists in
// their order.
func (w *writer) saveOperatorState(c *cells) error {
	var dead []int32
	w.chunk = w.chunk[:0]
	for n := c.heads[0]; n != 0; n = c.next[n-1] {
		e := n - 1
		if c.flags[e]&live == 0 {
			dead = append(dead, e)
			continue
		}
		c.flags[e] = c.flags[e]&^dirty | saved
		if w.chunk = append(w.chunk, e); len(w.chunk) == batch.MaxRows {
			if err := w.send(c, w.chunk, false); err != nil {
				return err
			}
			w.chunk = w.chunk[:0]
		}
	}
	for _, e := range dead {
		c.release(e)
	}
	return w.send(c, w.chunk, false)
}

func (w *writer) saveClock() error {
	table := len(w.store.tables) - 1
	b := w.store.pool.Get(w.store.tables[table].Schema)
	for i, t := range w.store.clock {
		b.Own(i, 1).Ints[0] = int64(t)
	}
	return w.finish(table, b, 1, false)
}

// saveEvicted writes what is in the Backing only.
func (w *writer) saveEvicted() error {
	s, c := w.store, w.store.cache
	for i := range s.tables {
		w.build = append(w.build, batch.NewBuilder(s.pool, s.tables[i].Schema))
	}
	for i, f := range s.key {
		w.keys = append(w.keys, i)
		w.key = append(w.key, &batch.Column{Type: f.Type})
	}
	var err error
	if w.delta && s.epoch > 0 {
		err = c.backing.Scan(tableDirty, func(key, _ []byte) error {
			if c.find(key) >= 0 {
				return nil
			}
			value, err := c.backing.Get(tableUnits, key)
			if err != nil || value == nil {
				return err
			}
			return w.unit(key, value)
		})
	} else {
		err = c.backing.Scan(tableUnits, func(key, value []byte) error {
			if c.find(key) >= 0 {
				return nil
			}
			return w.unit(key, value)
		})
	}
	for i := range w.build {
		if err == nil {
			err = w.flush(i)
		} else if b := w.build[i].Take(); b != nil {
			b.Release()
		}
	}
	c.backing.Clear(tableDirty)
	return err
}

func (w *writer) flush(table int) error {
	b := w.build[table].Take()
	if b == nil {
		return nil
	}
	HashKeys(b, w.keys)
	err := w.emit(table, b)
	b.Release()
	return err
}

// unit writes the entries of an encoded unit.
func (w *writer) unit(key, value []byte) error {
	s, r := w.store, &reader{b: value}
	_, current := s.header(r)
	if err := decodeKey(key, w.key); err != nil {
		return err
	}
	for n := r.uvarint(); n != 0 && !r.bad; n = r.uvarint() {
		c := s.stateAt(n)
		if c == nil {
			r.bad = true
			break
		}
		for f := r.byte(); f != 0 && !r.bad; f = r.byte() {
			if err := w.entry(r, c, f, current); err != nil {
				return err
			}
		}
	}
	if r.bad {
		return fmt.Errorf("state: %w", errUnit)
	}
	return nil
}

func (w *writer) entry(r *reader, c *cells, f uint8, current bool) error {
	flags := flagsOf(f, current)
	touched := int64(untouched)
	if f&hasTouch != 0 {
		touched = r.varint()
	}
	bl, i := w.build[c.number], len(w.key)
	for k, col := range w.key {
		putRow(col, bl, k)
	}
	switch c.shape {
	case list:
		bl.SetInt(i, r.varint())
		i++
	case mapping:
		putDatum(r.datum(c.subs.typ), c.subs.typ, bl, i)
		i++
	}
	isLive := flags&live != 0
	for k := range c.cols {
		if d := r.datum(c.cols[k].typ); isLive {
			putDatum(d, c.cols[k].typ, bl, i)
		}
		i++
	}
	if isLive && touched != untouched {
		bl.SetInt(i, touched)
	}
	switch {
	case w.delta && w.store.epoch > 0 && flags&dirty == 0, flags&live == 0 && (!w.delta || flags&saved == 0):
		bl.AbortRow()
		return nil
	}
	bl.EndRow(0)
	if !isLive {
		bl.Kind(batch.Delete)
	}
	if bl.Full() {
		return w.flush(c.number)
	}
	return nil
}

func putRow(c *batch.Column, to *batch.Builder, col int) {
	switch {
	case c.IsNull(0):
		to.SetNull(col)
	case c.Type == batch.Boolean:
		to.SetBool(col, c.Bits.Get(0))
	case c.Type == batch.Double:
		to.SetDouble(col, c.Doubles[0])
	case c.Type.Variable():
		to.SetBytes(col, c.At(0))
	default:
		to.SetInt(col, c.Ints[0])
	}
}

func putDatum(d datum, typ batch.Type, to *batch.Builder, col int) {
	switch {
	case d.null:
		to.SetNull(col)
	case typ.Variable():
		to.SetBytes(col, d.b)
	default:
		putFixed(typ, d.v, to, col)
	}
}
