package restore_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

func keyedTable(name string, more ...batch.Field) operator.StateTable {
	fields := append([]batch.Field{{Name: "k", Type: batch.String}}, more...)
	return operator.StateTable{Name: name, Keyed: true, Identity: 1, Schema: batch.MustSchema(fields...)}
}

// baseOf restores an operator of two subtasks, saved with the first tables, into
// one with the second ones, and asks for the base of subtask 1.
func baseOf(t *testing.T, saved, now []operator.StateTable, parallelism int) (map[string][]manifest.PartUse, bool) {
	t.Helper()
	m := manifest.Manifest{MaxParallelism: 8, Operators: []manifest.Operator{{ID: "op", Parallelism: 2}}}
	for _, tab := range saved {
		w := manifest.Table{Name: tab.Name, Schema: avro.SchemaOf(tab.Name, tab.Schema, tab.Keyed), Keyed: tab.Keyed, Spread: uint8(tab.Spread), Identity: tab.Identity}
		for i := range 2 {
			w.Shards = append(w.Shards, manifest.Shard{Subtask: i, Parts: []manifest.PartUse{{Rows: int64(10 + i)}, {Rows: 1, Delta: true}}})
		}
		m.Operators[0].Tables = append(m.Operators[0].Tables, w)
	}
	o := restore.Operator{ID: "op", Parallelism: parallelism}
	for _, tab := range now {
		o.Tables = append(o.Tables, restore.Table{StateTable: tab})
	}
	r := restore.Check(&m, restore.Job{Name: "j", MaxParallelism: 8, Operators: []restore.Operator{o}}, restore.Options{AllowNonRestored: true})
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return r.Plan().Operator("op").Base(1, now)
}

// A first snapshot goes on from the parts that the subtask had, and from nothing
// where its rows are others than those that are in them, or are read otherwise.
func TestBase(t *testing.T) {
	one, two := keyedTable("one", batch.Field{Name: "v", Type: batch.Bigint}), keyedTable("two", batch.Field{Name: "v", Type: batch.Bigint})
	wider := keyedTable("one", batch.Field{Name: "v", Type: batch.Double})
	clock := operator.StateTable{Name: "clock", Spread: operator.Union, Schema: batch.MustSchema(batch.Field{Name: "at", Type: batch.Bigint})}
	pieces := operator.StateTable{Name: "pieces", Spread: operator.Union, Identity: 1, Schema: batch.MustSchema(batch.Field{Name: "n", Type: batch.Bigint})}
	type tables = []operator.StateTable
	for _, c := range []struct {
		name        string
		saved, now  tables
		parallelism int
		want        string // whose parts; "-": none go on
	}{
		{"as it was", tables{one, clock}, tables{one, clock}, 2, "one"},
		{"a table more", tables{one}, tables{one, two}, 2, "one"},
		{"a table less", tables{one, two}, tables{two}, 2, "two"},
		{"another schema", tables{one}, tables{wider}, 2, "-"},
		{"more subtasks", tables{one}, tables{one}, 3, "-"},
		{"fewer subtasks", tables{one}, tables{one}, 1, "-"},
		{"deltas of what goes to everybody", tables{one, pieces}, tables{one, pieces}, 2, "-"},
	} {
		base, ok := baseOf(t, c.saved, c.now, c.parallelism)
		if !ok {
			if c.want != "-" {
				t.Errorf("%s: nothing goes on", c.name)
			}
			continue
		}
		if len(base) != 1 || len(base[c.want]) != 2 || base[c.want][0].Rows != 11 {
			t.Errorf("%s: %v, want the parts of %s", c.name, base, c.want)
		}
	}
}
