package expr

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Aggregate is one aggregate of a window or of a running aggregation.
type Aggregate struct {
	Func     string // lower case: count, sum, avg, min, max, first, last, stddev, var
	Star     bool   // count(*): Arg is nil
	Distinct bool   // count(distinct x)
	Arg      *Expr
}

// Type is the type of the result: bigint for count, double for avg, stddev and
// var, that of the argument otherwise.
func (a Aggregate) Type() batch.Type {
	switch a.Func {
	case "count":
		return batch.Bigint
	case "avg", "stddev", "var":
		return batch.Double
	}
	return a.Arg.Type()
}

// CompileAggregate parses and checks one aggregate call. An error is always an
// *Error.
func CompileAggregate(src string, schema *batch.Schema) (Aggregate, error) {
	a, err := compileAggregate(src, schema)
	if err != nil {
		return Aggregate{}, err
	}
	return a, nil
}

func compileAggregate(src string, schema *batch.Schema) (a Aggregate, err *Error) {
	tree, err := parse(src)
	if err != nil {
		return a, err
	}
	ast, err := tree.single(src)
	if err != nil {
		return a, err
	}
	c := &checker{src: src, schema: schema}
	call := ast.call()
	if call == nil || !isAggregate(call.function()) {
		return a, c.noAggregate(ast, call)
	}
	a = Aggregate{Func: call.function(), Star: call.Call.Star, Distinct: call.Call.Distinct}
	pos, args := call.Call.Pos.Offset, call.Call.all()
	switch {
	case call.Call.From != nil:
		return a, c.errorf(call.Call.From.Pos.Offset, "", "%s takes no from", a.Func)
	case a.Star && a.Func != "count":
		return a, c.errorf(pos, fmt.Sprintf("name a column: %s(x); count(*) counts rows", a.Func), "%s does not take *", a.Func)
	case a.Star:
		return a, nil
	case len(args) != 1:
		return a, c.errorf(pos, fmt.Sprintf("write %s(x)", a.Func), "%s takes one argument, here are %d", a.Func, len(args))
	case a.Distinct && a.Func != "count":
		return a, c.errorf(pos, "only count takes distinct", "%s does not take distinct", a.Func)
	}
	if a.Arg, err = compileAST(src, args[0], schema); err != nil {
		return a, err
	}
	if n := a.Arg.root.doubtfulCast(); n != nil {
		return a, c.errorf(n.pos, "cast it in a select before this step: its on_error says what becomes of a row that it fails for", "a cast that may fail cannot stand in an aggregate")
	}
	number := a.Arg.Type() == batch.Bigint || a.Arg.Type() == batch.Double
	switch a.Func {
	case "sum", "avg", "stddev", "var":
		if !number {
			hint := ""
			if castable(a.Arg.Type(), batch.Double) {
				hint = "cast it in a select before this step: cast(... as double)"
			} else if a.Arg.Type() == batch.Boolean {
				hint = "count rows with: sum(case when ... then 1 else 0 end)"
			}
			return a, c.errorf(args[0].Pos.Offset, hint, "%s needs a number, this is %v", a.Func, a.Arg.Type())
		}
	}
	return a, nil
}

// noAggregate says why ast, which consists of call (or not, then call is nil),
// is no aggregate.
func (c *checker) noAggregate(ast *astExpr, call *astName) *Error {
	var inside *astName
	ast.names(func(n *astName) {
		if n.Call != nil && isAggregate(n.function()) && inside == nil {
			inside = n
		}
	})
	list := ""
	for i, a := range aggregates {
		if i > 0 {
			list += ", "
		}
		list += a
	}
	switch {
	case inside != nil:
		return c.errorf(inside.Pos.Offset, "select the aggregate alone and calculate with it in a step after this one", "%s stands within a larger expression", inside.function())
	case call != nil && lookup(call.function()) == nil:
		return c.errorf(call.Pos.Offset, suggest(call.function(), aggregates[:]), "no aggregate %q", call.Name)
	}
	return c.errorf(ast.Pos.Offset, "aggregates are "+list, "this is no aggregate")
}

// doubtfulCast is a cast in n that a row may fail: one of a text or of bytes.
// A window has no way to reject a row, so an aggregate takes none of them.
func (n *node) doubtfulCast() *node {
	if n.op == opCast && n.args[0].typ.Variable() {
		return n
	}
	for _, a := range n.args {
		if c := a.doubtfulCast(); c != nil {
			return c
		}
	}
	return nil
}
