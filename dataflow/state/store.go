package state

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// ErrNoKey is the error of an access to keyed state while no key is current.
var ErrNoKey = errors.New("access to keyed state without a key")

// TTL says when entries of a state expire, on the arrival clock: as soon as
// last touch + After is reached. Expired entries are never returned. List
// elements and map entries expire one by one.
//
// It is no part of a savepoint. Entries restored from a state that had none,
// and entries written before the arrival clock is known, expire only after
// their next write.
type TTL struct {
	After  dataflow.Duration // 0: never
	OnRead bool              // reading touches too, not only creating and writing
}

// Store is the state of one operator of one subtask. States are declared
// first; Open ends the declarations. Then, for each run of rows of one key,
// SetKey, access, and Commit or Undo; between runs, Snapshot. It belongs to
// one goroutine.
//
// It is in memory; with a Backing, as much of it as Backing.Memory allows, and
// what one key has, and the keys of one batch, always.
type Store struct {
	key    []batch.Field
	keys   *KeyTable
	states []*cells
	tables []operator.StateTable
	err    error

	cur     int32 // key that is current; -1: none
	now     dataflow.Time
	clock   [2]dataflow.Time // watermark and arrival clock, kept for the operator
	revived bool             // clock has been restored
	pool    *batch.Pool

	holds   []int32 // by key: entries in use
	lives   []int32 // by key: entries that are there
	living  int64   // keys with such, in memory or not
	changed []bool  // by key: not as the Backing has it
	journal []undo
	words   []word

	timers [2]*cells
	queues [3]queue
	due    []int64 // by key: when it is looked at for expired entries; noTime: never
	expiry []*cells

	cache *cache // nil: all in memory
	epoch uint64 // snapshots so far; a restored store begins with one

	one     [1]int32
	oneID   [1]int32
	scratch []*batch.Column // of a key, one row
}

// undo is an entry as it was before this run first changed it.
type undo struct {
	cells   *cells
	entry   int32
	flags   uint8 // 0: it was not there
	touched int64
	words   int32 // where its words begin
}

// NewStore begins the state of an operator whose rows have a key of the given
// columns. No columns: one key, the empty one.
func NewStore(key []batch.Field) *Store {
	s := &Store{key: key, cur: -1, now: dataflow.MinTime, clock: [2]dataflow.Time{dataflow.MinTime, dataflow.MinTime}}
	types := make([]batch.Type, len(key))
	for i, f := range key {
		types[i] = f.Type
		c := &batch.Column{Type: f.Type}
		c.Resize(1)
		s.scratch = append(s.scratch, c)
	}
	s.keys = NewKeyTable(types)
	return s
}

// declare adds a state. Mistakes are reported by Open.
func (s *Store) declare(c *cells) *cells {
	c.store, c.number = s, len(s.states)
	switch {
	case c.name == "" || strings.HasPrefix(c.name, "task.") || strings.HasPrefix(c.name, "timers.") || c.name == clockTable:
		s.fail(fmt.Errorf("state: %q is no name for a state; it is not empty, not `clock`, and does not begin with `task.` or `timers.`", c.name))
	case len(c.fields) == 0 && c.domain == 0:
		s.fail(fmt.Errorf("state %q has no column", c.name))
	case c.ttl.After < 0:
		s.fail(fmt.Errorf("state %q: a time to live of %v; it is positive, or 0 for none", c.name, c.ttl.After))
	}
	for _, o := range s.states {
		if o.name == c.name {
			s.fail(fmt.Errorf("two states have the name %q: names find state in a savepoint, give each its own", c.name))
		}
	}
	for _, f := range c.fields {
		c.cols = append(c.cols, column{typ: f.Type})
	}
	if c.ttl.After > 0 {
		s.expiry = append(s.expiry, c)
	}
	s.states = append(s.states, c)
	return c
}

func (s *Store) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// Err is the first thing that was wrong: with the declarations, or an access
// without a key.
func (s *Store) Err() error { return s.err }

// Open ends the declarations. backing is nil if all state stays in memory.
func (s *Store) Open(pool *batch.Pool, backing operator.Backing) error {
	s.pool = pool
	s.timers[0] = s.timerCells("timers.event", EventTime)
	s.timers[1] = s.timerCells("timers.arrival", ArrivalTime)
	for i := range s.queues {
		s.queues[i].store, s.queues[i].domain = s, Domain(i+1)
	}
	s.describe()
	if backing != nil {
		s.cache = newCache(s, backing)
	}
	for _, c := range s.states {
		if c.spread != keyed {
			c.widen(1)
		}
	}
	return s.err
}

// Lookup puts the id of the key at each position into ids. cols are the key's
// columns, hashes the keys' hashes. Ids hold until Sweep.
func (s *Store) Lookup(cols []*batch.Column, positions []int32, hashes []uint64, ids []int32) {
	s.keys.Lookup(cols, positions, hashes, ids)
	s.widen()
}

func (s *Store) widen() {
	n := s.keys.Cap()
	if len(s.holds) >= n {
		return
	}
	for len(s.holds) < n {
		s.holds, s.due, s.changed = append(s.holds, 0), append(s.due, noTime), append(s.changed, false)
		s.lives = append(s.lives, 0)
	}
	for _, c := range s.states {
		if c.spread == keyed {
			c.widen(n)
		}
	}
	if s.cache != nil {
		s.cache.widen(n)
	}
}

// Sweep frees ids of keys that have no state. The caller uses no id any more
// that it looked up.
func (s *Store) Sweep() { s.keys.Sweep() }

// SetKey makes a key current.
func (s *Store) SetKey(id int32) { s.cur = id }

