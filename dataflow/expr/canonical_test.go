package expr

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

func TestCanonical(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "temp", Type: batch.Double}, batch.Field{Name: "n", Type: batch.Bigint},
		batch.Field{Name: "a b", Type: batch.String}, batch.Field{Name: "ts", Type: batch.Timestamp}, batch.Field{Name: "raw", Type: batch.Bytes})
	for src, want := range map[string]string{
		"temp":                             "temp",
		`"a b"`:                            "a b",
		"n * (1 + 1)":                      "mul(n,2)",
		"n*2":                              "mul(n,2)",
		"temp * 2":                         "mul(temp,double(2))",
		"round(temp, 1)":                   "round(temp,1)",
		"cast(temp as bigint)":             "cast(temp,bigint)",
		"temp::bigint":                     "cast(temp,bigint)",
		"date_trunc('hour', ts)":           "date_trunc(ts,hour)",
		"extract(hour from ts)":            "extract(ts,hour)",
		`"a b" like 'x!_' escape '!'`:      `like(column("a b"),"x!_",'!')`,
		"case when n > 1 then 'x' end":     `case(gt(n,1),"x",null(string))`,
		"not (n is null and true)":         "not(and(is_null(n),true))",
		"coalesce(raw, cast('' as bytes))": `coalesce(raw,bytes(""))`,
	} {
		e, err := Compile(src, s)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got := e.Canonical(s); got != want {
			t.Errorf("%s is %s, want %s", src, got, want)
		}
	}
	for op := opcode(0); op <= opFromMillis; op++ {
		if int(op) >= len(canonicalNames) || canonicalNames[op] == "" {
			t.Errorf("operation %d has no name", op)
		}
		for o := range op {
			if canonicalNames[o] == canonicalNames[op] {
				t.Errorf("operations %d and %d have one name", o, op)
			}
		}
	}
}
