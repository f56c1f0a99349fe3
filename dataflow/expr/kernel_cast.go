package expr

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// cast evaluates the argument and converts it to dst's type.
func (e *Eval) cast(n *node, sel []int32, dst *batch.Column) {
	x := e.eval(n.args[0], sel)
	e.valid(dst, x)
	switch {
	case n.typ.Variable():
		e.castToText(x, sel, dst)
	case x.Type == batch.Bigint && n.typ == batch.Double && e.dense(sel):
		out := dst.Doubles
		for i, v := range x.Ints[:e.n] {
			out[i] = float64(v)
		}
	default:
		for k := range e.count(sel) {
			p := k
			if sel != nil {
				p = int(sel[k])
			}
			if !dst.IsNull(p) {
				e.castOne(x, p, dst)
			}
		}
	}
	e.done(n.args[0], x)
}

// castOne converts one value to a type of fixed width.
func (e *Eval) castOne(x *batch.Column, p int, dst *batch.Column) {
	switch x.Type {
	case batch.Boolean:
		dst.Ints[p] = int64(bit(x.Bits.Get(p)))
	case batch.Bigint:
		if dst.Type == batch.Boolean {
			dst.Bits.Put(p, x.Ints[p] != 0)
		} else {
			dst.Doubles[p] = float64(x.Ints[p])
		}
	case batch.Double:
		v, ok := truncDouble(x.Doubles[p])
		dst.Ints[p] = v
		if !ok {
			e.null(dst, p, overflow)
		}
	default:
		if s := x.At(p); !parseInto(dst, p, bytes.Trim(s, " \t\r\n")) {
			e.fail(dst, p, cannotCast(s, dst.Type))
		}
	}
}

// parseInto reads s as the value at p; false if it is none.
func parseInto(dst *batch.Column, p int, s []byte) (ok bool) {
	switch dst.Type {
	case batch.Boolean:
		var v bool
		v, ok = parseBoolean(s)
		dst.Bits.Put(p, v)
	case batch.Bigint:
		dst.Ints[p], ok = parseBigint(s)
	case batch.Double:
		dst.Doubles[p], ok = parseDouble(s)
	default:
		dst.Ints[p], ok = parseTimestamp(s)
	}
	return ok
}

func cannotCast(s []byte, to batch.Type) string {
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("cannot cast %q... to %v", s[:most], to)
	}
	return fmt.Sprintf("cannot cast %q to %v", s, to)
}

// truncDouble cuts off the fraction; false if what remains is no bigint.
func truncDouble(v float64) (int64, bool) {
	if !(v >= -1<<63 && v < 1<<63) {
		return 0, false
	}
	return int64(v), true
}

func parseBoolean(s []byte) (v, ok bool) {
	for _, t := range [...]string{"true", "t", "yes", "y", "on", "1"} {
		if len(s) == len(t) && bytes.EqualFold(s, []byte(t)) {
			return true, true
		}
	}
	for _, f := range [...]string{"false", "f", "no", "n", "off", "0"} {
		if len(s) == len(f) && bytes.EqualFold(s, []byte(f)) {
			return false, true
		}
	}
	return false, false
}

// parseBigint reads [+-]digits.
func parseBigint(s []byte) (int64, bool) {
	negative := len(s) > 0 && s[0] == '-'
	if negative || len(s) > 0 && s[0] == '+' {
		s = s[1:]
	}
	if len(s) == 0 {
		return 0, false
	}
	var v int64 // negative, since those reach further
	for _, c := range s {
		d := int64(c) - '0'
		if d < 0 || d > 9 || v < (math.MinInt64+d)/10 {
			return 0, false
		}
		v = v*10 - d
	}
	if negative {
		return v, true
	}
	return -v, v != math.MinInt64
}

// parseDouble reads a decimal number, with or without exponent, nan, inf or
// infinity. One that is too large for a double is none.
func parseDouble(s []byte) (float64, bool) {
	digits := false
	for _, c := range s {
		switch {
		case isDigit(c):
			digits = true
		case c == '_', c == 'x', c == 'X', c == 'p', c == 'P':
			return 0, false // Go's own notation
		}
	}
	v, err := strconv.ParseFloat(view(s), 64)
	if err != nil || !digits && len(s) == 0 {
		return 0, false
	}
	return v, true
}

// view is b as a string, for a callee that does not keep it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// castToText writes values as texts.
func (e *Eval) castToText(x *batch.Column, sel []int32, dst *batch.Column) {
	for k := range e.count(sel) {
		p := k
		if sel != nil {
			p = int(sel[k])
		}
		padTo(dst, p)
		if dst.IsNull(p) {
			e.endText(dst, p)
			continue
		}
		switch x.Type {
		case batch.Boolean:
			dst.Data = strconv.AppendBool(dst.Data, x.Bits.Get(p))
		case batch.Bigint:
			dst.Data = strconv.AppendInt(dst.Data, x.Ints[p], 10)
		case batch.Double:
			dst.Data = appendDouble(dst.Data, x.Doubles[p])
		case batch.Timestamp:
			dst.Data = appendTimestamp(dst.Data, x.Ints[p])
		default:
			if v := x.At(p); dst.Type == batch.String && !utf8.Valid(v) {
				e.fail(dst, p, "cannot cast bytes that are no UTF-8 to string")
			} else {
				dst.Data = append(dst.Data, v...)
			}
		}
		e.endText(dst, p)
	}
	padTo(dst, e.n)
}

// appendDouble writes the shortest digits that read back as v, with an
// exponent only for the very large and small.
func appendDouble(dst []byte, v float64) []byte {
	switch a := math.Abs(v); {
	case v != v:
		return append(dst, "NaN"...)
	case a > math.MaxFloat64 && v > 0:
		return append(dst, "Infinity"...)
	case a > math.MaxFloat64:
		return append(dst, "-Infinity"...)
	case v != 0 && (a < 1e-6 || a >= 1e21):
		return strconv.AppendFloat(dst, v, 'e', -1, 64)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, 64)
}

// appendTimestamp writes RFC 3339 as dataflow.Time does.
func appendTimestamp(dst []byte, us int64) []byte {
	switch t := dataflow.Time(us); t {
	case dataflow.MinTime, dataflow.MaxTime:
		return append(dst, t.String()...)
	default:
		return t.GoTime().AppendFormat(dst, time.RFC3339Nano)
	}
}
