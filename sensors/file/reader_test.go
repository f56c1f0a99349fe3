package file

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// shortReads hands out at most n bytes a Read, and fails at a byte if told to.
type shortReads struct {
	disk.FS
	n      int
	failAt int64 // 0: never
	open   *int  // files that are open, if counted
	most   *int
}

type shortFile struct {
	store.File
	fs shortReads
}

func (s shortReads) Open(name string, flag int) (store.File, error) {
	f, err := s.FS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	if s.open != nil {
		*s.open++
		*s.most = max(*s.most, *s.open)
	}
	return &shortFile{File: f, fs: s}, nil
}

func (f *shortFile) ReadAt(p []byte, at int64) (int, error) {
	if f.fs.failAt > 0 && at >= f.fs.failAt {
		return 0, &os.PathError{Op: "read", Path: "the-file", Err: errors.New("bad sector")}
	}
	if f.fs.n > 0 {
		p = p[:min(len(p), f.fs.n)]
	}
	return f.File.ReadAt(p, at)
}

func (f *shortFile) Close() error {
	if f.fs.open != nil {
		*f.fs.open--
	}
	return f.File.Close()
}

// got is a record as a reader handed it out.
type got struct {
	payload string
	tooLong bool
}

// all reads to the end, and gives the records of each split and where each
// Records ended: after how many records at which position.
type place struct {
	records int
	offset  int64
}

func all(t rapid.TB, r *Reader, max int) ([][]got, [][]place) {
	t.Helper()
	recs, places := make([][]got, r.Splits()), make([][]place, r.Splits())
	done := make([]bool, r.Splits())
	var rec sensors.Records
	for {
		err := r.Read(context.Background(), &rec, max)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i := rec.Split
		if p := places[i]; done[i] || rec.Len() > max || rec.Len() == 0 && !rec.Done || rec.Next < rec.First || len(p) > 0 && rec.First != p[len(p)-1].offset {
			t.Fatalf("split %d: %d records from %d to %d, done %v", i, rec.Len(), rec.First, rec.Next, rec.Done)
		}
		long := rec.TooLong
		for k := range rec.Len() {
			is := len(long) > 0 && int(long[0]) == k
			if is {
				long = long[1:]
			}
			recs[i] = append(recs[i], got{string(rec.Payload(k)), is})
		}
		done[i] = rec.Done
		places[i] = append(places[i], place{len(recs[i]), rec.Next})
	}
	for i, d := range done {
		if !d {
			t.Fatalf("split %d has not said that it is done", i)
		}
	}
	return recs, places
}

// lines is the plain rule: what bufio.Scanner would give, the limit, and empty
// lines only in text.
func lines(content string, f decode.Format, limit int) []got {
	content = strings.TrimPrefix(content, "\xef\xbb\xbf")
	var out []got
	for content != "" {
		line, rest, _ := strings.Cut(content, "\n")
		content = rest
		line = strings.TrimSuffix(line, "\r")
		switch {
		case len(line) > limit:
			out = append(out, got{line[:limit], true})
		case line != "" || f == decode.Text:
			out = append(out, got{line, false})
		}
	}
	return out
}

func write(t rapid.TB, name, content string) {
	t.Helper()
	var b bytes.Buffer
	if strings.HasSuffix(name, ".gz") {
		z := gzip.NewWriter(&b)
		_, err := io.WriteString(z, content)
		if err := errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
	} else {
		b.WriteString(content)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReaderCutsLikeAScanner(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		content := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"a", "bc", "\n", "\n", "\r\n", "\r", " ", "0123456789", "é", strings.Repeat("x", 70)})).Draw(rt, "content"), "")
		if rapid.Bool().Draw(rt, "mark") {
			content = "\xef\xbb\xbf" + content
		}
		name := filepath.Join(dir, rapid.SampledFrom([]string{"f.txt", "f.txt.gz"}).Draw(rt, "name"))
		write(rt, name, content)
		f := rapid.SampledFrom([]decode.Format{decode.Text, decode.JSON}).Draw(rt, "format")
		limit := rapid.SampledFrom([]int{1, 5, 64, 1 << 20}).Draw(rt, "limit")
		open := func() *Reader {
			r, err := NewReader(SourceConfig{
				Files: []string{name}, Parallelism: 1, Split: SplitFor(f), MaxRecord: limit,
				FS: shortReads{n: rapid.SampledFrom([]int{0, 1, 3, 17}).Draw(rt, "read size")},
			})
			if err != nil {
				rt.Fatal(err)
			}
			return r
		}
		n := rapid.SampledFrom([]int{1, 2, 7, 4096}).Draw(rt, "max")
		r := open()
		recs, places := all(rt, r, n)
		want := lines(content, f, limit)
		if fmt.Sprint(recs[0]) != fmt.Sprint(want) || r.Close() != nil {
			rt.Fatalf("got  %+v\nwant %+v", recs[0], want)
		}
		for _, p := range places[0] {
			r := open()
			if err := r.Seek(sensors.Position{Offset: p.offset}); err != nil {
				rt.Fatal(err)
			}
			again, _ := all(rt, r, n)
			if fmt.Sprint(again[0]) != fmt.Sprint(want[p.records:]) {
				rt.Fatalf("from %d: got %+v\nwant %+v", p.offset, again[0], want[p.records:])
			}
		}
	})
}

