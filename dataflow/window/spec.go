package window

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
)

// Form is the shape of a step's windows.
type Form uint8

// The forms of a job's `window:`. Running is a keyed select without a window:
// one update of each aggregate per row, a stream of kind upsert.
const (
	Tumbling Form = iota + 1
	Sliding
	Session
	Count        // every Size rows of a key, then empty again
	SlidingCount // every Slide rows of a key, over its last Size
	Running
)

// Firing says when a late row that its window still takes is answered.
type Firing uint8

// The forms of `late_firing:`.
const (
	FireEach        Firing = iota // at once, each time
	FireAtWatermark               // once, at the next watermark
)

// Func is an aggregate function.
type Func uint8

// The aggregates. Variance and standard deviation are those of a sample.
const (
	CountRows   Func = iota + 1 // count(*)
	CountValues                 // count(x): not null
	CountDistinct
	Sum // keeps the type; bigint overflow: null, counted
	Avg // double
	Min
	Max
	First // least event time, then order of arrival
	Last  // greatest event time, then order of arrival
	Stddev
	Var
)

// Aggregate is one column of a window step's output.
type Aggregate struct {
	Name string
	Func Func
	Arg  *expr.Expr // nil for count(*)
}

// Spec is everything a window step is: what `job explain` prints and what the
// operator is made from.
type Spec struct {
	Form            Form
	Size, Slide     dataflow.Duration // Tumbling: Size; Sliding: both
	Offset          dataflow.Duration
	Gap             dataflow.Duration // Session
	Rows, EachRows  int64             // Count: Rows; SlidingCount: both
	AllowedLateness dataflow.Duration
	Firing          Firing
	ProcessingTime  bool  // the arrival clock instead of event time
	Keys            []int // columns of the input; empty: one key for all
	Aggregates      []Aggregate
	Input           *batch.Schema
}
