//go:build hosts

package hosts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// variant builds the binary with other texts in the place of some source files:
// what cannot be done to a real binary from outside. It returns its path.
func variant(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	var overlay struct{ Replace map[string]string }
	overlay.Replace = make(map[string]string)
	for path, text := range texts {
		file := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[path] = file
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tidemark")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "go", "build", "-overlay", list, "-o", program, "github.com/tidemark-mesh/tidemark/cmd/tidemark")
	return program
}

// patched is a source file with one text in the place of another, which must be
// there once.
func patched(t *testing.T, path, old, text string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), old); n != 1 {
		t.Fatalf("%s has %q %d times, not once: it has changed; let this test follow", path, old, n)
	}
	return strings.Replace(string(b), old, text, 1)
}

// source is a file of this module.
func source(t *testing.T, path string) string {
	t.Helper()
	full, err := filepath.Abs(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	return full
}
