package batch

import (
	"fmt"
	"strings"
)

// Type is the type of a column. Every column is nullable.
type Type uint8

// The column types. The numbers are part of the wire encoding.
const (
	Boolean   Type = 1 // one bit a value
	Bigint    Type = 2 // int64
	Double    Type = 3 // float64
	String    Type = 4 // UTF-8 by convention, not enforced
	Bytes     Type = 5
	Timestamp Type = 6 // int64, microseconds since 1970-01-01T00:00:00Z
)

var typeNames = [...]string{Boolean: "boolean", Bigint: "bigint", Double: "double", String: "string", Bytes: "bytes", Timestamp: "timestamp"}

// Types lists every column type in order.
func Types() []Type { return []Type{Boolean, Bigint, Double, String, Bytes, Timestamp} }

// String is the name a job uses for the type.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// TypeNamed is the type a job calls name; ok is false if there is none.
func TypeNamed(name string) (t Type, ok bool) {
	for _, t := range Types() {
		if t.String() == name {
			return t, true
		}
	}
	return 0, false
}

// Variable tells whether values of t have a length of their own.
func (t Type) Variable() bool { return t == String || t == Bytes }

// Field is a named, typed column of a schema.
type Field struct {
	Name string
	Type Type
}

// Schema is the ordered list of a stream's columns. It is immutable, and
// streams that share one share the pointer: pools recycle by it.
type Schema struct {
	fields []Field
	byName map[string]int
}

// NewSchema makes a schema; a name that appears twice is an error.
func NewSchema(fields ...Field) (*Schema, error) {
	s := &Schema{fields: append([]Field(nil), fields...), byName: make(map[string]int, len(fields))}
	for i, f := range fields {
		if _, twice := s.byName[f.Name]; twice {
			return nil, fmt.Errorf("batch: schema has two columns named %q", f.Name)
		}
		s.byName[f.Name] = i
	}
	return s, nil
}

// MustSchema is NewSchema for schemas written in code.
func MustSchema(fields ...Field) *Schema {
	s, err := NewSchema(fields...)
	if err != nil {
		panic(err)
	}
	return s
}

// Len is the number of columns.
func (s *Schema) Len() int { return len(s.fields) }

// Field is column i.
func (s *Schema) Field(i int) Field { return s.fields[i] }

// Fields lists the columns; the caller must not change them.
func (s *Schema) Fields() []Field { return s.fields }

// Index finds a column by name, or is -1.
func (s *Schema) Index(name string) int {
	if i, ok := s.byName[name]; ok {
		return i
	}
	return -1
}

// Equal tells whether both have the same names and types in the same order.
func (s *Schema) Equal(o *Schema) bool {
	if s == o {
		return true
	}
	if len(s.fields) != len(o.fields) {
		return false
	}
	for i, f := range s.fields {
		if f != o.fields[i] {
			return false
		}
	}
	return true
}

// String is "name type, name type".
func (s *Schema) String() string {
	var b strings.Builder
	for i, f := range s.fields {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", f.Name, f.Type)
	}
	return b.String()
}
