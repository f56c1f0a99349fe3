package expr

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// param is the type that a function wants of an argument.
type param uint8

const (
	wantString param = iota
	wantBigint
	wantDouble    // takes bigint too
	wantNumber    // bigint or double
	wantText      // string or bytes
	wantTimestamp //
	wantSame      // all of one type
	wantAny       // cast to string
)

// function describes one scalar function.
type function struct {
	name     string
	op       opcode
	params   []param // the last one repeats if it is variadic
	required int
	variadic bool
	result   batch.Type // untyped: that of the first argument
	usage    string
}

var functions = [...]function{
	{"lower", opLower, []param{wantString}, 1, false, batch.String, "lower(string)"},
	{"upper", opUpper, []param{wantString}, 1, false, batch.String, "upper(string)"},
	{"trim", opTrim, []param{wantString}, 1, false, batch.String, "trim(string)"},
	{"length", opLength, []param{wantText}, 1, false, batch.Bigint, "length(string)"},
	{"substr", opSubstr, []param{wantString, wantBigint, wantBigint}, 2, false, batch.String, "substr(string, start [, length])"},
	{"split_part", opSplitPart, []param{wantString, wantString, wantBigint}, 3, false, batch.String, "split_part(string, separator, n)"},
	{"replace", opReplace, []param{wantString, wantString, wantString}, 3, false, batch.String, "replace(string, from, to)"},
	{"concat", opConcatSkip, []param{wantAny}, 1, true, batch.String, "concat(a, b, ...)"},
	{"starts_with", opStartsWith, []param{wantString, wantString}, 2, false, batch.Boolean, "starts_with(string, prefix)"},
	{"abs", opAbs, []param{wantNumber}, 1, false, untyped, "abs(number)"},
	{"floor", opFloor, []param{wantNumber}, 1, false, untyped, "floor(number)"},
	{"ceil", opCeil, []param{wantNumber}, 1, false, untyped, "ceil(number)"},
	{"round", opRound, []param{wantNumber, wantBigint}, 1, false, untyped, "round(number [, digits])"},
	{"sqrt", opSqrt, []param{wantDouble}, 1, false, batch.Double, "sqrt(number)"},
	{"ln", opLn, []param{wantDouble}, 1, false, batch.Double, "ln(number)"},
	{"exp", opExp, []param{wantDouble}, 1, false, batch.Double, "exp(number)"},
	{"power", opPower, []param{wantDouble, wantDouble}, 2, false, batch.Double, "power(base, exponent)"},
	{"coalesce", opCoalesce, []param{wantSame}, 1, true, untyped, "coalesce(a, b, ...)"},
	{"nullif", opNullif, []param{wantSame, wantSame}, 2, false, untyped, "nullif(a, b)"},
	{"least", opLeast, []param{wantSame}, 1, true, untyped, "least(a, b, ...)"},
	{"greatest", opGreatest, []param{wantSame}, 1, true, untyped, "greatest(a, b, ...)"},
	{"date_trunc", opDateTrunc, []param{wantString, wantTimestamp}, 2, false, batch.Timestamp, "date_trunc('hour', timestamp)"},
	{"extract", opExtract, nil, 0, false, batch.Bigint, "extract(hour from timestamp)"},
	{"to_millis", opToMillis, []param{wantTimestamp}, 1, false, batch.Bigint, "to_millis(timestamp)"},
	{"from_millis", opFromMillis, []param{wantBigint}, 1, false, batch.Timestamp, "from_millis(bigint)"},
}

// aggregates are the names that only windows and running aggregations know.
var aggregates = [...]string{"count", "sum", "avg", "min", "max", "first", "last", "stddev", "var"}

// lookup finds a function by its name in lower case.
func lookup(name string) *function {
	for i := range functions {
		if functions[i].name == name {
			return &functions[i]
		}
	}
	return nil
}

func isAggregate(name string) bool {
	for _, a := range aggregates {
		if a == name {
			return true
		}
	}
	return false
}

// functionHint translates what other engines call a function, or suggests the
// nearest name.
func functionHint(name string) string {
	same := ""
	switch name {
	case "substring", "mid":
		same = "substr"
	case "char_length", "character_length", "len":
		same = "length"
	case "ceiling":
		same = "ceil"
	case "pow":
		same = "power"
	case "log":
		same = "ln"
	case "ifnull", "nvl", "isnull":
		same = "coalesce"
	case "lcase":
		same = "lower"
	case "ucase":
		same = "upper"
	case "if", "iif":
		return "write case when ... then ... else ... end"
	case "mod":
		return "write a % b"
	case "split", "generate_series":
		return "it makes rows: only flat_map takes it"
	}
	if same != "" {
		return fmt.Sprintf("here it is called %s", same)
	}
	var names []string
	for i := range functions {
		names = append(names, functions[i].name)
	}
	return suggest(name, names)
}

