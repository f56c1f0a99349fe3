package operator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
)

// OnError is what becomes of a row for which an expression has no value.
type OnError uint8

// The policies of `on_error:`.
const (
	FailOnError OnError = iota // the job fails
	RejectRow                  // the row goes to STEP.rejected, and the job goes on
)

// ReasonColumn is the column that rejected rows have after those of the input.
// If the input has a column of that name itself, a number is added.
const ReasonColumn = "reason"

// rejectedSchema is the input's columns and the reason.
func rejectedSchema(in *batch.Schema) *batch.Schema {
	name := ReasonColumn
	for n := 2; in.Index(name) >= 0; n++ {
		name = fmt.Sprintf("%s_%d", ReasonColumn, n)
	}
	fields := append(slices.Clone(in.Fields()), batch.Field{Name: name, Type: batch.String})
	return batch.MustSchema(fields...)
}

// rowErrors collects the errors of all expressions of an operator over one
// batch, and deals with them as the policy says. Errors are rare: here, and
// only here, memory is allocated for rows.
type rowErrors struct {
	policy   OnError
	rejected *batch.Schema // nil unless RejectRow
	list     []expr.RowError
}

// collect takes the errors and counters of an evaluation; what names the value
// in error messages.
func (r *rowErrors) collect(ctx *Context, e *expr.Eval, what string) {
	ctx.Counters.DivByZero += e.DivByZero
	ctx.Counters.Overflow += e.Overflow
	e.DivByZero, e.Overflow = 0, 0
	for _, re := range e.Errors() {
		re.Reason = what + ": " + re.Reason
		r.list = append(r.list, re)
	}
}

// settle ends the collection over b. With the policy to fail it returns the
// first row's error. Otherwise it sends the bad rows to the side stream, at
// most one reason each, takes them out of sel (the positions of b that would go
// on) and tells whether the output refused.
func (r *rowErrors) settle(ctx *Context, b *batch.Batch, sel []int32, out Output) (_ []int32, refused bool, err error) {
	if len(r.list) == 0 {
		return sel, false, nil
	}
	bad := r.list
	r.list = r.list[:0]
	slices.SortStableFunc(bad, func(x, y expr.RowError) int { return int(x.Row) - int(y.Row) })
	bad = slices.CompactFunc(bad, func(x, y expr.RowError) bool { return x.Row == y.Row })
	if r.policy == FailOnError {
		return nil, false, fmt.Errorf("row %s: %s; `on_error: reject` would send such rows to the step's side stream `rejected`",
			describeRow(b, int(bad[0].Row)), bad[0].Reason)
	}
	ctx.Counters.Rejected += int64(len(bad))
	if ctx.Counters.FirstRejected == "" {
		ctx.Counters.FirstRejected = bad[0].Reason
	}
	if out.Wanted(Rejected) {
		side := r.sideBatch(ctx, b, bad)
		refused = !out.EmitSide(Rejected, side)
		side.Release()
	}
	return without(sel, bad), refused, nil
}

// sideBatch is the bad rows of b with their reasons.
func (r *rowErrors) sideBatch(ctx *Context, b *batch.Batch, bad []expr.RowError) *batch.Batch {
	rows := make([]int32, len(bad))
	for i := range bad {
		rows[i] = bad[i].Row
	}
	g := b.Gather(rows, marksAmong(b, rows))
	side := ctx.Pool.Derive(g, r.rejected)
	g.Release()
	copy(side.Cols, g.Cols)
	reason := side.Own(len(g.Cols), len(bad))
	for i := range bad {
		reason.AppendBytes([]byte(bad[i].Reason))
	}
	ctx.Pool.Account(side)
	return side
}

// marksAmong are the marks of b at their place among some of its rows.
func marksAmong(b *batch.Batch, rows []int32) []batch.Mark {
	marks := slices.Clone(b.Marks)
	at := 0
	for i := range marks {
		for at < len(rows) && rows[at] < marks[i].Row {
			at++
		}
		marks[i].Row = int32(at)
	}
	return marks
}

// without takes the rows of bad out of sel; both ascend.
func without(sel []int32, bad []expr.RowError) []int32 {
	kept := sel[:0]
	for _, p := range sel {
		for len(bad) > 0 && bad[0].Row < p {
			bad = bad[1:]
		}
		if len(bad) > 0 && bad[0].Row == p {
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

// describeRow is a row in an error: its event time and its values, cut short.
func describeRow(b *batch.Batch, p int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "at %v (", dataflow.Time(b.Times[p]))
	for i, c := range b.Cols {
		if i > 0 {
			s.WriteString(", ")
		}
		s.WriteString(b.Schema.Field(i).Name)
		s.WriteByte('=')
		s.WriteString(describeValue(c, p))
	}
	s.WriteByte(')')
	return s.String()
}

func describeValue(c *batch.Column, p int) string {
	if c.IsNull(p) {
		return "null"
	}
	switch c.Type {
	case batch.Boolean:
		return fmt.Sprint(c.Bits.Get(p))
	case batch.Bigint:
		return fmt.Sprint(c.Ints[p])
	case batch.Timestamp:
		return dataflow.Time(c.Ints[p]).String()
	case batch.Double:
		return fmt.Sprint(c.Doubles[p])
	}
	const most = 40
	v := c.At(p)
	if len(v) > most {
		return fmt.Sprintf("%q…", v[:most])
	}
	return fmt.Sprintf("%q", v)
}

// positions appends the positions of b that are there to dst.
func positions(b *batch.Batch, dst []int32) []int32 {
	if b.Sel != nil {
		return append(dst, b.Sel...)
	}
	for i := range b.Rows {
		dst = append(dst, int32(i))
	}
	return dst
}

// emitMarks emits what is left of b when no row of it goes on: its last mark,
// if it has one.
func emitMarks(ctx *Context, b *batch.Batch, schema *batch.Schema, out Output) {
	if len(b.Marks) == 0 {
		return
	}
	m := ctx.Pool.MarksOnly(schema, b.Marks[len(b.Marks)-1])
	out.Emit(m)
	m.Release()
}
