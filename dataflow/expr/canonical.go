package expr

import (
	"strconv"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// canonicalNames name operations in canonical texts. They are part of the state
// format and never change.
var canonicalNames = [...]string{
	opConst: "const", opColumn: "column",
	opAdd: "add", opSub: "sub", opMul: "mul", opDiv: "div", opMod: "mod", opNeg: "neg",
	opEq: "eq", opNe: "ne", opLt: "lt", opLe: "le", opGt: "gt", opGe: "ge",
	opAnd: "and", opOr: "or", opNot: "not",
	opIsNull: "is_null", opIsNotNull: "is_not_null", opIsTrue: "is_true", opIsFalse: "is_false",
	opLike: "like", opIn: "in", opBetween: "between",
	opCase: "case", opSwitch: "switch", opCoalesce: "coalesce", opNullif: "nullif", opLeast: "least", opGreatest: "greatest",
	opCast: "cast", opLower: "lower", opUpper: "upper", opTrim: "trim", opLength: "length", opSubstr: "substr",
	opSplitPart: "split_part", opReplace: "replace", opConcat: "concat", opConcatSkip: "concat_skip", opStartsWith: "starts_with",
	opAbs: "abs", opFloor: "floor", opCeil: "ceil", opRound: "round", opSqrt: "sqrt", opLn: "ln", opExp: "exp", opPower: "power",
	opDateTrunc: "date_trunc", opExtract: "extract", opToMillis: "to_millis", opFromMillis: "from_millis",
}

// Canonical is a text that is the same for all ways of writing the expression
// that differ in spaces, case, parentheses and constants that are folded:
// "mul(temp,2)" for "temp * (1 + 1)". A column alone is its name. The schema is
// the one it was compiled for.
func (e *Expr) Canonical(schema *batch.Schema) string {
	if i, ok := e.Column(); ok {
		return schema.Field(i).Name
	}
	return string(e.root.appendCanonical(nil, schema))
}

func (n *node) appendCanonical(dst []byte, schema *batch.Schema) []byte {
	switch n.op {
	case opColumn:
		return appendName(dst, schema.Field(n.col).Name)
	case opConst:
		return n.appendConst(dst)
	}
	dst = append(append(dst, canonicalNames[n.op]...), '(')
	for i, a := range n.args {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = a.appendCanonical(dst, schema)
	}
	switch n.op {
	case opCast:
		dst = append(append(dst, ','), n.typ.String()...)
	case opRound:
		dst = strconv.AppendInt(append(dst, ','), n.digits, 10)
	case opDateTrunc, opExtract:
		dst = append(append(dst, ','), unitNames[n.unit]...)
	case opLike:
		if n.escape != noEscape {
			dst = strconv.AppendQuoteRuneToASCII(append(dst, ','), n.escape)
		}
	}
	return append(dst, ')')
}

// appendName quotes a name that could be taken for something else.
func appendName(dst []byte, name string) []byte {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return append(strconv.AppendQuoteToASCII(append(dst, "column("...), name), ')')
		}
	}
	return append(dst, name...)
}

func (n *node) appendConst(dst []byte) []byte {
	if n.val.null {
		return append(append(append(dst, "null("...), n.typ.String()...), ')')
	}
	switch n.typ {
	case batch.Boolean:
		return strconv.AppendBool(dst, n.val.b)
	case batch.Bigint:
		return strconv.AppendInt(dst, n.val.i, 10)
	case batch.Timestamp:
		return append(strconv.AppendInt(append(dst, "timestamp("...), n.val.i, 10), ')')
	case batch.Double:
		return append(strconv.AppendFloat(append(dst, "double("...), n.val.f, 'g', -1, 64), ')')
	case batch.Bytes:
		return append(strconv.AppendQuoteToASCII(append(dst, "bytes("...), n.val.s), ')')
	}
	return strconv.AppendQuoteToASCII(dst, n.val.s)
}
