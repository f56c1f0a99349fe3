package avro

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Where a field's value goes if it is no column.
const (
	toHash = -1
	toKind = -2
	toNone = -3
)

// plan says how a writer's rows become a reader's columns.
type plan struct {
	schema *batch.Schema
	steps  []step
	preset []field // columns that were not written, by column; kind null: written
	keyed  bool
	delta  bool
	least  int // bytes of a row
	most   int // rows of a batch
	into   []target
}

// target is where the values of a step go in the batch at hand.
type target struct {
	col     *batch.Column // nil: it is no column
	ints    []int64       // of a column whose values are written as they are: bigint, timestamp
	doubles []float64     // the same: double
}

// step is one field of the writer's, in its order.
type step struct {
	field
	to int // the column, or where else
}

// straight reads what was written as it was written.
func straight(w record) plan {
	p := plan{schema: w.header.Schema, keyed: w.header.Keyed, delta: w.header.Delta, most: batch.MaxRows}
	column := 0
	for _, f := range w.fields {
		s := step{field: f, to: column}
		switch f.name {
		case hashField:
			s.to = toHash
		case kindField:
			s.to = toKind
		default:
			column++
		}
		p.least += f.leastBytes()
		p.steps = append(p.steps, s)
	}
	return p
}

// ResolveTo makes the batches those of the reader's schema, by Avro's rules:
// columns that were not written get their default, those that the reader does
// not have are left out, values are promoted. It is called before the first
// Next. s is the schema of the batches, which must be that of the Avro schema;
// nil: one is made. What Compatible calls incompatible is an error.
func (r *Reader) ResolveTo(schema string, s *batch.Schema) error {
	to, err := parseRecord(schema)
	if err != nil {
		return err
	}
	if s == nil {
		s = to.header.Schema
	}
	if !s.Equal(to.header.Schema) {
		return fmt.Errorf("avro: the schema is of (%v), the batches are to be (%v)", to.header.Schema, s)
	}
	if !r.writer.alike(to) {
		if verdict, reasons := Compatible(r.writer.text, schema); verdict == Incompatible {
			return fmt.Errorf("avro: table %q cannot be read as it is now: %s", r.writer.header.Table, reasons[0])
		}
	}
	return r.resolve(to, s)
}

func (r *Reader) resolve(to record, s *batch.Schema) error {
	p := straight(r.writer)
	p.schema = s
	p.preset = make([]field, s.Len())
	for i := range p.steps {
		if p.steps[i].to >= 0 {
			p.steps[i].to = toNone
		}
	}
	column, long := 0, 0
	for _, f := range to.fields {
		if f.name == hashField || f.name == kindField {
			continue
		}
		if i := r.writer.named(f); i >= 0 && p.steps[i].to == toNone {
			p.steps[i].to = column
		} else {
			p.preset[column] = f
			switch v := f.preset.(type) {
			case string:
				long += len(v)
			case []byte:
				long += len(v)
			}
		}
		column++
	}
	if long > 0 {
		p.most = max(1, min(p.most, maxBlock/long))
	}
	r.plan = p
	return nil
}

// decode makes a batch of n rows at data[at:] and says where they end; nil if
// they are damaged.
func (p *plan) decode(pool *batch.Pool, data []byte, at, n int) (b *batch.Batch, end int) {
	b = pool.Get(p.schema)
	b.Rows = n
	for i := range b.Cols {
		b.Own(i, n)
	}
	clear(b.OwnTimes(n))
	if p.keyed {
		b.OwnHashes(n)
	}
	if p.delta {
		b.OwnKinds(n)
	}
	p.aim(b)
	for row := 0; row < n; row++ {
		if at = p.row(b, row, data, at); at < 0 {
			b.Release()
			return nil, at
		}
	}
	for i := range p.preset {
		fill(b.Cols[i], &p.preset[i], n)
	}
	pool.Account(b)
	return b, at
}

