package decode

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

func at(f Field, level int) Field { f.Topic = level; return f }

// reason decodes one payload and returns the rows or the reason.
func reason(t *testing.T, d *Decoder, bl *batch.Builder, topic, payload string) string {
	t.Helper()
	n, err := d.Decode([]byte(topic), []byte(payload), bl)
	var bad *Error
	switch {
	case errors.As(err, &bad):
		if n != 0 || !bl.Empty() {
			t.Fatalf("%q: %v, but %d rows", payload, err, n)
		}
		return bad.Reason()
	case err != nil:
		return err.Error()
	}
	rows := rowsOf(t, bl.Take())
	if len(rows) != n {
		t.Fatalf("%q: %d rows announced, %d there", payload, n, len(rows))
	}
	return fmt.Sprint(rows)
}

func TestReasonsSayWhatAndWhere(t *testing.T) {
	json := Spec{Format: JSON, Fields: []Field{leaf("temp", batch.Double, "data.temp"), leaf("n", batch.Bigint, ""), unit(leaf("at", batch.Timestamp, ""), RFC3339),
		leaf("raw", batch.Bytes, ""), leaf("ok", batch.Boolean, ""), leaf("name", batch.String, ""), leaf("ts", batch.Timestamp, "")}}
	readings := Spec{Format: JSON, Fields: []Field{leaf("v", batch.Double, "readings.[].v")}}
	plain := Spec{Format: Text, Fields: []Field{leaf("line", batch.String, ""), at(leaf("room", batch.Bigint, ""), 1)}}
	for _, c := range []struct {
		spec           Spec
		topic, payload string
		want           string
	}{
		{json, "", `{"data":{"temp":1},"x` + "\x00", "not JSON at byte 21"},
		{json, "", `{"n":1} {"n":2}`, "not JSON at byte 8"},
		{json, "", `{"data":{"temp":"warm"}}`, "field temp: not a double"},
		{json, "", `{"data":5}`, "field temp: not an object"},
		{json, "", `[{"n":1}]`, "not an object at byte 0"},
		{json, "", ` 7`, "not an object at byte 1"},
		{json, "", `{"n":1.5}`, "field n: not a bigint"},
		{json, "", `{"n":"1"}`, "field n: not a bigint"},
		{json, "", `{"n":9223372036854775808}`, "field n: out of range"},
		{json, "", `{"at":1750000000}`, "field at: not a timestamp in RFC 3339"},
		{json, "", `{"at":"2025-06-15T12:00:00"}`, "field at: not a timestamp in RFC 3339"},
		{json, "", `{"at":"+300000-01-01"}`, "field at: out of range"},
		{json, "", `{"raw":"!"}`, "field raw: not a base64 string"},
		{json, "", `{"ok":"true"}`, "field ok: not a boolean"},
		{json, "", `{"name":12}`, "field name: not a string"},
		{json, "", `{"ts":"2025-06-15T12:00:00Z"}`, "field ts: not a timestamp in milliseconds"},
		{json, "", `{"ts":""}`, "field ts: not a timestamp in milliseconds"},
		{json, "", `{"ts":9223372036854775807}`, "field ts: out of range"},
		{json, "", `{"data":{"temp":1e999}}`, "field temp: out of range"},
		{json, "", `{"name":5,"data":{"temp":"x"},"n":"y"}`, "field temp: not a double"}, // the first of the fields
		{json, "", `{"name":5,"data":` + strings.Repeat("[", 80), "nested deeper than 64 at byte 80"},
		{json, "", `{"name":5`, "not JSON at byte 9"}, // rather than name's type
		{json, "", strings.Repeat(" ", MaxPayload+1), "too long"},
		{readings, "", `{"readings":{"v":1}}`, "field v: not an array"},
		{readings, "", `{"readings":[{"v":1},7]}`, "field v: not an object"},
		{Spec{Format: JSON, Fields: []Field{leaf("v", batch.Double, "[].v")}}, "", `{"v":1}`, "not an array at byte 0"},
		{plain, "lab", "x", "field room: the topic has no level 1"},
		{plain, "", "x", "field room: the topic has no level 1"},
		{plain, "lab/x", "x", "field room: not a bigint"},
		{plain, "lab/7/t", "x\n", "[[x\n 7]]"},
		{plain, "lab//t", "", "[[ <nil>]]"},
	} {
		d, bl := newDecoder(c.spec)
		if got := reason(t, d, bl, c.topic, c.payload); got != c.want {
			t.Errorf("%.60q: %s, want %s", c.payload, got, c.want)
		}
	}
}

func TestTopicLevelsBecomeColumns(t *testing.T) {
	d, bl := newDecoder(Spec{Format: JSON, Fields: []Field{at(leaf("last", batch.String, ""), 2), leaf("v", batch.Double, "r.[].v"),
		at(leaf("first", batch.String, ""), 0), at(leaf("again", batch.Bigint, ""), 2)}})
	for topic, want := range map[string]string{
		"plant/x/12":   "[[12 1 plant 12] [12 2 plant 12]]",
		"/x/12/more":   "[[12 1 <nil> 12] [12 2 <nil> 12]]",
		"plant/x/four": "field again: not a bigint",
	} {
		if got := reason(t, d, bl, topic, `{"r":[{"v":1},{"v":2}]}`); got != want {
			t.Errorf("%s: %s, want %s", topic, got, want)
		}
	}
}

