package avro_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
)

// record is an Avro schema of the fields given.
func record(fields ...string) string {
	return `{"type":"record","name":"t","namespace":"tidemark.state","fields":[` + strings.Join(fields, ",") + `]}`
}

func f(name, typ string) string { return fmt.Sprintf(`{"name":%q,"type":%s}`, name, typ) }
func preset(name, typ, value string) string {
	return fmt.Sprintf(`{"name":%q,"type":%s,"default":%s}`, name, typ, value)
}

// TestE67ToE70_Compatible goes through the tables of schema evolution.
func TestE67ToE70_Compatible(t *testing.T) {
	id := f("id", `"long"`)
	nullable := func(typ string) string { return `["null",` + typ + `]` }
	enum := func(symbols, more string) string {
		return `{"type":"enum","name":"e","symbols":[` + symbols + `]` + more + `}`
	}
	cases := []struct {
		name, writer, reader string
		want                 avro.Verdict
		why                  string
	}{
		{"no change", record(id), record(id), avro.AsIs, ""},
		{"another default", record(preset("id", `"long"`, "1")), record(preset("id", `"long"`, "2")), avro.AsIs, ""},
		{"a delta", record(f("row_kind", `"int"`), id), record(id), avro.AfterMigration, ""},
		{"E67, E69 added with default", record(id), record(id, preset("unit", `"string"`, `"C"`)), avro.AfterMigration, `column "unit" is added; rows that are there get "C"`},
		{"added, may be null", record(id), record(id, preset("unit", nullable(`"string"`), "null")), avro.AfterMigration, `get null`},
		{"E70 added without default", record(id), record(id, f("unit", `"string"`)), avro.Incompatible, `column "unit" is added without a default`},
		{"removed", record(id, f("x", `"long"`)), record(id), avro.AfterMigration, `column "x" is removed; its values are dropped`},
		{"other order", record(id, f("x", `"long"`)), record(f("x", `"long"`), id), avro.AfterMigration, ""},
		{"renamed with alias", record(f("a", `"long"`)), record(`{"name":"b","type":"long","aliases":["a"]}`), avro.AfterMigration, `column "a" is renamed to "b"`},
		{"renamed without alias", record(f("a", `"long"`)), record(f("b", `"long"`)), avro.Incompatible, `"b" is added without`},
		{"renamed without alias, default", record(f("a", `"long"`)), record(preset("b", `"long"`, "0")), avro.AfterMigration, `"a" is removed`},
		{"int to long", record(f("a", `"int"`)), record(f("a", `"long"`)), avro.AfterMigration, "was int and becomes long"},
		{"int to float", record(f("a", `"int"`)), record(f("a", `"float"`)), avro.AfterMigration, ""},
		{"int to double", record(f("a", `"int"`)), record(f("a", `"double"`)), avro.AfterMigration, ""},
		{"long to float", record(f("a", `"long"`)), record(f("a", `"float"`)), avro.AfterMigration, ""},
		{"long to double", record(f("a", `"long"`)), record(f("a", `"double"`)), avro.AfterMigration, ""},
		{"float to double", record(f("a", `"float"`)), record(f("a", `"double"`)), avro.AfterMigration, ""},
		{"string to bytes", record(f("a", `"string"`)), record(f("a", `"bytes"`)), avro.AfterMigration, ""},
		{"bytes to string", record(f("a", `"bytes"`)), record(f("a", `"string"`)), avro.AfterMigration, ""},
		{"long to int", record(f("a", `"long"`)), record(f("a", `"int"`)), avro.Incompatible, `column "a" was long and is now int`},
		{"E68 double to float", record(f("a", `"double"`)), record(f("a", `"float"`)), avro.Incompatible, "was double and is now float"},
		{"double to long", record(f("a", `"double"`)), record(f("a", `"long"`)), avro.Incompatible, ""},
		{"string to long", record(f("a", `"string"`)), record(f("a", `"long"`)), avro.Incompatible, ""},
		{"boolean to long", record(f("a", `"boolean"`)), record(f("a", `"long"`)), avro.Incompatible, ""},
		{"number to time", record(f("a", `"long"`)), record(f("a", `{"type":"long","logicalType":"timestamp-micros"}`)), avro.Incompatible, "is now timestamp-micros"},
		{"enum symbol added", record(f("a", enum(`"x"`, ""))), record(f("a", enum(`"x","y"`, ""))), avro.AfterMigration, ""},
		{"enum symbol removed", record(f("a", enum(`"x","y"`, ""))), record(f("a", enum(`"x"`, ""))), avro.Incompatible, ""},
		{"enum symbol removed, default", record(f("a", enum(`"x","y"`, ""))), record(f("a", enum(`"x"`, `,"default":"x"`))), avro.AfterMigration, ""},
		{"may be null now", record(f("a", `"long"`)), record(f("a", nullable(`"long"`))), avro.AfterMigration, "was long and becomes null or long"},
		{"may not be null any more", record(f("a", nullable(`"long"`))), record(f("a", `"long"`)), avro.Incompatible, "was null or long and is now long"},
		{"nullable, promoted", record(f("a", nullable(`"long"`))), record(f("a", nullable(`"double"`))), avro.AfterMigration, ""},
		{"nullable, not promoted", record(f("a", nullable(`"double"`))), record(f("a", nullable(`"long"`))), avro.Incompatible, ""},
		{"another table", record(id), strings.Replace(record(id), `"name":"t"`, `"name":"u"`, 1), avro.Incompatible, `table "t" is now "u"`},
		{"no schema", record(id), `{"type":"recor"}`, avro.Incompatible, ""},
		{"no records", `"long"`, `"double"`, avro.AfterMigration, "long is now double"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, reasons := avro.Compatible(c.writer, c.reader)
			if got != c.want || (len(reasons) == 0) != (got == avro.AsIs || c.name == "a delta" || c.name == "other order") || !strings.Contains(strings.Join(reasons, "; "), c.why) {
				t.Errorf("%v %q, want %v %q", got, reasons, c.want, c.why)
			}
		})
	}
	_, reasons := avro.Compatible(record(f("a", `"double"`), f("b", `"long"`)), record(f("a", `"float"`), f("b", `"boolean"`), f("c", `"int"`)))
	if len(reasons) != 3 {
		t.Errorf("%d findings, want three at once: %q", len(reasons), reasons)
	}
}

