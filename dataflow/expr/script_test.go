package expr

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// TestScripts runs testdata/*. Each line of input is one source; `values`
// prints what it gives for the rows below, `errors` how it is refused.
//
//	sensor string, temp double, n bigint, ok boolean, ts timestamp, raw bytes
func TestScripts(t *testing.T) {
	schema := batch.MustSchema(
		batch.Field{Name: "sensor", Type: batch.String}, batch.Field{Name: "temp", Type: batch.Double}, batch.Field{Name: "n", Type: batch.Bigint},
		batch.Field{Name: "ok", Type: batch.Boolean}, batch.Field{Name: "ts", Type: batch.Timestamp}, batch.Field{Name: "raw", Type: batch.Bytes},
		batch.Field{Name: "a b", Type: batch.Bigint}, batch.Field{Name: "from", Type: batch.Boolean},
	)
	b := scriptRows(schema)
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for _, src := range strings.Split(d.Input, "\n") {
				fmt.Fprintf(&out, "%s\n    %s\n", src, run(d.Cmd, src, schema, b))
			}
			return out.String()
		})
	})
}

// scriptRows are three rows: usual values, other values, nulls.
func scriptRows(s *batch.Schema) *batch.Batch {
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	bl.SetString(0, "Kühler 1")
	bl.SetDouble(1, 8.5)
	bl.SetInt(2, 7)
	bl.SetBool(3, true)
	bl.SetInt(4, 1_769_860_800_123_456) // 2026-01-31T12:00:00.123456Z
	bl.SetString(5, "\xff\x00")
	bl.SetInt(6, 1)
	bl.SetBool(7, true)
	bl.EndRow(dataflow.Time(0))
	bl.SetString(0, "a,b,,c")
	bl.SetDouble(1, -2.5)
	bl.SetInt(2, 0)
	bl.SetBool(3, false)
	bl.SetInt(4, -1) // 1969-12-31T23:59:59.999999Z
	bl.SetString(5, "ok")
	bl.SetInt(6, 2)
	bl.SetBool(7, false)
	bl.EndRow(dataflow.Time(0))
	bl.EndRow(dataflow.Time(0))
	return bl.Take()
}

func run(cmd, src string, schema *batch.Schema, b *batch.Batch) string {
	var e *Expr
	var err error
	switch cmd {
	case "values", "errors":
		e, err = Compile(src, schema)
	case "condition":
		e, err = CompileBool(src, schema)
	case "aggregate":
		var a Aggregate
		if a, err = CompileAggregate(src, schema); err == nil {
			s := fmt.Sprintf("%s star=%v distinct=%v -> %v", a.Func, a.Star, a.Distinct, a.Type())
			if a.Arg != nil {
				s += fmt.Sprintf("; argument %v of columns %v", a.Arg.Type(), a.Arg.Columns())
			}
			return s
		}
	case "flatmap":
		var f *FlatMap
		if f, err = CompileFlatMap(src, schema); err == nil {
			return fmt.Sprintf("%v: set is field %d, sep %q, %d arguments", f.Fields, f.Set, f.Sep, len(f.Args))
		}
	case "identifiers":
		var names []string
		if names, err = Identifiers(src); err == nil {
			return fmt.Sprintf("%q", names)
		}
	}
	if err != nil {
		var where *Error
		if !errors.As(err, &where) || where.Source != src {
			return "not a positioned error: " + err.Error()
		}
		return err.Error()
	}
	return evaluated(e, b)
}

// evaluated is the type and the values of e, then what was counted and listed.
func evaluated(e *Expr, b *batch.Batch) string {
	ev := e.NewEval()
	var c batch.Column
	ev.Into(b, &c)
	out := e.Type().String() + ":"
	for p := range b.Rows {
		switch v := goValue(e.Type(), valueAt(&c, p)).(type) {
		case nil:
			out += " null"
		case string:
			out += fmt.Sprintf(" %q", v)
		case int64:
			if e.Type() == batch.Timestamp {
				out += " " + dataflow.Time(v).String()
				continue
			}
			out += fmt.Sprint(" ", v)
		default:
			out += fmt.Sprint(" ", v)
		}
	}
	if ev.DivByZero+ev.Overflow > 0 {
		out += fmt.Sprintf("; %d divided by zero, %d overflowed", ev.DivByZero, ev.Overflow)
	}
	for _, r := range ev.Errors() {
		out += fmt.Sprintf("; row %d: %s", r.Row, r.Reason)
	}
	return out
}
