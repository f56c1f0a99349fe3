package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// The tables of a Backing.
const (
	tableUnits = iota // key: all that it has
	tableDirty        // keys that were evicted with changes since the last snapshot
	tableRuns         // queues of timers
)

// maxKey is the longest key that is evicted; longer ones stay in memory.
const maxKey = 16 << 10

// cache is what a Store needs to be a write-back cache over a Backing: what one
// key has, its unit, is in memory as a whole or not at all.
type cache struct {
	store   *Store
	backing operator.Backing
	here    []bool // by key: its unit is in memory
	asked   []bool // by key: wanted
	recent  []bool // by key: used since the hand came by
	pinned  []bool // by key: of the batch that is processed
	hand    int
	key     []byte
	unit    []byte
	runKey  []byte
	hash    [1]uint64
	row     [1]int32
	err     error
}

func newCache(s *Store, b operator.Backing) *cache { return &cache{store: s, backing: b} }

func (c *cache) widen(n int) {
	for len(c.here) < n {
		c.here, c.asked = append(c.here, false), append(c.asked, false)
		c.recent, c.pinned = append(c.recent, false), append(c.pinned, false)
	}
}

// Fetch asks for those keys that are not in memory, and keeps all of them there
// until Unpin. False: some are to be waited for: Arrived, then go on.
func (s *Store) Fetch(ids []int32) bool {
	c := s.cache
	if c == nil {
		return true
	}
	for _, id := range ids {
		c.recent[id], c.pinned[id] = true, true
	}
	full := c.makeRoom()
	all := true
	for _, id := range ids {
		if c.here[id] || c.asked[id] {
			continue
		}
		c.asked[id] = true
		c.backing.Want(tableUnits, c.keyOf(id))
		all = false
	}
	return all && !full
}

// Unpin lets the keys of Fetch go again.
func (s *Store) Unpin(ids []int32) {
	if s.cache == nil {
		return
	}
	for _, id := range ids {
		s.cache.pinned[id] = false
	}
}

// Arrived takes what was read from the Backing.
func (s *Store) Arrived() error {
	c := s.cache
	c.backing.Take(func(table int, key, value []byte) {
		switch {
		case c.err != nil:
		case table == tableRuns:
			s.queues[key[0]-1].arrived(key, value)
		default:
			c.err = c.load(key, value)
		}
	})
	return c.err
}

// find is the id of a key whose unit is in memory, or -1.
func (c *cache) find(key []byte) int32 {
	c.decode(key)
	s := c.store
	if id := s.keys.Find(s.scratch, 0, c.hash[0]); id >= 0 && c.here[id] {
		return id
	}
	return -1
}

// decode makes the store's scratch and hash those of an encoded key.
func (c *cache) decode(key []byte) {
	if err := decodeKey(key, c.store.scratch); err != nil && c.err == nil {
		c.err = err
	}
	c.hash[0] = hashOf(c.store.scratch)
}

// keyOf is the encoded key; it holds until the next call.
func (c *cache) keyOf(id int32) []byte {
	s := c.store
	c.key = appendKey(c.key[:0], s.KeyColumns(id), 0)
	return c.key
}

// load takes a unit into memory; nil: the key has nothing.
func (c *cache) load(key, value []byte) error {
	s := c.store
	if c.decode(key); c.err != nil {
		return c.err
	}
	c.row[0] = 0
	s.Lookup(s.scratch, c.row[:], c.hash[:], s.oneID[:])
	id := s.oneID[0]
	if c.here[id] {
		return nil
	}
	c.here[id], c.asked[id], c.recent[id] = true, false, true
	s.keys.Hold(id)
	s.changed[id], s.due[id] = false, noTime
	if value == nil {
		return nil
	}
	return c.decodeUnit(id, value)
}

// makeRoom evicts keys, those not used lately first, until the state is well
// within what is allowed. It tells whether the Backing has things to write.
func (c *cache) makeRoom() bool {
	s := c.store
	budget := c.backing.Memory()
	have := s.Bytes()
	if have <= budget {
		return false
	}
	evicted := 0
	for turn := 0; turn < 2*len(c.here) && have > budget-budget/4; turn++ {
		id := c.hand
		if c.hand++; c.hand == len(c.here) {
			c.hand = 0
		}
		switch {
		case !c.here[id] || c.pinned[id]:
		case c.recent[id]:
			c.recent[id] = false
		default:
			if key := c.keyOf(int32(id)); len(key) <= maxKey {
				c.evict(int32(id), key)
				evicted++
				if evicted%256 == 0 {
					have = s.Bytes()
				}
			}
		}
	}
	if evicted > 0 {
		s.keys.sweep(c.pinned)
		for _, st := range s.states {
			st.compact()
		}
	}
	return evicted > 0
}

