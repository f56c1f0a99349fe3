package expr

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

// SetFunc is a function that makes several rows of one.
type SetFunc uint8

// The set-returning functions.
const (
	Split          SetFunc = iota + 1 // split(string, sep): one row for each part, empty ones too; null: no row
	GenerateSeries                    // generate_series(from, to): both ends included; null or from > to: no row
)

// FlatMap is a select list with exactly one set-returning function. For each
// element of the set it makes a row of Fields.
type FlatMap struct {
	Fields []batch.Field
	Items  []*Expr // one per field; nil at Set
	Set    int     // the field that holds the set's element
	Func   SetFunc
	Sep    []byte  // Split: the separator, not empty
	Args   []*Expr // Split: the string; GenerateSeries: from, to (bigint)

	source string
	schema *batch.Schema
}

// Source is the text it was made from.
func (f *FlatMap) Source() string { return f.source }

// CompileFlatMap parses and checks such a list. An error is always an *Error.
func CompileFlatMap(src string, schema *batch.Schema) (*FlatMap, error) {
	return nil, &Error{Source: src}
}

// Part cuts the first part off s at sep, which is not empty. After the last
// part more is false.
func Part(s, sep []byte) (part, rest []byte, more bool) {
	return nil, nil, false
}