// NoKey ends a key's turn.
func (s *Store) NoKey() { s.cur = -1 }

// current is the key that an access to c is for.
func (s *Store) current(c *cells) (int32, bool) {
	if c.spread != keyed {
		return 0, true
	}
	if s.cur < 0 {
		s.fail(fmt.Errorf("state %q: %w; only while a row or timer of a key is processed", c.name, ErrNoKey))
		return 0, false
	}
	return s.cur, true
}

func (s *Store) hold(key int32) {
	if s.holds[key]++; s.holds[key] == 1 {
		s.keys.Hold(key)
	}
}

func (s *Store) drop(key int32) {
	if s.holds[key]--; s.holds[key] == 0 {
		s.keys.Drop(key)
	}
}

// live notes that a key has an entry more or less.
func (s *Store) live(key int32, more bool) {
	if more {
		if s.lives[key]++; s.lives[key] == 1 {
			s.living++
		}
		return
	}
	if s.lives[key]--; s.lives[key] == 0 {
		s.living--
	}
}

// log notes an entry as it is, once a run.
func (c *cells) log(e int32) {
	if c.flags[e]&logged != 0 {
		return
	}
	s := c.store
	s.journal = append(s.journal, undo{cells: c, entry: e, flags: c.flags[e], touched: c.touched[e], words: int32(len(s.words))})
	for i := range c.cols {
		s.words = append(s.words, c.cols[i].word(e))
	}
	c.flags[e] |= logged
}

// logNew notes that an entry was not there.
func (c *cells) logNew(e int32) {
	c.store.journal = append(c.store.journal, undo{cells: c, entry: e})
	c.flags[e] |= logged
}

// write prepares an entry for a change: one that is not there, or not any more,
// comes to be with nulls.
func (c *cells) write(e int32) {
	c.log(e)
	if !c.there(e) {
		for i := range c.cols {
			c.cols[i].setNull(e)
		}
	}
	c.flags[e] |= live | dirty
	c.touch(e)
}

func (c *cells) touch(e int32) {
	if c.ttl.After > 0 && c.store.now != dataflow.MinTime {
		c.touched[e] = int64(c.store.now)
	} else {
		c.touched[e] = untouched
	}
	c.change(c.owner[e])
}

func (c *cells) change(key int32) {
	if c.spread == keyed {
		c.store.changed[key] = true
	}
}

// read notes that an entry was read.
func (c *cells) read(e int32) {
	if c.ttl.OnRead && c.ttl.After > 0 && c.touched[e] != int64(c.store.now) && c.store.now != dataflow.MinTime && c.touched[e] != untouched {
		c.log(e)
		c.flags[e] |= dirty
		c.touch(e)
	}
}

// create is a new entry of a key.
func (c *cells) create(key int32) int32 {
	e := c.alloc(key)
	c.logNew(e)
	c.flags[e] |= live | dirty
	c.touch(e)
	return e
}

// remove makes an entry a tombstone; Commit frees it if no snapshot has it.
func (c *cells) remove(e int32) {
	c.log(e)
	c.flags[e] = c.flags[e]&^live | dirty
	c.change(c.owner[e])
}

// Commit makes what this run has changed last.
func (s *Store) Commit() {
	for i := range s.journal {
		u := &s.journal[i]
		c, e := u.cells, u.entry
		f := c.flags[e] &^ logged
		c.flags[e] = f
		if c.spread == keyed && (f^u.flags)&live != 0 {
			s.live(c.owner[e], f&live != 0)
		}
		switch {
		case f&live == 0:
			if c.domain != 0 && u.flags&live != 0 {
				s.queues[c.domain-1].stale++
			}
			if f&saved == 0 {
				c.release(e)
			}
		case f&live != 0 && c.domain != 0 && u.flags&live == 0:
			s.schedule(c, e)
		case f&live != 0 && c.ttl.After > 0:
			s.expireLater(c, e)
		}
	}
	s.forget()
}

func (s *Store) forget() {
	s.journal, s.words = s.journal[:0], s.words[:0]
	for _, c := range s.states {
		c.compact()
	}
}

// Undo takes back what has been changed since the last Commit or Undo.
func (s *Store) Undo() {
	for i := len(s.journal) - 1; i >= 0; i-- {
		u := &s.journal[i]
		c, e := u.cells, u.entry
		if u.flags == 0 {
			c.release(e)
			continue
		}
		for k := range c.cols {
			c.cols[k].putBack(e, s.words[int(u.words)+k])
		}
		c.flags[e], c.touched[e] = u.flags, u.touched
	}
	s.forget()
}

// KeysLive is the number of keys with state, in memory or not.
func (s *Store) KeysLive() int64 { return s.living }

// KeyColumns is a key, a column of one row for each of its columns. It holds until
// the next call of the Store that has to do with keys.
func (s *Store) KeyColumns(id int32) []*batch.Column {
	s.one[0] = id
	for i, col := range s.scratch {
		col.Resize(0)
		s.keys.Gather(i, s.one[:], col, 0)
	}
	return s.scratch
}

// Bytes is about the memory of the state.
func (s *Store) Bytes() int64 {
	n := int64(s.keys.Len()) * s.keyBytes()
	for _, c := range s.states {
		n += c.memory()
	}
	for i := range s.queues {
		n += s.queues[i].bytes()
	}
	return n
}

func (s *Store) keyBytes() int64 {
	n := int64(8+4+24) + 4 + 8 + 1
	for _, f := range s.key {
		if f.Type.Variable() {
			n += 32
		} else {
			n += 9
		}
	}
	return n
}
