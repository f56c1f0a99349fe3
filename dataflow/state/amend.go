package state

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

// Amends is operator.Amender's: what goes by key, in memory.
func (s *Store) Amends(table int) bool {
	return s.cache == nil && table < len(s.states) && s.states[table].spread == keyed
}

// Amend is operator.Amender's. An entry that changes gives way to a new one.
func (s *Store) Amend(table int, b *batch.Batch) error {
	s.epoch = max(s.epoch, 1)
	c := s.states[table]
	rows, cols := make([]int32, b.Len()), make([]int, len(s.key))
	for k := range rows {
		rows[k] = int32(b.Position(k))
	}
	for i := range cols {
		cols[i] = i
	}
	hashes, ids := make([]uint64, len(rows)), make([]int32, len(rows))
	HashRows(b, cols, rows, hashes)
	s.Lookup(b.Cols[:len(cols)], rows, hashes, ids)
	for k, p := range rows {
		if e := c.restored(b, int(p), ids[k], len(cols)); e >= 0 {
			c.flags[e] &^= saved // nothing is left of it
			c.remove(e)
		}
	}
	s.Commit()
	for k, p := range rows {
		if b.Kinds == nil || b.Kinds[p] != batch.Delete {
			c.restoreRow(b, int(p), ids[k], len(cols))
		}
	}
	s.Sweep()
	return nil
}

// restored is the entry that was restored of the row at p for a key, or -1; i is
// the first column behind the key's.
func (c *cells) restored(b *batch.Batch, p int, id int32, i int) int32 {
	switch c.shape {
	case mapping:
		v, x := fixedAt(b.Cols[i], p)
		return c.findSub(id, v, x, hashSub(id, v, x, c.subs.typ.Variable()))
	case list:
		e := c.tails[id] - 1 // what changes is mostly near the end
		for e >= 0 && c.numbers[e] != b.Cols[i].Ints[p] {
			e = c.prev[e] - 1
		}
		return e
	}
	return c.heads[id] - 1
}
