package agent_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pgregory.net/rapid"
)

// drawer draws expressions over the columns of a stream: as text for the job,
// and as what they mean.
type drawer struct {
	t       *rapid.T
	columns []mcol
}

func (d drawer) int(name string, low, high int) int { return rapid.IntRange(low, high).Draw(d.t, name) }

// chance is true once in n times.
func (d drawer) chance(name string, n int) bool { return d.int(name, 1, n) == 1 }

// of are the columns of some types.
func (d drawer) of(types ...string) (cols []mcol) {
	for _, c := range d.columns {
		if slices.Contains(types, c.typ) {
			cols = append(cols, c)
		}
	}
	return cols
}

func column(c mcol) mexpr {
	return mexpr{c.name, c.typ, func(r *mrow) any { return r.v[c.name] }}
}

func literal(n int64) mexpr {
	return mexpr{fmt.Sprint(n), "bigint", func(*mrow) any { return n }}
}

// binary is null if an operand is.
func binary(op, typ string, a, b mexpr, f func(x, y any) any) mexpr {
	return mexpr{"(" + a.text + " " + op + " " + b.text + ")", typ, func(r *mrow) any {
		x, y := a.eval(r), b.eval(r)
		if x == nil || y == nil {
			return nil
		}
		return f(x, y)
	}}
}

// number draws a bigint.
func (d drawer) number(depth int) mexpr {
	cols := d.of("bigint")
	kind := d.int("number", 0, 9)
	switch {
	case kind < 3 && len(cols) > 0, depth == 0 && len(cols) > 0:
		return column(rapid.SampledFrom(cols).Draw(d.t, "column"))
	case kind < 4 || depth == 0:
		return literal(int64(d.int("literal", 0, 5)))
	case kind < 8:
		a, b := d.number(depth-1), d.number(depth-1)
		if d.chance("times", 4) { // never two that may be large: what overflows is proven elsewhere
			b = literal(int64(d.int("literal", -2, 3)))
			return binary("*", "bigint", a, b, func(x, y any) any { return x.(int64) * y.(int64) })
		}
		switch op := rapid.SampledFrom([]string{"+", "-", "/", "%"}).Draw(d.t, "operator"); op {
		case "+":
			return binary(op, "bigint", a, b, func(x, y any) any { return x.(int64) + y.(int64) })
		case "-":
			return binary(op, "bigint", a, b, func(x, y any) any { return x.(int64) - y.(int64) })
		case "/":
			return binary(op, "bigint", a, b, func(x, y any) any { return unless(y, func() any { return x.(int64) / y.(int64) }) })
		default:
			return binary(op, "bigint", a, b, func(x, y any) any { return unless(y, func() any { return x.(int64) % y.(int64) }) })
		}
	case kind < 9:
		c, a, b := d.condition(depth-1), d.number(depth-1), d.number(depth-1)
		return mexpr{"case when " + c.text + " then " + a.text + " else " + b.text + " end", "bigint", func(r *mrow) any {
			if c.eval(r) == true {
				return a.eval(r)
			}
			return b.eval(r)
		}}
	}
	a, b := d.number(depth-1), d.number(depth-1)
	return mexpr{"coalesce(" + a.text + ", " + b.text + ")", "bigint", func(r *mrow) any {
		if x := a.eval(r); x != nil {
			return x
		}
		return b.eval(r)
	}}
}

// unless a divisor is zero, which gives null.
func unless(divisor any, f func() any) any {
	if divisor == int64(0) {
		return nil
	}
	return f()
}

// double draws a double whose sums are exact: multiples of a quarter.
func (d drawer) double() mexpr {
	cols := d.of("double")
	if len(cols) == 0 {
		return binary("*", "double", d.number(1), mexpr{"0.5", "double", func(*mrow) any { return 0.5 }}, func(x, y any) any { return float64(x.(int64)) * y.(float64) })
	}
	c := column(rapid.SampledFrom(cols).Draw(d.t, "column"))
	if d.chance("plain", 2) {
		return c
	}
	return binary("+", "double", c, d.number(1), func(x, y any) any { return x.(float64) + float64(y.(int64)) })
}

