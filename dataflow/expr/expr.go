package expr

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Expr is a checked expression over the columns of one schema. It is
// immutable; each subtask makes its own Eval from it.
type Expr struct {
	source string
	root   *node
	consts int   // constants that an Eval may have to spread over a column
	cols   []int // columns used, ascending
}

// Compile parses src, checks it against the schema and folds its constants.
// An error is always an *Error. What compiles never fails as a whole: a row
// that has no value is null, and counted or listed (see Eval).
func Compile(src string, schema *batch.Schema) (*Expr, error) {
	e, err := compile(src, schema)
	if err != nil {
		return nil, err
	}
	return e, nil
}

func compile(src string, schema *batch.Schema) (*Expr, *Error) {
	tree, err := parse(src)
	if err != nil {
		return nil, err
	}
	a, err := tree.single(src)
	if err != nil {
		return nil, err
	}
	return compileAST(src, a, schema)
}

// CompileBool is Compile for a condition: any type but boolean is refused.
func CompileBool(src string, schema *batch.Schema) (*Expr, error) {
	e, err := Compile(src, schema)
	if err != nil {
		return nil, err
	}
	if e.Type() != batch.Boolean {
		return nil, &Error{Source: src, Msg: fmt.Sprintf("a condition must be boolean, this is %v", e.Type()), Hint: "compare it with something"}
	}
	return e, nil
}

// Source is the text it was made from.
func (e *Expr) Source() string { return e.source }

// Type is the type of its value.
func (e *Expr) Type() batch.Type { return e.root.typ }

// Column tells whether the expression is just a column, and which: its user
// then shares the column and needs no Eval.
func (e *Expr) Column() (int, bool) {
	if e.root.op == opColumn {
		return e.root.col, true
	}
	return -1, false
}

// Columns lists the columns that the value depends on, ascending. The caller
// must not change it.
func (e *Expr) Columns() []int { return e.cols }

// IsConst tells whether the value is the same for every row.
func (e *Expr) IsConst() bool { return e.root.op == opConst }

// RowError says why a row has no value: a cast that cannot be done. The step's
// `on_error` decides what becomes of it.
type RowError struct {
	Row    int32 // position in the batch
	Reason string
}
