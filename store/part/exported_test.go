package part_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// What was exported is read where it is; what is cut or changed is told.
func TestOpenExport(t *testing.T) {
	l := start(t)
	large := strings.Repeat("x", 20_000)
	m := checkpoint(4, []store.Part{l.mustPut(t, "a"), l.mustPut(t, large)})
	var file bytes.Buffer
	if err := part.Export(&file, m, l.s); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "x.savepoint")
	// looked opens the bytes as an export and reads all of it.
	looked := func(data []byte) error {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		x, got, err := part.OpenExport(name)
		if err != nil {
			return err
		}
		defer x.Close()
		for _, p := range manifest.Needed(got) {
			err = errors.Join(err, x.Verify(p))
		}
		return err
	}
	if err := looked(file.Bytes()); err != nil {
		t.Error(err)
	}
	x, got, err := part.OpenExport(name)
	if err != nil || got.Name != m.Name {
		t.Fatal(got, err)
	}
	defer x.Close()
	want := ""
	for _, p := range manifest.Needed(m) {
		r, err := x.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		want += string(b[:1])
	}
	if want != "ax" && want != "xa" {
		t.Errorf("parts that begin with %q", want)
	}
	if _, err := x.Open(store.Part{Size: 1}); !errors.Is(err, store.ErrMissing) {
		t.Errorf("a part that is not there: %v", err)
	}
	for n := 0; n < file.Len()-1024-512; n += 999 {
		if err := looked(file.Bytes()[:n]); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	for at := 300; at < file.Len()-1024; at += 999 {
		spoilt := bytes.Clone(file.Bytes())
		if spoilt[at] ^= 1; spoilt[at]^1 == 0 {
			continue // padding
		}
		if err := looked(spoilt); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("a flipped bit in byte %d: %v", at, err)
		}
	}
	if _, _, err := part.OpenExport(name + "none"); !errors.Is(err, store.ErrMissing) {
		t.Errorf("no file: %v", err)
	}
}
