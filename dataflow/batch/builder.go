package batch

import "github.com/tidemark-mesh/tidemark/dataflow"

// Builder makes batches row by row or run by run. A row is begun by setting
// its first value and ended by EndRow or AbortRow; columns that were not set
// are null. It belongs to one goroutine.
//
//	b.SetString(0, id); b.SetDouble(1, 8.5); b.EndRow(ts)
//	b.Mark(batch.Mark{Watermark: w, Arrival: a})
//	out := b.Take()
type Builder struct {
	pool   *Pool
	schema *Schema
	b      *Batch
	row    int     // the row being built
	have   []int32 // have[i] == row+1: column i of this row is set

	variable []int // columns whose values have a length of their own
}

// NewBuilder makes a builder of batches of schema s.
func NewBuilder(p *Pool, s *Schema) *Builder {
	bl := &Builder{pool: p, schema: s, have: make([]int32, s.Len())}
	for i, f := range s.Fields() {
		if f.Type.Variable() {
			bl.variable = append(bl.variable, i)
		}
	}
	return bl
}

// Schema is the schema of the batches it builds.
func (bl *Builder) Schema() *Schema { return bl.schema }

// Len is the number of finished rows.
func (bl *Builder) Len() int { return bl.row }

// Full tells whether the batch must be taken before another row is begun:
// MaxRows are there, or a column holds so many bytes that more could be too
// many for its offsets.
func (bl *Builder) Full() bool {
	if bl.row >= MaxRows {
		return true
	}
	if bl.b == nil {
		return false
	}
	for _, i := range bl.variable {
		if c := bl.b.Cols[i]; c.Offsets[bl.row] >= fullBytes {
			return true
		}
	}
	return false
}

// fullBytes leaves room for a last row of a gigabyte below the two that an
// offset can count.
const fullBytes = 64 << 20

// Empty tells whether there is neither a row nor a mark.
func (bl *Builder) Empty() bool { return bl.b == nil || bl.row == 0 && len(bl.b.Marks) == 0 }

func (bl *Builder) begin() *Batch {
	if bl.b == nil {
		bl.b = bl.pool.Get(bl.schema)
		for i := range bl.have {
			bl.b.Own(i, 0)
			bl.have[i] = 0
		}
		bl.b.OwnTimes(0)
		bl.row = 0
	}
	return bl.b
}

func (bl *Builder) col(i int) *Column {
	c := bl.begin().Cols[i]
	bl.have[i] = int32(bl.row + 1)
	return c
}

// SetInt sets a bigint or timestamp column of the row. Setting a column again
// replaces its value; that holds for all setters.
func (bl *Builder) SetInt(i int, v int64) {
	c := bl.col(i)
	c.Ints = append(c.Ints[:bl.row], v)
}

// SetDouble sets a double column of the row.
func (bl *Builder) SetDouble(i int, v float64) {
	c := bl.col(i)
	c.Doubles = append(c.Doubles[:bl.row], v)
}

// SetBool sets a boolean column of the row.
func (bl *Builder) SetBool(i int, v bool) {
	c := bl.col(i)
	if w := Words(bl.row + 1); len(c.Bits) < w {
		c.Bits = append(c.Bits, 0)
	}
	c.Bits.Put(bl.row, v)
}

// SetBytes sets a string or bytes column of the row to a copy of v.
func (bl *Builder) SetBytes(i int, v []byte) {
	c := bl.col(i)
	c.Offsets = c.Offsets[:bl.row+1]
	c.Data = append(c.Data[:c.Offsets[bl.row]], v...)
	c.Offsets = append(c.Offsets, int32(len(c.Data)))
}

// SetString is SetBytes for a Go string.
func (bl *Builder) SetString(i int, v string) {
	c := bl.col(i)
	c.Offsets = c.Offsets[:bl.row+1]
	c.Data = append(c.Data[:c.Offsets[bl.row]], v...)
	c.Offsets = append(c.Offsets, int32(len(c.Data)))
}

// SetNull makes column i of the row null again after it was set.
func (bl *Builder) SetNull(i int) { bl.have[i] = 0 }

// EndRow finishes the row with its event time.
func (bl *Builder) EndRow(t dataflow.Time) {
	b := bl.begin()
	for i, c := range b.Cols {
		if bl.have[i] != int32(bl.row+1) {
			bl.endNull(c)
		}
	}
	b.ownTimes = append(b.ownTimes[:bl.row], int64(t))
	bl.row++
}

