package decode

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// The bounds of a payload. Beyond them it is rejected.
const (
	MaxPayload = 4 << 20 // bytes
	MaxDepth   = 64      // objects and arrays around a value
)

// maxColumn is how many bytes of strings one column of a batch may hold, so
// that offsets fit and a batch stays small against the memory of a node.
const maxColumn = 64 << 20

// Decoder turns payloads into rows. It has scratch memory and remembers how
// the last payloads looked, so it belongs to one subtask and one goroutine.
type Decoder struct {
	*plan
	format Format
	names  []string // columns of the schema
	csv    records
	err    Error

	// The payload being decoded.
	buf   []byte // a copy with zeroes behind it, so that eight bytes can be read anywhere
	n     int    // its length without them
	in    cursor // reads buf
	text  []byte // scratch: a string without its escapes
	cols  []*batch.Column
	base  int // the builder's rows before it
	row   int // position of the next row
	at    int // position where values are put now: row, or the first row of an element above it
	began int // where the element that is put there begins in the payload
	seen  set // columns that have a value at their position
	bad   set // columns that had an unusable one, unless it is in seen too
	errs  []failure
	lost  int // the column whose failure rejects the payload, unless it is no JSON at all; -1: none
	loss  failure
}

// failure is what was wrong with the value of a column.
type failure struct {
	kind Kind
	at   int
}

// New compiles spec. schema has the spec's fields in order, with their names
// and types. An error says which field cannot be and why.
func New(spec Spec, schema *batch.Schema) (*Decoder, error) {
	if err := check(&spec, schema); err != nil {
		return nil, err
	}
	p, err := newPlan(&spec)
	if err != nil {
		return nil, err
	}
	d := &Decoder{plan: p, format: spec.Format, errs: make([]failure, len(spec.Fields)), seen: make(set, p.words), bad: make(set, p.words)}
	for _, f := range spec.Fields {
		d.names = append(d.names, f.Name)
	}
	switch spec.Format {
	case CSV:
		err = d.csv.plan(&spec, p)
	case Text:
		err = checkText(&spec)
	}
	return d, err
}

func check(spec *Spec, schema *batch.Schema) error {
	switch spec.Format {
	case JSON, CSV, Text:
	default:
		return fmt.Errorf("decode: unknown format %d; use json, csv or text", spec.Format)
	}
	if len(spec.Fields) == 0 {
		return errors.New("decode: no fields; name at least one")
	}
	if schema.Len() != len(spec.Fields) {
		return fmt.Errorf("decode: %d fields for a schema of %d columns", len(spec.Fields), schema.Len())
	}
	for i, f := range spec.Fields {
		if s := schema.Field(i); s.Name != f.Name || s.Type != f.Type {
			return fmt.Errorf("decode: field %d is %s %v, but column %s %v in the schema", i, f.Name, f.Type, s.Name, s.Type)
		}
	}
	return nil
}

// Decode appends the rows of a payload to bl and returns how many they are:
// one, or for arrays of readings any number, also none. Their event time is 0;
// the caller sets it from the event-time column.
//
// A payload is taken whole or not at all. The error is ErrNoRoom, or an *Error
// that is valid until the next call. For CSV with a header, Header or Split
// has said which split the payload is from.
func (d *Decoder) Decode(topic, payload []byte, bl *batch.Builder) (rows int, err error) {
	d.base = bl.Len()
	switch {
	case len(payload) > MaxPayload:
		d.fail(TooLong, -1)
		return 0, &d.err
	case d.base >= batch.MaxRows:
		return 0, ErrNoRoom
	}
	d.cols = bl.Columns()
	d.row, d.at, d.began, d.lost = d.base, d.base, 0, -1
	for w := range d.seen {
		d.seen[w], d.bad[w] = 0, 0
	}
	if len(payload)+len(topic) > maxColumn/batch.MaxRows && !d.roomFor(len(payload)+len(topic)) {
		return 0, ErrNoRoom
	}
	if !d.fill(topic, payload) {
		bl.Forget(d.row + 1)
		if d.err.Kind == 0 {
			return 0, ErrNoRoom
		}
		return 0, &d.err
	}
	rows = d.row - d.base
	bl.Extend(rows, 0)
	return rows, nil
}

