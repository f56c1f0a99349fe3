package window

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Names of the columns that a window step adds to its output.
const (
	StartColumn = "window_start"
	EndColumn   = "window_end"
)

// maxSpan bounds sizes, gaps and lateness, so that sums of a few of them never
// overflow: more than 30,000 years.
const maxSpan = dataflow.Duration(math.MaxInt64 / 8)

// maxCount bounds count windows.
const maxCount = int64(1) << 31

// String is the function's name as a job writes it.
func (f Func) String() string {
	switch f {
	case CountRows, CountValues, CountDistinct:
		return "count"
	case Sum:
		return "sum"
	case Avg:
		return "avg"
	case Min:
		return "min"
	case Max:
		return "max"
	case First:
		return "first"
	case Last:
		return "last"
	case Stddev:
		return "stddev"
	case Var:
		return "var"
	}
	return fmt.Sprintf("func(%d)", uint8(f))
}

// String is the aggregate as a job writes it, "avg(temp)".
func (a Aggregate) String() string {
	switch {
	case a.Func == CountRows || a.Arg == nil:
		return a.Func.String() + "(*)"
	case a.Func == CountDistinct:
		return "count(distinct " + a.Arg.Source() + ")"
	}
	return a.Func.String() + "(" + a.Arg.Source() + ")"
}

// Type is the type of the aggregate's column.
func (a Aggregate) Type() batch.Type {
	switch a.Func {
	case CountRows, CountValues, CountDistinct:
		return batch.Bigint
	case Avg, Stddev, Var:
		return batch.Double
	}
	return a.Arg.Type()
}

// Timed tells whether the form has windows in time, so that rows can be late.
func (f Form) Timed() bool { return f == Tumbling || f == Sliding || f == Session }

// Upsert tells whether a row of the output can replace an earlier one: a
// window that fires again, and every running aggregate.
func (s *Spec) Upsert() bool {
	return s.Form == Running || s.Form.Timed() && s.AllowedLateness > 0
}

