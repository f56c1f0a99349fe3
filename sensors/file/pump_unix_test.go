//go:build unix

package file

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

func fifo(t *testing.T) (string, *Reader) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(SourceConfig{Files: files, Parallelism: 1, Split: SplitFor(decode.Text)})
	if err != nil {
		t.Fatal(err)
	}
	return name, r
}

// TestNamedPipe: it is read like stdin, and its opening, which waits for the
// writer, does not hold up Read.
func TestNamedPipe(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	name, r := fifo(t)
	var rec sensors.Records
	if err := r.Read(context.Background(), &rec, 10); err != nil || rec.Len() != 0 || rec.Done {
		t.Fatalf("%v, %d records before anybody writes", err, rec.Len())
	}
	out, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(out, "a\nb\n"); err != nil {
		t.Fatal(err)
	}
	out.Close()
	n := 0
	for err == nil {
		err = r.Read(context.Background(), &rec, 10)
		if err == nil {
			n += rec.Len()
		}
	}
	if err != io.EOF || n != 2 {
		t.Errorf("%d records, then %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Resolve(filepath.Join(filepath.Dir(name), "*")); err == nil {
		t.Error("a pipe among a glob's files is accepted")
	}
}

func TestCloseEndsTheReadOfANamedPipe(t *testing.T) {
	before := goleak.IgnoreCurrent()
	name, r := fifo(t)
	out, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.WriteString(out, "a\n"); err != nil {
		t.Fatal(err)
	}
	var rec sensors.Records
	for rec.Len() == 0 {
		if err := r.Read(context.Background(), &rec, 10); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before) // while the other end is open still
}
