package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// A file with the last attempt that is none is damaged, and the error says which
// file and what to do. No number is given out twice, not even behind the greatest.
func TestAttemptsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "hello", `{"version":1,"attempt":-3}`, `{"version":1,"attempt":18446744073709551615}`, `{"version":1,"attempt":99999999999999999999}`} {
		s, err := Open(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		j, err := s.OpenJob("counts")
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(j.dir, "attempt")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if token, err := j.NextAttempt(); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "can be deleted") {
			t.Errorf("%q: %v, %v", text, token, err)
		}
		j.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The text of many errors names a few; all of them can be asked for.
func TestManyDamagesAreAShortText(t *testing.T) {
	var d damages
	for i := range 100 {
		d = append(d, fmt.Errorf("part %d", i))
	}
	d = append(d, store.ErrMissing)
	if text := d.Error(); strings.Count(text, "\n") != 4 || !strings.HasSuffix(text, "and 97 more like these") || !errors.Is(d, store.ErrMissing) {
		t.Errorf("%q", text)
	}
	if text := d[:2].Error(); text != "part 0\npart 1" {
		t.Errorf("%q", text)
	}
}

// Savepoints of several jobs are listed by when they were made: their attempts
// have nothing to do with each other.
func TestSavepointsAreListedByAge(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, attempt := range []uint64{9, 1, 5} {
		m := manifest.Manifest{
			Kind: manifest.Savepoint, Mode: manifest.ExactlyOnce, Name: fmt.Sprintf("sp-%d", i), Job: fmt.Sprintf("job-%d", i), MaxParallelism: 128,
			ID: dataflow.CheckpointID{Token: dataflow.FencingToken{Attempt: attempt}, Counter: 1}, Created: dataflow.Time(i),
		}
		if err := s.savepoints.Put(m); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.Savepoints()
	if err != nil || len(list) != 3 || list[0].Name != "sp-0" || list[1].Name != "sp-1" || list[2].Name != "sp-2" {
		t.Errorf("%v, %v", list, err)
	}
}
