package expr

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Eval holds the scratch memory of one expression in one subtask. After the
// first batches it allocates nothing, except for the text of row errors.
type Eval struct {
	// DivByZero and Overflow count the operations on rows that gave null: an
	// integer divided by zero; a bigint or timestamp out of range. They only
	// grow; the caller may set them to zero.
	DivByZero, Overflow int64

	expr *Expr
	errs []RowError
}

// NewEval makes the memory to evaluate e in one goroutine.
func (e *Expr) NewEval() *Eval { return &Eval{expr: e} }

// Into evaluates every row of b that is there into dst, which gets the type of
// the expression and b.Rows positions; dst is no column of b. Positions that
// b.Sel leaves out are undefined, of variable types empty.
func (e *Eval) Into(b *batch.Batch, dst *batch.Column) {}

// Select appends the positions of b that are there and for which a boolean
// expression is true (neither false nor null), ascending, and returns dst.
func (e *Eval) Select(b *batch.Batch, dst []int32) []int32 { return dst }

// Errors lists the rows of the last call that have no value because of a cast
// that cannot be done or a text that grew too long: at most one a row,
// ascending by row. It is valid until the next call.
func (e *Eval) Errors() []RowError { return e.errs }
