package decode

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// cut gives the stream to a splitter in chunks of size bytes.
func cut(t testing.TB, f Format, stream []byte, size int) (records []string) {
	t.Helper()
	s := NewSplitter(f)
	from, have := 0, 0
	for {
		atEOF := have == len(stream)
		n, rec, ok := s.NextRecord(stream[from:have], atEOF)
		if ok {
			records = append(records, string(rec))
		}
		from += n
		switch {
		case from > have:
			t.Fatalf("advanced to %d of %d bytes", from, have)
		case ok:
		case atEOF:
			if from != len(stream) {
				t.Fatalf("left %d of %d bytes", len(stream)-from, len(stream))
			}
			return records
		default:
			have = min(have+size, len(stream))
		}
	}
}

func TestSplitter(t *testing.T) {
	for _, c := range []struct {
		f      Format
		stream string
		want   []string
	}{
		{Text, "", nil},
		{Text, "a", []string{"a"}},
		{Text, "a\n\nb\r\nc\r", []string{"a", "", "b", "c"}},
		{Text, "\xef\xbb\xbfa\n\xef\xbb\xbfb\n", []string{"a", "\xef\xbb\xbfb"}},
		{Text, "\xef\xbb", []string{"\xef\xbb"}},
		{JSON, "{}\n\r\n\n[]\n", []string{"{}", "[]"}},
		{CSV, "a,b\n\n\"x\ny\"\"\",2\r\nlast", []string{"a,b", "\"x\ny\"\"\",2", "last"}},
		{CSV, "a\"b\n\"c\"\n", []string{"a\"b", "\"c\""}},
		{CSV, "\"a\"b\"c\nd", []string{"\"a\"b\"c", "d"}},
		{CSV, "\"open\nto the end", []string{"\"open\nto the end"}},
	} {
		for size := 1; size < 6; size++ {
			if got := cut(t, c.f, []byte(c.stream), size); !slices.Equal(got, c.want) {
				t.Errorf("%q by %d: %q, want %q", c.stream, size, got, c.want)
			}
		}
	}
}

func TestSplitterCutsWhatIsTooLong(t *testing.T) {
	long := strings.Repeat("x", 3*MaxPayload)
	full := strings.Repeat("y", MaxPayload)
	for _, f := range []Format{JSON, CSV, Text} {
		d, bl := newDecoder(Spec{Format: Text, Fields: []Field{leaf("line", batch.String, "")}})
		var got []string
		for _, r := range cut(t, f, []byte("a\n"+long+"\nb\n"+full+"\r\n"+full+"z"), 1<<20) {
			n, err := d.Decode(nil, []byte(r), bl)
			got = append(got, fmt.Sprintf("%.1s %d %v", r, n, err))
			bl.Take()
		}
		if want := []string{"a 1 <nil>", "x 0 decode: too long", "b 1 <nil>", "y 1 <nil>", "y 0 decode: too long"}; !slices.Equal(got, want) {
			t.Errorf("format %d: %q", f, got)
		}
	}
}

// FuzzCSV holds the splitter and the fields of a record against encoding/csv.
// The one difference: that reads \r\n in quotes as \n.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "\"a \"\"q\"\"\n\r\nb\",\r\n,\n", "a\"b\n", "\"a\"b\n", "\r\n\n", "a\rb,\r\r\n", ",,\n\"\"\n", "\"", "x\r"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		d, _ := newDecoder(Spec{Format: CSV, Fields: []Field{leaf("a", batch.String, "")}, Header: true})
		want := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(stream, []byte(byteOrderMark))))
		want.FieldsPerRecord = -1
		for _, rec := range cut(t, CSV, stream, int(size)+1) {
			fields, err := want.Read()
			got, bad := fieldsOf(d, []byte(rec))
			if (err != nil) != bad {
				t.Fatalf("%q of %q: bad %v, but %v", rec, stream, bad, err)
			}
			if err != nil {
				return // encoding/csv goes on elsewhere
			}
			if !slices.Equal(got, fields) {
				t.Fatalf("%q: %q, want %q", rec, got, fields)
			}
		}
		if _, err := want.Read(); err != io.EOF {
			t.Fatalf("%q: more records: %v", stream, err)
		}
	})
}

func fieldsOf(d *Decoder, rec []byte) (fields []string, bad bool) {
	for i := 0; ; i++ {
		text, end, _ := d.next(rec, i)
		if end < 0 {
			return nil, true
		}
		fields = append(fields, strings.ReplaceAll(string(text), "\r\n", "\n"))
		if i = end; i == len(rec) {
			return fields, false
		}
	}
}