// endNull gives the row a null in column c.
func (bl *Builder) endNull(c *Column) {
	switch c.Type {
	case Boolean:
		if w := Words(bl.row + 1); len(c.Bits) < w {
			c.Bits = append(c.Bits, 0)
		}
	case Bigint, Timestamp:
		c.Ints = append(c.Ints[:bl.row], 0)
	case Double:
		c.Doubles = append(c.Doubles[:bl.row], 0)
	case String, Bytes:
		c.Offsets = c.Offsets[:bl.row+1]
		c.Offsets = append(c.Offsets, c.Offsets[bl.row])
	}
	c.SetNull(bl.row, MaxRows)
}

// AbortRow forgets what was set of the row.
func (bl *Builder) AbortRow() {
	for i := range bl.have {
		bl.have[i] = 0
	}
}

// Mark adds a mark after the finished rows; m.Row is set here.
func (bl *Builder) Mark(m Mark) {
	m.Row = int32(bl.row)
	bl.begin().AddMark(m)
}

// Kind gives the last finished row a kind other than Insert.
func (bl *Builder) Kind(k Kind) {
	b := bl.b
	for len(b.ownKinds) < bl.row {
		b.ownKinds = append(b.ownKinds, Insert)
	}
	b.ownKinds[bl.row-1] = k
	b.Kinds = b.ownKinds
}

// Append copies the rows of src at the given positions, which must fit
// (Len()+len(positions) <= MaxRows), with their times, kinds and hashes. src
// has the builder's schema. Marks are not copied.
func (bl *Builder) Append(src *Batch, positions []int32) {
	if len(positions) == 0 {
		return
	}
	b := bl.begin()
	for i, c := range b.Cols {
		c.gather(src.Cols[i], positions, bl.row)
	}
	for _, p := range positions {
		b.ownTimes = append(b.ownTimes, src.Times[p])
	}
	bl.gatherHashes(src, positions)
	if src.Kinds != nil || b.Kinds != nil {
		for len(b.ownKinds) < bl.row {
			b.ownKinds = append(b.ownKinds, Insert)
		}
		for _, p := range positions {
			k := Insert
			if src.Kinds != nil {
				k = src.Kinds[p]
			}
			b.ownKinds = append(b.ownKinds, k)
		}
		b.Kinds = b.ownKinds
	}
	bl.row += len(positions)
}

// gatherHashes keeps hashes only while every row so far had one.
func (bl *Builder) gatherHashes(src *Batch, positions []int32) {
	b := bl.b
	if src.Hashes == nil || len(b.ownHash) != bl.row {
		b.ownHash = b.ownHash[:0]
		return
	}
	for _, p := range positions {
		b.ownHash = append(b.ownHash, src.Hashes[p])
	}
}

// Take returns the batch built so far and starts a new one. It is nil if there
// is neither a row nor a mark. A row that was begun and not ended is dropped.
func (bl *Builder) Take() *Batch {
	if bl.Empty() {
		bl.AbortRow()
		if bl.b != nil { // kept, its memory would count as in flight for ever, and sources wait for that
			bl.b.Release()
			bl.b = nil
		}
		return nil
	}
	b := bl.b
	b.Rows = bl.row
	b.Times = b.ownTimes[:bl.row]
	for _, c := range b.Cols {
		c.cut(bl.row)
	}
	if len(b.ownHash) == bl.row && bl.row > 0 {
		b.Hashes = b.ownHash
	}
	if b.Kinds != nil {
		for len(b.ownKinds) < bl.row {
			b.ownKinds = append(b.ownKinds, Insert)
		}
		b.Kinds = b.ownKinds[:bl.row]
	}
	bl.b, bl.row = nil, 0
	bl.pool.Account(b)
	return b
}

// cut drops the values of a row that was begun and not ended.
func (c *Column) cut(n int) {
	switch c.Type {
	case Bigint, Timestamp:
		c.Ints = c.Ints[:n]
	case Double:
		c.Doubles = c.Doubles[:n]
	case String, Bytes:
		c.Offsets = c.Offsets[:n+1]
		c.Data = c.Data[:c.Offsets[n]]
	}
}

// Truncate forgets the rows from n on and the marks after them: a payload that
// fails in its third reading leaves none.
func (bl *Builder) Truncate(n int) {
	bl.AbortRow()
	if bl.b == nil || n >= bl.row {
		return
	}
	b := bl.b
	for _, c := range b.Cols {
		c.cut(n)
		if c.Valid != nil {
			for i := n; i < bl.row; i++ {
				c.Valid.Set(i)
			}
		}
	}
	b.ownTimes = b.ownTimes[:n]
	b.ownHash = b.ownHash[:min(n, len(b.ownHash))]
	b.ownKinds = b.ownKinds[:min(n, len(b.ownKinds))]
	for len(b.Marks) > 0 && int(b.Marks[len(b.Marks)-1].Row) > n {
		b.Marks = b.Marks[:len(b.Marks)-1]
	}
	b.ownMarks = b.Marks
	bl.row = n
}
