//go:build hosts

package hosts

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// generated is a job that makes rows, always the same, and writes them to a
// file, with many commits.
const generated = `
name: generated
checkpoint: {interval: 20ms}
sources:
  rows: {generate: {rate: %d, rows: %d, seed: 7}, event_time: ts}
sinks:
  - {id: out, from: rows, file: {path: out.jsonl}}
`

// Ctrl-C and SIGTERM end a run in order: what is in flight arrives, the totals
// are told, the exit code is 0.
func TestHostsStopSignals(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		r := run(t, fmt.Sprintf(generated, 10_000, 0))
		r.lines(t, "out.jsonl", 1000)
		r.signal(t, s)
		got := r.ends(t)
		if lines := int64(bytes.Count(r.file(t, "out.jsonl"), []byte("\n"))); got.In != got.Out || got.Out != lines {
			t.Errorf("%v: totals %+v, %d lines", s, got, lines)
		}
		rows[map[string]any](t, r, "out.jsonl")
	}
}

// A run whose end is held up (its sink's broker is not there) says what it
// waits for; a second signal ends it at once.
func TestHostsSecondSignal(t *testing.T) {
	t.Parallel()
	const waits = "unreachable: .*next attempt in"
	text := fmt.Sprintf(generated, 1000, 0) +
		fmt.Sprintf("  - {id: far, from: rows, mqtt: {broker: \"mqtt://127.0.0.1:%d\", topic: out, qos: 1}}\n", freePort(t))
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		r := run(t, text)
		r.lines(t, "out.jsonl", 1) // with a row that was written, one is in flight to the broker
		r.says(t, waits)
		r.signal(t, s)
		r.says(t, "stopping: ")
		// Two signals within 300 ms are one wish. The three attempts after the
		// first take longer: 250 ms and more lie between two.
		r.saysTimes(t, "(?s)stopping: .*?"+strings.Repeat(waits+".*?", 3), 1)
		r.signal(t, s)
		if code := r.exit(t); code != 1 || !strings.Contains(r.output(), "stopped at once: rows in flight were dropped") {
			t.Errorf("exit code %d:\n%s", code, tail(r.output()))
		}
		r.totals(t)
	}
}

// kill -9 leaves a beginning of what the file would have become. The next run
// does not write over it unless it is told to, and then writes all of it.
func TestHostsKilledRun(t *testing.T) {
	t.Parallel()
	const n = 300_000
	text := fmt.Sprintf(generated, 0, n)
	whole := run(t, text)
	if got := whole.ends(t); got.Out != n {
		t.Fatalf("totals %+v", got)
	}
	want := whole.file(t, "out.jsonl")

	dir := t.TempDir()
	r := runIn(t, dir, nil, fmt.Sprintf(generated, 0, 0)) // the same rows, without an end
	r.lines(t, "out.jsonl", 1)
	r.signal(t, syscall.SIGKILL)
	r.exit(t)
	left := r.file(t, "out.jsonl")
	if both := min(len(left), len(want)); !bytes.Equal(left[:both], want[:both]) {
		t.Errorf("the %d bytes that are left are not what it would have written", len(left))
	}
	t.Logf("%d bytes were left, the last line whole: %v", len(left), bytes.HasSuffix(left, []byte("\n")))

	r = runIn(t, dir, nil, text)
	if code := r.exit(t); code != 1 || !strings.Contains(r.output(), "--overwrite") {
		t.Errorf("exit code %d:\n%s", code, tail(r.output()))
	}
	if !bytes.Equal(r.file(t, "out.jsonl"), left) {
		t.Error("the file was touched")
	}
	r = runIn(t, dir, nil, text, "--overwrite")
	r.ends(t)
	if !bytes.Equal(r.file(t, "out.jsonl"), want) {
		t.Error("the file is not what an undisturbed run writes")
	}
}

// A broker that is not there yet is no error: the job says so and keeps trying,
// and when the broker comes rows flow.
func TestHostsBrokerComesLater(t *testing.T) {
	t.Parallel()
	m := newMosquitto(t, raised)
	r := run(t, job(m.url(), 1, false))
	r.saysTimes(t, "unreachable: .*refused.*next attempt in", 3)
	m.start(t)
	r.says(t, "subscribed")
	flows(t, r, m.url(), 1)
}