func station() []Field {
	return []Field{leaf("station", batch.String, ""), unit(leaf("day", batch.Timestamp, "date"), RFC3339), leaf("pm10", batch.Double, ""), leaf("ok", batch.Boolean, "")}
}

func TestCSVRecords(t *testing.T) {
	spec := Spec{Format: CSV, Fields: append(station(), at(leaf("site", batch.String, ""), 0)), Columns: []string{"date", "station", "unused", "pm10", "ok"}}
	for _, c := range []struct{ rec, want string }{
		{"1970-01-02,DE1,zzz,14.625,true", "[[DE1 86400000000 14.625 true lab]]"},
		{"1970-01-02,\"D,\"\"E\n1\",,+007.5e1,FALSE\r\n", "[[D,\"E\n1 86400000000 75 false lab]]"},
		{",,,,", "[[<nil> <nil> <nil> <nil> lab]]"},
		{`"","","","",""`, "[[ <nil> <nil> <nil> lab]]"},
		{"1970-01-02,DE1,zzz,14.625", "field ok: missing"},
		{"", "field station: missing"},
		{"1970-01-02,DE1,zzz,14.625,true,", "more fields than columns at byte 31"},
		{"1970-01-02,DE1,zzz, 14.625,true", "field pm10: not a double"},
		{"1970-01-02,DE1,zzz,NaN,true", "field pm10: not a double"},
		{"1970-01-02,DE1,zzz,1,yes", "field ok: not a boolean"},
		{"1970-01-02,DE\"1,zzz,1,true", "not CSV at byte 13"},
		{"1970-01-02,DE1\n1970-01-03,x", "not CSV at byte 14"},
		{`1970-01-02,"DE1`, "not CSV at byte 15"},
	} {
		d, bl := newDecoder(spec)
		if got := reason(t, d, bl, "lab", c.rec); got != c.want {
			t.Errorf("%q: %s, want %s", c.rec, got, c.want)
		}
	}
}

func TestCSVHeaderOfEachSplit(t *testing.T) {
	d, bl := newDecoder(Spec{Format: CSV, Fields: station(), Header: true})
	if got := reason(t, d, bl, "", "a,b"); got != "no header seen" {
		t.Fatal(got)
	}
	if err := d.Header(0, []byte("\xef\xbb\xbfdate,station,pm10,ok\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := d.Header(3, []byte(`ok,"pm10",x,station,date`)); err != nil {
		t.Fatal(err)
	}
	const want = "[[A 0 1.5 true]]"
	if got := reason(t, d, bl, "", "true,1.5,?,A,1970-01-01"); got != want {
		t.Fatal(got)
	}
	d.Split(0)
	if got := reason(t, d, bl, "", "1970-01-01,A,1.5,true"); got != want {
		t.Fatal(got)
	}
	d.Split(7)
	if got := reason(t, d, bl, "", "1970-01-01,A,1.5,true"); got != "no header seen" {
		t.Fatal(got)
	}
	d.Split(0)
	for header, why := range map[string]string{
		"date,station,ok":           `no column "pm10"; it has date, station, ok`,
		"date,station,ok,pm10,date": `two columns named "date"`,
		`date,"station`:             "not CSV at byte 13",
	} {
		if err := d.Header(0, []byte(header)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", header, err)
		}
		if got := reason(t, d, bl, "", "1970-01-01,A,1.5,true"); got != "no header seen" {
			t.Fatal("after a refused header:", got)
		}
	}
	d.Split(3)
	d.Split(0)
	if got := reason(t, d, bl, "", "1970-01-01,A,1.5,true"); got != "no header seen" {
		t.Fatal("a refused header left the old one standing:", got)
	}
}

func TestTextTakesOneValue(t *testing.T) {
	for _, c := range []struct {
		f             Field
		payload, want string
	}{
		{leaf("line", batch.String, ""), " to be\xff ", "[[ to be\xff ]]"},
		{leaf("line", batch.Bytes, ""), "aGk=", "[[aGk=]]"},
		{leaf("line", batch.Double, ""), "21.5", "[[21.5]]"},
		{leaf("line", batch.Double, ""), "", "[[<nil>]]"},
		{leaf("line", batch.Bigint, ""), "x", "field line: not a bigint"},
	} {
		d, bl := newDecoder(Spec{Format: Text, Fields: []Field{c.f}})
		if got := reason(t, d, bl, "", c.payload); got != c.want {
			t.Errorf("%q: %q, want %q", c.payload, got, c.want)
		}
	}
}