// aim finds where the steps' values go in b.
func (p *plan) aim(b *batch.Batch) {
	p.into = p.into[:0]
	for i := range p.steps {
		var t target
		if s := &p.steps[i]; s.to >= 0 {
			t.col = b.Cols[s.to]
			switch {
			case s.kind == double:
				t.doubles = t.col.Doubles
			case (s.kind == long || s.kind == integer) && t.col.Type != batch.Double:
				t.ints = t.col.Ints
			}
		}
		p.into = append(p.into, t)
	}
}

// row takes one row off data and returns where the next is.
func (p *plan) row(b *batch.Batch, row int, data []byte, at int) int {
	into := p.into[:len(p.steps)]
	for i := range p.steps {
		s, t := &p.steps[i], &into[i]
		if s.branch {
			var branch int64
			if branch, at = getLong(data, at); at < 0 {
				return at
			}
			switch branch {
			case s.null:
				if t.col != nil {
					putNull(t.col, row, b.Rows)
				}
				continue
			case s.value:
			default:
				return -1
			}
		}
		switch {
		case t.ints != nil:
			t.ints[row], at = getLong(data, at)
		case t.doubles != nil:
			t.doubles[row], at = getDouble(data, at)
		case t.col != nil:
			at = put(t.col, s.kind, row, b.Rows, data, at)
		default:
			at = s.aside(b, row, data, at)
		}
		if at < 0 {
			return at
		}
	}
	return at
}

// aside takes a value that is no column of the reader's.
func (s *step) aside(b *batch.Batch, row int, data []byte, at int) int {
	var v int64
	switch s.kind {
	case null:
	case boolean:
		at++
		if at > len(data) {
			return -1
		}
	case float:
		_, at = getFloat(data, at)
	case double:
		_, at = getDouble(data, at)
	case text, raw:
		_, at = getBytes(data, at)
	default:
		v, at = getLong(data, at)
	}
	switch s.to {
	case toHash:
		b.Hashes[row] = uint64(v)
	case toKind:
		b.Kinds[row] = batch.Insert
		if v == 1 {
			b.Kinds[row] = batch.Delete
		} else if v != 0 {
			return -1
		}
	}
	return at
}

// put takes a value of kind k and puts it at a row of c, of n.
func put(c *batch.Column, k primitive, row, n int, data []byte, at int) int {
	var v int64
	var d float64
	switch k {
	case null:
		putNull(c, row, n)
		return at
	case boolean:
		if at >= len(data) || data[at] > 1 {
			return -1
		}
		c.Bits.Put(row, data[at] == 1)
		return at + 1
	case text, raw:
		var s []byte
		if s, at = getBytes(data, at); at >= 0 {
			c.AppendBytes(s)
		}
		return at
	case integer, long:
		if v, at = getLong(data, at); at < 0 {
			return at
		}
		if c.Type != batch.Double {
			c.Ints[row] = v
			return at
		}
		d = float64(v)
	case float:
		d, at = getFloat(data, at)
	case double:
		d, at = getDouble(data, at)
	}
	c.Doubles[row] = d
	return at
}

func putNull(c *batch.Column, row, n int) {
	switch c.Type {
	case batch.Boolean:
		c.Bits.Clear(row)
	case batch.Double:
		c.Doubles[row] = 0
	case batch.String, batch.Bytes:
		c.AppendBytes(nil)
	default:
		c.Ints[row] = 0
	}
	c.SetNull(row, n)
}

// fill gives a column that was not written its default.
func fill(c *batch.Column, f *field, n int) {
	if f.name == "" {
		return // it was written
	}
	for row := range n {
		switch v := f.preset.(type) {
		case bool:
			c.Bits.Put(row, v)
		case int32:
			c.Ints[row] = int64(v)
		case int64:
			c.Ints[row] = v
		case float32:
			c.Doubles[row] = float64(v)
		case float64:
			c.Doubles[row] = v
		case string:
			c.AppendBytes([]byte(v))
		case []byte:
			c.AppendBytes(v)
		default:
			putNull(c, row, n)
		}
	}
}