func (c *cells) compact() {
	for i := range c.cols {
		c.cols[i].compact()
	}
	c.subs.compact()
}

func (c *cache) evict(id int32, key []byte) {
	s := c.store
	any, changed := c.encodeUnit(id)
	if s.changed[id] {
		if any {
			c.backing.Put(tableUnits, key, c.unit)
		} else {
			c.backing.Put(tableUnits, key, nil)
		}
		if changed && s.epoch > 0 {
			c.backing.Put(tableDirty, key, c.unit[:1])
		}
	}
	for _, st := range s.states {
		if st.spread != keyed {
			continue
		}
		for st.heads[id] != 0 {
			st.release(st.heads[id] - 1)
		}
	}
	c.here[id] = false
	s.lives[id] = 0 // living goes on counting the key
	s.changed[id], s.due[id] = false, noTime
	s.keys.Drop(id)
}

// onDisk are the flags that a unit keeps of an entry; hasTouch says that its
// touch follows.
const (
	onDisk   = live | dirty | saved
	hasTouch = uint8(0x80)
)

// encodeUnit writes the unit of a key: the epoch, when it is to be looked at for
// expired entries, and its entries state by state. It tells whether there are
// any, and whether some changed since the last snapshot.
func (c *cache) encodeUnit(id int32) (any, changed bool) {
	s := c.store
	b := binary.AppendUvarint(c.unit[:0], s.epoch)
	b = binary.AppendVarint(b, s.due[id])
	for _, st := range s.states {
		if st.spread != keyed || st.heads[id] == 0 {
			continue
		}
		b = binary.AppendUvarint(b, uint64(st.number)+1)
		for n := st.heads[id]; n != 0; n = st.next[n-1] {
			any, changed = true, changed || st.flags[n-1]&dirty != 0
			b = st.appendEntry(b, n-1)
		}
		b = append(b, 0)
	}
	c.unit = append(b, 0)
	return any, changed
}

func (c *cells) appendEntry(b []byte, e int32) []byte {
	f := c.flags[e]&onDisk | used
	if c.touched[e] != untouched {
		f |= hasTouch
	}
	b = append(b, f)
	if f&hasTouch != 0 {
		b = binary.AppendVarint(b, c.touched[e])
	}
	switch c.shape {
	case list:
		b = binary.AppendVarint(b, c.numbers[e])
	case mapping:
		b = c.subs.append(b, e)
	}
	for i := range c.cols {
		b = c.cols[i].append(b, e)
	}
	return b
}

func (c *column) append(b []byte, e int32) []byte {
	switch {
	case c.typ.Variable():
		b = binary.AppendUvarint(b, uint64(c.spans[e].n+1))
		return append(b, c.bytes(e)...)
	case c.nulls[e]:
		return append(b, 0)
	case c.typ == batch.Double:
		return binary.LittleEndian.AppendUint64(append(b, 1), uint64(c.ints[e]))
	}
	return binary.AppendVarint(append(b, 1), c.ints[e])
}

var errUnit = errors.New("what the disk has of the state is damaged")

// reader reads a unit. At its end it gives zeros and is bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// datum is one value read from a unit.
type datum struct {
	null bool
	v    int64
	b    []byte
}

func (r *reader) datum(typ batch.Type) (d datum) {
	if typ.Variable() {
		n := r.uvarint()
		if n == 0 {
			return datum{null: true}
		}
		return datum{b: r.bytes(n - 1)}
	}
	switch {
	case r.byte() == 0:
		d.null = true
	case typ == batch.Double:
		if b := r.bytes(8); b != nil {
			d.v = int64(binary.LittleEndian.Uint64(b))
		}
	default:
		d.v = r.varint()
	}
	return d
}

func (c *column) setDatum(e int32, d datum) {
	switch {
	case d.null:
		c.setNull(e)
	case c.typ.Variable():
		c.setBytes(e, d.b)
	default:
		c.setInt(e, d.v)
	}
}

// header reads what stands before a unit's entries, and tells whether their
// flags speak of the last snapshot, or of an older one and have lapsed.
func (s *Store) header(r *reader) (due int64, current bool) {
	current = r.uvarint() == s.epoch
	return r.varint(), current
}