// roomFor tells whether n more bytes of payload fit into every column, however
// they are written: an invalid byte becomes three. An empty batch has room.
func (d *Decoder) roomFor(n int) bool {
	for _, c := range d.cols {
		if d.base > 0 && c.Type.Variable() && int(c.Offsets[d.base])+3*n > maxColumn {
			return false
		}
	}
	return true
}

// fill puts the payload's rows at positions from base up to row, or sets err
// (kind 0: no room).
func (d *Decoder) fill(topic, payload []byte) bool {
	ok := false
	switch d.format {
	case JSON:
		ok = d.document(payload)
	case CSV:
		ok = d.record(payload)
	case Text:
		ok = d.line(payload)
	}
	if !ok || len(d.topics) > 0 && !d.topicFields(topic) {
		return false
	}
	return d.finish()
}

// finish ends the payload as an element of level 0.
func (d *Decoder) finish() bool {
	if d.plain && d.seen[0] == d.levels[0].own[0] { // the usual case: one row, nothing null
		d.row++
		return true
	}
	if !d.endElement(0, d.base) {
		return false
	}
	if d.lost >= 0 {
		return d.failField(d.loss.kind, d.lost, d.loss.at)
	}
	return true
}

// endElement ends an element of level k whose rows began at first: columns
// without a value become null. At the deepest level it is one row; above it,
// its values are repeated in all rows that its array has made.
func (d *Decoder) endElement(k, first int) bool {
	lv := &d.levels[k]
	for w := range d.bad {
		if b := d.bad[w] &^ d.seen[w] & lv.rest[w]; b != 0 {
			d.lose(w, b)
		}
		d.bad[w] &^= lv.rest[w]
	}
	deepest := k == len(d.levels)-1
	if deepest {
		d.row++
	} else if d.row == first {
		return true
	}
	for w, own := range lv.own {
		if missing := own &^ d.seen[w]; missing != 0 {
			d.nulls(w, missing, first)
		}
	}
	return deepest || d.repeat(lv, first)
}

// repeat copies the values at first to all rows after it.
func (d *Decoder) repeat(lv *level, first int) bool {
	n := d.row - first - 1
	for i, c := range d.cols {
		if !lv.own.has(i) {
			continue
		}
		if c.Type.Variable() {
			if from := int64(c.Offsets[first]); from+int64(n+1)*(int64(c.Offsets[first+1])-from) > maxColumn {
				return d.noRoomOr(TooLong)
			}
		}
		c.Repeat(first, n)
	}
	return true
}

// lose notes that the columns of word w in b stayed without a usable value.
func (d *Decoder) lose(w int, b uint64) {
	if d.lost < 0 {
		d.lost = 64*w + bits.TrailingZeros64(b)
		d.loss = d.errs[d.lost]
	}
}

// nulls puts a null at position i of the columns of word w in b.
func (d *Decoder) nulls(w int, b uint64, i int) {
	for ; b != 0; b &= b - 1 {
		d.cols[64*w+bits.TrailingZeros64(b)].PutNull(i)
	}
}

// noRoomOr fails with ErrNoRoom if an empty batch may help, else with kind.
func (d *Decoder) noRoomOr(kind Kind) bool {
	if d.base > 0 {
		kind = 0
	}
	d.fail(kind, -1)
	return false
}

// fail sets the error and returns -1, which no position is.
//
//go:noinline
func (d *Decoder) fail(kind Kind, at int) int {
	d.err = Error{Kind: kind, At: at, Part: -1}
	return -1
}

func (d *Decoder) failField(kind Kind, col, at int) bool {
	d.err = Error{Kind: kind, Field: d.names[col], At: at, Part: -1, want: d.leaves[col].want}
	return false
}

// spoil notes that column t had an unusable value; a later one may mend it.
func (d *Decoder) spoil(t *target, kind Kind, at int) {
	d.seen[t.word] &^= t.bit
	d.bad[t.word] |= t.bit
	d.errs[t.col] = failure{kind, at}
}
