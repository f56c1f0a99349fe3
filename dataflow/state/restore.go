package state

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Restore is operator.Stateful's.
func (s *Store) Restore(table int, b *batch.Batch) error {
	s.epoch = max(s.epoch, 1)
	if table == len(s.states) {
		s.restoreClock(b)
		return nil
	}
	c := s.states[table]
	var ids []int32
	rows := make([]int32, b.Len())
	for k := range rows {
		rows[k] = int32(b.Position(k))
	}
	if c.spread != keyed {
		for _, p := range rows {
			c.restoreRow(b, int(p), 0, 0)
		}
		return nil
	}
	cols := make([]int, len(s.key))
	for i := range cols {
		cols[i] = i
	}
	hashes := make([]uint64, len(rows))
	HashRows(b, cols, rows, hashes)
	ids = make([]int32, len(rows))
	s.Lookup(b.Cols[:len(cols)], rows, hashes, ids)
	if s.cache != nil {
		if err := s.cache.readAll(ids); err != nil {
			return err
		}
	}
	for k, p := range rows {
		c.restoreRow(b, int(p), ids[k], len(cols))
	}
	if s.cache != nil {
		s.Unpin(ids)
		s.cache.makeRoom()
	}
	return nil
}

// readAll reads keys that are not in memory, at once: a restore may.
func (c *cache) readAll(ids []int32) error {
	for _, id := range ids {
		c.pinned[id] = true
	}
	for _, id := range ids {
		if c.here[id] {
			continue
		}
		key := append([]byte(nil), c.keyOf(id)...)
		value, err := c.backing.Get(tableUnits, key)
		if err == nil {
			err = c.load(key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// restoreRow makes an entry of the row at p for a key; i is the first column
// behind the key's.
func (c *cells) restoreRow(b *batch.Batch, p int, id int32, i int) {
	e := c.alloc(id)
	c.flags[e] |= live | saved
	switch {
	case c.shape == mapping:
		v, x := fixedAt(b.Cols[i], p)
		c.index(e, v, x, hashSub(id, v, x, c.subs.typ.Variable()))
		i++
	case c.shape == list && c.spread == keyed:
		c.numbers[e] = b.Cols[i].Ints[p]
		if q := c.prev[e]; q != 0 && c.numbers[q-1] > c.numbers[e] {
			c.unsorted = true
		}
		i++
	case c.shape == list:
		if q := c.prev[e]; q != 0 {
			c.numbers[e] = c.numbers[q-1] + 1
		}
	}
	for k := range c.cols {
		c.cols[k].take(e, b.Cols[i], p)
		i++
	}
	if c.change(id); c.spread == keyed {
		c.store.live(id, true)
	}
	if i < len(b.Cols) && c.ttl.After > 0 && !b.Cols[i].IsNull(p) {
		c.touched[e] = b.Cols[i].Ints[p]
		c.store.expireLater(c, e)
	}
	if c.domain != 0 {
		c.store.schedule(c, e)
	}
	if c.unsorted {
		c.sortChain(id)
	}
}

// fixedAt is a map key of a row.
func fixedAt(c *batch.Column, p int) (int64, []byte) {
	switch {
	case c.Type.Variable():
		return 0, c.At(p)
	case c.Type == batch.Double:
		return int64(DoubleBits(c.Doubles[p])), nil
	case c.Type == batch.Boolean:
		return oneIf(c.Bits.Get(p)), nil
	}
	return c.Ints[p], nil
}

// sortChain moves the last element of a key's list to its place. Parts hold
// elements mostly in order.
func (c *cells) sortChain(id int32) {
	c.unsorted = false
	e := c.tails[id] - 1
	at := c.prev[e]
	for at != 0 && c.numbers[at-1] > c.numbers[e] {
		at = c.prev[at-1]
	}
	c.tails[id] = c.prev[e]
	c.next[c.prev[e]-1] = 0
	c.prev[e] = at
	if at == 0 {
		c.next[e] = c.heads[id]
		c.heads[id] = e + 1
	} else {
		c.next[e] = c.next[at-1]
		c.next[at-1] = e + 1
	}
	c.prev[c.next[e]-1] = e + 1
}

// restoreClock goes on from the least of the clocks that this operator
// descends from.
func (s *Store) restoreClock(b *batch.Batch) {
	for k := range b.Len() {
		p := b.Position(k)
		for i := range s.clock {
			t := dataflow.Time(b.Cols[i].Ints[p])
			if s.revived {
				t = min(t, s.clock[i])
			}
			s.clock[i] = t
		}
		s.revived = true
	}
	s.now = s.clock[1]
}
