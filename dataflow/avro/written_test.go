package avro

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// What the package writes is read without being taken apart, and as if it were.
func TestWrittenIsReadAsAnySchema(t *testing.T) {
	name := rapid.OneOf(rapid.SampledFrom([]string{"", "key", hashField, kindField, emptyName, "_x41", `a","type":["null","long"]`, "ö", "\xff", "9", "a b"}), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		h := Header{Table: name.Draw(t, "table"), Keyed: rapid.Bool().Draw(t, "keyed"), Delta: rapid.Bool().Draw(t, "delta")}
		var columns []batch.Field
		for i, n := range rapid.SliceOfNDistinct(name, 0, 8, rapid.ID[string]).Draw(t, "columns") {
			columns = append(columns, batch.Field{Name: n, Type: batch.Type(1 + (i+int(rapid.Byte().Draw(t, "type")))%6)})
		}
		h.Schema = batch.MustSchema(columns...)
		text := h.avro()
		fast, err := parseRecord(text)
		other, errAny := parseAny(text)
		if err != nil || errAny != nil || !fast.ours {
			t.Fatalf("%s\n%v, %v, ours %v", text, err, errAny, fast.ours)
		}
		if len(other.fields) != len(fast.fields) {
			t.Fatalf("%d fields, and %d", len(fast.fields), len(other.fields))
		}
		for i, f := range other.fields {
			f.aliases, f.preset = nil, nil
			if other.fields[i].preset != nil || !reflect.DeepEqual(f, fast.fields[i]) {
				t.Fatalf("%s: field %d is %+v, and %+v", text, i, fast.fields[i], other.fields[i])
			}
		}
		for _, got := range []Header{fast.header, other.header} {
			if got.Table != h.Table || got.Keyed != h.Keyed || got.Delta != h.Delta || !got.Schema.Equal(h.Schema) {
				t.Fatalf("%s: %+v", text, got)
			}
		}
		if !fast.alike(fast) || other.alike(other) {
			t.Fatal("who wrote it is not known")
		}
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		if other := text[:at] + text[at+1:]; other != text {
			if r, ok := written(other); ok && r.avro() != other {
				t.Fatalf("%s is not written here", other)
			}
		}
	})
}

// Text of others is taken apart.
func TestWrittenIsNotOthers(t *testing.T) {
	ours := Header{Table: "t", Schema: batch.MustSchema(batch.Field{Name: "k", Type: batch.String}), Keyed: true}.avro()
	for _, text := range []string{"", "{", ours + " ", " " + ours, strings.Replace(ours, `"default":null`, `"default":null,"aliases":["was"]`, 1),
		strings.Replace(ours, `"type":["null","string"],"default":null`, `"type":"string"`, 1), strings.Replace(ours, "string", "int", 1)} {
		if h, ok := written(text); ok {
			t.Errorf("%s: %+v", text, h)
		}
	}
}
