package avro

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// Merge writes one whole part of what a base and the deltas after it hold, and
// returns its rows. h describes the table as it is to be written; older parts
// are resolved to it. identity is the number of first columns that tell rows
// apart; with 0 every part replaces those before it, and the last one is
// copied.
//
// The order is fixed, so that whoever merges the same parts gets the same
// bytes: the base's rows in their order, replaced in place; then new ones in
// order of their first arrival. A row removed and put again is new. Merging in
// one go or in several gives the same bytes.
//
// The base is streamed. Of the deltas the rows that are there at the end, and
// the identities of all, are held in memory: about twice their parts' size.
func Merge(w io.Writer, h Header, parts []io.Reader, identity int, p *batch.Pool) (rows int64, err error) {
	h.Delta = false
	out := NewWriter(w, h)
	if err := EachMerged(h, parts, identity, p, out.Append); err != nil {
		return 0, err
	}
	return out.Rows(), out.Close()
}

// EachMerged calls f with the rows that Merge writes, in their order, without
// making a part of them. f borrows the batches. As with a Reader, rows come
// before the digests of all parts have been seen: nobody acts on them before it
// has returned nil.
func EachMerged(h Header, parts []io.Reader, identity int, p *batch.Pool, f func(*batch.Batch) error) error {
	switch {
	case len(parts) == 0:
		return fmt.Errorf("avro: table %q: no parts to merge", h.Table)
	case identity > h.Schema.Len():
		return fmt.Errorf("avro: table %q: %d columns tell rows apart, and it has %d", h.Table, identity, h.Schema.Len())
	}
	if identity == 0 {
		parts = parts[len(parts)-1:]
	}
	h.Delta = false
	m := newMerger(h, identity, p, f)
	defer m.release()
	base, err := m.open(parts[0])
	if err != nil {
		return err
	}
	if base.Header().Delta {
		return fmt.Errorf("avro: table %q: the first part to merge is a delta; it must be whole", h.Table)
	}
	for _, d := range parts[1:] {
		if err := m.delta(d); err != nil {
			return err
		}
	}
	if err := m.base(base); err != nil {
		return err
	}
	return m.added()
}

// merger holds what the deltas say: their batches, and for each identity in them
// the latest row.
type merger struct {
	h        Header
	pool     *batch.Pool
	schema   string
	identity int
	f        func(*batch.Batch) error

	entries *state.KeyTable // identity to its place in list
	list    []change
	order   []int32 // places in list, as they became new
	held    []*batch.Batch

	bl     *batch.Builder // of rows that cannot be handed on in the batch that they came in
	rows   []int32        // of a batch
	hashes []uint64
	more   []uint64
	ids    []int32
	kept   []int32
	one    [1]int32
}

// change is what the deltas make of a row.
type change struct {
	batch *batch.Batch // nil: it is removed
	row   int32
	cut   bool  // the base's row goes: it was removed at least once
	used  bool  // the base's row was replaced by it
	since int32 // its place in order, while it is there
}

func newMerger(h Header, identity int, p *batch.Pool, f func(*batch.Batch) error) *merger {
	var types []batch.Type
	for _, c := range h.Schema.Fields()[:identity] {
		types = append(types, c.Type)
	}
	return &merger{h: h, pool: p, schema: h.avro(), identity: identity, f: f, entries: state.NewKeyTable(types), bl: batch.NewBuilder(p, h.Schema)}
}

func (m *merger) release() {
	for _, b := range m.held {
		b.Release()
	}
	if b := m.bl.Take(); b != nil {
		b.Release()
	}
}

func (m *merger) open(r io.Reader) (*Reader, error) {
	rd, err := NewReader(r, m.pool)
	if err != nil {
		return nil, err
	}
	was := rd.Header().Schema
	for i, f := range m.h.Schema.Fields()[:m.identity] {
		if i >= was.Len() || was.Field(i) != f {
			return nil, fmt.Errorf("avro: table %q: the part has (%v); its first columns tell rows apart and cannot change, they are (%v)", m.h.Table, was, m.h.Schema)
		}
	}
	return rd, rd.ResolveTo(m.schema, m.h.Schema)
}

// each calls f with all batches of a part, verified or not; the error at the
// end is what counts.
func each(rd *Reader, f func(b *batch.Batch) error) error {
	for {
		b, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(b); err != nil {
			return err
		}
	}
}

// delta notes the rows of a delta.
func (m *merger) delta(r io.Reader) error {
	rd, err := m.open(r)
	if err != nil {
		return err
	}
	return each(rd, func(b *batch.Batch) error {
		m.held = append(m.held, b)
		cols := m.identify(b)
		m.entries.Lookup(cols, m.rows, m.hashes, m.ids)
		for row, at := range m.ids {
			m.note(b, row, at)
		}
		b.Kinds = nil
		return nil
	})
}