// Validate checks everything at once; the error joins one for each mistake.
func (s *Spec) Validate() error {
	if s.Input == nil {
		return errors.New("window: no input schema")
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s.checkForm(bad)
	s.checkLateness(bad)
	used := map[string]string{}
	seen := map[int]bool{}
	for _, k := range s.Keys {
		if k < 0 || k >= s.Input.Len() {
			bad("key_by: column %d of an input with %d columns", k, s.Input.Len())
			continue
		}
		name := s.Input.Field(k).Name
		if seen[k] {
			bad("key_by: %q is named twice; name each key once", name)
		}
		seen[k] = true
		used[name] = "a key"
	}
	if s.Form != Running {
		for _, n := range []string{StartColumn, EndColumn} {
			if used[n] != "" {
				bad("key_by: %q is the name of a column that the window adds; rename the key in a select before", n)
			}
			used[n] = "a column that the window adds"
		}
	}
	for _, a := range s.Aggregates {
		a.check(bad)
		if what := used[a.Name]; what != "" {
			bad("select: %q is already the name of %s; choose another", a.Name, what)
		}
		used[a.Name] = "another column of this select"
	}
	return errors.Join(errs...)
}

func (s *Spec) checkForm(bad func(string, ...any)) {
	span := func(what string, d dataflow.Duration) bool {
		switch {
		case d <= 0:
			bad("window: %s must be greater than 0, it is %v", what, d)
		case d > maxSpan:
			bad("window: %s must be at most %v", what, maxSpan)
		default:
			return true
		}
		return false
	}
	offset := func(what string, d dataflow.Duration) {
		if s.Offset <= -d || s.Offset >= d {
			bad("window: offset %v must be smaller than the %s %v, with or without its sign", s.Offset, what, d)
		}
	}
	switch s.Form {
	case Tumbling:
		if span("tumbling size", s.Size) {
			offset("size", s.Size)
		}
	case Sliding:
		span("sliding size", s.Size)
		if span("slide", s.Slide) {
			offset("slide", s.Slide)
		}
	case Session:
		span("session gap", s.Gap)
	case Count, SlidingCount:
		if s.Rows <= 0 || s.Rows > maxCount {
			bad("window: count must be from 1 to %d, it is %d", maxCount, s.Rows)
		}
		if s.Form == SlidingCount && (s.EachRows <= 0 || s.EachRows > maxCount) {
			bad("window: the slide of a count window must be from 1 to %d, it is %d", maxCount, s.EachRows)
		}
	case Running:
	default:
		bad("window: unknown form %d", s.Form)
	}
	if s.Offset != 0 && s.Form != Tumbling && s.Form != Sliding {
		bad("window: only tumbling and sliding windows have an offset")
	}
}

func (s *Spec) checkLateness(bad func(string, ...any)) {
	switch {
	case s.AllowedLateness < 0:
		bad("window: allowed_lateness must not be negative, it is %v", s.AllowedLateness)
	case s.AllowedLateness > maxSpan:
		bad("window: allowed_lateness must be at most %v", maxSpan)
	case s.AllowedLateness > 0 && !s.Form.Timed():
		bad("window: allowed_lateness needs a tumbling, sliding or session window: nothing is late here")
	case s.AllowedLateness > 0 && s.ProcessingTime:
		bad("window: allowed_lateness has no meaning in processing time: no row comes late")
	}
	if s.ProcessingTime && !s.Form.Timed() {
		bad("window: only tumbling, sliding and session windows can run in processing time")
	}
	if s.Firing > FireAtWatermark {
		bad("window: unknown late_firing %d", s.Firing)
	}
}

func (a Aggregate) check(bad func(string, ...any)) {
	if a.Func < CountRows || a.Func > Var {
		bad("select: %s: unknown aggregate %d", a.Name, a.Func)
		return
	}
	if a.Func == CountRows {
		if a.Arg != nil {
			bad("select: %s: count(*) takes no argument", a.Name)
		}
		return
	}
	if a.Arg == nil {
		bad("select: %s: %v needs an argument", a.Name, a.Func)
		return
	}
	switch a.Func {
	case Sum, Avg, Stddev, Var:
		if t := a.Arg.Type(); t != batch.Bigint && t != batch.Double {
			bad("select: %s: %v needs a bigint or a double, %s is %v", a.Name, a.Func, a.Arg.Source(), t)
		}
	}
}

// Output is the schema of the main stream: the key fields, window_start,
// window_end, then the aggregates; running aggregates have no bounds.
func (s *Spec) Output() (*batch.Schema, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	var f []batch.Field
	for _, k := range s.Keys {
		f = append(f, s.Input.Field(k))
	}
	if s.Form != Running {
		f = append(f, batch.Field{Name: StartColumn, Type: batch.Timestamp}, batch.Field{Name: EndColumn, Type: batch.Timestamp})
	}
	for _, a := range s.Aggregates {
		f = append(f, batch.Field{Name: a.Name, Type: a.Type()})
	}
	return batch.NewSchema(f...)
}

// Describe is one line for explain: "tumbling 10s by sensor: n = count(*)".
func (s *Spec) Describe() string {
	var b strings.Builder
	switch s.Form {
	case Tumbling:
		fmt.Fprintf(&b, "tumbling %v", s.Size)
	case Sliding:
		fmt.Fprintf(&b, "sliding %v every %v", s.Size, s.Slide)
	case Session:
		fmt.Fprintf(&b, "session gap %v", s.Gap)
	case Count:
		fmt.Fprintf(&b, "count %d", s.Rows)
	case SlidingCount:
		fmt.Fprintf(&b, "count %d every %d", s.Rows, s.EachRows)
	case Running:
		b.WriteString("running")
	}
	if s.Offset != 0 {
		fmt.Fprintf(&b, " offset %v", s.Offset)
	}
	if s.ProcessingTime {
		b.WriteString(" in processing time")
	}
	if s.AllowedLateness > 0 {
		fmt.Fprintf(&b, " allowed lateness %v", s.AllowedLateness)
		if s.Firing == FireAtWatermark {
			b.WriteString(" firing at the watermark")
		}
	}
	for i, k := range s.Keys {
		b.WriteString([...]string{" by ", ", "}[min(i, 1)])
		b.WriteString(s.Input.Field(k).Name)
	}
	for i, a := range s.Aggregates {
		b.WriteString([...]string{": ", ", "}[min(i, 1)])
		fmt.Fprintf(&b, "%s = %v", a.Name, a)
	}
	return b.String()
}
