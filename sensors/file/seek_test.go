package file

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

// restored reads on with every split at the position of its name, 0 for new
// ones, and returns the lines.
func restored(t *testing.T, files []string, positions map[string]int64) ([]string, error) {
	t.Helper()
	r, err := NewReader(SourceConfig{Files: files, Parallelism: 1, Split: SplitFor(decode.Text)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range r.Splits() {
		if err := r.Seek(sensors.Position{Split: i, Offset: positions[r.SplitName(i)]}); err != nil {
			t.Fatal(err)
		}
	}
	var out []string
	var rec sensors.Records
	for {
		if err := r.Read(context.Background(), &rec, 100); err == io.EOF {
			return out, nil
		} else if err != nil {
			return out, err
		}
		for i := range rec.Len() {
			out = append(out, string(rec.Payload(i)))
		}
	}
}

// TestFilesAtARestart is docs/FILES.md's table of what becomes of files.
func TestFilesAtARestart(t *testing.T) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a.txt"), filepath.Join(dir, "b.txt"), filepath.Join(dir, "c.txt")
	write(t, a, "1\n2\n3\n")
	write(t, b, "4\n5\n")
	at := map[string]int64{a: 2, b: 4}
	write(t, c, "6\n")
	files, err := Resolve(filepath.Join(dir, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := restored(t, files, at); strings.Join(got, " ") != "2 3 6" || err != nil {
		t.Errorf("a new file: %v, %v", got, err)
	}
	write(t, a, "1")
	if _, err := restored(t, files, at); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), "only 1") {
		t.Errorf("a shorter file: %v", err)
	}
	for _, f := range []struct {
		split string
		ended bool
		ok    bool
	}{{a, false, true}, {a, true, true}, {"gone.txt", true, true}, {"gone.txt", false, false}} {
		if err := StillThere(files, f.split, f.ended); (err == nil) != f.ok || err != nil && !strings.Contains(err.Error(), f.split) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	zipped := filepath.Join(dir, "z.txt.gz")
	f, err := os.Create(zipped)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	if _, err := z.Write([]byte("7\n8\n")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := restored(t, []string{zipped}, map[string]int64{zipped: 2}); strings.Join(got, " ") != "8" || err != nil {
		t.Errorf("packed: %v, %v", got, err)
	}
	if _, err := restored(t, []string{zipped}, map[string]int64{zipped: 5}); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "only 4") {
		t.Errorf("packed and shorter: %v", err)
	}
}

func TestReplayable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x")
	write(t, name, "")
	if err := Replayable(name); err != nil {
		t.Error(err)
	}
	if err := Replayable(Stdin); !errors.Is(err, ErrNotReplayable) || !strings.Contains(err.Error(), "stdin") {
		t.Error(err)
	}
	if err := Replayable(os.DevNull); !errors.Is(err, ErrNotReplayable) {
		t.Error(err)
	}
}