// readings is a payload with n of them.
func readings(n int) []byte {
	return []byte(`{"s":"a","r":[` + strings.TrimSuffix(strings.Repeat(`{"v":1},`, n), ",") + `]}`)
}

func TestPayloadIsTakenWholeOrNotAtAll(t *testing.T) {
	d, bl := newDecoder(Spec{Format: JSON, Fields: []Field{leaf("s", batch.String, ""), leaf("v", batch.Double, "r.[].v")}})
	if n, err := d.Decode(nil, readings(batch.MaxRows), bl); n != batch.MaxRows || err != nil {
		t.Fatalf("%d rows, %v", n, err)
	}
	if n, err := d.Decode(nil, readings(1), bl); n != 0 || err != ErrNoRoom {
		t.Fatalf("into a full batch: %d, %v", n, err)
	}
	bl.Take().Release()
	for _, c := range []struct{ n, rows int }{{1, 1}, {batch.MaxRows, 0}, {batch.MaxRows - 2, batch.MaxRows - 2}, {2, 0}, {1, 1}} {
		n, err := d.Decode(nil, readings(c.n), bl)
		if n != c.rows || (err == ErrNoRoom) != (c.rows == 0) || err != nil && c.rows > 0 {
			t.Fatalf("%d readings at %d rows: %d, %v", c.n, bl.Len(), n, err)
		}
	}
	rowsOf(t, bl.Take())
	if got := reason(t, d, bl, "", string(readings(batch.MaxRows+1))); got != "more readings than a batch has rows" {
		t.Fatal(got)
	}
	nested, nbl := newDecoder(Spec{Format: JSON, Fields: []Field{leaf("v", batch.Double, "g.[].r.[].v")}})
	if got := reason(t, nested, nbl, "", `{"g":[`+string(readings(batch.MaxRows))+`,{}]}`); !strings.HasPrefix(got, "[[1] [1]") {
		t.Fatalf("an empty group after a full batch: %s", got)
	}
	if n, err := d.Decode(nil, readings(0), bl); n != 0 || err != nil {
		t.Fatalf("no readings: %d, %v", n, err)
	}
}