func TestSameIdentity(t *testing.T) {
	of := func(fields ...batch.Field) string { return avro.SchemaOf("t", batch.MustSchema(fields...), true) }
	k, n := batch.Field{Name: "k", Type: batch.Bigint}, batch.Field{Name: "n", Type: batch.Bigint}
	kd := batch.Field{Name: "k", Type: batch.Double}
	for _, c := range []struct {
		w, r  string
		found int
	}{{of(k, n), of(k), 0}, {of(k, n), of(kd, n), 1}, {of(k, n), of(n, k), 1}, {of(k), of(), 1}} {
		if found, err := avro.SameIdentity(c.w, c.r, 1); err != nil || len(found) != c.found {
			t.Errorf("%s -> %s: %q, %v", c.w, c.r, found, err)
		}
	}
}

// TestE67ToE70_Resolve reads parts with another schema than they were written
// with.
func TestE67ToE70_Resolve(t *testing.T) {
	p := batch.NewPool(0, nil)
	p.PoisonReleased()
	was := batch.MustSchema(batch.Field{Name: "id", Type: batch.Bigint}, batch.Field{Name: "temp", Type: batch.Double}, batch.Field{Name: "s", Type: batch.String})
	b := optest.MustParse(t, was, `@0 id=1 temp=8.5 s=x; @0 id=null temp=null s=null; @0 id=3 temp=9 s=z`).Batches(p, 9)[0]
	copy(b.OwnHashes(3), []uint64{7, 8, 9})
	part := write(t, avro.Header{Table: "t", Schema: was, Keyed: true}, b)
	nullable := func(typ string) string { return `["null",` + typ + `]` }
	cases := []struct{ name, reader, want string }{
		{"E67 added and removed", record(f("key_hash", `"long"`), f("temp", nullable(`"double"`)), preset("unit", `"string"`, `""`), f("id", nullable(`"long"`))),
			`@0 temp=8.5 unit="" id=1; @0 temp=null unit="" id=null; @0 temp=9 unit="" id=3`},
		{"E69 default", record(preset("unit", `"string"`, `"C"`), preset("n", `"long"`, "5"), preset("d", `"double"`, "1.5"), preset("f", `"boolean"`, "true"), preset("y", `"bytes"`, `"ÿ"`), preset("z", nullable(`"long"`), "null"), preset("i", `"int"`, "2"), preset("g", `"float"`, "0.5")),
			`C@0 n=5 d=1.5 f=true y="\xff" z=null i=2 g=0.5; C@0 n=5 d=1.5 f=true y="\xff" z=null i=2 g=0.5; C@0 n=5 d=1.5 f=true y="\xff" z=null i=2 g=0.5`},
		{"promoted and renamed", record(f("id", `["null","double"]`), `{"name":"b","type":["null","bytes"],"aliases":["s"]}`),
			`@0 id=1 b=x; @0 id=null b=null; @0 id=3 b=z`},
		{"nothing left", record(), `@0; @0; @0`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rd, err := avro.NewReader(bytes.NewReader(part), p)
			if err != nil {
				t.Fatal(err)
			}
			if err := rd.ResolveTo(c.reader, nil); err != nil {
				t.Fatal(err)
			}
			got, err := rows(t, rd)
			if want := optest.MustParse(t, rd.Schema(), c.want).String(); err != nil || got != want {
				t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
			}
		})
	}
	t.Run("E68, E70 refused", func(t *testing.T) {
		for _, reader := range []string{record(f("temp", `["null","float"]`)), record(f("unit", `"string"`)), record(f("id", `"long"`))} {
			rd, err := avro.NewReader(bytes.NewReader(part), p)
			if err != nil {
				t.Fatal(err)
			}
			if err := rd.ResolveTo(reader, nil); err == nil {
				t.Errorf("%s reads it", reader)
			}
		}
	})
	t.Run("another writer's types", func(t *testing.T) { // int, float, [T, null] and plain T are not ours, but Avro's
		rd, err := avro.NewReader(bytes.NewReader(foreign(t)), p)
		if err != nil {
			t.Fatal(err)
		}
		s := batch.MustSchema(batch.Field{Name: "i", Type: batch.Bigint}, batch.Field{Name: "g", Type: batch.Double}, batch.Field{Name: "n", Type: batch.Bigint})
		if err := rd.ResolveTo(record(f("i", `"long"`), f("g", `"double"`), f("n", nullable(`"long"`))), s); err != nil {
			t.Fatal(err)
		}
		got, err := rows(t, rd)
		if want := optest.MustParse(t, s, `@0 i=-3 g=0.5 n=9; @0 i=4 g=2 n=null`).String(); err != nil || got != want {
			t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
		}
		if rd.Schema() != s {
			t.Error("the batches are not of the schema given")
		}
	})
}

