package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// called is what came of one command line.
type called struct {
	code     int
	out, err string
}

// tidemark runs a command line in this process.
func tidemark(t *testing.T, stdin string, args ...string) called {
	t.Helper()
	var out, errw lockedBuffer
	code := run(args, strings.NewReader(stdin), &out, &errw)
	return called{code, out.String(), errw.String()}
}

// want checks the exit code, and that stderr says each of the texts.
func (c called) want(t *testing.T, code int, says ...string) {
	t.Helper()
	if c.code != code {
		t.Errorf("exit code %d, want %d; stderr:\n%s", c.code, code, c.err)
	}
	for _, s := range says {
		if !strings.Contains(c.err, s) {
			t.Errorf("stderr does not say %q:\n%s", s, c.err)
		}
	}
}

// file puts a text into a new file of a new folder.
func file(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// linesOf are the lines of a file.
func linesOf(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return textLines(string(text))
}

func textLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// lockedBuffer takes what several goroutines of a job print.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