// identify gives each row of b a hash of what tells it apart, by which it is
// found in entries.
func (m *merger) identify(b *batch.Batch) []*batch.Column {
	for i := len(m.rows); i < b.Rows; i++ {
		m.rows = append(m.rows, int32(i))
	}
	m.rows = m.rows[:b.Rows]
	if cap(m.ids) < b.Rows {
		m.ids, m.hashes, m.more = make([]int32, batch.MaxRows), make([]uint64, batch.MaxRows), make([]uint64, batch.MaxRows)
	}
	m.ids, m.hashes = m.ids[:b.Rows], m.hashes[:b.Rows]
	for i, c := range b.Cols[:m.identity] {
		if i == 0 {
			state.HashColumn(c, m.rows, m.hashes)
			continue
		}
		state.HashColumn(c, m.rows, m.more)
		for k, h := range m.hashes {
			h = (h ^ bits.RotateLeft64(m.more[k], 32)) * 0x9e3779b97f4a7c15
			m.hashes[k] = h ^ h>>32
		}
	}
	return b.Cols[:m.identity]
}

func (m *merger) note(b *batch.Batch, row int, at int32) {
	if int(at) == len(m.list) {
		m.list = append(m.list, change{})
	}
	c := &m.list[at]
	if b.Kinds != nil && b.Kinds[row] == batch.Delete {
		c.batch, c.cut = nil, true
		return
	}
	if c.batch == nil {
		c.since = int32(len(m.order))
		m.order = append(m.order, at)
	}
	c.batch, c.row = b, int32(row)
}

// base hands on the base's rows with the changes made to them.
func (m *merger) base(rd *Reader) error {
	return each(rd, func(b *batch.Batch) error {
		defer b.Release()
		if len(m.list) == 0 || !m.changed(b) {
			if err := m.flush(); err != nil {
				return err
			}
			return m.f(b)
		}
		m.kept = m.kept[:0]
		for row, at := range m.ids {
			if at < 0 {
				m.kept = append(m.kept, int32(row))
				continue
			}
			c := &m.list[at]
			if c.cut || c.used {
				continue
			}
			c.used = true
			if err := m.some(b, m.kept); err != nil {
				return err
			}
			m.kept = m.kept[:0]
			m.one[0] = c.row
			if err := m.some(c.batch, m.one[:]); err != nil {
				return err
			}
		}
		return m.some(b, m.kept)
	})
}

// changed tells whether any row of b is named in the deltas; ids are their
// places.
func (m *merger) changed(b *batch.Batch) bool {
	cols := m.identify(b)
	return m.entries.FindAll(cols, m.rows, m.hashes, m.ids)
}

// some hands on the rows of b at the given positions, with others.
func (m *merger) some(b *batch.Batch, rows []int32) error {
	for len(rows) > 0 {
		if m.bl.Full() {
			if err := m.flush(); err != nil {
				return err
			}
		}
		n := min(len(rows), batch.MaxRows-m.bl.Len())
		m.bl.Append(b, rows[:n])
		rows = rows[n:]
	}
	return nil
}

func (m *merger) flush() error {
	b := m.bl.Take()
	if b == nil {
		return nil
	}
	defer b.Release()
	return m.f(b)
}

// added hands on the rows that the base does not have.
func (m *merger) added() error {
	var of *batch.Batch
	m.kept = m.kept[:0]
	for i, at := range m.order {
		c := &m.list[at]
		if c.batch == nil || c.used || c.since != int32(i) {
			continue
		}
		if c.batch != of {
			if err := m.some(of, m.kept); err != nil {
				return err
			}
			of, m.kept = c.batch, m.kept[:0]
		}
		m.kept = append(m.kept, c.row)
	}
	if err := m.some(of, m.kept); err != nil {
		return err
	}
	return m.flush()
}

// AppendIdentity appends the first n values of a row so that equal ones, as
// keys are equal, are equal bytes.
func AppendIdentity(dst []byte, b *batch.Batch, n, row int) []byte {
	for _, c := range b.Cols[:n] {
		if c.IsNull(row) {
			dst = append(dst, 0)
			continue
		}
		dst = append(dst, 1)
		switch c.Type {
		case batch.Boolean:
			v := byte(0)
			if c.Bits.Get(row) {
				v = 1
			}
			dst = append(dst, v)
		case batch.Double:
			dst = binary.LittleEndian.AppendUint64(dst, keyBits(c.Doubles[row]))
		case batch.String, batch.Bytes:
			v := c.At(row)
			dst = append(binary.AppendUvarint(dst, uint64(len(v))), v...)
		default:
			dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Ints[row]))
		}
	}
	return dst
}

// keyBits are the bits by which doubles are equal as keys: -0 is +0, and all
// NaNs are one.
func keyBits(v float64) uint64 {
	switch {
	case v == 0:
		return 0
	case v != v:
		return 0x7ff8000000000001
	}
	return math.Float64bits(v)
}
