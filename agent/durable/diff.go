package durable

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Change says what is different.
type Change string

// The changes.
const (
	Added   Change = "added"   // only the second has it
	Removed Change = "removed" // only the first has it
	Changed Change = "changed" // both have a row of this identity, with other values
	Columns Change = "columns" // the state has other columns
)

// Difference is a row that is not the same in two savepoints. Before is as the
// first has it, After as the second has it.
type Difference struct {
	Operator dataflow.OperatorID `json:"operator"`
	State    string              `json:"state"`
	Subtask  *int                `json:"subtask,omitempty"` // of a state that is not by key, where both had as many subtasks
	Change   Change              `json:"change"`
	Before   json.RawMessage     `json:"before,omitempty"`
	After    json.RawMessage     `json:"after,omitempty"`
}

// DiffMemory is the size of the parts whose rows Diff holds in memory at once:
// with what it needs to find them they take about five times as much.
const DiffMemory = 64 << 20

// Diff calls f with what is different between two savepoints, in the order of
// a's operators and states, then those that only b has. Rows are matched by the
// columns that tell them apart, and compared value by value, bit by bit: NaN is
// itself, and -0 is not 0. What has no such columns, and what is not by key and
// had another number of subtasks, is compared as a bag of rows: added or
// removed.
//
// A state whose parts are larger than memory (0: DiffMemory) is read several
// times, a share of the rows each time. Deltas of a checkpoint are in memory
// besides.
func Diff(a, b *Saved, memory int64, f func(Difference) error) error {
	d := differ{a: a, b: b, memory: memory, f: f}
	if d.memory <= 0 {
		d.memory = DiffMemory
	}
	for _, o := range bothOperators(a.Manifest, b.Manifest) {
		d.operator = o
		oa, ob := operatorOf(a.Manifest, o), operatorOf(b.Manifest, o)
		if err := d.positions(oa.Positions, ob.Positions); err != nil {
			return err
		}
		for _, name := range bothTables(oa, ob) {
			d.table = name
			if err := d.state(tableIn(oa, name), tableIn(ob, name)); err != nil {
				return fmt.Errorf("state %q of operator %q: %w", name, o, err)
			}
		}
	}
	return nil
}

func bothOperators(a, b manifest.Manifest) (ids []dataflow.OperatorID) {
	for _, m := range []manifest.Manifest{a, b} {
		for _, o := range m.Operators {
			if !slices.Contains(ids, o.ID) {
				ids = append(ids, o.ID)
			}
		}
	}
	return ids
}

func bothTables(a, b manifest.Operator) (names []string) {
	for _, o := range []manifest.Operator{a, b} {
		for _, t := range o.Tables {
			if !slices.Contains(names, t.Name) {
				names = append(names, t.Name)
			}
		}
	}
	return names
}

func operatorOf(m manifest.Manifest, id dataflow.OperatorID) manifest.Operator {
	for _, o := range m.Operators {
		if o.ID == id {
			return o
		}
	}
	return manifest.Operator{}
}

func tableIn(o manifest.Operator, name string) *manifest.Table {
	for i := range o.Tables {
		if o.Tables[i].Name == name {
			return &o.Tables[i]
		}
	}
	return nil
}

// differ is one Diff under way.
type differ struct {
	a, b     *Saved
	memory   int64
	f        func(Difference) error
	operator dataflow.OperatorID
	table    string
	subtask  *int
}

func (d *differ) tell(c Change, before, after json.RawMessage) error {
	return d.f(Difference{Operator: d.operator, State: d.table, Subtask: d.subtask, Change: c, Before: before, After: after})
}

// positions compares where a source stands, split by split.
func (d *differ) positions(a, b []manifest.Position) error {
	d.table, d.subtask = restore.Positions, nil
	at := make(map[string]manifest.Position)
	for _, p := range b {
		at[p.Split] = p
	}
	for _, p := range a {
		q, there := at[p.Split]
		delete(at, p.Split)
		var err error
		switch {
		case !there:
			err = d.tell(Removed, rowOf(p), nil)
		case p != q:
			err = d.tell(Changed, rowOf(p), rowOf(q))
		}
		if err != nil {
			return err
		}
	}
	for _, p := range b {
		if _, left := at[p.Split]; left {
			if err := d.tell(Added, nil, rowOf(p)); err != nil {
				return err
			}
		}
	}
	return nil
}

func rowOf(p manifest.Position) json.RawMessage {
	b, _ := json.Marshal(position(p)) // it cannot fail
	return b
}

