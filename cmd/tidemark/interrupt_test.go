package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// GNU timeout signals its child and then the whole group: that is one wish, and
// the savepoint is still taken.
func TestSignalsThatComeTogetherAreOne(t *testing.T) {
	first := time.Unix(1000, 0)
	for _, c := range []struct {
		first, now time.Time
		want       bool
	}{
		{time.Time{}, first, false}, // the first itself
		{first, first, false},
		{first, first.Add(3 * time.Millisecond), false},
		{first, first.Add(299 * time.Millisecond), false},
		{first, first.Add(300 * time.Millisecond), true},
		{first, first.Add(time.Hour), true},
	} {
		if got := insists(c.first, c.now); got != c.want {
			t.Errorf("insists(%v, %v) = %v", c.first, c.now, got)
		}
	}
}

// An interrupt that comes while a run starts, before anything can hear it, still
// ends it in order.
func TestInterruptWhileARunStarts(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.jsonl")
	job := file(t, "job.yaml", fmt.Sprintf(`name: endless
sources:
  in: {generate: {rate: 0}}
sinks:
  - {id: out, from: in, file: {path: %q}}
`, out))
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var said lockedBuffer
	if err := runJob(ctx, &terminal{in: strings.NewReader(""), out: &said, err: &said}, job, loadFlags{}, runFlags{}); err != nil {
		t.Errorf("%v, want it to end in order", err)
	}
	for _, want := range []string{"stopping: ", "endless: rows in "} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it did not say %q:\n%s", want, said.String())
		}
	}
}

// Nor does a job that is being typed hold up an interrupt.
func TestInterruptWhileTheJobIsRead(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	in, typed := io.Pipe()
	defer typed.Close() // ends the read that is left behind
	interrupt()
	var said lockedBuffer
	_, err := (&loadFlags{}).load(ctx, &terminal{in: in, out: &said, err: &said}, "-")
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("%v, want it to say that it was interrupted", err)
	}
}

func TestJobAndRowsDoNotShareStdin(t *testing.T) {
	const job = "name: both\nsources:\n  in: {file: {path: \"-\"}, format: text}\nsinks:\n  - {id: out, from: in, stdout: {}}\n"
	var out, errw lockedBuffer
	code := run([]string{"run", "-"}, strings.NewReader(job), &out, &errw)
	if want := `source "in" reads stdin, and so was the job; put the job into a file`; code != exitFailed || !strings.Contains(errw.String(), want) {
		t.Errorf("exit code %d, want 1 and %q:\n%s", code, want, errw.String())
	}
}
