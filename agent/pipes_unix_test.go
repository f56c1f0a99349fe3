//go:build unix

package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
)

// pipe is a named pipe that a source reads and the test writes.
func pipe(t *testing.T) *os.File {
	t.Helper()
	p := filepath.Join(t.TempDir(), "in")
	if err := syscall.Mkfifo(p, 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0) // so that opening does not wait for the reader
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A marker from one of two inputs counts when the other's has come as far. What
// the watermark is after each marker is told by rows behind it: in windows of
// 1 µs a row at the watermark is late, and the one above it is not.
func TestE36TwoInputs(t *testing.T) {
	u := [2]*os.File{pipe(t), pipe(t)}
	text := fmt.Sprintf(`name: two-inputs
sources:
  u1:
    file: {path: %q}%s%s
  u2:
    file: {path: %q}%[2]s%[3]s
steps:
  - {id: both, union: [u1, u2]}
  - {id: w, from: both, key_by: [k], window: {tumbling: 1us}, select: {s: sum(v)}}
sinks:
  - {id: late, from: w.late, stdout: {timestamps: us}}
  - {id: out, from: w, stdout: {timestamps: us}}
`, u[0].Name(), source, dropped, u[1].Name())
	var out lockedBuffer
	local, err := agent.NewLocal(load(t, text, setting{}), agent.LocalOptions{Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- local.Run(t.Context()) }()

	rows, late := int64(0), int64(0)
	for _, s := range []struct {
		input int
		marks int64
		late  []int64 // rows that are, and
		ok    []int64 // rows that are not, behind the marker on the same input
	}{
		{0, 10, nil, []int64{1}}, // nothing yet
		{1, 7, []int64{7}, []int64{8}},
		{1, 12, []int64{10}, []int64{11}}, // 10
		{0, 11, []int64{11}, []int64{12}},
	} {
		if _, err := u[s.input].WriteString(m(s.marks) + rowsOf("k", s.late...) + rowsOf("k", s.ok...)); err != nil {
			t.Fatal(err)
		}
		rows += int64(len(s.late) + len(s.ok))
		late += int64(len(s.late))
		until(t.Context(), t, "rows of the step", func() bool { return outcome(local, "").operators["w"].In == rows })
		if got := outcome(local, "").operators["w"].Late; got != late {
			t.Errorf("after marker %d of input %d: %d rows late, want %d", s.marks, s.input+1, got, late)
		}
	}
	local.Stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r := outcome(local, out.String())
	want := []string{lateRow("k", 7), lateRow("k", 10), lateRow("k", 11)}
	if got := r.rows("window_start", false); !slices.Equal(got, want) {
		t.Errorf("late: got %s, want %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// A stop fires nothing: 12 stays open.
	if got, want := r.rows("window_start", true), []string{sum("k", 1, 2, 1), sum("k", 8, 9, 8), sum("k", 11, 12, 11)}; !slices.Equal(got, want) {
		t.Errorf("fired: got %s, want %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