// condition draws a boolean, of three values.
func (d drawer) condition(depth int) mexpr {
	kind := d.int("condition", 0, 9)
	texts, flags := d.of("string"), d.of("boolean")
	switch {
	case depth > 0 && kind < 2:
		a, b := d.condition(depth-1), d.condition(depth-1)
		return mexpr{"(" + a.text + " and " + b.text + ")", "boolean", func(r *mrow) any { return both(a.eval(r), b.eval(r), false) }}
	case depth > 0 && kind < 4:
		a, b := d.condition(depth-1), d.condition(depth-1)
		return mexpr{"(" + a.text + " or " + b.text + ")", "boolean", func(r *mrow) any { return both(a.eval(r), b.eval(r), true) }}
	case depth > 0 && kind < 5:
		a := d.condition(depth - 1)
		return mexpr{"(not " + a.text + ")", "boolean", func(r *mrow) any {
			if x := a.eval(r); x != nil {
				return !x.(bool)
			}
			return nil
		}}
	case kind < 6:
		c := column(rapid.SampledFrom(d.columns).Draw(d.t, "column"))
		return mexpr{"(" + c.text + " is not null)", "boolean", func(r *mrow) any { return c.eval(r) != nil }}
	case kind < 7 && len(texts) > 0:
		c := column(rapid.SampledFrom(texts).Draw(d.t, "column"))
		return mexpr{"(" + c.text + " in ('a', 'b', '7'))", "boolean", func(r *mrow) any {
			if x := c.eval(r); x != nil {
				return slices.Contains([]string{"a", "b", "7"}, x.(string))
			}
			return nil
		}}
	case kind < 8 && len(flags) > 0:
		return column(rapid.SampledFrom(flags).Draw(d.t, "column"))
	}
	a, b := d.number(1), d.number(0)
	if d.chance("double", 4) {
		a = d.double()
	}
	op := rapid.SampledFrom([]string{"<", "<=", "=", "<>", ">", ">="}).Draw(d.t, "comparison")
	return binary(op, "boolean", a, b, func(x, y any) any {
		c := compare(x, y)
		return map[string]bool{"<": c < 0, "<=": c <= 0, "=": c == 0, "<>": c != 0, ">": c > 0, ">=": c >= 0}[op]
	})
}

// both is `or` where decisive is true, `and` where it is false.
func both(x, y any, decisive bool) any {
	switch {
	case x == decisive || y == decisive:
		return decisive
	case x == nil || y == nil:
		return nil
	}
	return !decisive
}

// any draws an expression of any type.
func (d drawer) any() mexpr {
	switch d.int("type", 0, 5) {
	case 0:
		return d.number(2)
	case 1:
		return d.double()
	case 2:
		return d.condition(1)
	}
	return column(rapid.SampledFrom(d.columns).Draw(d.t, "column"))
}

// cast draws the cast of a text to a number, which not every text allows.
func (d drawer) cast() (mexpr, bool) {
	texts := d.of("string")
	if len(texts) == 0 {
		return mexpr{}, false
	}
	c := column(rapid.SampledFrom(texts).Draw(d.t, "text"))
	return mexpr{"cast(" + c.text + " as bigint)", "bigint", func(r *mrow) any {
		x, ok := c.eval(r).(string)
		if !ok {
			return nil
		}
		n, err := strconv.ParseInt(strings.TrimSpace(x), 10, 64)
		if err != nil {
			return errRow{}
		}
		return n
	}}, true
}

// aggregate draws an aggregate; ordered: also those for which the order of
// arrival matters.
func (d drawer) aggregate(name string, ordered bool) (maggregate, string) {
	fns := []string{"rows", "count", "distinct", "sum", "avg", "min", "max", "stddev", "var"}
	if ordered {
		fns = append(fns, "first", "last")
	}
	a := maggregate{name: name, fn: rapid.SampledFrom(fns).Draw(d.t, "aggregate")}
	switch a.fn {
	case "rows":
		a.arg.typ = "bigint"
		return a, "count(*)"
	case "sum", "avg", "stddev", "var":
		if a.arg = d.number(1); d.chance("double", 2) {
			a.arg = d.double()
		}
	default:
		if a.arg = d.any(); a.arg.typ == inexact {
			a.fn = "count"
		}
	}
	if a.fn == "distinct" {
		return a, "count(distinct " + a.arg.text + ")"
	}
	return a, a.fn + "(" + a.arg.text + ")"
}

// typeOf is the type of an aggregate's column.
func (a *maggregate) typeOf() string {
	switch a.fn {
	case "rows", "count", "distinct":
		return "bigint"
	case "avg", "stddev", "var":
		return inexact
	}
	return a.arg.typ
}

// inexact is the type of doubles whose last digits depend on the order of
// addition: they are compared, and no result is made to depend on them.
const inexact = "inexact"
