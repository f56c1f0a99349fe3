package decode

import (
	"math"
	"math/bits"
	"strconv"
	"unsafe"
)

// decimal is a number as it was written: mant times 10^exp, mant being its
// first nineteen digits that matter. Nothing is rounded on the way to an
// integer, and a double is the nearest one.
type decimal struct {
	mant uint64
	exp  int
	neg  bool
	more bool // digits other than zero follow those in mant
}

// maxExponent is where exponents are cut: beyond it every number is zero or out
// of range.
const maxExponent = 1 << 27

// parseDecimal reads all of b: a sign or none, digits with at most one point
// among them, an exponent or none. That is JSON's numbers and, for texts, also
// "+5", "007", ".5" and "5.".
func parseDecimal(b []byte) (v decimal, ok bool) {
	i := 0
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		v.neg = b[0] == '-'
		i++
	}
	count, kept, point := 0, 0, -1
	for ; i < len(b); i++ {
		c := b[i]
		if c == '.' && point < 0 {
			point = i
			continue
		}
		if !isDigit(c) {
			break
		}
		count++
		switch {
		case kept < 19:
			v.mant = v.mant*10 + uint64(c-'0')
			if v.mant != 0 {
				kept++
			}
			if point >= 0 {
				v.exp--
			}
		default:
			v.more = v.more || c != '0'
			if point < 0 {
				v.exp++
			}
		}
	}
	if count == 0 {
		return v, false
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		e, end := exponent(b, i+1)
		v.exp += e
		i = end
	}
	return v, i == len(b)
}

// exponent reads the digits at i with their sign; end is -1 if there are none.
func exponent(b []byte, i int) (e, end int) {
	neg := false
	if i < len(b) && (b[i] == '-' || b[i] == '+') {
		neg = b[i] == '-'
		i++
	}
	if i == len(b) || !isDigit(b[i]) {
		return 0, -1
	}
	for ; i < len(b) && isDigit(b[i]); i++ {
		e = min(e*10+int(b[i]-'0'), maxExponent)
	}
	if neg {
		e = -e
	}
	return e, i
}

// integer is the number times 10^scale. If that is not whole, it is cut to the
// next lower whole number (floor), or refused with WrongType.
func (v decimal) integer(scale int, floor bool) (int64, Kind) {
	m, whole := v.mant, !v.more
	switch e := v.exp + scale; {
	case m == 0:
	case e > 19:
		return 0, OutOfRange
	case e > 0: // digits after the nineteenth do not matter: it is out of range with and without them
		hi, lo := bits.Mul64(m, tens[e])
		if hi != 0 {
			return 0, OutOfRange
		}
		m = lo
	case e < -19:
		m, whole = 0, false
	case e < 0:
		whole = whole && m%tens[-e] == 0
		m /= tens[-e]
	}
	if !whole && !floor {
		return 0, WrongType
	}
	if v.neg {
		if !whole {
			m++ // at most 10^18 or what 64 bits hold: it does not wrap
		}
		if m > 1<<63 {
			return 0, OutOfRange
		}
		return -int64(m), 0
	}
	if m > math.MaxInt64 {
		return 0, OutOfRange
	}
	return int64(m), 0
}

// double is the nearest double; false: there is none. tok is what v was parsed
// from.
func (v decimal) double(tok []byte) (float64, bool) {
	var x float64
	switch {
	case v.mant == 0:
	case !v.more && v.mant < 1<<53 && -22 <= v.exp && v.exp <= 22:
		// Both are exact, so the one rounding is the right one.
		if x = float64(v.mant); v.exp < 0 {
			x /= floatTens[-v.exp]
		} else {
			x *= floatTens[v.exp]
		}
	case v.exp > 309:
		return 0, false
	case v.exp < -19-326:
	default:
		var short [32]byte
		if !v.more { // ParseFloat errs where thousands of zeroes and the exponent cancel out
			tok = short[:0]
			if v.neg {
				tok = append(tok, '-')
			}
			tok = append(strconv.AppendUint(tok, v.mant, 10), 'e')
			tok = strconv.AppendInt(tok, int64(v.exp), 10)
		}
		// ParseFloat does not keep its argument.
		f, err := strconv.ParseFloat(unsafe.String(&tok[0], len(tok)), 64)
		return f, err == nil
	}
	if v.neg {
		x = -x
	}
	return x, true
}