// TestCSVKeepsQuotedLineEnds, and hands the header out again after a Seek.
func TestCSVKeepsQuotedLineEnds(t *testing.T) {
	const header, a, b, c = "x,y", "1,\"one\nand more\"", "\"say \"\"hi\"\"\r\n\",2", "3,4"
	name := filepath.Join(t.TempDir(), "f.csv")
	write(t, name, "\n"+header+"\r\n"+a+"\n\n"+b+"\r\n"+c)
	want := []got{{payload: header}, {payload: a}, {payload: b}, {payload: c}}
	open := func() *Reader {
		r, err := NewReader(SourceConfig{Files: []string{name}, Parallelism: 1, Split: SplitFor(decode.CSV), Header: true, FS: shortReads{n: 5}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	recs, places := all(t, open(), 1)
	if fmt.Sprint(recs[0]) != fmt.Sprint(want) {
		t.Errorf("got %+v", recs[0])
	}
	for _, p := range places[0] {
		r := open()
		if err := r.Seek(sensors.Position{Offset: p.offset}); err != nil {
			t.Fatal(err)
		}
		var rec sensors.Records
		if err := r.Read(context.Background(), &rec, 10); err != nil || rec.Len() != 1 || string(rec.Payload(0)) != header || rec.First != 0 || rec.Next != p.offset {
			t.Fatalf("from %d: %v, %q from %d to %d, not the header", p.offset, err, rec.Payloads, rec.First, rec.Next)
		}
		rest, _ := all(t, r, 10)
		if fmt.Sprint(rest[0]) != fmt.Sprint(want[p.records:]) {
			t.Errorf("from %d: got %+v", p.offset, rest[0])
		}
	}
}

// TestSplitsTakeTurns: each subtask has its share of the files, reads them in
// turn, and holds few open at a time.
func TestSplitsTakeTurns(t *testing.T) {
	dir := t.TempDir()
	const files, p = 2*maxOpen + 3, 2
	for i := range files {
		write(t, filepath.Join(dir, fmt.Sprintf("%04d.txt", i)), fmt.Sprintf("%d a\n%d b\n", i, i))
	}
	names, err := Resolve(filepath.Join(dir, "*.txt"))
	if err != nil || len(names) != files {
		t.Fatal(len(names), err)
	}
	seen := map[string]bool{}
	for sub := range p {
		open, most := 0, 0
		r, err := NewReader(SourceConfig{Files: names, Subtask: sub, Parallelism: p, Split: SplitFor(decode.Text), FS: shortReads{open: &open, most: &most}})
		if err != nil {
			t.Fatal(err)
		}
		var rec sensors.Records
		for turn := range 2 * maxOpen { // the first of each, then the second of each
			if err := r.Read(context.Background(), &rec, 1); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("%d %c", rec.Split*p+sub, "ab"[turn/maxOpen]); string(rec.Payload(0)) != want || r.SplitName(rec.Split) != names[rec.Split*p+sub] {
				t.Fatalf("turn %d of %d: %q, want %q", turn, sub, rec.Payload(0), want)
			}
			seen[string(rec.Payload(0))] = true
		}
		recs, _ := all(t, r, 1)
		for _, s := range recs {
			for _, g := range s {
				seen[g.payload] = true
			}
		}
		if open != 0 || most != min(maxOpen, r.Splits()) {
			t.Errorf("%d files open at the end, %d at most", open, most)
		}
	}
	if len(seen) != 2*files {
		t.Errorf("%d records of %d", len(seen), 2*files)
	}
}

func TestResolveSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	at := func(s string) string { return filepath.Join(dir, s) }
	write(t, at("b.csv"), "x")
	write(t, at("a.csv"), "x")
	write(t, at("odd[1].csv"), "x")
	if err := os.MkdirAll(at("sub/x.csv"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		at("none.csv"):  "none.csv",
		at("none*.csv"): "none*.csv",
		at("sub"):       "is a folder",
		at("sub/*.csv"): "is a folder",
		at("[.csv"):     "syntax error",
		"":              "empty",
	} {
		if _, err := Resolve(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", path, err)
		}
	}
	for path, want := range map[string][]string{
		at("?.csv"):      {at("a.csv"), at("b.csv")},
		at("odd[1].csv"): {at("odd[1].csv")},
		Stdin:            {Stdin},
	} {
		if names, err := Resolve(path); err != nil || fmt.Sprint(names) != fmt.Sprint(want) {
			t.Errorf("%q: %v, %v", path, names, err)
		}
	}
}

func TestReaderErrorsNameTheFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f.txt")
	read := func(name string, fs store.FS, from int64) error {
		r, err := NewReader(SourceConfig{Files: []string{name}, Parallelism: 1, Split: SplitFor(decode.Text), FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Seek(sensors.Position{Offset: from}); err != nil {
			t.Fatal(err)
		}
		var rec sensors.Records
		for {
			if err := r.Read(context.Background(), &rec, 10); err != nil {
				return err
			}
		}
	}
	if err := read(name, nil, 0); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), name) {
		t.Errorf("a file that is gone: %v", err)
	}
	write(t, name, "some lines\nof text\n")
	if err := read(name, shortReads{n: 4, failAt: 8}, 0); err == nil || !strings.Contains(err.Error(), "bad sector") {
		t.Errorf("a bad sector: %v", err)
	}
	if err := read(name, nil, 20); err == nil || !strings.Contains(err.Error(), "only 19") {
		t.Errorf("beyond the end: %v", err)
	}
	if err := os.Rename(name, name+".gz"); err != nil {
		t.Fatal(err)
	}
	if err := read(name+".gz", nil, 0); !errors.Is(err, gzip.ErrHeader) || !strings.Contains(err.Error(), name+".gz") {
		t.Errorf("not packed: %v", err)
	}
	write(t, name+".gz", "some lines\nof text\n")
	if err := read(name+".gz", nil, 20); err == nil || !strings.Contains(err.Error(), "only 19") {
		t.Errorf("beyond the end of a packed file: %v", err)
	}
	packed, err := os.ReadFile(name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".gz", packed[:len(packed)-6], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := read(name+".gz", nil, 0); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), name+".gz") {
		t.Errorf("cut short: %v", err)
	}
}

func TestNoSuchSubtaskOrPosition(t *testing.T) {
	if _, err := NewReader(SourceConfig{Subtask: 2, Parallelism: 2}); err == nil {
		t.Error("subtask 2 of 2")
	}
	name := filepath.Join(t.TempDir(), "f.txt")
	write(t, name, "a\n")
	r, err := NewReader(SourceConfig{Files: []string{name}, Parallelism: 1, Split: SplitFor(decode.Text)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Seek(sensors.Position{Split: 1}) == nil || r.Seek(sensors.Position{Offset: -1}) == nil {
		t.Error("positions that are none")
	}
	var rec sensors.Records
	if err := r.Read(context.Background(), &rec, 1); err != nil {
		t.Fatal(err)
	}
	if r.Seek(sensors.Position{}) == nil {
		t.Error("a seek after a read")
	}
}

func TestReaderSuite(t *testing.T) {
	sensortest.Reader(t, sensortest.ReaderCase{
		Bounded: true, Seeks: true,
		Open: func(t *testing.T) sensortest.Source {
			name := filepath.Join(t.TempDir(), "f.txt")
			open := func(t *testing.T) sensors.Reader {
				r, err := NewReader(SourceConfig{Files: []string{name}, Parallelism: 1, Split: SplitFor(decode.Text)})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			return sensortest.Source{Reader: open(t), Reopen: open, Feed: func(t *testing.T, p [][]byte) {
				write(t, name, string(bytes.Join(append(p, nil), []byte("\n"))))
			}}
		},
	})
}

// big is a file of n lines.
func big(t testing.TB, n int) string {
	name := filepath.Join(t.TempDir(), "big.jsonl")
	line := `{"sensor":"s-0001","ts":1700000000000,"data":{"temp":4.21},"kind":"reading"}` + "\n"
	write(t, name, strings.Repeat(line, n))
	return name
}

func TestReadAllocatesNothingForARecord(t *testing.T) {
	name := big(t, 200_000)
	r, err := NewReader(SourceConfig{Files: []string{name}, Parallelism: 1, Split: SplitFor(decode.JSON)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var rec sensors.Records
	read := func() {
		if err := r.Read(context.Background(), &rec, 4096); err != nil || rec.Len() == 0 {
			t.Fatal(err, rec.Len())
		}
	}
	read()
	if n := testing.AllocsPerRun(30, read); n != 0 {
		t.Errorf("%v allocations for 4096 records", n)
	}
}

func BenchmarkRead(b *testing.B) {
	const n = 200_000
	name := big(b, n)
	info, err := os.Stat(name)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	var rec sensors.Records
	for b.Loop() {
		r, err := NewReader(SourceConfig{Files: []string{name}, Parallelism: 1, Split: SplitFor(decode.JSON)})
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			err = r.Read(context.Background(), &rec, 4096)
		}
		r.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
}
