package mqtt

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// maxValue is how many bytes of a value go into a topic, before escaping.
const maxValue = 1024

// template is a topic with columns in it, as in alerts/{sensor}.
//
// A value never adds a level or a wildcard: the bytes / + # %, control
// characters, what is not UTF-8, and a $ at the beginning of the topic are
// written as %XX, two upper-case hexadecimal digits. Null and the empty string
// are "_". Times are RFC 3339 in UTC.
type template struct {
	parts []part
}

type part struct {
	literal string
	col     int // -1: only the literal; else the column's value follows it
}

// parseTemplate reads a topic; its columns must be in schema.
func parseTemplate(topic string, schema *batch.Schema) (template, error) {
	var t template
	if topic == "" || len(topic) > 32<<10 || !utf8.ValidString(topic) || strings.ContainsAny(topic, "+#\x00") {
		return t, fmt.Errorf("mqtt: topic %q; give one without + and #, as in alerts/{sensor}", topic)
	}
	for rest := topic; rest != ""; {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			t.parts = append(t.parts, part{rest, -1})
			break
		}
		end := strings.IndexByte(rest, '}')
		if rest[open] == '}' || end < 0 {
			return t, fmt.Errorf("mqtt: topic %q: a column is written {name}", topic)
		}
		name := rest[open+1 : end]
		col := schema.Index(name)
		if col < 0 {
			return t, fmt.Errorf("mqtt: topic %q: there is no column %q; the row has %v", topic, name, schema)
		}
		t.parts = append(t.parts, part{rest[:open], col})
		rest = rest[end+1:]
	}
	return t, nil
}

// append appends the topic of the row at pos.
func (t *template) append(dst []byte, b *batch.Batch, pos int) []byte {
	start := len(dst)
	for _, p := range t.parts {
		dst = append(dst, p.literal...)
		if p.col >= 0 {
			dst = appendValue(dst, start, b.Cols[p.col], pos)
		}
	}
	return dst
}

func appendValue(dst []byte, start int, c *batch.Column, pos int) []byte {
	if c.IsNull(pos) {
		return append(dst, '_')
	}
	switch c.Type {
	case batch.Boolean:
		return strconv.AppendBool(dst, c.Bits.Get(pos))
	case batch.Bigint:
		return strconv.AppendInt(dst, c.Ints[pos], 10)
	case batch.Timestamp:
		return appendTime(dst, dataflow.Time(c.Ints[pos]))
	case batch.Double:
		return appendDouble(dst, c.Doubles[pos])
	}
	v := c.At(pos)
	if len(v) == 0 {
		return append(dst, '_')
	}
	return appendEscaped(dst, start, v[:min(len(v), maxValue)])
}

// appendTime keeps to years that RFC 3339 can say.
func appendTime(dst []byte, t dataflow.Time) []byte {
	g := t.GoTime()
	if y := g.Year(); y < 0 || y > 9999 {
		return strconv.AppendInt(dst, int64(t), 10)
	}
	return g.AppendFormat(dst, time.RFC3339Nano)
}

// appendDouble writes no exponent with a plus sign.
func appendDouble(dst []byte, v float64) []byte {
	switch {
	case math.IsInf(v, 1):
		return append(dst, "inf"...)
	case math.IsInf(v, -1):
		return append(dst, "-inf"...)
	case math.Abs(v) >= 1e21:
		return strconv.AppendFloat(dst, v, 'f', -1, 64)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, 64)
}

func appendEscaped(dst []byte, start int, v []byte) []byte {
	for i := 0; i < len(v); {
		if c := v[i]; c < utf8.RuneSelf {
			i++
			if c < 0x20 || c == 0x7f || c == '/' || c == '+' || c == '#' || c == '%' || c == '$' && len(dst) == start {
				dst = appendHex(dst, c)
			} else {
				dst = append(dst, c)
			}
			continue
		}
		r, n := utf8.DecodeRune(v[i:])
		// MQTT forbids C1 controls and non-characters, or lets brokers forbid them.
		if r == utf8.RuneError && n == 1 || r < 0xa0 || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe {
			for _, c := range v[i : i+n] {
				dst = appendHex(dst, c)
			}
		} else {
			dst = append(dst, v[i:i+n]...)
		}
		i += n
	}
	return dst
}

func appendHex(dst []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, '%', digits[c>>4], digits[c&15])
}
