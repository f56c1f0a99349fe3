package decode

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

// Format is how payloads are written.
type Format uint8

// The formats of a source.
const (
	JSON Format = iota + 1
	CSV
	Text
)

// Unit is the unit of a timestamp outside; inside it is microseconds.
type Unit uint8

// The units of `unit:`. RFC3339 is a string, the others are numbers (or
// strings of digits).
const (
	Milliseconds Unit = iota // the default
	Seconds
	Microseconds
	Nanoseconds
	RFC3339
)

// Field is one column of a source.
type Field struct {
	Name  string
	Type  batch.Type
	Path  []string // JSON: keys from the root, `data.temp`; an element "[]" steps into each element of an array, which makes a row of each. CSV: one element, the header's name. Default: the name
	Topic int      // take it from this level of the MQTT topic, counted from 0; -1: from the payload
	Unit  Unit     // timestamps
}

// Spec says how payloads become rows. Fields are the columns, in order.
type Spec struct {
	Format  Format
	Fields  []Field
	Header  bool     // CSV: the first record of each split names the columns
	Columns []string // CSV without a header: the names in order
}
