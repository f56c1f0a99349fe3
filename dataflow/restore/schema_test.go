package restore_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
)

// readings is a table of them: id, temp and what else there is.
func readings(temp batch.Type, more ...batch.Field) restore.Table {
	return keyed("readings", append([]batch.Field{{Name: "id", Type: batch.Bigint}, {Name: "temp", Type: temp}}, more...)...)
}

// migrate saves a row of one table and reads it as another: what becomes of it
// as text, or why it is refused.
func migrate(t *testing.T, from, to restore.Table, set func(bl *batch.Builder)) (got string, r *restore.Report) {
	t.Helper()
	m, j := savepoint(), job()
	m.Operators[2].Tables = append(m.Operators[2].Tables[:1], saveOf(from, 2))
	at(t, &j, "c").Tables[0] = to
	if r = restore.Check(m, j, restore.Options{}); !r.OK {
		return "", r
	}
	pool := batch.NewPool(0, nil)
	bl := batch.NewBuilder(pool, from.Schema)
	set(bl)
	bl.EndRow(0)
	b := bl.Take()
	b.OwnHashes(1)[0] = 7
	var part bytes.Buffer
	w := avro.NewWriter(&part, avro.Header{Table: from.Name, Schema: from.Schema, Keyed: true})
	if err := errors.Join(w.Append(b), w.Close()); err != nil {
		t.Fatal(err)
	}
	rd, err := avro.NewReader(&part, pool)
	if err != nil {
		t.Fatal(err)
	}
	if err := rd.ResolveTo(r.Plan().Operator("c").Tables[0].Reader, to.Schema); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := avro.Rows(&text, rd); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return strings.TrimSpace(text.String()), r
}

func cold(bl *batch.Builder) {
	bl.SetInt(0, 1)
	bl.SetDouble(1, 4.5)
}

// A field that was not saved is null: rows that are there know nothing of it.
func TestE67_FieldAdded(t *testing.T) {
	got, r := migrate(t, readings(batch.Double), readings(batch.Double, batch.Field{Name: "unit", Type: batch.String}), cold)
	if want := `{"id":1,"temp":4.5,"unit":null}`; got != want {
		t.Errorf("%s, want %s\n%s", got, want, r)
	}
	if f := r.Findings[len(r.Findings)-2]; f.Verdict != restore.Migrated || !strings.Contains(f.Reason, `"unit"`) {
		t.Errorf("%+v", f)
	}
}

func TestE68_TypeChanged(t *testing.T) {
	for _, c := range []struct {
		from, to batch.Type
		ok       bool
	}{{batch.Double, batch.Bigint, false}, {batch.Double, batch.String, false}, {batch.Bigint, batch.Timestamp, false}, {batch.Double, batch.Double, true}, {batch.Bigint, batch.Double, true}} {
		_, r := migrate(t, readings(c.from), readings(c.to), func(bl *batch.Builder) {
			bl.SetInt(0, 1)
			if c.from == batch.Double {
				bl.SetDouble(1, 4.5)
			} else {
				bl.SetInt(1, 4)
			}
		})
		if r.OK != c.ok {
			t.Errorf("%v -> %v: ok is %v, want %v\n%s", c.from, c.to, r.OK, c.ok, r)
		}
		if c.ok {
			continue
		}
		if f := r.Refusals()[0]; f.Operator != "c" || f.State != "readings" || f.Field != "temp" {
			t.Errorf("the refusal names %+v", f)
		}
	}
}

// withUnit is the reader's schema with a field unit that says its default
// itself.
func withUnit(preset string) restore.Table {
	t := readings(batch.Double, batch.Field{Name: "unit", Type: batch.String})
	s := avro.SchemaOf(t.Name, t.Schema, true)
	t.Avro = strings.Replace(s, `"name":"unit","type":["null","string"],"default":null`, `"name":"unit","type":"string"`+preset, 1)
	return t
}

func TestE69_DefaultOfTheReader(t *testing.T) {
	got, r := migrate(t, readings(batch.Double), withUnit(`,"default":"C"`), cold)
	if want := `{"id":1,"temp":4.5,"unit":"C"}`; got != want {
		t.Errorf("%s, want %s\n%s", got, want, r)
	}
}

// Nothing has been stopped, and no row was read, when it is known.
func TestE70_FieldWithoutDefault(t *testing.T) {
	_, r := migrate(t, readings(batch.Double), withUnit(""), cold)
	if r.OK || len(r.Refusals()) != 1 || r.Plan() != nil {
		t.Fatalf("not refused:\n%s", r)
	}
	if f := r.Refusals()[0]; f.Operator != "c" || f.State != "readings" || f.Field != "unit" || !strings.Contains(f.Reason, "without a default") {
		t.Errorf("the refusal is %+v", f)
	}
}

// A state whose schema nobody can read is refused, not read.
func TestDamagedSchema(t *testing.T) {
	m, j := savepoint(), job()
	m.Operators[2].Tables[1].Schema = `{"type":`
	if r := restore.Check(m, j, restore.Options{}); r.OK {
		t.Errorf("not refused:\n%s", r)
	}
}