// flagsOf are an entry's flags once a snapshot may have been taken; 0: gone.
func flagsOf(f uint8, current bool) uint8 {
	f &= onDisk
	switch {
	case current:
		return f
	case f&live == 0:
		return 0
	}
	return live | saved
}

// stateAt is the keyed state with a number that was read; nil: there is none.
func (s *Store) stateAt(n uint64) *cells {
	if n > uint64(len(s.states)) || s.states[n-1].spread != keyed {
		return nil
	}
	return s.states[n-1]
}

func (c *cache) decodeUnit(id int32, value []byte) error {
	s, r := c.store, &reader{b: value}
	due, current := s.header(r)
	s.due[id] = due
	for n := r.uvarint(); n != 0 && !r.bad; n = r.uvarint() {
		st := s.stateAt(n)
		if st == nil {
			r.bad = true
			break
		}
		for f := r.byte(); f != 0 && !r.bad; f = r.byte() {
			st.decodeEntry(r, id, f, current)
		}
	}
	if r.bad {
		return fmt.Errorf("state: %w", errUnit)
	}
	return nil
}

func (c *cells) decodeEntry(r *reader, id int32, f uint8, current bool) {
	e := c.alloc(id)
	flags := flagsOf(f, current)
	c.flags[e] |= flags
	if f&hasTouch != 0 {
		c.touched[e] = r.varint()
	}
	switch c.shape {
	case list:
		c.numbers[e] = r.varint()
	case mapping:
		d := r.datum(c.subs.typ)
		c.index(e, d.v, d.b, hashSub(id, d.v, d.b, c.subs.typ.Variable()))
	}
	for i := range c.cols {
		c.cols[i].setDatum(e, r.datum(c.cols[i].typ))
	}
	switch {
	case flags == 0:
		c.release(e)
	case flags&live != 0:
		c.store.lives[id]++ // living has counted the key
	}
}

// appendKey encodes the key of a row so that keys are ordered as their values
// are, and can be read back: for each column 0 for null, else 1 and the value.
func appendKey(b []byte, cols []*batch.Column, row int) []byte {
	for i, c := range cols {
		if c.IsNull(row) {
			b = append(b, 0)
			continue
		}
		b = append(b, 1)
		switch c.Type {
		case batch.Boolean:
			b = append(b, byte(oneIf(c.Bits.Get(row))))
		case batch.Bigint, batch.Timestamp:
			b = binary.BigEndian.AppendUint64(b, uint64(c.Ints[row])^1<<63)
		case batch.Double:
			u := DoubleBits(c.Doubles[row])
			b = binary.BigEndian.AppendUint64(b, u^(uint64(int64(u)>>63)|1<<63))
		default:
			v := c.At(row)
			if i == len(cols)-1 {
				b = append(b, v...)
				continue
			}
			for _, x := range v {
				if b = append(b, x); x == 0 {
					b = append(b, 0xff)
				}
			}
			b = append(b, 0, 1)
		}
	}
	return b
}

// decodeKey reads what appendKey wrote into columns of one row.
func decodeKey(b []byte, cols []*batch.Column) error {
	r := &reader{b: b}
	for i, c := range cols {
		c.Resize(1)
		if r.byte() == 0 {
			c.PutNull(0)
			continue
		}
		switch c.Type {
		case batch.Boolean:
			c.PutBool(0, r.byte() != 0)
		case batch.Bigint, batch.Timestamp:
			c.PutInt(0, int64(r.word()^1<<63))
		case batch.Double:
			u := r.word()
			c.PutDouble(0, math.Float64frombits(u^(uint64(^int64(u)>>63)|1<<63)))
		default:
			r.escaped(c, i == len(cols)-1)
		}
	}
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("state: key: %w", errUnit)
	}
	return nil
}

// word is 8 bytes, the highest first.
func (r *reader) word() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// escaped reads bytes of a key. Those of the last column go up to the end;
// others have zeros escaped, and end with 0 1.
func (r *reader) escaped(c *batch.Column, last bool) {
	if last {
		c.AppendBytes(r.b)
		r.b = nil
		return
	}
	for !r.bad {
		x := r.byte()
		if x == 0 && r.byte() == 1 {
			break
		}
		c.Data = append(c.Data, x)
	}
	c.Offsets = append(c.Offsets, int32(len(c.Data)))
}
