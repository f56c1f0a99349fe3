package avro_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

func TestRowBytes(t *testing.T) {
	two := batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "v", Type: batch.Double})
	for schema, want := range map[string]int64{
		avro.SchemaOf("t", two, false): 2, // both may be null
		avro.SchemaOf("t", two, true):  11,
		`{"type":"record","name":"t","fields":[{"name":"a","type":"double"},{"name":"b","type":"float"},{"name":"c","type":"long"}]}`: 13,
		`{"type":"record","name":"t","fields":[{"name":"a","type":"null"}]}`:                                                          1,
	} {
		if got, err := avro.RowBytes(schema); err != nil || got != want {
			t.Errorf("%d, %v; want %d: %s", got, err, want, schema)
		}
	}
	if _, err := avro.RowBytes(`"long"`); err == nil {
		t.Error("a number has rows")
	}
}
