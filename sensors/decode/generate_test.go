package decode

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// documents draws JSON whose keys and types are likely to be the ones that the
// shapes ask for, with repeated keys, wrong types and white space.
func documents(depth int) *rapid.Generator[string] {
	space := rapid.SampledFrom([]string{"", "", "", " ", "\n\t"})
	scalar := rapid.SampledFrom([]string{"1", "-2.5", "null", "true", "false", `"x"`, `"\u00e9"`, "3e2", "1750000000123", `"2025-06-15"`, `"aGk="`, `""`, "1e400", "0.25"})
	return rapid.Custom(func(t *rapid.T) string {
		kind := rapid.IntRange(0, 9).Draw(t, "kind")
		if depth == 0 || kind < 3 {
			return scalar.Draw(t, "scalar")
		}
		n := rapid.IntRange(0, 4).Draw(t, "n")
		var b strings.Builder
		open, end := "{", "}"
		if kind > 7 {
			open, end = "[", "]"
		}
		b.WriteString(open)
		for i := range n {
			if i > 0 {
				b.WriteString(",")
			}
			b.WriteString(space.Draw(t, "space"))
			if open == "{" {
				b.WriteString(`"` + rapid.SampledFrom([]string{"a", "b", "c", "n", "r", "s", "r", "zz"}).Draw(t, "key") + `"` + space.Draw(t, "space") + ":" + space.Draw(t, "space"))
			}
			b.WriteString(documents(depth-1).Draw(t, "value") + space.Draw(t, "space"))
		}
		return b.String() + end
	})
}

// readingsLike draws documents of the shape {"c":…,"r":[{…},…],…}, so that
// whole payloads are accepted often enough.
func readingsLike() *rapid.Generator[string] {
	inner := rapid.SampledFrom([]string{`{"b":1,"c":"p"}`, `{"b":2}`, `{}`, `null`, `{"c":"q","b":null,"b":3}`, `{"b":"bad"}`, `{"n":{"a":4},"b":1}`, `{"n":{"a":1},"n":{}}`})
	list := rapid.Map(rapid.SliceOfN(inner, 0, 4), func(s []string) string { return "[" + strings.Join(s, ",") + "]" })
	element := rapid.Map(rapid.SliceOfN(rapid.OneOf(
		rapid.Just(`"a":1`), rapid.Just(`"a":null`), rapid.Just(`"b":1.5`), rapid.Just(`"c":"s"`), rapid.Just(`"s":null`), rapid.Just(`"s":5`), rapid.Just(`"a":"no"`),
		rapid.Map(list, func(l string) string { return `"s":` + l })), 0, 4), func(m []string) string { return "{" + strings.Join(m, ",") + "}" })
	array := rapid.Map(rapid.SliceOfN(rapid.OneOf(element, element, rapid.Just("null"), inner), 0, 4), func(s []string) string { return "[" + strings.Join(s, ",") + "]" })
	member := rapid.OneOf(rapid.Map(array, func(a string) string { return `"r":` + a }), rapid.Just(`"c":"o"`), rapid.Just(`"c":1`), rapid.Just(`"a":7`), rapid.Just(`"r":null`), rapid.Just(`"r":3`), rapid.Just(`"x":[[]]`))
	return rapid.OneOf(array, rapid.Map(rapid.SliceOfN(member, 0, 4), func(m []string) string { return "{" + strings.Join(m, ",") + "}" }))
}

func TestGeneratedDocuments(t *testing.T) {
	specs := shapes()
	rapid.Check(t, func(r *rapid.T) {
		doc := rapid.OneOf(documents(4), readingsLike()).Draw(r, "doc")
		for i, spec := range specs {
			checkJSON(t, i, spec, []byte(doc))
		}
	})
}
