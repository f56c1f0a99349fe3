package optest

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// TB is what the harness needs of a test; *testing.T and *rapid.T are both.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// MustParse is Parse that fails the test.
func MustParse(t TB, schema *batch.Schema, text string) Stream {
	t.Helper()
	s, err := Parse(schema, text)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// Parse reads a stream. Elements are separated by line ends or semicolons; a #
// begins a comment.
//
//	a@5 v=3 name="x y"  a row at 5 µs; the text before @ is the first column
//	@5 key=a v=null     the same without the short form; columns left out are null
//	-D a@5              a row of kind delete; +U, -U: update after, before
//	wm 9                a mark: watermark 9, arrival clock as before
//	wm 9 arrival 20     a mark with both; min and max are the ends of time
//	wm 9 idle           the stream is idle from here on
//	arrival 30          a mark with the watermark as before
//	idle                both as before
//	end                 wm max
func Parse(schema *batch.Schema, text string) (Stream, error) {
	s := Stream{Schema: schema}
	last := batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	for n, line := range strings.Split(text, "\n") {
		elements, err := split(line)
		if err != nil {
			return s, fmt.Errorf("line %d: %w", n+1, err)
		}
		for _, words := range elements {
			var e Element
			if reserved(words[0]) {
				last, err = parseMark(last, words)
				e.Mark = last
			} else {
				e.Row, err = parseRow(schema, words)
			}
			if err != nil {
				return s, fmt.Errorf("line %d: %q: %w", n+1, strings.Join(words, " "), err)
			}
			s.Elements = append(s.Elements, e)
		}
	}
	return s, nil
}

// split cuts a line into elements and those into words; quotes protect blanks
// and separators.
func split(line string) (elements [][]string, err error) {
	var words []string
	word := ""
	endWord := func() {
		if word != "" {
			words = append(words, word)
			word = ""
		}
	}
	endElement := func() {
		endWord()
		if len(words) > 0 {
			elements = append(elements, words)
			words = nil
		}
	}
	for i := 0; i < len(line); {
		switch c := line[i]; c {
		case '"':
			q, err := strconv.QuotedPrefix(line[i:])
			if err != nil {
				return nil, fmt.Errorf("unfinished quote: %s", line[i:])
			}
			word += q
			i += len(q)
			continue
		case '#':
			i = len(line)
			continue
		case ';':
			endElement()
		case ' ', '\t', '\r':
			endWord()
		default:
			word += line[i : i+1]
		}
		i++
	}
	endElement()
	return elements, nil
}

func parseMark(last batch.Mark, words []string) (batch.Mark, error) {
	m := last
	m.Idle = false
	for i := 0; i < len(words); i++ {
		var at *dataflow.Time
		switch words[i] {
		case "idle":
			m.Idle = true
			continue
		case "end":
			m.Watermark = dataflow.MaxTime
			continue
		case "wm":
			at = &m.Watermark
		case "arrival":
			at = &m.Arrival
		default:
			return m, fmt.Errorf("unknown word %q in a mark", words[i])
		}
		if i++; i == len(words) {
			return m, fmt.Errorf("%s needs a time", words[i-1])
		}
		t, err := parseTime(words[i])
		if err != nil {
			return m, err
		}
		*at = t
	}
	return m, nil
}

func parseTime(s string) (dataflow.Time, error) {
	switch s {
	case "min":
		return dataflow.MinTime, nil
	case "max":
		return dataflow.MaxTime, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no time in microseconds", s)
	}
	return dataflow.Time(n), nil
}

func parseRow(schema *batch.Schema, words []string) (*Row, error) {
	r := &Row{Values: make([]any, schema.Len())}
	for k, name := range kindNames {
		if name != "" && words[0] == strings.TrimSpace(name) && len(words) > 1 {
			r.Kind = batch.Kind(k)
			words = words[1:]
			break
		}
	}
	at := cutAt(words[0], '@')
	if at < 0 {
		return nil, fmt.Errorf("a row needs @time in its first word")
	}
	t, err := parseTime(words[0][at+1:])
	if err != nil {
		return nil, err
	}
	r.Time = t
	if at > 0 {
		if r.Values[0], err = parseValue(schema.Field(0).Type, words[0][:at]); err != nil {
			return nil, err
		}
	}
	for _, w := range words[1:] {
		eq := cutAt(w, '=')
		if eq < 0 {
			return nil, fmt.Errorf("%q is not column=value", w)
		}
		i := schema.Index(w[:eq])
		if i < 0 {
			return nil, fmt.Errorf("no column %q among (%v)", w[:eq], schema)
		}
		if r.Values[i], err = parseValue(schema.Field(i).Type, w[eq+1:]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// cutAt is the index of c outside quotes, or -1.
func cutAt(w string, c byte) int {
	for i := 0; i < len(w); i++ {
		if w[i] == '"' {
			q, err := strconv.QuotedPrefix(w[i:])
			if err != nil {
				return -1
			}
			i += len(q) - 1
		} else if w[i] == c {
			return i
		}
	}
	return -1
}

func parseValue(t batch.Type, s string) (any, error) {
	if s == "null" {
		return nil, nil
	}
	var v any
	var err error
	switch t {
	case batch.Boolean:
		v, err = strconv.ParseBool(s)
	case batch.Bigint, batch.Timestamp:
		if s == "min" || s == "max" {
			t, _ := parseTime(s)
			return int64(t), nil
		}
		v, err = strconv.ParseInt(s, 10, 64)
	case batch.Double:
		if s == "nan" {
			return math.NaN(), nil
		}
		v, err = strconv.ParseFloat(s, 64)
	default:
		if strings.HasPrefix(s, `"`) {
			v, err = strconv.Unquote(s)
		} else {
			v = s
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%q is no %v", s, t)
	}
	return v, nil
}
