package avro

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
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
	switch {
	case len(parts) == 0:
		return 0, fmt.Errorf("avro: table %q: no parts to merge", h.Table)
	case identity > h.Schema.Len():
		return 0, fmt.Errorf("avro: table %q: %d columns tell rows apart, and it has %d", h.Table, identity, h.Schema.Len())
	}
	if identity == 0 {
		parts = parts[len(parts)-1:]
	}
	h.Delta = false
	m := merger{h: h, pool: p, schema: h.avro(), out: NewWriter(w, h), identity: identity, entries: make(map[string]int32)}
	defer m.release()
	base, err := m.open(parts[0])
	if err != nil {
		return 0, err
	}
	if base.Header().Delta {
		return 0, fmt.Errorf("avro: table %q: the first part to merge is a delta; it must be whole", h.Table)
	}
	for _, d := range parts[1:] {
		if err := m.delta(d); err != nil {
			return 0, err
		}
	}
	if err := m.base(base); err != nil {
		return 0, err
	}
	if err := m.added(); err != nil {
		return 0, err
	}
	return m.out.Rows(), m.out.Close()
}

// merger holds what the deltas say. Rows are kept in a builder's batches, the
// latest version of each.
type merger struct {
	h        Header
	pool     *batch.Pool
	schema   string
	out      *Writer
	identity int

	entries map[string]int32 // identity to its place in list
	list    []change
	order   []int32 // places in list, as they became new
	held    []*batch.Batch
	key     []byte
	one     [1]int32
}

// change is what the deltas make of a row.
type change struct {
	batch *batch.Batch // nil: it is removed
	row   int32
	cut   bool  // the base's row goes: it was removed at least once
	used  bool  // the base's row was replaced by it
	since int32 // its place in order, while it is there
}

func (m *merger) release() {
	for _, b := range m.held {
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
		for row := range b.Rows {
			m.note(b, row)
		}
		return nil
	})
}

func (m *merger) note(b *batch.Batch, row int) {
	m.key = AppendIdentity(m.key[:0], b, m.identity, row)
	at, known := m.entries[string(m.key)]
	if !known {
		at = int32(len(m.list))
		m.entries[string(m.key)] = at
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

// base writes the base's rows with the changes made to them.
func (m *merger) base(rd *Reader) error {
	return each(rd, func(b *batch.Batch) error {
		defer b.Release()
		if len(m.list) == 0 {
			return m.out.Append(b)
		}
		sel := b.OwnSel(b.Rows)
		for row := range b.Rows {
			m.key = AppendIdentity(m.key[:0], b, m.identity, row)
			at, changed := m.entries[string(m.key)]
			if !changed {
				sel = append(sel, int32(row))
				continue
			}
			c := &m.list[at]
			if c.cut || c.used {
				continue
			}
			c.used = true
			if err := m.some(b, sel); err != nil {
				return err
			}
			sel = sel[:0]
			if err := m.single(c); err != nil {
				return err
			}
		}
		return m.some(b, sel)
	})
}

// some writes the rows of b at the given positions.
func (m *merger) some(b *batch.Batch, sel []int32) error {
	if len(sel) == 0 {
		return nil
	}
	b.Sel = sel
	return m.out.Append(b)
}

// single writes the row of a change.
func (m *merger) single(c *change) error {
	m.one[0] = c.row
	was, kinds := c.batch.Sel, c.batch.Kinds
	c.batch.Sel, c.batch.Kinds = m.one[:], nil
	err := m.out.Append(c.batch)
	c.batch.Sel, c.batch.Kinds = was, kinds
	return err
}

// added writes the rows that the base does not have.
func (m *merger) added() error {
	for i, at := range m.order {
		c := &m.list[at]
		if c.batch == nil || c.used || c.since != int32(i) {
			continue
		}
		if err := m.single(c); err != nil {
			return err
		}
	}
	return nil
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
