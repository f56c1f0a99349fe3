package decode

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

func leaf(name string, t batch.Type, path string) Field {
	f := Field{Name: name, Type: t, Topic: -1}
	if path != "" {
		f.Path = strings.Split(path, ".")
	}
	return f
}

func unit(f Field, u Unit) Field { f.Unit = u; return f }

// shapes are the specs that the fuzzer decodes every document with.
func shapes() []Spec {
	return []Spec{
		{Format: JSON, Fields: []Field{leaf("a", batch.Bigint, ""), leaf("b", batch.Double, ""), leaf("c", batch.String, ""),
			leaf("d", batch.Boolean, ""), leaf("e", batch.Bytes, ""), leaf("f", batch.Timestamp, ""),
			unit(leaf("g", batch.Timestamp, ""), RFC3339), unit(leaf("h", batch.Timestamp, ""), Nanoseconds),
			unit(leaf("i", batch.Timestamp, ""), Seconds), unit(leaf("j", batch.Timestamp, ""), Microseconds)}},
		{Format: JSON, Fields: []Field{leaf("x", batch.Bigint, "a.b"), leaf("y", batch.String, "a.c"), leaf("z", batch.Double, "b")}},
		{Format: JSON, Fields: []Field{leaf("k", batch.String, "c"), leaf("v", batch.Double, "r.[].b"), leaf("w", batch.String, "r.[].c"), leaf("m", batch.Bigint, "r.[].n.a")}},
		{Format: JSON, Fields: []Field{leaf("v", batch.Bigint, "[].a"), leaf("w", batch.String, "[].c")}},
		{Format: JSON, Fields: []Field{leaf("o", batch.String, "c"), leaf("p", batch.Bigint, "r.[].a"), leaf("q", batch.Double, "r.[].s.[].b"), leaf("u", batch.String, "r.[].s.[].c")}},
		{Format: JSON, Fields: []Field{leaf("o", batch.Bigint, "a"), leaf("p", batch.Double, "r.[]")}},
	}
}

// nothing and full are documents of each shape with a row of nulls, and with
// rows without any.
var (
	nothing = []string{`{}`, `{}`, `{"r":[{}]}`, `[{}]`, `{"r":[{"s":[{}]}]}`, `{"r":[null]}`}
	full    = []string{
		`{"a":1,"b":2.5,"c":"x","d":true,"e":"aGk=","f":1750000000123,"g":"2025-06-15T12:00:00.5Z","h":1750000000123456789,"i":1.5,"j":-7}`,
		`{"a":{"b":1,"c":"x"},"b":2}`,
		`{"c":"s","r":[{"b":1,"c":"p","n":{"a":3}},{"b":2,"c":"q","n":{"a":4}},{"b":2,"c":"q","n":{"a":4}},{"b":2,"c":"q","n":{"a":4}}]}`,
		`[{"a":1,"c":"x"},{"a":2,"c":"y"},{"a":2,"c":"y"},{"a":2,"c":"y"}]`,
		`{"c":"o","r":[{"a":1,"s":[{"b":1,"c":"i"},{"b":2,"c":"j"},{"b":2,"c":"j"},{"b":2,"c":"j"}]}]}`,
		`{"a":1,"r":[1,2.5,3,4,5]}`,
	}
)

