package expr

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

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
	return Aggregate{}, &Error{Source: src}
}
