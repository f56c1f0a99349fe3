package batch

import (
	"fmt"
	"sort"
	"sync/atomic"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// MaxRows is the most rows a batch may hold, so that one step of a task stays
// short and a channel's bound in batches is a bound in rows.
const MaxRows = 4096

// Mark says what is known after the rows before it: the watermark is Watermark
// and the arrival clock has reached Arrival. Both never go back in a stream.
// A row's arrival time, where a job needs it, is the Arrival of the last mark
// at or before the row's position.
//
// Who ends an idle stream puts an active mark, with the watermark unchanged,
// before its first row: a filter or an exchange may send the row elsewhere.
type Mark struct {
	Row       int32         // number of positions before the mark: 0..Rows
	Idle      bool          // the stream is idle from here on: a merge leaves it out until an active mark comes
	Watermark dataflow.Time // MinTime: none yet
	Arrival   dataflow.Time // MinTime: the stream has no arrival clock yet
}

// Kind is what a row does to the result downstream. A stream of kind append
// has only Insert rows and no Kinds column.
type Kind uint8

// The row kinds; the numbers are part of the wire encoding.
const (
	Insert       Kind = 0
	UpdateAfter  Kind = 1 // replaces the row with the same key
	UpdateBefore Kind = 2 // withdraws a row
	Delete       Kind = 3
)

// Batch is a run of rows and marks of one stream. See the package comment for
// who may touch it when.
type Batch struct {
	Schema *Schema
	Rows   int       // positions; at most MaxRows
	Cols   []*Column // one per schema field, Rows values each
	Times  []int64   // event time of each position
	Sel    []int32   // the positions that are there, ascending; nil: all
	Marks  []Mark    // ordered by Row, Watermark and Arrival
	Kinds  []Kind    // nil: all Insert
	Hashes []uint64  // hash of each position's key, by the last hash exchange; nil: not computed

	// HashedColumn is one of Cols of this batch or of one it is derived from, and
	// ColumnHashes has the hash of each of its values, as a key of that column
	// alone; nil: not computed. Who needs the hashes of that column takes these.
	HashedColumn *Column
	ColumnHashes []uint64

	pool   *Pool
	parent *Batch
	refs   atomic.Int32
	shared bool // Marks are the parent's: AddMark is not allowed before OwnMarks

	own      []Column // this batch's own columns; Cols point here or into parent
	ownTimes []int64
	ownSel   []int32
	ownMarks []Mark
	ownKinds []Kind
	ownHash  []uint64
	counted  int64 // bytes the pool has on its books for this batch
}

// Len is the number of rows that are there: those in Sel, or all.
func (b *Batch) Len() int {
	if b.Sel != nil {
		return len(b.Sel)
	}
	return b.Rows
}

// Position is the position of the k-th row that is there.
func (b *Batch) Position(k int) int {
	if b.Sel != nil {
		return int(b.Sel[k])
	}
	return k
}

// Rank is how many rows that are there stand before position row: the place of
// a mark among them.
func (b *Batch) Rank(row int32) int {
	if b.Sel == nil {
		return int(row)
	}
	return sort.Search(len(b.Sel), func(i int) bool { return b.Sel[i] >= row })
}

// Own returns the batch's own column i, of the schema's type, ready for n
// positions (see Column.Resize), and puts it in Cols[i].
func (b *Batch) Own(i, n int) *Column {
	c := &b.own[i]
	c.Type = b.Schema.fields[i].Type
	c.Resize(n)
	b.Cols[i] = c
	return c
}

// OwnTimes makes Times the batch's own, with n undefined entries.
func (b *Batch) OwnTimes(n int) []int64 {
	b.ownTimes = grown(b.ownTimes, n)
	b.Times = b.ownTimes
	return b.Times
}

// OwnSel returns an empty selection with room for n positions. The caller
// appends to it and sets Sel.
func (b *Batch) OwnSel(n int) []int32 {
	if b.ownSel == nil || cap(b.ownSel) < n { // never nil: a nil Sel means all
		b.ownSel = make([]int32, 0, n+n/4)
	}
	return b.ownSel[:0]
}

// OwnHashes makes Hashes the batch's own, with n undefined entries.
func (b *Batch) OwnHashes(n int) []uint64 {
	b.ownHash = grown(b.ownHash, n)
	b.Hashes = b.ownHash
	return b.Hashes
}

// OwnKinds makes Kinds the batch's own, with n undefined entries.
func (b *Batch) OwnKinds(n int) []Kind {
	b.ownKinds = grown(b.ownKinds, n)
	b.Kinds = b.ownKinds
	return b.Kinds
}

// AddMark appends a mark to the batch's own marks; on a derived batch call
// OwnMarks first. Marks with no position between them become the latest one.
func (b *Batch) AddMark(m Mark) {
	if b.shared {
		panic("batch: AddMark on marks that belong to the parent; call OwnMarks first")
	}
	if n := len(b.Marks); n > 0 && b.Marks[n-1].Row == m.Row {
		b.Marks[n-1] = m
		return
	}
	b.Marks = append(b.Marks, m)
	b.ownMarks = b.Marks
}

// OwnMarks empties Marks and makes them the batch's own, so that a derived
// batch may be given marks of its own with AddMark.
func (b *Batch) OwnMarks() { b.Marks, b.shared = b.ownMarks[:0], false }

// Retain adds a reference and returns b.
func (b *Batch) Retain() *Batch {
	if b.refs.Add(1) <= 1 {
		panic("batch: Retain of a released batch")
	}
	return b
}

// Release gives up a reference; the last one returns the memory to the pool.
func (b *Batch) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("batch: released once too often")
	}
	parent := b.parent
	b.parent = nil
	b.pool.put(b)
	if parent != nil {
		parent.Release()
	}
}

