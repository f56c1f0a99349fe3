package avro

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	lib "github.com/twmb/avro"
	"pgregory.net/rapid"
)

// types are what a field can be of.
func types() []string {
	all := []string{`"null"`, `"boolean"`, `"int"`, `"long"`, `"float"`, `"double"`, `"string"`, `"bytes"`,
		`{"type":"long","logicalType":"timestamp-micros"}`, `{"type":"long","logicalType":"timestamp-millis"}`, `{"type":"int","logicalType":"date"}`,
		`{"type":"string","logicalType":"uuid"}`, `{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`, `{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}`,
		`{"type":"array","items":"int"}`, `{"type":"array","items":"long"}`, `{"type":"array","items":["null","long"]}`, `{"type":"map","values":"long"}`, `{"type":"map","values":"string"}`,
		`{"type":"enum","name":"e","symbols":["x"]}`, `{"type":"enum","name":"e","symbols":["x","y"]}`, `{"type":"enum","name":"e","symbols":["x"],"default":"x"}`,
		`{"type":"enum","name":"d","symbols":["x"]}`, `{"type":"enum","name":"d","aliases":["e"],"symbols":["x","y"]}`, `{"type":"enum","name":"other.e","symbols":["y"]}`,
		`{"type":"fixed","name":"f","size":4}`, `{"type":"fixed","name":"f","size":5}`, `{"type":"fixed","name":"g","aliases":["f"],"size":4}`,
		`{"type":"record","name":"r","fields":[]}`, `{"type":"record","name":"r","fields":[{"name":"a","type":"int"}]}`,
		`{"type":"record","name":"r","fields":[{"name":"a","type":"long"}]}`, `{"type":"record","name":"r","fields":[{"name":"b","type":"long","aliases":["a"]}]}`,
		`{"type":"record","name":"r","fields":[{"name":"a","type":"int","default":1},{"name":"next","type":["null","r"]}]}`,
		`{"type":"record","name":"r","fields":[{"name":"a","type":"int"},{"name":"next","type":["null","r"],"default":null}]}`,
	}
	for _, u := range [][]string{{`"null"`, `"long"`}, {`"long"`, `"null"`}, {`"null"`, `"int"`}, {`"null"`, `"double"`}, {`"null"`, `"string"`}, {`"int"`, `"string"`}, {`"long"`, `"bytes"`},
		{`"null"`, all[8]}, {`"null"`, all[19]}, {`"null"`, all[20]}, {`"null"`, all[25]}, {`"null"`, all[30]}, {`"null"`}, {all[19], all[25], `"double"`}} {
		all = append(all, "["+strings.Join(u, ",")+"]")
	}
	return all
}

func inRecord(t string) string {
	return `{"type":"record","name":"t","namespace":"tidemark.state","fields":[{"name":"c","type":` + t + `}]}`
}

// Of any two schemas this package says as the library does whether they are written
// alike, and whether one is readable with the other.
func TestReadableAsTheLibrarySays(t *testing.T) {
	var all []string
	for _, typ := range types() {
		all = append(all, typ, inRecord(typ))
	}
	yes := 0
	for _, writer := range all {
		w, err := parseTree(writer)
		lw, errLib := lib.Parse(writer)
		if err != nil || errLib != nil {
			t.Fatalf("%s: %v, %v", writer, err, errLib)
		}
		for _, reader := range all {
			r, err := parseTree(reader)
			lr, errLib := lib.Parse(reader)
			if err != nil || errLib != nil {
				t.Fatalf("%s: %v, %v", reader, err, errLib)
			}
			got, want := readable(w, r), lib.CheckCompatibility(lw, lr)
			if (got == nil) != (want == nil) {
				t.Errorf("%s with %s: %v, the library says %v", writer, reader, got, want)
			}
			if got == nil {
				yes++
			}
			if got, want := unlike(w, r), string(lw.Canonical()) != string(lr.Canonical()); got != want {
				t.Errorf("%s and %s: unlike is %v", writer, reader, got)
			}
		}
	}
	if yes < len(all) || yes == len(all)*len(all) {
		t.Errorf("%d of %d pairs are readable", yes, len(all)*len(all))
	}
}

// Who takes two of the writer's fields cannot tell which.
func TestTwoFieldsThatAreOne(t *testing.T) {
	of := func(fields string) string { return `{"type":"record","name":"t","fields":[` + fields + `]}` }
	ab := of(`{"name":"a","type":"int"},{"name":"b","type":"int"}`)
	for _, reader := range []string{of(`{"name":"a","type":"int","aliases":["b"]}`), of(`{"name":"c","type":"int","aliases":["a","b"]}`),
		of(`{"name":"c","type":"int","aliases":["a"]}`), of(`{"name":"c","type":"int","aliases":["a"]},{"name":"b","type":"int"}`)} {
		w, err := parseTree(ab)
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseTree(reader)
		if err != nil {
			t.Fatal(err)
		}
		lw, errW := lib.Parse(ab)
		lr, errR := lib.Parse(reader)
		if errW != nil || errR != nil {
			t.Errorf("%s: %v, %v", reader, errW, errR)
			continue
		}
		if got, want := readable(w, r), lib.CheckCompatibility(lw, lr); (got == nil) != (want == nil) {
			t.Errorf("%s: %v, the library says %v", reader, got, want)
		}
	}
}