// state compares a table; nil: it is not there.
func (d *differ) state(a, b *manifest.Table) error {
	d.subtask = nil
	c := comparison{differ: d, old: a, new: b}
	if a == nil || b == nil {
		return c.all()
	}
	if a.Schema != b.Schema {
		if err := d.tell(Columns, columnsOf(a), columnsOf(b)); err != nil {
			return err
		}
		verdict, _ := avro.Compatible(a.Schema, b.Schema)
		other, err := avro.SameIdentity(a.Schema, b.Schema, b.Identity)
		if verdict == avro.Incompatible || err != nil || len(other) > 0 { // no row of one can be one of the other
			c.new = nil
			if err := c.all(); err != nil {
				return err
			}
			c.old, c.new = nil, b
			return c.all()
		}
	}
	if a.Identity == b.Identity && a.Keyed == b.Keyed {
		c.identity = a.Identity
	}
	if c.identity > 0 && !a.Keyed {
		if len(a.Shards) == len(b.Shards) {
			return c.bySubtask()
		}
		c.identity = 0
	}
	return c.all()
}

func columnsOf(t *manifest.Table) json.RawMessage {
	text := t.Schema
	if h, err := avro.ParseSchema(t.Schema); err == nil {
		text = h.Schema.String()
	}
	b, _ := json.Marshal(text) // it cannot fail
	return b
}

// comparison is of the rows of one table, or of one subtask's.
type comparison struct {
	*differ
	old, new *manifest.Table
	identity int // the columns that tell rows apart; 0: all do

	mine   map[string]int32 // of old: identity to the first of its rows in held
	held   []heldRow
	free   []*batch.Batch
	passes uint64
	pass   uint64
	key    []byte
	rows   rowText
}

// heldRow is a row of old that may be found in new.
type heldRow struct {
	batch *batch.Batch
	row   int32
	next  int32 // of the same identity; -1: none
	found bool
}

func (c *comparison) bySubtask() error {
	for i := range c.old.Shards {
		one := comparison{differ: c.differ, identity: c.identity}
		a, b := *c.old, *c.new
		subtask := a.Shards[i].Subtask
		a.Shards = a.Shards[i : i+1]
		b.Shards = slices.DeleteFunc(slices.Clone(b.Shards), func(s manifest.Shard) bool { return s.Subtask != subtask })
		one.old, one.new = &a, &b
		c.subtask = &subtask
		if err := one.all(); err != nil {
			return err
		}
	}
	return nil
}