func TestRepeatedStringsAreBounded(t *testing.T) {
	d, bl := newDecoder(Spec{Format: JSON, Fields: []Field{leaf("s", batch.String, ""), leaf("v", batch.Double, "r.[].v")}})
	wide := strings.Replace(string(readings(100)), "a", strings.Repeat("a", 1<<20), 1)
	if _, err := d.Decode(nil, []byte(wide), bl); err == nil || err.Error() != "decode: too long" {
		t.Fatal(err)
	}
	long := []byte(strings.Replace(string(readings(1)), "a", strings.Repeat("a", 1<<20), 1))
	d, bl = newDecoder(Spec{Format: JSON, Fields: []Field{leaf("s", batch.String, "")}})
	n := 0
	for ; n < 100; n++ {
		if _, err := d.Decode(nil, long, bl); err == ErrNoRoom {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if bytes := len(bl.Take().Cols[0].Data); n == 0 || bytes > maxColumn {
		t.Fatalf("%d payloads of a megabyte in one batch, %d bytes", n, bytes)
	}
}

func TestManyColumns(t *testing.T) {
	spec := Spec{Format: JSON}
	var doc []string
	want := [][]any{nil}
	for i := range 200 {
		name := fmt.Sprintf("c%d", i)
		spec.Fields = append(spec.Fields, leaf(name, batch.Bigint, ""))
		if i%3 == 0 {
			want[0] = append(want[0], nil)
			continue
		}
		doc = append([]string{fmt.Sprintf(`"%s":%d`, name, i)}, doc...)
		want[0] = append(want[0], int64(i))
	}
	d, bl := newDecoder(spec)
	for range 3 {
		if _, err := d.Decode(nil, []byte("{"+strings.Join(doc, ",")+"}"), bl); err != nil {
			t.Fatal(err)
		}
		if got := rowsOf(t, bl.Take()); !sameRows(got, want) {
			t.Fatal(got)
		}
	}
}

// Keys that differ in one byte only, at each place, must not pass for one
// another when they are predicted.
func TestKeysThatLookAlike(t *testing.T) {
	for n := 1; n < 70; n++ {
		a, b := strings.Repeat("k", n), strings.Repeat("k", n-1)+"l"
		d, bl := newDecoder(Spec{Format: JSON, Fields: []Field{leaf(a, batch.Bigint, ""), leaf(b, batch.Bigint, "")}})
		for range 3 {
			for doc, want := range map[string]string{
				fmt.Sprintf(`{"%s":1,"%s":2}`, a, b):             "[[1 2]]",
				fmt.Sprintf(`{"%s":2,"%s":1}`, b, a):             "[[1 2]]",
				fmt.Sprintf(`{"%s":2}`, b):                       "[[<nil> 2]]",
				fmt.Sprintf(`{"%sx":0,"%s":1, "%s":2}`, a, a, b): "[[1 2]]",
			} {
				if got := reason(t, d, bl, "", doc); got != want {
					t.Fatalf("%s: %s, want %s", doc, got, want)
				}
			}
		}
	}
}

func TestDepthOfPaths(t *testing.T) {
	for _, step := range []struct{ path, open, end string }{{"a", `{"a":`, "}"}, {"[]", "[", "]"}} {
		for depth, want := range map[int]string{MaxDepth: "[[1]]", MaxDepth + 1: "nested deeper than 64 at byte " + fmt.Sprint(MaxDepth*len(step.open))} {
			path := strings.TrimSuffix(strings.Repeat(step.path+".", depth), ".")
			d, bl := newDecoder(Spec{Format: JSON, Fields: []Field{leaf("v", batch.Bigint, path)}})
			if got := reason(t, d, bl, "", strings.Repeat(step.open, depth)+"1"+strings.Repeat(step.end, depth)); got != want {
				t.Errorf("%d of %s: %s, want %s", depth, step.open, got, want)
			}
		}
	}
}

func TestSpecsThatCannotBe(t *testing.T) {
	s, b := leaf("a", batch.String, ""), leaf("b", batch.Double, "")
	for want, spec := range map[string]Spec{
		"unknown format":       {Fields: []Field{s}},
		"no fields":            {Format: JSON},
		"has no type":          {Format: JSON, Fields: []Field{leaf("a", 0, "")}},
		"unknown unit":         {Format: JSON, Fields: []Field{unit(leaf("a", batch.Timestamp, ""), 99)}},
		"empty element":        {Format: JSON, Fields: []Field{leaf("a", batch.String, "a..b")}},
		"another field has":    {Format: JSON, Fields: []Field{s, leaf("c", batch.String, "a")}},
		"goes on below it":     {Format: JSON, Fields: []Field{leaf("c", batch.String, "a.b"), s}},
		"takes a value for an": {Format: JSON, Fields: []Field{s, leaf("c", batch.String, "a.b")}},
		"takes an object for":  {Format: JSON, Fields: []Field{leaf("c", batch.String, "a.b"), leaf("d", batch.String, "a.[]")}},
		"side by side":         {Format: JSON, Fields: []Field{leaf("c", batch.String, "a.[]"), leaf("d", batch.String, "b.[]")}},
		"needs header":         {Format: CSV, Fields: []Field{s, b}},
		"not both":             {Format: CSV, Fields: []Field{s, b}, Header: true, Columns: []string{"a", "b"}},
		"no column \"b\"":      {Format: CSV, Fields: []Field{s, b}, Columns: []string{"a", "c"}},
		"two columns named":    {Format: CSV, Fields: []Field{s}, Columns: []string{"a", "a"}},
		"name of one column":   {Format: CSV, Fields: []Field{leaf("c", batch.String, "a.b")}, Header: true},
		"takes column \"a\"":   {Format: CSV, Fields: []Field{s, leaf("c", batch.String, "a")}, Header: true},
		"text has one column":  {Format: Text, Fields: []Field{s, b}},
	} {
		var fs []batch.Field
		for _, f := range spec.Fields {
			fs = append(fs, batch.Field{Name: f.Name, Type: f.Type})
		}
		if _, err := New(spec, batch.MustSchema(fs...)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := New(Spec{Format: Text, Fields: []Field{s}}, batch.MustSchema(batch.Field{Name: "a", Type: batch.Bytes})); err == nil {
		t.Error("a schema of other types was taken")
	}
}

// Neither good nor bad payloads may cost memory, once the first have been seen.
func TestNothingIsAllocated(t *testing.T) {
	wide := shapes()
	csv := Spec{Format: CSV, Fields: []Field{leaf("a", batch.String, ""), leaf("b", batch.Double, "")}, Columns: []string{"a", "b"}}
	for _, c := range []struct {
		spec     Spec
		payloads []string
	}{
		{telemetry(), []string{string(four), string(reading), `{"temp":"warm"}`, `{"temp":1e999}`, `{"temp":12345678901234567890.5}`, `{`, `[]`, `{"sensor":"caf\u00e9 \ud83d"}`}},
		{wide[0], append(seeds[:4:4], full[0])},
		{wide[2], []string{full[2], `{"r":[{"b":1},{"b":"x"}]}`}},
		{csv, []string{`x,1`, `"a ""b""",2e300`, `"`, `x`, `x,y`, `x,1,2`}},
	} {
		d, bl := newDecoder(c.spec)
		var why []byte
		var payloads [][]byte
		for _, p := range c.payloads {
			payloads = append(payloads, []byte(p))
		}
		run := func() {
			for _, p := range payloads {
				if _, err := d.Decode(nil, p, bl); err != nil {
					why = d.err.AppendReason(why[:0])
				}
			}
			bl.Take().Release()
		}
		run()
		if n := testing.AllocsPerRun(100, run); n > 0 {
			t.Errorf("%q: %v allocations", c.payloads, n)
		}
	}
}
