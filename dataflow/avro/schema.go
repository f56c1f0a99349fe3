package avro

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// The fields of a part that are no columns. A column of such a name is encoded
// (see FieldName).
const (
	hashField = "key_hash" // long: the hash of the row's key; its key group is hash mod max parallelism, unsigned
	kindField = "row_kind" // int: 0 the row is there, 1 the row with this identity is removed
)

const (
	namespace = "tidemark.state"
	emptyName = "_x" // the field's name of a column without one
)

// Header says what a part holds.
type Header struct {
	Table  string
	Schema *batch.Schema
	Keyed  bool // rows have their key's hash
	Delta  bool // rows replace and remove others
}

// SchemaOf is the Avro schema of the whole parts of a table, in the form that
// manifests hold: equal tables have equal text. Parts with deltas have one
// field more.
func SchemaOf(name string, s *batch.Schema, keyed bool) string {
	return Header{Table: name, Schema: s, Keyed: keyed}.avro()
}

// avro is the schema of the part. Every column may be null, and is so where a
// part was written before the column was there.
func (h Header) avro() string {
	var b strings.Builder
	b.WriteString(recordBegins)
	b.WriteString(FieldName(h.Table))
	b.WriteString(`","namespace":"` + namespace + `"`)
	if FieldName(h.Table) != h.Table {
		b.WriteString(`,"table":`)
		writeString(&b, h.Table)
	}
	b.WriteString(fieldsBegin)
	sep := ""
	if h.Keyed {
		b.WriteString(nameBegins + hashField + `","type":"long"}`)
		sep = ","
	}
	if h.Delta {
		b.WriteString(sep)
		b.WriteString(nameBegins + kindField + `","type":"int"}`)
		sep = ","
	}
	for _, f := range h.Schema.Fields() {
		name := FieldName(f.Name)
		b.WriteString(sep)
		b.WriteString(nameBegins)
		b.WriteString(name)
		b.WriteString(typeBegins)
		b.WriteString(avroType(f.Type))
		b.WriteString(`],"default":null`)
		if name != f.Name {
			b.WriteString(`,"column":`)
			writeString(&b, f.Name)
		}
		b.WriteString("}")
		sep = ","
	}
	b.WriteString("]}")
	return b.String()
}

func avroType(t batch.Type) string {
	switch t {
	case batch.Boolean:
		return `"boolean"`
	case batch.Bigint:
		return `"long"`
	case batch.Double:
		return `"double"`
	case batch.String:
		return `"string"`
	case batch.Timestamp:
		return `{"type":"long","logicalType":"timestamp-micros"}`
	default:
		return `"bytes"`
	}
}

// What stands before the names and types in the text that Header.avro writes. In a
// string of JSON a quote has a backslash, so that no name looks like it.
const (
	recordBegins = `{"type":"record","name":"`
	fieldsBegin  = `,"fields":[`
	nameBegins   = `{"name":"`
	typeBegins   = `","type":["null",`
)

// written reads what Header.avro has written, which is nearly all that is ever read:
// a hundredth of the time that it takes to read any schema. false: it is another
// text.
func written(text string) (Header, bool) {
	var h Header
	rest, ok := strings.CutPrefix(text, recordBegins)
	if !ok {
		return h, false
	}
	table, _, _ := strings.Cut(rest, `"`)
	h.Table = ColumnName(table)
	_, rest, _ = strings.Cut(rest, fieldsBegin)
	var columns []batch.Field
	for {
		if _, rest, ok = strings.Cut(rest, nameBegins); !ok {
			break
		}
		name, _, _ := strings.Cut(rest, `"`)
		t, isColumn := strings.CutPrefix(rest[len(name):], typeBegins)
		switch {
		case isColumn:
			c := batch.Field{Name: ColumnName(name), Type: batch.Boolean}
			for c.Type < batch.Timestamp && !strings.HasPrefix(t, avroType(c.Type)) {
				c.Type++
			}
			columns = append(columns, c)
		case name == hashField:
			h.Keyed = true
		case name == kindField:
			h.Delta = true
		}
	}
	var err error
	h.Schema, err = batch.NewSchema(columns...)
	return h, err == nil && h.avro() == text
}

