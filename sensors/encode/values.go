package encode

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"
)

func appendInt(dst []byte, v int64) []byte { return strconv.AppendInt(dst, v, 10) }

func appendBase64(dst, v []byte) []byte { return base64.StdEncoding.AppendEncode(dst, v) }

// appendDouble appends the shortest decimal that reads back as v, in the form
// of encoding/json and ECMAScript: an exponent only below 1e-6 and from 1e21.
func appendDouble(dst []byte, v float64) []byte {
	if abs := math.Abs(v); abs == 0 || 1e-6 <= abs && abs < 1e21 {
		return strconv.AppendFloat(dst, v, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, v, 'e', -1, 64)
	// e-09 to e-9
	if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

// appendMillis appends v microseconds in milliseconds.
func appendMillis(dst []byte, v int64) []byte {
	whole, micros := v/1000, v%1000
	if micros < 0 {
		micros = -micros
		if whole == 0 {
			dst = append(dst, '-')
		}
	}
	return appendFraction(appendInt(dst, whole), uint64(micros), 3)
}

// appendFraction appends "." and the digits of v, which is so many digits
// behind the point, without trailing zeroes; nothing if v is 0.
func appendFraction(dst []byte, v uint64, digits int) []byte {
	if v == 0 {
		return dst
	}
	dst = append(dst, '.')
	for unit := uint64(math.Pow10(digits - 1)); v > 0; unit /= 10 {
		dst = append(dst, byte('0'+v/unit))
		v %= unit
	}
	return dst
}

const hex = "0123456789abcdef"

// appendJSONString appends s as a JSON string. What is not UTF-8 becomes
// U+FFFD, as the grammar asks for characters.
func appendJSONString(dst, s []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(append(dst, s[from:i]...), '\\')
		switch c {
		case '"', '\\':
			dst = append(dst, c)
		case '\b':
			dst = append(dst, 'b')
		case '\f':
			dst = append(dst, 'f')
		case '\n':
			dst = append(dst, 'n')
		case '\r':
			dst = append(dst, 'r')
		case '\t':
			dst = append(dst, 't')
		default:
			dst = append(dst, 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}

// appendCSVField appends s, in quotes where a reader needs them: the empty
// string (nothing is null), separators, quotes, line ends, space at an end,
// what may be the half of a byte order mark.
func appendCSVField(dst, s []byte) []byte {
	if len(s) > 0 && !bytes.ContainsAny(s, ",\"\r\n") && s[0] > ' ' && s[0] != 0xef && s[len(s)-1] > ' ' {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for {
		q := bytes.IndexByte(s, '"')
		if q < 0 {
			return append(append(dst, s...), '"')
		}
		dst = append(append(dst, s[:q]...), '"', '"')
		s = s[q+1:]
	}
}
