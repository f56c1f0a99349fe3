package expr

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// checker turns the syntax tree of one source into a typed tree over one
// schema. Each of its methods takes a level of the grammar.
type checker struct {
	src    string
	schema *batch.Schema
	ops    int
}

func (c *checker) errorf(pos int, hint, format string, args ...any) *Error {
	return &Error{Source: c.src, Pos: pos, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// compileAST checks a, folds its constants and prepares its kernels.
func compileAST(src string, a *astExpr, schema *batch.Schema) (*Expr, *Error) {
	c := &checker{src: src, schema: schema}
	n, err := c.expr(a)
	if err != nil {
		return nil, err
	}
	if n.typ == untyped {
		return nil, c.untyped(n)
	}
	if n.interval() {
		return nil, c.misplaced(n)
	}
	if n, err = fold(src, n); err != nil {
		return nil, err
	}
	e := &Expr{source: src, root: n}
	e.prepare(n)
	return e, nil
}

func (c *checker) untyped(n *node) *Error {
	return c.errorf(n.pos, "give it one: cast(null as double)", "null has no type here")
}

// node counts and makes an operation.
func (c *checker) node(op opcode, t batch.Type, pos int, args ...*node) (*node, *Error) {
	if c.ops++; c.ops > maxOps {
		return nil, c.errorf(pos, fmt.Sprintf("at most %d are allowed; use several steps", maxOps), "too many operations")
	}
	return &node{op: op, typ: t, pos: pos, args: args}, nil
}

func (c *checker) expr(a *astExpr) (*node, *Error) {
	return c.junction(opOr, "or", len(a.Or), func(i int) (*node, *Error) { return c.and(a.Or[i]) })
}

func (c *checker) and(a *astAnd) (*node, *Error) {
	return c.junction(opAnd, "and", len(a.And), func(i int) (*node, *Error) { return c.not(a.And[i]) })
}

func (c *checker) junction(op opcode, name string, n int, arg func(int) (*node, *Error)) (*node, *Error) {
	if n == 1 {
		return arg(0)
	}
	var args []*node
	for i := range n {
		x, err := arg(i)
		if err == nil {
			x, err = c.boolean(x, name)
		}
		if err != nil {
			return nil, err
		}
		args = append(args, x)
	}
	return c.node(op, batch.Boolean, args[0].pos, args...)
}

// boolean refuses an operand of `and`, `or`, `not` or a condition that is none.
func (c *checker) boolean(n *node, of string) (*node, *Error) {
	if n.typ == untyped {
		return c.convert(n, batch.Boolean)
	}
	if n.typ != batch.Boolean {
		hint := "compare it with something"
		if n.op == opColumn {
			hint += fmt.Sprintf(", or write %s is not null", n.text)
		}
		return nil, c.errorf(n.pos, hint, "%s needs a boolean, this is %v", of, n.typ)
	}
	return n, nil
}

func (c *checker) not(a *astNot) (*node, *Error) {
	n, err := c.predicate(a.Pred)
	if err != nil || len(a.Nots) == 0 {
		return n, err
	}
	if n, err = c.boolean(n, "not"); err != nil {
		return nil, err
	}
	if len(a.Nots)%2 == 0 {
		return n, nil
	}
	return c.node(opNot, batch.Boolean, a.Pos.Offset, n)
}

func (c *checker) predicate(a *astPredicate) (*node, *Error) {
	n, err := c.concat(a.Left)
	if err == nil && a.Test != nil {
		n, err = c.test(n, a.Test)
	}
	for _, is := range a.Is {
		if err != nil {
			break
		}
		n, err = c.is(n, is)
	}
	return n, err
}

func (c *checker) is(n *node, a *astIs) (*node, *Error) {
	if a.What == "null" {
		if n.typ == untyped {
			var err *Error
			if n, err = c.convert(n, batch.Boolean); err != nil {
				return nil, err
			}
		}
		op := opIsNull
		if a.Not {
			op = opIsNotNull
		}
		return c.node(op, batch.Boolean, a.Pos.Offset, n)
	}
	n, err := c.boolean(n, "is "+a.What)
	if err != nil {
		return nil, err
	}
	op := opIsTrue
	if a.What == "false" {
		op = opIsFalse
	}
	return c.negated(a.Not, a.Pos.Offset, op, n)
}

// negated makes the boolean node op(args), or its negation.
func (c *checker) negated(not bool, pos int, op opcode, args ...*node) (*node, *Error) {
	n, err := c.node(op, batch.Boolean, pos, args...)
	if err != nil || !not {
		return n, err
	}
	return c.node(opNot, batch.Boolean, pos, n)
}

func comparison(op string) opcode {
	switch op {
	case "=":
		return opEq
	case "<":
		return opLt
	case "<=":
		return opLe
	case ">":
		return opGt
	case ">=":
		return opGe
	}
	return opNe
}

func (c *checker) test(left *node, a *astTest) (*node, *Error) {
	pos := a.Pos.Offset
	switch {
	case a.Op != "":
		right, err := c.concat(a.Right)
		if err != nil {
			return nil, err
		}
		args, err := c.unify(pos, "cannot compare", left, right)
		if err != nil {
			return nil, err
		}
		return c.node(comparison(a.Op), batch.Boolean, pos, args...)
	case a.Like != nil:
		return c.likeTest(left, a)
	case a.Low != nil:
		low, err := c.concat(a.Low)
		if err != nil {
			return nil, err
		}
		high, err := c.concat(a.High)
		if err != nil {
			return nil, err
		}
		args, err := c.unify(pos, "cannot compare", left, low, high)
		if err != nil {
			return nil, err
		}
		return c.negated(a.Not, pos, opBetween, args...)
	}
	args := []*node{left}
	for _, x := range a.In {
		n, err := c.expr(x)
		if err != nil {
			return nil, err
		}
		args = append(args, n)
	}
	args, err := c.unify(pos, "cannot compare", args...)
	if err != nil {
		return nil, err
	}
	return c.negated(a.Not, pos, opIn, args...)
}

func (c *checker) likeTest(left *node, a *astTest) (*node, *Error) {
	pos := a.Pos.Offset
	pattern, err := c.concat(a.Like)
	if err != nil {
		return nil, err
	}
	args := []*node{left, pattern}
	for i := range args {
		if args[i], err = c.argument(args[i], batch.String, "like"); err != nil {
			return nil, err
		}
	}
	n, err := c.negated(false, pos, opLike, args...)
	if err != nil {
		return nil, err
	}
	n.escape = '\\'
	if a.Escape != nil {
		s := []rune(unquote(a.Escape.S))
		switch len(s) {
		case 0:
			n.escape = noEscape
		case 1:
			n.escape = s[0]
		default:
			return nil, c.errorf(a.Escape.Pos.Offset, "", "escape takes one character, or '' for none")
		}
	}
	if p := n.args[1]; p.literal() && danglingEscape(p.val.s, n.escape) {
		return nil, c.errorf(p.pos, fmt.Sprintf("write it twice, or choose another: escape '%c'", '#'), "the pattern ends in its escape character")
	}
	if a.Not {
		return c.node(opNot, batch.Boolean, pos, n)
	}
	return n, nil
}

// danglingEscape tells whether the last character of the pattern is an escape
// character that escapes nothing.
func danglingEscape(pattern string, escape rune) bool {
	escaped := false
	for _, r := range pattern {
		escaped = !escaped && r == escape
	}
	return escaped
}

func (c *checker) concat(a *astConcat) (*node, *Error) {
	n, err := c.sum(a.Left)
	if err != nil || len(a.Rest) == 0 {
		return n, err
	}
	args := []*node{n}
	for _, r := range a.Rest {
		if n, err = c.sum(r.Right); err != nil {
			return nil, err
		}
		args = append(args, n)
	}
	if args, err = c.texts(args, "||"); err != nil {
		return nil, err
	}
	return c.node(opConcat, batch.String, a.Rest[0].Pos.Offset, args...)
}

// texts casts every argument to string.
func (c *checker) texts(args []*node, of string) ([]*node, *Error) {
	for i, x := range args {
		if x.typ == batch.Bytes {
			return nil, c.errorf(x.pos, "cast it: cast(... as string)", "%s does not take bytes", of)
		}
		n, err := c.convert(x, batch.String)
		if err != nil {
			return nil, err
		}
		args[i] = n
	}
	return args, nil
}

func (c *checker) sum(a *astSum) (*node, *Error) {
	n, err := c.term(a.Left)
	for _, r := range a.Rest {
		var right *node
		if err == nil {
			right, err = c.term(r.Right)
		}
		if err != nil {
			return nil, err
		}
		n, err = c.arithmetic(r.Op, r.Pos.Offset, n, right)
	}
	return n, err
}

func (c *checker) term(a *astTerm) (*node, *Error) {
	n, err := c.unary(a.Left)
	for _, r := range a.Rest {
		var right *node
		if err == nil {
			right, err = c.unary(r.Right)
		}
		if err != nil {
			return nil, err
		}
		n, err = c.arithmetic(r.Op, r.Pos.Offset, n, right)
	}
	return n, err
}

func (c *checker) arithmetic(sign string, pos int, x, y *node) (*node, *Error) {
	op := map[string]opcode{"+": opAdd, "-": opSub, "*": opMul, "/": opDiv, "%": opMod}[sign]
	if n, err := c.shift(op, pos, x, y); n != nil || err != nil {
		return n, err
	}
	for _, a := range []*node{x, y} {
		if a.typ != batch.Bigint && a.typ != batch.Double && a.typ != untyped {
			hint := ""
			switch {
			case sign == "+" && a.typ == batch.String:
				hint = "strings are joined with ||"
			case sign == "-" && x.typ == batch.Timestamp && y.typ == batch.Timestamp:
				hint = "write to_millis(a) - to_millis(b)"
			case a.typ == batch.Timestamp:
				hint = "write ts + interval '5' second"
			}
			return nil, c.errorf(a.pos, hint, "%s does not take %v", sign, a.typ)
		}
	}
	args, err := c.unify(pos, "cannot calculate with", x, y)
	if err != nil {
		return nil, err
	}
	if args[0].typ == batch.Boolean { // null op null
		for i := range args {
			args[i].typ = batch.Bigint
		}
	}
	return c.node(op, args[0].typ, pos, args...)
}

// shift makes timestamp + interval, interval + timestamp, timestamp - interval
// (and the sum of intervals), or nil if it is none.
func (c *checker) shift(op opcode, pos int, x, y *node) (*node, *Error) {
	if !x.interval() && !y.interval() {
		return nil, nil
	}
	if op == opAdd && x.interval() {
		x, y = y, x
	}
	if (op != opAdd && op != opSub) || x.typ != batch.Timestamp || !y.interval() {
		return nil, c.misplaced(&node{pos: pos})
	}
	return c.node(op, batch.Timestamp, pos, x, y)
}

func (c *checker) misplaced(interval *node) *Error {
	return c.errorf(interval.pos, "write ts + interval '5' second", "an interval can only be added to a timestamp, or taken from it")
}

func (c *checker) unary(a *astUnary) (*node, *Error) {
	signs := a.Signs
	minus := len(signs) > 0 && signs[len(signs)-1] == "-"
	if minus && a.Primary.Number != "" && len(a.Casts) == 0 {
		n, err := c.number(a.Primary.Pos.Offset, "-"+a.Primary.Number)
		return c.signs(n, err, a.Pos.Offset, signs[:len(signs)-1])
	}
	n, err := c.primary(a.Primary)
	for _, t := range a.Casts {
		if err != nil {
			return nil, err
		}
		n, err = c.cast(t.Pos.Offset, n, t)
	}
	return c.signs(n, err, a.Pos.Offset, signs)
}

// signs applies prefix signs: an odd number of minus signs is one negation, an
// even number two, since the first may overflow.
func (c *checker) signs(n *node, err *Error, pos int, signs []string) (*node, *Error) {
	if err != nil || len(signs) == 0 {
		return n, err
	}
	if n.typ == untyped {
		if n, err = c.convert(n, batch.Bigint); err != nil {
			return nil, err
		}
	}
	if n.interval() {
		return nil, c.misplaced(n)
	}
	if n.typ != batch.Bigint && n.typ != batch.Double {
		return nil, c.errorf(n.pos, "", "the sign %s does not take %v", signs[0], n.typ)
	}
	minus := strings.Count(strings.Join(signs, ""), "-")
	for k := min(minus, 2-minus%2); k > 0 && err == nil; k-- {
		n, err = c.node(opNeg, n.typ, pos, n)
	}
	return n, err
}

// number reads a numeric literal: digits only are a bigint, others a double.
func (c *checker) number(pos int, s string) (*node, *Error) {
	n := &node{op: opConst, typ: batch.Bigint, pos: pos, text: s}
	if !strings.ContainsAny(s, ".eE") {
		i, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, c.errorf(pos, "for a double write "+s+".0", "%s is out of range of bigint", s)
		}
		n.val.i = i
		return n, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, c.errorf(pos, "", "%s is out of range of double", s)
	}
	n.typ, n.val.f = batch.Double, f
	return n, nil
}

func (c *checker) primary(a *astPrimary) (*node, *Error) {
	pos := a.Pos.Offset
	switch {
	case a.Number != "":
		return c.number(pos, a.Number)
	case a.String != "":
		return &node{op: opConst, typ: batch.String, pos: pos, text: a.String, val: value{s: unquote(a.String)}}, nil
	case a.Word == "null":
		return &node{op: opConst, typ: untyped, pos: pos, text: a.Word, val: value{null: true}}, nil
	case a.Word != "":
		return &node{op: opConst, typ: batch.Boolean, pos: pos, text: a.Word, val: value{b: a.Word == "true"}}, nil
	case a.Case != nil:
		return c.caseOf(a.Case)
	case a.Cast != nil:
		n, err := c.expr(a.Cast.Expr)
		if err != nil {
			return nil, err
		}
		return c.cast(a.Cast.Pos.Offset, n, a.Cast.To)
	case a.Paren != nil:
		return c.expr(a.Paren)
	}
	switch n := a.Name; {
	case n.Call != nil:
		return c.call(n)
	case n.Literal != "":
		return c.typedLiteral(n)
	}
	return c.column(a.Name)
}

func (c *checker) column(a *astName) (*node, *Error) {
	pos, name := a.Pos.Offset, a.text()
	i := c.schema.Index(name)
	if i >= 0 {
		return &node{op: opColumn, typ: c.schema.Field(i).Type, pos: pos, col: i, text: name}, nil
	}
	var names []string
	for _, f := range c.schema.Fields() {
		names = append(names, f.Name)
	}
	hint := suggest(name, names)
	if a.Name[0] == '"' && !strings.HasPrefix(hint, "did") {
		hint = fmt.Sprintf("text stands in single quotes: '%s'", name)
	} else if !strings.HasPrefix(hint, "did") && lookup(strings.ToLower(name)) != nil {
		hint = fmt.Sprintf("a function needs parentheses: %s(...)", name)
	}
	return nil, c.errorf(pos, hint, "no column %q", name)
}

func (c *checker) caseOf(a *astCase) (*node, *Error) {
	var of *node
	var err *Error
	if a.Of != nil {
		if of, err = c.expr(a.Of); err != nil {
			return nil, err
		}
	}
	var conds, values []*node
	for _, w := range a.Whens {
		cond, err := c.expr(w.Cond)
		if err == nil && of == nil {
			cond, err = c.boolean(cond, "when")
		}
		if err != nil {
			return nil, err
		}
		value, err := c.expr(w.Then)
		if err != nil {
			return nil, err
		}
		conds, values = append(conds, cond), append(values, value)
	}
	if a.Else != nil {
		value, err := c.expr(a.Else)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	} else {
		values = append(values, &node{op: opConst, pos: a.Pos.Offset, val: value{null: true}})
	}
	if values, err = c.unifyTyped(a.Pos.Offset, "one case cannot give", values...); err != nil {
		return nil, err
	}
	op, args := opCase, []*node(nil)
	if of != nil {
		op = opSwitch
		if conds, err = c.unify(a.Pos.Offset, "cannot compare", append([]*node{of}, conds...)...); err != nil {
			return nil, err
		}
		args, conds = conds[:1:1], conds[1:]
	}
	for i := range conds {
		args = append(args, conds[i], values[i])
	}
	return c.node(op, values[0].typ, a.Pos.Offset, append(args, values[len(values)-1])...)
}
