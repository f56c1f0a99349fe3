package expr

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// opcode is what a node of the typed tree does. Its arguments have the types
// that the comment says; casts between them are nodes of their own.
type opcode uint8

const (
	opConst  opcode = iota // val
	opColumn               // col

	// Bigint or double, both arguments of the result's type; also timestamp
	// plus or minus a bigint of microseconds.
	opAdd
	opSub
	opMul
	opDiv
	opMod
	opNeg

	// Two arguments of one type; boolean.
	opEq
	opNe
	opLt
	opLe
	opGt
	opGe

	opAnd // booleans, two or more
	opOr
	opNot

	opIsNull
	opIsNotNull
	opIsTrue
	opIsFalse

	opLike    // string, pattern; escape
	opIn      // x, then the list, all of one type
	opBetween // x, low, high, all of one type

	opCase     // condition, value, condition, value, ..., value of else
	opSwitch   // x, then as opCase with values to compare x with
	opCoalesce // of one type
	opNullif   // two of one type
	opLeast    // of one type
	opGreatest

	opCast // from the argument's type to the node's

	opLower // strings, except where bigint is said
	opUpper
	opTrim
	opLength     // string or bytes -> bigint
	opSubstr     // string, bigint[, bigint]
	opSplitPart  // string, string, bigint
	opReplace    // three
	opConcat     // a null makes null: ||
	opConcatSkip // nulls are left out: concat()
	opStartsWith

	opAbs
	opFloor // double
	opCeil
	opRound // digits
	opSqrt
	opLn
	opExp
	opPower

	opDateTrunc // timestamp; unit
	opExtract   // timestamp -> bigint; unit
	opToMillis
	opFromMillis
)

// value is a constant; which field holds it the node's type says.
type value struct {
	null bool
	b    bool
	i    int64
	f    float64
	s    string // string, bytes
}

// node is one operation of the typed tree. It is immutable once compiled, so
// that all subtasks share it.
type node struct {
	op   opcode
	typ  batch.Type // untyped for the literal null until its place gives it one
	pos  int        // in the source
	args []*node

	col    int    // opColumn
	val    value  // opConst
	digits int64  // opRound
	unit   unit   // opDateTrunc, opExtract
	escape rune   // opLike; noEscape
	text   string // what the user wrote for a literal or a column, for hints

	// What prepare finds out.
	fails bool     // it, or a node below it, may count a fault or list a row error
	slot  int      // opConst: where an Eval keeps it spread over a column
	bytes []byte   // opConst: val.s
	span  *span    // a comparison of numbers with constants
	like  *matcher // opLike with a constant pattern
	set   *constSet
}

// untyped is the type of the literal null before its place gives it one.
const untyped batch.Type = 0

// noEscape says that a like pattern has no escape character.
const noEscape rune = -1

func (n *node) isConst() bool { return n.op == opConst }

// isNull tells whether n is a constant null.
func (n *node) isNull() bool { return n.op == opConst && n.val.null }

// integral tells whether values of t are held as int64.
func integral(t batch.Type) bool { return t == batch.Bigint || t == batch.Timestamp }