var seeds = []string{
	`{"a":1,"b":2.5,"c":"x","d":true,"e":"aGk=","f":1750000000123,"g":"2025-06-15T12:00:00.5Z","h":1750000000123456789,"i":1.5,"j":-7}`,
	`{"j":7,"i":"1750000000.123456789","h":"-1","g":"2025-06-15","f":"12","e":"","d":false,"c":"\u00e9\ud83d\ude00\ud800x\n","b":-0.0,"a":-9223372036854775808}`,
	"\n{ \"a\" : 1.0 ,\t\"b\" : 1e3 , \"c\" : \"caf\xc3\xa9 \xff\" , \"d\":null}\r\n",
	`{"a":1e3,"a":"x","a":2,"b":123456789.123456789,"b":1e400}`,
	`{"a":9223372036854775808}`, `{"a":0e90000000000000000009,"f":-0.0e-90000000000000000009}`, `{"a":1e-400}`, `{"a":1.5}`, `{"a":100e-2}`, `{"a":01}`, `{"b":01}`, `{"b":9}`, `{"a":1:2}`, `{"a":1/2}`, `{"f":999999999999999999}`, `{"a":-}`, `{"a":1.}`, `{"b":.5}`, `{"a":1,}`, `{"a"}`, `{,}`, `{}`, `[]`, `null`, `5`, `"a"`, ``, ` `, `{}{}`, `{"a":1}x`,
	`{"a":{"b":1,"c":"x"},"b":2}`, `{"a":{"b":1},"a":{"c":"y"}}`, `{"a":{"b":1},"a":null}`, `{"a":5,"a":{"b":2}}`, `{"a":{"b":2},"a":5}`, `{"a":{"b":"x"},"a":{"b":1}}`,
	`{"c":"s","r":[{"b":1,"c":"p"},{"c":"q","n":{"a":3}},null,{}]}`, `{"r":[{"b":1}],"c":"after"}`, `{"r":[{"b":1},{"b":2}],"c":"x","r":[{"c":"only"}]}`,
	`{"r":[{"b":1},{"b":"bad"}],"r":[{"b":2}]}`, `{"r":[1]}`, `{"r":{}}`, `{"r":null,"c":"x"}`, `{"r":[{"b":1}],"r":null}`, `{"c":"x","r":[{"b":1},{"b":true}]}`,
	`[{"a":1,"c":"x"},{"c":"y"}]`, `[{"a":1},{"a":"no"}]`, `[1,2]`, `[null]`, `[[]]`,
	`{"c":"o","r":[{"a":1,"s":[{"b":1,"c":"i"},{"b":2}]},{"a":2,"s":[]},{"s":[{"c":"j"}],"a":3}]}`, `{"r":[{"s":[{"b":1}],"s":[{"b":2},{"b":3}]}]}`,
	`[{},{"a":"no","a":1}]`, `{"r":[0,0,null]}`, `{"r":[{"s":[]},{"a":3,"s":[{"b":1}]}]}`,
	`{"a":1,"r":[1,2.5,null,-3e2]}`, `{"a":1,"r":[1,"x"]}`,
	`{"\u0061":5,"skip":{"deep":[1,{"x":"\"\\"},true,false,null,-1.5e+10]},"long key that is longer than forty-eight bytes in all":1,"b":1}`,
	`{"b":179769313486231580793728971405301e277,"a":123456789012345678901234567890e-12}`, `{"b":2.2250738585072011e-308}`, `{"a":0e999999999999,"b":0.00000000000000000000000001e26}`,
	`{"a":tru,"d":trux}`, `{"d":"true"}`, `{"x":"` + "\x01" + `"}`, `{"x":"\q"}`, `{"x":"\u12g4"}`, "{\"x\":\"\xa2#\xa2!\"}", `{"e":"aGk"}`, `{"e":"a\nGk="}`, `{"e":"aGl="}`,
	`{"g":"2025-02-29"}`, `{"g":"2024-02-29T23:59:59.999999999+14:00"}`, `{"g":"0000-01-01"}`, `{"f":-0.0005}`, `{"i":9223372036854.775807}`, `{"i":9223372036854.775806}`,
	strings.Repeat(`[`, 70) + strings.Repeat(`]`, 70), `{"x":` + strings.Repeat(`[`, 63) + strings.Repeat(`]`, 63) + `}`,
}

// FuzzJSON holds the scanner against encoding/json: the same documents are
// JSON, and their rows are the same.
func FuzzJSON(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		for i, spec := range shapes() {
			checkJSON(t, i, spec, doc)
		}
	})
}

func checkJSON(t *testing.T, shape int, spec Spec, doc []byte) {
	d, bl := newDecoder(spec)
	var before [][]any
	// Twice, because the second time keys are predicted; then rows with nulls
	// everywhere and nowhere, where nothing of a failure may show.
	for range 2 {
		n, err := d.Decode(nil, doc, bl)
		var bad *Error
		switch {
		case err == nil:
			rows, oerr := oracle(spec, doc)
			if oerr != nil || !json.Valid(doc) {
				t.Fatalf("shape %d: accepted %q, which the oracle refuses: %v", shape, doc, oerr)
			}
			if before = append(before, rows...); n != len(rows) {
				t.Fatalf("shape %d: %d rows of %q, want %d: %v", shape, n, doc, len(rows), rows)
			}
		case !errors.As(err, &bad):
			t.Fatal(err)
		case bad.Kind == TooDeep:
			if strings.Count(string(doc), "[")+strings.Count(string(doc), "{") <= MaxDepth {
				t.Fatalf("%q is not too deep", doc)
			}
		case (bad.Kind == NotJSON) == json.Valid(doc):
			t.Fatalf("shape %d: %q: %v, but valid JSON: %v", shape, doc, err, json.Valid(doc))
		case bad.Kind != NotJSON:
			if rows, oerr := oracle(spec, doc); oerr == nil {
				t.Fatalf("shape %d: %q: %v, want %v", shape, doc, err, rows)
			}
		}
	}
	for _, after := range []string{nothing[shape], full[shape]} {
		rows, err := oracle(spec, []byte(after))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Decode(nil, []byte(after), bl); err != nil {
			t.Fatal(err)
		}
		before = append(before, rows...)
	}
	if got := rowsOf(t, bl.Take()); !sameRows(got, before) {
		t.Fatalf("shape %d: %q:\n got %v\nwant %v", shape, doc, got, before)
	}
}
