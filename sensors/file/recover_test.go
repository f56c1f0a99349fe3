package file

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func nobody(string) bool { return false }
func me(string) bool     { return true }

// put makes a file of an FS.
func put(t *testing.T, fsys *storetest.FS, name, body string) {
	t.Helper()
	if err := fsys.MkdirAll("/o"); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(body), 0); err != nil {
		t.Fatal(err)
	}
}

func recordOf(path string, length int64) []byte {
	return record{Version: 1, Path: path, Length: length, Next: 9}.bytes()
}

// at is a piece whose rows belong to a byte.
func at(place byte, rows string) []byte { return append([]byte{0, 0, 0, 0, 0, 0, 0, place}, rows...) }

// TestRecover: what a restart finds, and what it makes of it.
func TestRecover(t *testing.T) {
	const p = "/o/x.csv"
	rec := func(n int64) sensors.Pending { return sensors.Pending{Target: p, Data: recordOf(p, n)} }
	piece := func(k int64, place byte, rows string) sensors.Pending {
		return sensors.Pending{Target: p, Piece: k, Data: at(place, rows)}
	}
	for name, c := range map[string]struct {
		before  string // "": no file
		held    []sensors.Pending
		want    string
		refused string
	}{
		"as recorded":          {before: "n\n1\n", held: []sensors.Pending{rec(4)}, want: "n\n1\n"},
		"longer":               {before: "n\n1\n2", held: []sensors.Pending{rec(4)}, want: "n\n1\n"},
		"pending":              {before: "n\n1\n", held: []sensors.Pending{rec(4), piece(3, 4, "2\n"), piece(4, 6, "3\n")}, want: "n\n1\n2\n3\n"},
		"part of a commit":     {before: "n\n1\n2\n3", held: []sensors.Pending{rec(4), piece(3, 4, "2\n"), piece(4, 6, "3\n")}, want: "n\n1\n2\n3\n"},
		"all of it, and more":  {before: "n\n1\n2\n3\n4\n5", held: []sensors.Pending{rec(4), piece(3, 4, "2\n"), piece(4, 6, "3\n")}, want: "n\n1\n2\n3\n"},
		"something else":       {before: "n\n1\n7\n8\n9\n", held: []sensors.Pending{rec(4), piece(3, 4, "2\n")}, want: "n\n1\n2\n"},
		"zeros of a bad crash": {before: "n\n1\n\x00\x00\x00\x00", held: []sensors.Pending{rec(4), piece(3, 4, "2\n")}, want: "n\n1\n2\n"},
		"never written":        {held: []sensors.Pending{rec(0), piece(1, 0, "n\n1\n")}, want: "n\n1\n"},
		"nothing to write":     {held: []sensors.Pending{rec(0)}, want: ""},
		"shorter":              {before: "n\n", held: []sensors.Pending{rec(4)}, want: "n\n", refused: "2 bytes long, but the checkpoint knows 4"},
		"missing":              {held: []sensors.Pending{rec(4)}, refused: "is missing, but the checkpoint knows 4 bytes"},
		"a piece is missing":   {before: "n\n1\n", held: []sensors.Pending{rec(4), piece(4, 6, "3\n")}, want: "n\n1\n", refused: "belongs to byte 6, not 4"},
		"no record":            {held: []sensors.Pending{piece(4, 6, "3\n")}, refused: "no record before it"},
		"a piece cut short":    {held: []sensors.Pending{rec(0), {Target: p, Piece: 1, Data: []byte("1234567")}}, refused: "cut short"},
		"a newer version":      {held: []sensors.Pending{{Target: p, Data: []byte(`{"version":2}`)}}, refused: "version 2"},
		"no JSON":              {held: []sensors.Pending{{Target: p, Data: []byte(`{`)}}, refused: "cannot be read"},
		"a length below zero":  {held: []sensors.Pending{{Target: p, Data: []byte(`{"version":1,"length":-1}`)}}, refused: "damaged"},
		"fresh, not empty":     {before: "old", want: "old", refused: "--overwrite"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := storetest.New()
			if c.before != "" {
				put(t, fsys, p, c.before)
			}
			for range 2 { // as if the first one had been interrupted at its end
				s, err := OpenSink(durable(fsys, p, 0, 1, newNumbers().csv()))
				if err != nil {
					t.Fatal(err)
				}
				err = s.Recover(context.Background(), c.held, nobody)
				if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("Recover: %v, want %q", err, c.refused)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if got := text(t, fsys, p); got != c.want {
					t.Fatalf("the file holds %q, want %q", got, c.want)
				}
			}
		})
	}
}