const hexDigits = "0123456789abcdef"

// writeString writes s as a JSON string; what is not UTF-8 in it is replaced.
func writeString(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ':
			b.WriteString(`\u00`)
			b.WriteByte(hexDigits[r>>4])
			b.WriteByte(hexDigits[r&15])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// FieldName is the Avro name of a column or table: itself if it is an Avro name
// and not reserved. Else each byte that cannot stand there is _x and two
// hexadecimal digits, and so is an underscore that would look like that.
// ColumnName undoes it.
func FieldName(column string) string {
	var b strings.Builder
	for i := range len(column) {
		c := column[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		digit := c >= '0' && c <= '9'
		switch _, escape := escaped(column[i:]); {
		case escape, !letter && !digit, digit && i == 0, i == 0 && (column == hashField || column == kindField || column == emptyName):
			b.WriteString("_x")
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() == 0 {
		return emptyName
	}
	return b.String()
}

// ColumnName is the column or table of a field's name.
func ColumnName(field string) string {
	if field == emptyName {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(field); i++ {
		if c, ok := escaped(field[i:]); ok {
			b.WriteByte(c)
			i += 3
			continue
		}
		b.WriteByte(field[i])
	}
	return b.String()
}

// escaped reads _x and two hexadecimal digits at the start of s.
func escaped(s string) (c byte, ok bool) {
	if len(s) < 4 || s[0] != '_' || s[1] != 'x' {
		return 0, false
	}
	hi, lo := strings.IndexByte(hexDigits, s[2]), strings.IndexByte(hexDigits, s[3])
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0
}

// primitive is an Avro type that a field of a part may have.
type primitive uint8

const (
	null primitive = iota
	boolean
	integer
	long
	float
	double
	text
	raw
)

var primitives = map[string]primitive{"null": null, "boolean": boolean, "int": integer, "long": long, "float": float,
	"double": double, "string": text, "bytes": raw}

// leastBytes is how much room a value takes at least.
func (p primitive) leastBytes() int {
	switch p {
	case null:
		return 0
	case float:
		return 4
	case double:
		return 8
	}
	return 1
}

// field is one field of a record of primitives, each of which may be a union
// with null.
type field struct {
	name    string // Avro's
	aliases []string
	kind    primitive
	instant bool  // a timestamp in microseconds
	null    int64 // the branch of the union that is null; -1: there is none
	branch  bool  // a branch number stands before the value
	value   int64 // the branch that is not null
	preset  any   // the default
	has     bool  // there is one
}

// columnType is the type of column that the field becomes.
func (f field) columnType() batch.Type {
	switch f.kind {
	case boolean:
		return batch.Boolean
	case float, double:
		return batch.Double
	case text:
		return batch.String
	case raw:
		return batch.Bytes
	}
	if f.instant {
		return batch.Timestamp
	}
	return batch.Bigint
}

func (f field) leastBytes() int {
	switch {
	case f.branch:
		return 1
	default:
		return f.kind.leastBytes()
	}
}

// record is a schema that a part may have.
type record struct {
	header Header
	fields []field
	text   string
	ours   bool // Header.avro wrote it
}

// ParseSchema is what a schema says that SchemaOf, or a person, has written: a
// record of fields that are null, boolean, int, long, float, double, string or
// bytes, or such a union with null. Other Avro schemas are no tables.
func ParseSchema(schema string) (Header, error) {
	r, err := parseRecord(schema)
	return r.header, err
}

// RowBytes is how many bytes a row of a part of a schema takes at least, and never
// 0. The hash of its key counts as nine, as all but one of 256 hashes take nine or
// ten: of many rows none is shorter on the average.
func RowBytes(schema string) (int64, error) {
	const hash = 9
	r, err := parseRecord(schema)
	n := int64(0)
	for _, f := range r.fields {
		if f.name == hashField {
			n += hash
		} else {
			n += int64(f.leastBytes())
		}
	}
	return max(1, n), err
}

func parseRecord(schema string) (record, error) {
	if h, ok := written(schema); ok {
		return record{header: h, fields: h.record(), text: schema, ours: true}, nil
	}
	return parseAny(schema)
}

// record are the fields of what avro writes.
func (h Header) record() (all []field) {
	if h.Keyed {
		all = append(all, field{name: hashField, kind: long, null: -1})
	}
	if h.Delta {
		all = append(all, field{name: kindField, kind: integer, null: -1})
	}
	kinds := [...]primitive{batch.Boolean: boolean, batch.Bigint: long, batch.Double: double, batch.String: text, batch.Bytes: raw, batch.Timestamp: long}
	for _, c := range h.Schema.Fields() {
		all = append(all, field{name: FieldName(c.Name), kind: kinds[c.Type], instant: c.Type == batch.Timestamp, branch: true, value: 1, has: true})
	}
	return all
}

// alike tells whether two records that this package has written are of the same
// table, but for whether they are of deltas.
func (r record) alike(o record) bool {
	return r.ours && o.ours && r.header.Table == o.header.Table && r.header.Keyed == o.header.Keyed && r.header.Schema.Equal(o.header.Schema)
}

func parseAny(schema string) (record, error) {
	root, err := parseTree(schema)
	if err != nil {
		return record{}, fmt.Errorf("avro: not a schema: %w", err)
	}
	if root.kind != "record" {
		return record{}, fmt.Errorf("avro: the schema is of type %q; a table is a record", root.kind)
	}
	_, name := cutName(root.name)
	r := record{text: schema, header: Header{Table: ColumnName(name)}}
	var columns []batch.Field
	for i := range root.fields {
		f, err := parseField(&root.fields[i])
		if err != nil {
			return record{}, fmt.Errorf("avro: table %q: %w", r.header.Table, err)
		}
		r.fields = append(r.fields, f)
		switch {
		case f.name == hashField && f.kind == long && !f.branch && !f.instant:
			r.header.Keyed = true
		case f.name == kindField && f.kind == integer && !f.branch:
			r.header.Delta = true
		case f.name == hashField || f.name == kindField:
			return record{}, fmt.Errorf("avro: table %q: field %q is reserved and of another type", r.header.Table, f.name)
		default:
			columns = append(columns, batch.Field{Name: ColumnName(f.name), Type: f.columnType()})
		}
	}
	r.header.Schema, err = batch.NewSchema(columns...)
	return r, err
}

func parseField(sf *nodeField) (field, error) {
	f := field{name: sf.name, aliases: sf.aliases, null: -1, preset: sf.preset, has: sf.has}
	node := sf.node
	if node.kind == "union" {
		f.branch, f.value = true, -1
		for i := range node.branches {
			switch {
			case node.branches[i].kind == "null":
				f.null = int64(i)
			case f.value >= 0:
				return f, fmt.Errorf("field %q is a union of two types; a column has one, and null", f.name)
			default:
				f.value = int64(i)
			}
		}
		if f.value < 0 {
			return f, nil // only null
		}
		node = node.branches[f.value]
	}
	kind, ok := primitives[node.kind]
	if !ok {
		return f, fmt.Errorf("field %q is of type %q, which no column has", f.name, node.kind)
	}
	f.kind = kind
	switch f.instant = node.logical == "timestamp-micros" && kind == long; {
	case f.instant || node.logical == "":
		return f, nil
	}
	return f, fmt.Errorf("field %q has the logical type %q, which no column has", f.name, node.logical)
}

// named finds the writer's field for a reader's: of its name, else of an alias.
func (r record) named(f field) int {
	if i := slices.IndexFunc(r.fields, func(w field) bool { return w.name == f.name }); i >= 0 {
		return i
	}
	return slices.IndexFunc(r.fields, func(w field) bool { return slices.Contains(f.aliases, w.name) })
}