// LastReference tells whether the caller's reference is the only one.
func (b *Batch) LastReference() bool { return b.refs.Load() == 1 }

// Check asserts the invariants of the fields, for tests and fuzzers.
func (b *Batch) Check() error {
	if b.Rows < 0 || b.Rows > MaxRows {
		return fmt.Errorf("batch: %d rows, at most %d allowed", b.Rows, MaxRows)
	}
	if len(b.Cols) != b.Schema.Len() {
		return fmt.Errorf("batch: %d columns for a schema of %d", len(b.Cols), b.Schema.Len())
	}
	if len(b.Times) != b.Rows {
		return fmt.Errorf("batch: %d times for %d rows", len(b.Times), b.Rows)
	}
	for i, c := range b.Cols {
		if c == nil {
			return fmt.Errorf("batch: column %q is not set", b.Schema.fields[i].Name)
		}
		if err := c.check(b.Rows); err != nil {
			return fmt.Errorf("batch: column %q: %w", b.Schema.fields[i].Name, err)
		}
		if c.Type != b.Schema.fields[i].Type {
			return fmt.Errorf("batch: column %q is %v, not %v", b.Schema.fields[i].Name, c.Type, b.Schema.fields[i].Type)
		}
	}
	last := int32(-1)
	for _, p := range b.Sel {
		if p <= last || int(p) >= b.Rows {
			return fmt.Errorf("batch: selection not ascending within %d rows at %d", b.Rows, p)
		}
		last = p
	}
	for i, m := range b.Marks {
		if m.Row < 0 || int(m.Row) > b.Rows {
			return fmt.Errorf("batch: mark at row %d of %d", m.Row, b.Rows)
		}
		if i > 0 {
			if p := b.Marks[i-1]; m.Row < p.Row || m.Watermark < p.Watermark || m.Arrival < p.Arrival {
				return fmt.Errorf("batch: mark %d goes back", i)
			}
		}
	}
	if b.Kinds != nil && len(b.Kinds) != b.Rows || b.Hashes != nil && len(b.Hashes) != b.Rows {
		return fmt.Errorf("batch: kinds or hashes do not match %d rows", b.Rows)
	}
	return nil
}

func (c *Column) check(n int) error {
	if c.Valid != nil && len(c.Valid) < Words(n) {
		return fmt.Errorf("%d validity words for %d rows", len(c.Valid), n)
	}
	have := n
	switch c.Type {
	case Boolean:
		if len(c.Bits) < Words(n) {
			have = 64 * len(c.Bits)
		}
	case Bigint, Timestamp:
		have = len(c.Ints)
	case Double:
		have = len(c.Doubles)
	case String, Bytes:
		if len(c.Offsets) != n+1 || c.Offsets[0] != 0 {
			return fmt.Errorf("%d offsets for %d rows", len(c.Offsets), n)
		}
		for i := range n {
			if c.Offsets[i] > c.Offsets[i+1] {
				return fmt.Errorf("offset %d goes back", i+1)
			}
		}
		if int(c.Offsets[n]) > len(c.Data) {
			return fmt.Errorf("offsets end at %d of %d bytes", c.Offsets[n], len(c.Data))
		}
	default:
		return fmt.Errorf("unknown %v", c.Type)
	}
	if have != n {
		return fmt.Errorf("%d values for %d rows", have, n)
	}
	return nil
}
