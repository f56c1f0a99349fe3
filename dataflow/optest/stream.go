package optest

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Row is a row of a test stream. A value is nil (null), bool, int64, float64
// or string (of string and bytes columns).
type Row struct {
	Time   dataflow.Time
	Kind   batch.Kind
	Values []any
}

// Element is a row or, if Row is nil, a mark.
type Element struct {
	Row  *Row
	Mark batch.Mark // its Row is not used
}

// Stream is a test stream: rows and marks in order.
type Stream struct {
	Schema   *batch.Schema
	Elements []Element
}

// Rows lists the rows of s.
func (s Stream) Rows() []Row {
	var rows []Row
	for _, e := range s.Elements {
		if e.Row != nil {
			rows = append(rows, *e.Row)
		}
	}
	return rows
}

// String is s in the notation of Parse, an element a line.
func (s Stream) String() string {
	var b strings.Builder
	for _, e := range s.Elements {
		b.WriteString(formatElement(s.Schema, e))
		b.WriteByte('\n')
	}
	return b.String()
}

// Coalesced is s with only the last of marks that have no row between them.
func (s Stream) Coalesced() Stream {
	var out []Element
	for _, e := range s.Elements {
		if n := len(out); n > 0 && e.Row == nil && out[n-1].Row == nil {
			out[n-1] = e
			continue
		}
		out = append(out, e)
	}
	return Stream{Schema: s.Schema, Elements: out}
}

// Flatten appends the rows that are there and the marks of b, each in its
// place, to s.
func (s *Stream) Flatten(b *batch.Batch) {
	marks := b.Marks
	for k := range b.Len() {
		p := b.Position(k)
		for len(marks) > 0 && int(marks[0].Row) <= p {
			s.mark(marks[0])
			marks = marks[1:]
		}
		s.Elements = append(s.Elements, Element{Row: rowAt(b, p)})
	}
	for _, m := range marks {
		s.mark(m)
	}
}

func (s *Stream) mark(m batch.Mark) {
	m.Row = 0
	s.Elements = append(s.Elements, Element{Mark: m})
}

func rowAt(b *batch.Batch, p int) *Row {
	r := &Row{Time: dataflow.Time(b.Times[p]), Values: make([]any, len(b.Cols))}
	if b.Kinds != nil {
		r.Kind = b.Kinds[p]
	}
	for i, c := range b.Cols {
		r.Values[i] = valueAt(c, p)
	}
	return r
}

func valueAt(c *batch.Column, p int) any {
	if c.IsNull(p) {
		return nil
	}
	switch c.Type {
	case batch.Boolean:
		return c.Bits.Get(p)
	case batch.Bigint, batch.Timestamp:
		return c.Ints[p]
	case batch.Double:
		return c.Doubles[p]
	default:
		return string(c.At(p))
	}
}

// appendRow builds r as the next row of bl.
func appendRow(bl *batch.Builder, r *Row) {
	for i, v := range r.Values {
		switch v := v.(type) {
		case bool:
			bl.SetBool(i, v)
		case int64:
			bl.SetInt(i, v)
		case float64:
			bl.SetDouble(i, v)
		case string:
			bl.SetString(i, v)
		}
	}
	bl.EndRow(r.Time)
	if r.Kind != batch.Insert {
		bl.Kind(r.Kind)
	}
}

// Batches cuts s into batches of at most size elements. The caller owns the
// references.
func (s Stream) Batches(p *batch.Pool, size int) []*batch.Batch {
	var out []*batch.Batch
	bl := batch.NewBuilder(p, s.Schema)
	n := 0
	for _, e := range s.Elements {
		if e.Row != nil {
			appendRow(bl, e.Row)
		} else {
			bl.Mark(e.Mark)
		}
		if n++; n == size || bl.Full() {
			out = append(out, bl.Take())
			n = 0
		}
	}
	if b := bl.Take(); b != nil {
		out = append(out, b)
	}
	return out
}

var kindNames = [...]string{batch.Insert: "", batch.UpdateAfter: "+U ", batch.UpdateBefore: "-U ", batch.Delete: "-D "}

func formatElement(s *batch.Schema, e Element) string {
	if e.Row == nil {
		return formatMark(e.Mark)
	}
	var b strings.Builder
	b.WriteString(kindNames[e.Row.Kind])
	first := 0
	if v, ok := headValue(s, e.Row); ok {
		b.WriteString(v)
		first = 1
	}
	b.WriteByte('@')
	b.WriteString(formatTime(e.Row.Time))
	for i, v := range e.Row.Values[first:] {
		fmt.Fprintf(&b, " %s=%s", s.Field(first+i).Name, formatValue(v))
	}
	return b.String()
}

// headValue is the text before the @, which stands for the first column if
// that is a string.
func headValue(s *batch.Schema, r *Row) (string, bool) {
	if s.Len() == 0 || s.Field(0).Type != batch.String {
		return "", false
	}
	v, ok := r.Values[0].(string)
	if !ok {
		return "", false
	}
	return formatValue(v), true
}

func formatMark(m batch.Mark) string {
	s := "wm " + formatTime(m.Watermark)
	if m.Arrival != dataflow.MinTime {
		s += " arrival " + formatTime(m.Arrival)
	}
	if m.Idle {
		s += " idle"
	}
	return s
}

func formatTime(t dataflow.Time) string {
	switch t {
	case dataflow.MinTime:
		return "min"
	case dataflow.MaxTime:
		return "max"
	}
	return strconv.FormatInt(int64(t), 10)
}

func formatValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		if bare(v) {
			return v
		}
		return strconv.Quote(v)
	case float64:
		switch {
		case math.IsNaN(v):
			return "nan"
		case math.IsInf(v, 0):
			return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(v, 'g', -1, 64)), "+")
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return fmt.Sprint(v)
}

// bare tells whether a string needs no quotes in the notation.
func bare(v string) bool {
	if v == "" || reserved(v) || strings.HasPrefix(v, "+") || strings.HasPrefix(v, "-") {
		return false
	}
	for _, r := range v {
		if r <= ' ' || r > '~' || strings.ContainsRune(`"@=;#`, r) {
			return false
		}
	}
	return true
}

func reserved(v string) bool {
	switch v {
	case "wm", "arrival", "idle", "end", "null":
		return true
	}
	return false
}