// TestNames: every name has a field of its own, and comes back.
func TestNames(t *testing.T) {
	names := []string{"a", "key_hash", "row_kind", "", "_x", "_x5fx", "1a", "a.b", "a b", "é", "\xff", "_x41", "_x4", "_xFF", "a_x6b", "_x6bey_hash"}
	var fields []batch.Field
	seen := make(map[string]string)
	for _, n := range names {
		e := avro.FieldName(n)
		if was, twice := seen[e]; twice {
			t.Errorf("%q and %q are both %q", was, n, e)
		}
		seen[e] = n
		fields = append(fields, batch.Field{Name: n, Type: batch.Bigint})
	}
	s := batch.MustSchema(fields...)
	h, err := avro.ParseSchema(avro.SchemaOf("task.x \"q\"\n", s, true))
	if err != nil || !h.Schema.Equal(s) || h.Table != "task.x \"q\"\n" || !h.Keyed || h.Delta {
		t.Errorf("%v, %+v", err, h)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.StringMatching(`(_|x|[0-9a-f]|.){0,8}`).Draw(t, "a"), rapid.String().Draw(t, "b")
		if avro.ColumnName(avro.FieldName(a)) != a || avro.ColumnName(avro.FieldName(b)) != b {
			t.Fatalf("%q, %q", a, b)
		}
	})
}

func TestParseSchemaRefuses(t *testing.T) {
	for _, s := range []string{``, `"long"`, record(f("a", `{"type":"array","items":"long"}`)), record(f("a", `["long","string"]`)),
		record(f("a", `{"type":"long","logicalType":"timestamp-millis"}`)), record(f("key_hash", `"string"`)), record(f("row_kind", `["null","int"]`))} {
		if _, err := avro.ParseSchema(s); err == nil {
			t.Errorf("%s is taken for a table", s)
		}
	}
}