// TestRowsOfAnotherPathBringNoHeader: the path was changed before anything was
// committed, so that the header is still pending; the new file has its own.
func TestRowsOfAnotherPathBringNoHeader(t *testing.T) {
	fsys := storetest.New()
	s, err := OpenSink(durable(fsys, "/o/x.csv", 0, 1, newNumbers().csv()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pending := []sensors.Pending{
		{Target: "/o/before-0.csv", Data: recordOf("/o/before.csv", 0)},
		{Target: "/o/before-0.csv", Piece: 1, Data: at(0, "n\n7\n")},
		{Target: "/o/before-0.csv", Piece: 2, Data: at(4, "8\n")},
		{Target: "/o/before-1.csv", Data: recordOf("/o/before.csv", 0)},
		{Target: "/o/before-1.csv", Piece: 1, Data: at(0, "n\n9\n")},
	}
	if err := s.Recover(context.Background(), pending, me); err != nil {
		t.Fatal(err)
	}
	if err := s.Prepare(id(1), true, func(sensors.Pending) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.CommitThrough(context.Background(), id(1)); err != nil {
		t.Fatal(err)
	}
	if got := text(t, fsys, "/o/x.csv"); got != "n\n7\n8\n9\n" {
		t.Errorf("the file holds %q", got)
	}
}

// TestRecoverOfFamilies: files that no subtask writes any more, those of
// another path, and those that the checkpoint never knew.
func TestRecoverOfFamilies(t *testing.T) {
	ctx := context.Background()
	fsys := storetest.New()
	put(t, fsys, "/o/x-0.csv", "n\n0\n")
	put(t, fsys, "/o/x-1.csv", "n\n1\nhalf of a com")
	put(t, fsys, "/o/before.csv", "n\n7\nof another job")
	pending := []sensors.Pending{
		{Target: "/o/before.csv", Data: recordOf("/o/before.csv", 4)},
		{Target: "/o/before.csv", Piece: 4, Data: at(4, "8\n")},
		{Target: "/o/x-0.csv", Data: recordOf("/o/x.csv", 4)},
		{Target: "/o/x-0.csv", Piece: 2, Data: at(4, "2\n")},
		{Target: "/o/x-1.csv", Data: recordOf("/o/x.csv", 4)},
		{Target: "/o/x-1.csv", Piece: 2, Data: at(4, "3\n")},
	}
	s, err := OpenSink(durable(fsys, "/o/x.csv", 0, 1, newNumbers().csv()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Recover(ctx, pending, me); err != nil {
		t.Fatal(err)
	}
	check := func(want map[string]string) {
		t.Helper()
		for name, body := range want {
			if got := text(t, fsys, name); got != body {
				t.Errorf("%s holds %q, want %q", name, got, body)
			}
		}
	}
	check(map[string]string{"/o/x-0.csv": "n\n0\n2\n", "/o/x-1.csv": "n\n1\n3\n", "/o/x.csv": "", "/o/before.csv": "n\n7\nof another job"})
	var gone []string
	records := map[string]string{}
	if err := s.Prepare(id(1), false, func(p sensors.Pending) error {
		if p.Gone {
			gone = append(gone, fmt.Sprint(p.Target, " ", p.Piece))
		} else if p.Piece == 0 {
			records[p.Target] = string(p.Data)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := "[/o/x-0.csv 2 /o/x-1.csv 2 /o/before.csv 0 /o/before.csv 4]"; fmt.Sprint(gone) != want {
		t.Errorf("gone: %v", gone)
	}
	for name, length := range map[string]int64{"/o/x-0.csv": 6, "/o/x-1.csv": 6} {
		if records[name] != string(recordOf("/o/x.csv", length)) {
			t.Errorf("the record of %s is %s", name, records[name])
		}
	}
	if len(records) != 3 {
		t.Errorf("records: %v", records)
	}
	if err := s.CommitThrough(ctx, id(1)); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"/o/x.csv": "n\n8\n", "/o/before.csv": "n\n7\nof another job"})

	// Another subtask leaves alone what it does not own, and what others write.
	other, err := OpenSink(durable(fsys, "/o/x.csv", 1, 3, newNumbers().csv()))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	put(t, fsys, "/o/x-0.csv", "n\n0\n")
	if err := other.Recover(ctx, pending, nobody); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"/o/x-0.csv": "n\n0\n", "/o/x-1.csv": "n\n1\n3\n"})

	// A file in the way that the checkpoint does not know is refused.
	put(t, fsys, "/o/x-2.csv", "whose?")
	third, err := OpenSink(durable(fsys, "/o/x.csv", 2, 3, newNumbers().csv()))
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Recover(ctx, pending, nobody); err == nil || !strings.Contains(err.Error(), "--overwrite") {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestDurableSinkNeedsRecover(t *testing.T) {
	n := newNumbers()
	s, err := OpenSink(durable(storetest.New(), "/o/x.csv", 0, 1, n.csv()))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := n.rows(1)
	defer b.Release()
	if err := s.Write(context.Background(), b); err == nil || !strings.Contains(err.Error(), "Recover") {
		t.Errorf("Write before Recover: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	plain, err := OpenSink(SinkConfig{Path: "/o/x.csv", Parallelism: 1, Encoder: n.csv(), FS: storetest.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := plain.Recover(context.Background(), nil, nobody); err == nil {
		t.Error("Recover of a sink that was begun")
	}
}

// TestSomebodyCutsTheFile: rows must not be written behind a hole.
func TestSomebodyCutsTheFile(t *testing.T) {
	ctx := context.Background()
	fsys := storetest.New()
	n := newNumbers()
	s, err := OpenSink(durable(fsys, "/o/x.csv", 0, 1, n.csv()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Recover(ctx, nil, nobody); err != nil {
		t.Fatal(err)
	}
	for c := range uint64(2) {
		b, _ := n.rows(3)
		mustWrite(t, s, b)
		if err := s.Prepare(id(c+1), false, func(sensors.Pending) error { return nil }); err != nil {
			t.Fatal(err)
		}
		err := s.CommitThrough(ctx, id(c+1))
		if c == 1 && (err == nil || !strings.Contains(err.Error(), "3 bytes long, but 8 were committed")) || c == 0 && err != nil {
			t.Fatal(err)
		}
		if err := fsys.Damage("/o/x.csv", func(b []byte) []byte { return b[:3] }); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPiecesGolden: what a checkpoint holds of a file, byte by byte as
// docs/FILES.md has it.
func TestPiecesGolden(t *testing.T) {
	n := newNumbers()
	s, err := OpenSink(durable(storetest.New(), "out/x.csv", 0, 1, n.csv()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Recover(context.Background(), nil, nobody); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	show := func(p sensors.Pending) error {
		fmt.Fprintf(&got, "%s %d gone=%v %q\n", p.Target, p.Piece, p.Gone, p.Data)
		return nil
	}
	for c := range uint64(3) {
		b, _ := n.rows(2)
		mustWrite(t, s, b)
		if err := s.Prepare(id(c+1), false, show); err != nil {
			t.Fatal(err)
		}
		if c == 1 {
			if err := s.CommitThrough(context.Background(), id(1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := `out/x.csv 0 gone=false "{\"version\":1,\"path\":\"out/x.csv\",\"length\":0,\"next\":2}"
out/x.csv 1 gone=false "\x00\x00\x00\x00\x00\x00\x00\x00n\n0\n1\n"
out/x.csv 0 gone=false "{\"version\":1,\"path\":\"out/x.csv\",\"length\":0,\"next\":3}"
out/x.csv 2 gone=false "\x00\x00\x00\x00\x00\x00\x00\x062\n3\n"
out/x.csv 0 gone=false "{\"version\":1,\"path\":\"out/x.csv\",\"length\":6,\"next\":4}"
out/x.csv 1 gone=true ""
out/x.csv 3 gone=false "\x00\x00\x00\x00\x00\x00\x00\n4\n5\n"
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

// FuzzRecover: whatever a checkpoint holds, Recover takes it or refuses it.
func FuzzRecover(f *testing.F) {
	f.Add(recordOf("/o/x.csv", 4), at(4, "2\n"), at(6, "3\n"), "n\n1\n", int64(1))
	f.Add([]byte(`{"version":1,"path":"/o/y.csv"}`), at(0, ""), []byte{}, "", int64(0))
	f.Fuzz(func(t *testing.T, rec, one, two []byte, before string, number int64) {
		fsys := storetest.New()
		put(t, fsys, "/o/x.csv", before)
		s, err := OpenSink(durable(fsys, "/o/x.csv", 0, 1, newNumbers().csv()))
		if err != nil {
			t.Fatal(err)
		}
		held := []sensors.Pending{{Target: "/o/x.csv", Data: rec}, {Target: "/o/x.csv", Piece: number, Data: one}, {Target: "/o/x.csv", Piece: number + 1, Data: two}}
		if err := s.Recover(context.Background(), held, nobody); err == nil {
			if _, err := (sensortest.Held{}).Prepare(s, id(1), true); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
