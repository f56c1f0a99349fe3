package expr

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// unify brings operands to one type: nulls take any, bigint beside double
// becomes double, a string literal beside a timestamp becomes one. If all are
// the literal null they become boolean. what begins the error: "cannot compare".
func (c *checker) unify(pos int, what string, args ...*node) ([]*node, *Error) {
	var to *node // of the type so far
	for _, a := range args {
		switch {
		case a.typ == untyped:
		case to == nil, to.typ == a.typ:
			to = a
		case to.typ == batch.Bigint && a.typ == batch.Double, to.literal() && a.typ == batch.Timestamp:
			to = a
		case to.typ == batch.Double && a.typ == batch.Bigint, to.typ == batch.Timestamp && a.literal():
		default:
			return nil, c.mismatch(pos, what, to, a)
		}
	}
	t := batch.Boolean
	if to != nil {
		t = to.typ
	}
	out := make([]*node, len(args))
	for i, a := range args {
		if t == batch.Timestamp && a.typ == batch.String && !a.literal() {
			return nil, c.mismatch(pos, what, a, to)
		}
		n, err := c.convert(a, t)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

// unifyTyped is unify where at least one operand must have a type.
func (c *checker) unifyTyped(pos int, what string, args ...*node) ([]*node, *Error) {
	for _, a := range args {
		if a.typ != untyped {
			return c.unify(pos, what, args...)
		}
	}
	return nil, c.untyped(args[0])
}

func (c *checker) mismatch(pos int, what string, x, y *node) *Error {
	hint := ""
	switch pair := [2]batch.Type{x.typ, y.typ}; {
	case pair == [2]batch.Type{batch.Timestamp, batch.Bigint} || pair == [2]batch.Type{batch.Bigint, batch.Timestamp}:
		hint = "write to_millis(...) for the timestamp"
	case castable(y.typ, x.typ):
		hint = fmt.Sprintf("cast the %v: cast(... as %v)", y.typ, x.typ)
	case castable(x.typ, y.typ):
		hint = fmt.Sprintf("cast the %v: cast(... as %v)", x.typ, y.typ)
	}
	for i, s := range []*node{x, y} {
		o := []*node{y, x}[i]
		if !s.literal() {
			continue
		}
		switch _, isNumber := parseDouble([]byte(s.val.s)); {
		case (o.typ == batch.Bigint || o.typ == batch.Double) && isNumber:
			hint = "numbers stand without quotes: " + s.val.s
		case o.typ == batch.Boolean && (s.val.s == "true" || s.val.s == "false"):
			hint = "booleans stand without quotes: " + s.val.s
		case c.schema.Index(s.val.s) >= 0:
			hint = fmt.Sprintf("a column stands without quotes: %s", s.val.s)
		case o.typ == batch.Bytes:
			hint = "cast it: cast(" + s.text + " as bytes)"
		}
	}
	return c.errorf(pos, hint, "%s %v and %v", what, x.typ, y.typ)
}

// literal tells whether n is a text as the user wrote it.
func (n *node) literal() bool {
	return n.op == opConst && n.typ == batch.String && n.text != "" && n.text[0] == '\''
}

// interval tells whether n is an interval literal: a bigint of microseconds.
func (n *node) interval() bool {
	return n.op == opConst && n.typ == batch.Bigint && n.text == intervalText
}

const intervalText = "interval"

// convert gives n the type t, which it can have by unify's rules or by a cast
// that always succeeds.
func (c *checker) convert(n *node, t batch.Type) (*node, *Error) {
	switch {
	case n.interval():
		return nil, c.misplaced(n)
	case n.typ == t:
		return n, nil
	case n.typ == untyped:
		return &node{op: opConst, typ: t, pos: n.pos, text: n.text, val: value{null: true}}, nil
	case n.isConst() && !n.val.null && n.typ == batch.Bigint && t == batch.Double:
		return &node{op: opConst, typ: t, pos: n.pos, text: n.text, val: value{f: float64(n.val.i)}}, nil
	case n.literal() && t == batch.Timestamp:
		return c.timestamp(n.pos, n.val.s)
	}
	return c.node(opCast, t, n.pos, n)
}

// timestamp reads a timestamp literal.
func (c *checker) timestamp(pos int, s string) (*node, *Error) {
	ts, ok := parseTimestamp([]byte(s))
	if !ok {
		return nil, c.errorf(pos, "write it like '2026-01-31T12:00:00Z'", "%q is no timestamp", s)
	}
	return &node{op: opConst, typ: batch.Timestamp, pos: pos, text: "timestamp '" + s + "'", val: value{i: ts}}, nil
}

// typedLiteral is timestamp '...' or interval '...' unit.
func (c *checker) typedLiteral(a *astName) (*node, *Error) {
	pos, s := a.Pos.Offset, unquote(a.Literal)
	switch name := a.function(); {
	case name == "timestamp" && a.Unit == "":
		return c.timestamp(pos, s)
	case name == intervalText:
		count, ok := parseBigint([]byte(s))
		u := unitNamed(a.Unit)
		if !ok || u == noUnit || spanOf(u) == 0 {
			return nil, c.errorf(pos, "write it like interval '5' second; units are "+unitList(intervalUnits()), "this is no interval")
		}
		us, fault := intOp(opMul, count, spanOf(u))
		if fault != noFault {
			return nil, c.errorf(pos, "", "the interval is out of range")
		}
		return &node{op: opConst, typ: batch.Bigint, pos: pos, text: intervalText, val: value{i: us}}, nil
	}
	hint := "an operator or a comma may be missing before it"
	if a.Unit == "" {
		hint = suggest(a.function(), []string{"timestamp", "interval"})
	}
	return nil, c.errorf(pos, hint, "no type %q for a literal", a.Name)
}

// cast checks cast(x as to) and x::to.
func (c *checker) cast(pos int, x *node, to *astType) (*node, *Error) {
	var names []string
	for _, t := range batch.Types() {
		names = append(names, t.String())
	}
	name := (&astName{Name: to.Name}).function()
	t, ok := batch.TypeNamed(name)
	if !ok {
		return nil, c.errorf(to.Pos.Offset, typeHint(name, names), "no type %q", to.Name)
	}
	if x.interval() {
		return nil, c.misplaced(x)
	}
	if x.typ == t {
		return x, nil
	}
	if x.typ != untyped && !castable(x.typ, t) {
		hint := ""
		switch {
		case x.typ == batch.Timestamp:
			hint = "write to_millis(...)"
		case t == batch.Timestamp && x.typ != batch.Bytes:
			hint = "write from_millis(...)"
		case x.typ == batch.Bytes:
			hint = "cast it to string first"
		}
		return nil, c.errorf(pos, hint, "cannot cast %v to %v", x.typ, t)
	}
	if x.typ == untyped {
		return c.convert(x, t)
	}
	return c.node(opCast, t, pos, x)
}

// typeHint translates what other engines call the types.
func typeHint(name string, names []string) string {
	ours := ""
	switch name {
	case "int", "integer", "smallint", "tinyint", "long", "int8", "int64":
		ours = "bigint"
	case "float", "real", "decimal", "numeric", "float8", "float64", "number":
		ours = "double"
	case "text", "varchar", "char":
		ours = "string"
	case "binary", "varbinary", "bytea":
		ours = "bytes"
	case "bool":
		ours = "boolean"
	case "datetime", "date", "time", "timestamptz":
		ours = "timestamp"
	default:
		return suggest(name, names)
	}
	return fmt.Sprintf("here it is called %s", ours)
}

// castable tells which casts there are, besides those to the same type.
func castable(from, to batch.Type) bool {
	switch from {
	case batch.Boolean:
		return to == batch.Bigint || to == batch.String
	case batch.Bigint:
		return to == batch.Boolean || to == batch.Double || to == batch.String
	case batch.Double:
		return to == batch.Bigint || to == batch.String
	case batch.String:
		return true
	case batch.Bytes, batch.Timestamp:
		return to == batch.String
	}
	return false
}