// Schemas and defaults are taken, or not, as the library does.
func TestSchemasAsTheLibraryTakesThem(t *testing.T) {
	preset := func(typ, v string) string {
		return `{"type":"record","name":"t","fields":[{"name":"c","type":` + typ + `,"default":` + v + `}]}`
	}
	all := []string{``, `{}`, `1`, `null`, `"lon"`, `"long" "long"`, `{"type":"long"}`, `{"type":"recor"}`, `["long","long"]`, `["long",["null"]]`,
		`{"type":"record","name":"t"}`, `{"type":"record","name":"1t","fields":[]}`, `{"type":"record","fields":[]}`, `{"type":"record","name":"a.b","fields":[]}`,
		`{"type":"record","name":"t","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}`, `{"type":"record","name":"t","fields":[{"name":"a b","type":"int"}]}`,
		`{"type":"record","name":"t","fields":[{"name":"a","type":"int","aliases":["b"]},{"name":"b","type":"int"}]}`,
		`{"type":"record","name":"t","fields":[{"name":"c","type":"int","aliases":["a"]},{"name":"d","type":"int","aliases":["a"]}]}`,
		inRecord(`["null","long"]`), inRecord(`["long","null"]`), inRecord(`["null"]`), inRecord(`"null"`), `{"type":"record","name":"t","fields":[{"name":"a"}]}`, `{"type":"record","name":"t","fields":[{"type":"int"}]}`, `{"type":"record","name":"t","fields":[1]}`,
		`{"type":"record","name":"t","fields":[{"name":"a","type":"t"}]}`, `{"type":"record","name":"t","fields":[{"name":"a","type":"u"}]}`,
		`{"type":"record","name":"t","fields":[{"name":"a","type":{"type":"enum","name":"t","symbols":["x"]}}]}`,
		`{"type":"enum","name":"e","symbols":["x","x"]}`, `{"type":"enum","name":"e","symbols":["1"]}`, `{"type":"enum","name":"e"}`, `{"type":"enum","name":"e","symbols":["x"],"default":"y"}`,
		`{"type":"fixed","name":"f"}`, `{"type":"fixed","name":"f","size":-1}`, `{"type":"array"}`, `{"type":"map","values":"x"}`,
	}
	for _, v := range []string{`null`, `true`, `1`, `-1`, `1.5`, `3000000000`, `9223372036854775808`, `"C"`, `"ÿ"`, `"Ā"`, `"x"`, `[]`, `{}`, `[1]`} {
		for _, typ := range []string{`"null"`, `"boolean"`, `"int"`, `"long"`, `"float"`, `"double"`, `"string"`, `"bytes"`, `["null","long"]`, `["long","null"]`,
			`{"type":"enum","name":"e","symbols":["x"]}`, `{"type":"long","logicalType":"timestamp-micros"}`} {
			all = append(all, preset(typ, v))
		}
	}
	for _, s := range all {
		n, err := parseTree(s)
		l, errLib := lib.Parse(s)
		if (err == nil) != (errLib == nil) {
			t.Errorf("%s: %v, the library says %v", s, err, errLib)
			continue
		}
		if err != nil {
			continue
		}
		root := l.Root()
		if n.kind != root.Type || len(n.fields) != len(root.Fields) {
			t.Errorf("%s is %s of %d fields", s, n.kind, len(n.fields))
			continue
		}
		for i, f := range root.Fields {
			if got := n.fields[i]; got.has != f.HasDefault || !reflect.DeepEqual(got.preset, f.Default) || got.name != f.Name {
				t.Errorf("%s: the default is %T %v, the library's %T %v", s, got.preset, got.preset, f.Default, f.Default)
			}
		}
	}
}

// What is nested without end is refused, and damaged text does no harm.
func TestDamagedSchemas(t *testing.T) {
	deep := strings.Repeat(`{"type":"array","items":`, 10_000) + `"int"` + strings.Repeat("}", 10_000)
	if _, err := parseTree(deep); err == nil {
		t.Error("10,000 arrays in each other")
	}
	rapid.Check(t, func(t *rapid.T) {
		s := inRecord(rapid.SampledFrom(types()).Draw(t, "type"))
		at := rapid.IntRange(0, len(s)).Draw(t, "at")
		to := rapid.IntRange(at, min(len(s), at+20)).Draw(t, "to")
		damaged := s[:at] + rapid.SampledFrom([]string{"", "1", `"int"`, "null", "[]", "{}", `\`}).Draw(t, "with") + s[to:]
		if n, err := parseTree(damaged); err == nil {
			if err := readable(n, n); err != nil || unlike(n, n) || fmt.Sprint(typeName(n)) == "" {
				t.Fatalf("%s: %v", damaged, err)
			}
		}
	})
}
