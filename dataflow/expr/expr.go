package expr

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Expr is a checked expression over the columns of one schema. It is
// immutable; each subtask makes its own Eval from it.
type Expr struct {
	source string
	typ    batch.Type
}

// Source is the text it was made from.
func (e *Expr) Source() string { return e.source }

// Type is the type of its value.
func (e *Expr) Type() batch.Type { return e.typ }

// Eval holds the scratch memory of one expression in one subtask.
type Eval struct {
}

// RowError says why a row has no value: a cast that cannot be done. The step's
// `on_error` decides what becomes of it.
type RowError struct {
	Row    int32 // position in the batch
	Reason string
}
