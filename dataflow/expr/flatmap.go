package expr

import (
	"bytes"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// SetFunc is a function that makes several rows of one.
type SetFunc uint8

// The set-returning functions.
const (
	Split          SetFunc = iota + 1 // split(string, sep): one row for each part, empty ones too; null: no row
	GenerateSeries                    // generate_series(from, to): both ends included; null or from > to: no row
)

var setFuncs = [...]string{"split", "generate_series"}

// FlatMap is a select list with exactly one set-returning function. For each
// element of the set it makes a row of Fields.
type FlatMap struct {
	Fields []batch.Field
	Items  []*Expr // one per field; nil at Set
	Set    int     // the field that holds the set's element
	Func   SetFunc
	Sep    []byte  // Split: the separator, not empty
	Args   []*Expr // Split: the string; GenerateSeries: from, to (bigint)

	source string
}

// Source is the text it was made from.
func (f *FlatMap) Source() string { return f.source }

// Part cuts the first part off s at sep, which is not empty. After the last
// part more is false. The empty string has one part.
func Part(s, sep []byte) (part, rest []byte, more bool) { return bytes.Cut(s, sep) }

// CompileFlatMap parses and checks such a list. An error is always an *Error.
func CompileFlatMap(src string, schema *batch.Schema) (*FlatMap, error) {
	f, err := compileFlatMap(src, schema)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func compileFlatMap(src string, schema *batch.Schema) (*FlatMap, *Error) {
	tree, err := parse(src)
	if err != nil {
		return nil, err
	}
	c := &checker{src: src, schema: schema}
	f := &FlatMap{source: src, Set: -1}
	for i, it := range tree.Items {
		field := batch.Field{}
		if field.Name, err = c.itemName(it); err != nil {
			return nil, err
		}
		for _, other := range f.Fields {
			if other.Name == field.Name {
				return nil, c.errorf(it.Pos.Offset, "give one another name with as", "there are two columns named %q", field.Name)
			}
		}
		var e *Expr
		switch call := it.Expr.call(); {
		case call != nil && setFunc(call.function()) != 0:
			if f.Set >= 0 {
				return nil, c.errorf(it.Pos.Offset, "use two steps", "a second set-returning function")
			}
			f.Set = i
			field.Type, err = f.setFunction(c, call)
		default:
			if e, err = compileAST(src, it.Expr, schema); err == nil {
				field.Type = e.Type()
			}
		}
		if err != nil {
			return nil, err
		}
		f.Fields, f.Items = append(f.Fields, field), append(f.Items, e)
	}
	if f.Set < 0 {
		return nil, c.errorf(0, "write split(line, ' ') as word; without one use select", "no set-returning function")
	}
	return f, nil
}

// itemName is the name after as, or that of the column that the item is.
func (c *checker) itemName(it *astItem) (string, *Error) {
	if it.As != nil {
		return (&astName{Name: it.As.Name}).text(), nil
	}
	if p := it.Expr.bare(); p != nil && p.Name != nil && p.Name.Call == nil && p.Name.Literal == "" {
		return p.Name.text(), nil
	}
	return "", c.errorf(it.Pos.Offset, "write ... as name", "this needs a name")
}

func setFunc(name string) SetFunc {
	for i, n := range setFuncs {
		if n == name {
			return SetFunc(i + 1)
		}
	}
	return 0
}

// setFunction checks the arguments of the set-returning function and gives the
// type of its elements.
func (f *FlatMap) setFunction(c *checker, call *astName) (batch.Type, *Error) {
	f.Func = setFunc(call.function())
	usage, want := "split(string, separator)", batch.String
	if f.Func == GenerateSeries {
		usage, want = "generate_series(from, to)", batch.Bigint
	}
	asts := call.Call.all()
	if len(asts) != 2 || call.Call.From != nil || call.Call.Distinct {
		return 0, c.errorf(call.Pos.Offset, "write "+usage, "%s takes two arguments", call.function())
	}
	for _, a := range asts {
		e, err := compileAST(c.src, a, c.schema)
		if err != nil {
			return 0, err
		}
		if e.Type() != want {
			return 0, c.errorf(a.Pos.Offset, fmt.Sprintf("write %s", usage), "%s needs a %v here, this is %v", call.function(), want, e.Type())
		}
		f.Args = append(f.Args, e)
	}
	if f.Func == Split {
		sep := f.Args[1].root
		if !sep.isConst() || sep.val.null || sep.val.s == "" {
			return 0, c.errorf(asts[1].Pos.Offset, "write split(string, ' ')", "the separator must be a text that is not empty")
		}
		f.Sep, f.Args = []byte(sep.val.s), f.Args[:1]
	}
	return want, nil
}
