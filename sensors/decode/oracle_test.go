package decode

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// The oracle decodes with encoding/json and big numbers, slowly and plainly.

// wanted is a field with what is left of its path.
type wanted struct {
	col  int
	path []string
	f    Field
}

var errUnfit = errors.New("does not fit the fields")

// oracle returns the rows of a valid document, a value or nil for each column.
func oracle(spec Spec, doc []byte) ([][]any, error) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	var fs []wanted
	for i, f := range spec.Fields {
		fs = append(fs, wanted{i, f.path(), f})
	}
	if v == nil {
		return nil, errUnfit
	}
	rows, ok := expand(v, fs, len(spec.Fields))
	if !ok {
		return nil, errUnfit
	}
	return rows, nil
}

func expand(v any, fs []wanted, n int) (rows [][]any, ok bool) {
	if len(fs[0].path) == 0 {
		cell, ok := convert(v, fs[0].f)
		row := make([]any, n)
		row[fs[0].col] = cell
		return [][]any{row}, ok
	}
	if fs[0].path[0] == "[]" {
		elems, isArray := v.([]any)
		ok = isArray || v == nil
		for i := range fs {
			fs[i].path = fs[i].path[1:]
		}
		for _, e := range elems {
			r, fine := expand(e, slices.Clone(fs), n)
			rows, ok = append(rows, r...), ok && fine
		}
		return rows, ok
	}
	members, isObject := v.(map[string]any)
	ok = isObject || v == nil
	rows = [][]any{make([]any, n)}
	groups := make(map[string][]wanted)
	for _, f := range fs {
		groups[f.path[0]] = append(groups[f.path[0]], wanted{f.col, f.path[1:], f.f})
	}
	for key, group := range groups {
		sub, fine := expand(members[key], group, n)
		ok = ok && fine
		var product [][]any // one of the two has at most one row
		for _, a := range rows {
			for _, b := range sub {
				product = append(product, merge(a, b))
			}
		}
		rows = product
	}
	return rows, ok
}

func merge(a, b []any) []any {
	m := slices.Clone(a)
	for i, v := range b {
		if v != nil {
			m[i] = v
		}
	}
	return m
}

func convert(v any, f Field) (any, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case bool:
		return v, f.Type == batch.Boolean
	case json.Number:
		return convertNumber(string(v), f)
	case string:
		switch {
		case f.Type == batch.String:
			return v, true
		case f.Type == batch.Bytes:
			b, err := base64.StdEncoding.Strict().DecodeString(v)
			return string(b), err == nil && !bytes.ContainsAny([]byte(v), "\r\n")
		case f.Type == batch.Timestamp && f.Unit == RFC3339:
			return convertInstant(v)
		case f.Type == batch.Timestamp:
			return convertNumber(v, f)
		}
	}
	return nil, false
}

func convertInstant(s string) (any, bool) {
	b := []byte(s)
	if len(b) == 10 {
		b = append(b, "T00:00:00Z"...)
	}
	if len(b) < 20 {
		return nil, false
	}
	if b[10] == ' ' || b[10] == 't' {
		b[10] = 'T'
	}
	if b[len(b)-1] == 'z' {
		b[len(b)-1] = 'Z'
	}
	// time.Parse is laxer than the RFC: one-digit hours, commas, any offset.
	if n := len(b); b[13] != ':' || bytes.ContainsRune(b, ',') || b[n-1] != 'Z' && (b[n-6] == '+' || b[n-6] == '-') && (string(b[n-5:n-3]) > "23" || string(b[n-2:]) > "59") {
		return nil, false
	}
	t, err := time.Parse(time.RFC3339, string(b))
	return t.UnixMicro(), err == nil
}

// convertNumber uses big numbers, and says "do not know" with ok and a nil
// value never: huge exponents are judged by their double.
func convertNumber(s string, f Field) (any, bool) {
	if f.Type == batch.Double {
		d, err := strconv.ParseFloat(s, 64)
		return d, err == nil
	}
	if f.Type != batch.Bigint && (f.Type != batch.Timestamp || f.Unit == RFC3339) {
		return nil, false
	}
	if !plainNumber(s) {
		return nil, false
	}
	if x, err := strconv.ParseFloat(s, 64); err != nil || math.Abs(x) > 1e40 {
		return nil, false
	} else if math.Abs(x) < 1e-300 { // big.Rat takes no exponent that needs more than 64 bits
		if f.Type == batch.Bigint {
			return int64(0), isZero(s)
		}
		return convertTiny(s, x), true
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil, false
	}
	if f.Type == batch.Bigint {
		return r.Num().Int64(), r.IsInt() && r.Num().IsInt64()
	}
	r.Mul(r, map[Unit]*big.Rat{Seconds: big.NewRat(1e6, 1), Milliseconds: big.NewRat(1e3, 1),
		Microseconds: big.NewRat(1, 1), Nanoseconds: big.NewRat(1, 1e3)}[f.Unit])
	q, m := new(big.Int).DivMod(r.Num(), r.Denom(), new(big.Int))
	_ = m
	fits := q.IsInt64() && q.Int64() != math.MinInt64 && q.Int64() != math.MaxInt64
	return q.Int64(), fits
}

// convertTiny is the floor of a number too small for a double.
func convertTiny(s string, x float64) any {
	if !isZero(s) && math.Signbit(x) {
		return int64(-1)
	}
	return int64(0)
}

// isZero tells whether no digit before the exponent is another.
func isZero(s string) bool {
	for _, c := range s {
		if c == 'e' || c == 'E' {
			break
		}
		if c >= '1' && c <= '9' {
			return false
		}
	}
	return true
}

// plainNumber is parseDecimal's grammar, over again.
func plainNumber(s string) bool {
	mant, exp := s, ""
	if i := bytes.IndexAny([]byte(s), "eE"); i >= 0 {
		mant, exp = s[:i], s[i+1:]
		if len(exp) > 0 && (exp[0] == '+' || exp[0] == '-') {
			exp = exp[1:]
		}
		if _, err := strconv.ParseUint("0"+exp, 10, 64); err != nil && !errors.Is(err, strconv.ErrRange) || exp == "" {
			return false
		}
	}
	if len(mant) > 0 && (mant[0] == '+' || mant[0] == '-') {
		mant = mant[1:]
	}
	points, count := 0, 0
	for _, c := range mant {
		switch {
		case c == '.':
			points++
		case '0' <= c && c <= '9':
			count++
		default:
			return false
		}
	}
	return points <= 1 && count > 0
}

// rowsOf reads a batch back, checking it on the way.
func rowsOf(t testing.TB, b *batch.Batch) [][]any {
	t.Helper()
	if b == nil {
		return nil
	}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	rows := make([][]any, b.Rows)
	for i := range rows {
		for _, c := range b.Cols {
			rows[i] = append(rows[i], cell(c, i))
		}
	}
	return rows
}

func cell(c *batch.Column, i int) any {
	if c.IsNull(i) {
		return nil
	}
	switch c.Type {
	case batch.Boolean:
		return c.Bits.Get(i)
	case batch.Bigint, batch.Timestamp:
		return c.Ints[i]
	case batch.Double:
		return c.Doubles[i]
	}
	return string(c.At(i))
}

func sameRows(a, b [][]any) bool {
	return slices.EqualFunc(a, b, func(x, y []any) bool { return slices.EqualFunc(x, y, sameCell) })
}

func sameCell(x, y any) bool {
	if f, ok := x.(float64); ok {
		g, ok := y.(float64)
		return ok && math.Float64bits(f) == math.Float64bits(g)
	}
	return x == y
}