// all compares, in as many passes as it takes.
func (c *comparison) all() error {
	if c.old != nil && c.new != nil && sameParts(c.old, c.new) {
		return nil
	}
	for _, side := range []struct {
		of *Saved
		t  *manifest.Table
	}{{c.a, c.old}, {c.b, c.new}} {
		if side.t == nil {
			continue
		}
		if err := side.of.verifyTable(side.t); err != nil {
			return fmt.Errorf("%s: %w", side.of.Manifest.Name, err)
		}
	}
	c.passes = 1
	if c.old != nil {
		c.passes += uint64(sizeOf(c.old) / c.memory)
	}
	for c.pass = 0; c.pass < c.passes; c.pass++ {
		if err := c.once(); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) once() error {
	c.mine, c.held = make(map[string]int32), c.held[:0]
	defer func() {
		for _, b := range c.free {
			b.Release()
		}
		c.free = c.free[:0]
	}()
	if err := c.each(c.a, c.old, c.hold); err != nil {
		return err
	}
	if err := c.each(c.b, c.new, c.match); err != nil {
		return err
	}
	for _, h := range c.held {
		if !h.found {
			if err := c.tell(Removed, c.rows.of(h.batch, int(h.row)), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// each calls f with the batches of a table, in new's columns if there are both.
func (c *comparison) each(of *Saved, t *manifest.Table, f func(*batch.Batch) error) error {
	if t == nil {
		return nil
	}
	for _, sh := range t.Shards {
		err := of.readShard(t, sh, func(rd *avro.Reader) error {
			if c.new != nil && c.new.Schema != t.Schema {
				if err := rd.ResolveTo(c.new.Schema, nil); err != nil {
					return err
				}
			}
			return eachBatch(rd, f)
		})
		if err != nil {
			return fmt.Errorf("%s: subtask %d: %w", of.Manifest.Name, sh.Subtask, err)
		}
	}
	return nil
}

// hold keeps the rows of old that this pass is about.
func (c *comparison) hold(b *batch.Batch) error {
	defer b.Release()
	mine := b.OwnSel(b.Rows)
	for row := range b.Rows {
		if c.passes == 1 || c.inPass(b, row) {
			mine = append(mine, int32(row))
		}
	}
	if len(mine) == 0 {
		return nil
	}
	if len(mine) == b.Rows {
		b.Retain()
	} else {
		b = b.Gather(mine, nil)
	}
	c.free = append(c.free, b)
	for row := range b.Rows {
		at, next := int32(len(c.held)), int32(-1)
		c.identify(b, row)
		first, known := c.mine[string(c.key)]
		if !known {
			c.mine[string(c.key)] = at
		} else { // behind the first: found in order enough
			next, c.held[first].next = c.held[first].next, at
		}
		c.held = append(c.held, heldRow{batch: b, row: int32(row), next: next})
	}
	return nil
}

// match looks for the rows of new among those of old.
func (c *comparison) match(b *batch.Batch) error {
	defer b.Release()
	for row := range b.Rows {
		if c.passes > 1 && !c.inPass(b, row) {
			continue
		}
		c.identify(b, row)
		at, known := c.mine[string(c.key)]
		for known && at >= 0 && c.held[at].found {
			at = c.held[at].next
		}
		if !known || at < 0 {
			if err := c.tell(Added, nil, c.rows.of(b, row)); err != nil {
				return err
			}
			continue
		}
		h := &c.held[at]
		h.found = true
		if c.identity == 0 || sameRow(h.batch, int(h.row), b, row) {
			continue
		}
		if err := c.tell(Changed, slices.Clone(c.rows.of(h.batch, int(h.row))), c.rows.of(b, row)); err != nil {
			return err
		}
	}
	return nil
}

// identify puts into key what tells the row apart.
func (c *comparison) identify(b *batch.Batch, row int) {
	if c.identity > 0 {
		c.key = avro.AppendIdentity(c.key[:0], b, c.identity, row)
		return
	}
	c.key = appendBits(c.key[:0], b, row)
}

func (c *comparison) inPass(b *batch.Batch, row int) bool {
	c.identify(b, row)
	return xxh3.Hash(c.key)%c.passes == c.pass
}

// appendBits appends all values of a row, exactly.
func appendBits(dst []byte, b *batch.Batch, row int) []byte {
	for _, col := range b.Cols {
		if col.IsNull(row) {
			dst = append(dst, 0)
			continue
		}
		dst = append(dst, 1)
		switch col.Type {
		case batch.Boolean:
			v := byte(0)
			if col.Bits.Get(row) {
				v = 1
			}
			dst = append(dst, v)
		case batch.Double:
			dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(col.Doubles[row]))
		case batch.String, batch.Bytes:
			v := col.At(row)
			dst = append(binary.AppendUvarint(dst, uint64(len(v))), v...)
		default:
			dst = binary.LittleEndian.AppendUint64(dst, uint64(col.Ints[row]))
		}
	}
	return dst
}

// sameRow compares two rows of the same columns, exactly.
func sameRow(a *batch.Batch, i int, b *batch.Batch, k int) bool {
	for n, x := range a.Cols {
		y := b.Cols[n]
		if x.IsNull(i) || y.IsNull(k) {
			if x.IsNull(i) != y.IsNull(k) {
				return false
			}
			continue
		}
		same := false
		switch x.Type {
		case batch.Boolean:
			same = x.Bits.Get(i) == y.Bits.Get(k)
		case batch.Double:
			same = math.Float64bits(x.Doubles[i]) == math.Float64bits(y.Doubles[k])
		case batch.String, batch.Bytes:
			same = slices.Equal(x.At(i), y.At(k))
		default:
			same = x.Ints[i] == y.Ints[k]
		}
		if !same {
			return false
		}
	}
	return true
}

// rowText writes rows as JSON; the text is good until the next.
type rowText struct {
	schema *batch.Schema
	enc    *encode.Encoder
	buf    []byte
}

func (r *rowText) of(b *batch.Batch, row int) json.RawMessage {
	if r.schema == nil || !r.schema.Equal(b.Schema) {
		r.schema, r.enc = b.Schema, encode.NewJSON(b.Schema, encode.Options{})
	}
	r.buf = r.enc.AppendRow(r.buf[:0], b, row)
	return r.buf
}

// sameParts tells whether two states need not be read to be known as equal.
func sameParts(a, b *manifest.Table) bool {
	digests := func(t *manifest.Table) (all []store.Digest) {
		for _, sh := range t.Shards {
			for _, p := range sh.Parts {
				all = append(all, p.Digest)
			}
		}
		return all
	}
	return a.Schema == b.Schema && slices.Equal(digests(a), digests(b))
}

func sizeOf(t *manifest.Table) (n int64) {
	for _, sh := range t.Shards {
		for _, p := range sh.Parts {
			n += p.Size
		}
	}
	return n
}