// call checks the call of a scalar function.
func (c *checker) call(a *astName) (*node, *Error) {
	pos, name := a.Pos.Offset, a.function()
	f := lookup(name)
	switch {
	case f == nil && isAggregate(name):
		return nil, c.errorf(pos, "aggregates stand alone in the select of a window or of a key_by step", "%s is an aggregate", name)
	case f == nil:
		return nil, c.errorf(pos, functionHint(name), "no function %q", a.Name)
	case a.Call.Star || a.Call.Distinct:
		return nil, c.errorf(a.Call.Pos.Offset, "write "+f.usage, "only aggregates take * or distinct")
	case f.op == opExtract:
		return c.extract(a, f)
	case a.Call.From != nil:
		return nil, c.errorf(a.Call.From.Pos.Offset, "write "+f.usage, "%s takes no from", name)
	}
	asts := a.Call.all()
	if len(asts) < f.required || !f.variadic && len(asts) > len(f.params) {
		return nil, c.errorf(pos, "write "+f.usage, "%s does not take %d arguments", name, len(asts))
	}
	var args []*node
	for _, x := range asts {
		n, err := c.expr(x)
		if err != nil {
			return nil, err
		}
		args = append(args, n)
	}
	args, err := c.arguments(f, pos, args)
	if err != nil {
		return nil, err
	}
	return c.apply(f, pos, args)
}

// arguments gives the arguments the types that f wants.
func (c *checker) arguments(f *function, pos int, args []*node) ([]*node, *Error) {
	for _, x := range args {
		if x.interval() {
			return nil, c.misplaced(x)
		}
	}
	switch f.params[0] {
	case wantAny:
		return c.texts(args, f.name)
	case wantSame:
		return c.unifyTyped(pos, f.name+" cannot take", args...)
	}
	for i, x := range args {
		var err *Error
		switch want := f.params[i]; want {
		case wantString:
			args[i], err = c.argument(x, batch.String, f.name)
		case wantBigint:
			args[i], err = c.argument(x, batch.Bigint, f.name)
		case wantTimestamp:
			args[i], err = c.argument(x, batch.Timestamp, f.name)
		case wantDouble:
			args[i], err = c.argument(x, batch.Double, f.name)
		case wantNumber:
			if x.typ != batch.Bigint {
				args[i], err = c.argument(x, batch.Double, f.name)
			}
		case wantText:
			if x.typ != batch.Bytes {
				args[i], err = c.argument(x, batch.String, f.name)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return args, nil
}

// argument gives x the type t if unify's rules allow it.
func (c *checker) argument(x *node, t batch.Type, of string) (*node, *Error) {
	if x.typ == t || x.typ == untyped || x.typ == batch.Bigint && t == batch.Double || x.literal() && t == batch.Timestamp {
		return c.convert(x, t)
	}
	hint := ""
	if castable(x.typ, t) {
		hint = fmt.Sprintf("cast it: cast(... as %v)", t)
	}
	return nil, c.errorf(x.pos, hint, "%s needs a %v here, this is %v", of, t, x.typ)
}

// apply makes the node of f, whose arguments have their types.
func (c *checker) apply(f *function, pos int, args []*node) (*node, *Error) {
	t := f.result
	if t == untyped {
		t = args[0].typ
	}
	switch f.op {
	case opFloor, opCeil:
		if t == batch.Bigint {
			return args[0], nil
		}
	case opNullif:
		return c.node(opNullif, t, pos, args...)
	case opRound:
		return c.round(pos, t, args)
	case opDateTrunc:
		return c.dateTrunc(pos, args)
	case opSplitPart:
		if n := args[2]; n.isConst() && !n.val.null && n.val.i == 0 {
			return nil, c.errorf(n.pos, "the first part is 1, the last is -1", "there is no part 0")
		}
	}
	return c.node(f.op, t, pos, args...)
}

func (c *checker) round(pos int, t batch.Type, args []*node) (*node, *Error) {
	digits := int64(0)
	if len(args) == 2 {
		d := args[1]
		if !d.isConst() || d.val.null || d.val.i < -18 || d.val.i > 18 {
			return nil, c.errorf(d.pos, "", "the digits of round must be a number from -18 to 18")
		}
		digits = d.val.i
	}
	if t == batch.Bigint && digits >= 0 {
		return args[0], nil
	}
	n, err := c.node(opRound, t, pos, args[0])
	if err == nil {
		n.digits = digits
	}
	return n, err
}

func (c *checker) dateTrunc(pos int, args []*node) (*node, *Error) {
	u := args[0]
	if !u.isConst() || u.val.null || unitNamed(u.val.s) == noUnit || !unitNamed(u.val.s).truncates() {
		return nil, c.errorf(u.pos, "units are "+unitList(truncUnits()), "date_trunc needs the name of a unit here")
	}
	n, err := c.node(opDateTrunc, batch.Timestamp, pos, args[1])
	if err == nil {
		n.unit = unitNamed(u.val.s)
	}
	return n, err
}

func (c *checker) extract(a *astName, f *function) (*node, *Error) {
	var u unit
	if a.Call.From != nil && len(a.Call.More) == 0 {
		if p := a.Call.Args[0].bare(); p != nil && p.Name != nil && p.Name.Call == nil && p.Name.Literal == "" {
			u = unitNamed(p.Name.text())
		}
	}
	if !u.extracts() {
		pos := a.Pos.Offset
		if len(a.Call.Args) > 0 {
			pos = a.Call.Args[0].Pos.Offset
		}
		return nil, c.errorf(pos, "write "+f.usage+"; units are "+unitList(extractUnits()), "extract needs a unit")
	}
	x, err := c.expr(a.Call.From)
	if err == nil {
		x, err = c.argument(x, batch.Timestamp, "extract")
	}
	if err != nil {
		return nil, err
	}
	n, err := c.node(opExtract, batch.Bigint, a.Pos.Offset, x)
	if err == nil {
		n.unit = u
	}
	return n, err
}
