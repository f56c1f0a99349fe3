package agent_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/agent"
)

// live is a job that reads stdin while the test writes it. In the bubble of
// synctest.Test its clock is virtual.
type live struct {
	t     *testing.T
	local *agent.Local
	in    *io.PipeWriter
	out   *lockedBuffer
	done  chan error
}

func start(t *testing.T, text string) *live {
	t.Helper()
	r, w := io.Pipe()
	l := &live{t: t, in: w, out: &lockedBuffer{}, done: make(chan error, 1)}
	var err error
	l.local, err = agent.NewLocal(load(t, text, setting{parallelism: 2}), agent.LocalOptions{Stdin: r, Stdout: l.out})
	if err != nil {
		t.Fatal(err)
	}
	go func() { l.done <- l.local.Run(t.Context()) }()
	return l
}

func (l *live) write(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l.in, text); err != nil {
		l.t.Fatal(err)
	}
}

// end ends the input or stops the job, and waits for it.
func (l *live) end(stop bool) *ran {
	l.t.Helper()
	if stop {
		l.local.Stop()
	} else {
		l.in.Close()
	}
	if err := <-l.done; err != nil {
		l.t.Fatal(err)
	}
	l.in.Close()
	return outcome(l.local, l.out.String())
}

// The result of a window carries its end minus one microsecond, so it falls into
// the window of equal size behind it, and both fire at the same watermark.
func TestE14WindowsBehindWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, oneSource("-", dropped, `  - {id: each, from: in, key_by: [k], window: {tumbling: 5ms}, select: {s: sum(v)}}
  - {id: all, from: each, window: {tumbling: 5ms}, select: {keys: count(*), total: sum(s)}}`, "all"))
		l.write(e("a", 1) + e("b", 2) + e("a", 4999) + e("b", 5000) + m(4998))
		time.Sleep(time.Minute)
		if got := l.out.String(); got != "" {
			t.Errorf("fired before its watermark: %s", got)
		}
		l.write(m(4999))
		time.Sleep(time.Minute)
		want := `{"window_start":0,"window_end":5000,"keys":2,"total":5002}` + "\n"
		if got := l.out.String(); got != want {
			t.Errorf("after the watermark 4999: got %s, want %s", got, want)
		}
		want += `{"window_start":5000,"window_end":10000,"keys":1,"total":5000}` + "\n"
		if got := strings.Join(l.end(false).lines, "\n") + "\n"; got != want {
			t.Errorf("at the end: got %s, want %s", got, want)
		}
	})
}

// Without a marker nothing fires, however long it takes, and a stop fires
// nothing either.
func TestE29NoMarkerNoOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, oneSource("-", dropped, "  - {id: w, from: in, key_by: [k], window: {tumbling: 10us}, select: {s: sum(v)}}", "w"))
		l.write(e("k", 1) + e("k", 100) + e("k", 1000))
		time.Sleep(time.Hour)
		synctest.Wait()
		open := int64(0)
		for _, s := range l.local.Status() {
			for _, o := range s.Operators {
				open += o.OpenWindows
			}
		}
		if open != 3 {
			t.Errorf("%d windows open, want 3", open)
		}
		if r := l.end(true); len(r.lines) > 0 || r.operators["w"].Fired != 0 {
			t.Errorf("%d windows fired: %v", r.operators["w"].Fired, r.lines)
		}
	})
}

// Two splits, one of which says nothing of the time: nothing fires. While it is
// idle the other's watermark counts. When it comes back behind, its marker is
// ignored and its rows are late; then the lesser of both counts again.
func TestE35TwoSplits(t *testing.T) {
	dir := t.TempDir()
	row := func(k string, ts, at int64) string {
		return fmt.Sprintf(`{"k":%q,"v":%d,"ts":%d,"at":%d}`, k, ts, ts, at)
	}
	mark := func(wm, at int64) string { return fmt.Sprintf(`{"wm":%d,"at":%d}`, wm, at) }
	// One record of each file in turn.
	turns := [][2]string{
		{row("a", 95, 0), row("b", 50, 0)},
		{mark(100, 1), row("b", 97, 2)},       // b has no watermark: there is none
		{row("a", 200, 3), mark(90, 500)},     // b was idle, so it was 100
		{row("a", 201, 4), row("b", 98, 501)}, // late
		{row("a", 202, 5), mark(120, 502)},    // b counts again; a is at 100
		{row("a", 105, 6), row("b", 106, 503)},
		{mark(110, 7), row("b", 107, 504)}, // late: both are at 110 now
		{mark(130, 8), row("b", 115, 505)}, // late: 120
		{row("a", 300, 9), row("b", 121, 506)},
	}
	var files [2][]string
	for _, turn := range turns {
		for i := range files {
			files[i] = append(files[i], turn[i])
		}
	}
	for i, name := range []string{"a.jsonl", "b.jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(files[i], "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	watermark := strings.Replace(dropped, "emit: false}", "emit: false}, idle_after: 100us", 1) + "\n    arrival: at\n    parallelism: 1"
	text := oneSource(filepath.Join(dir, "*.jsonl"), watermark, "  - {id: w, from: in, key_by: [k], window: {tumbling: 10us}, select: {s: sum(v)}}", "w", "w.late")
	for _, p := range []int{1, 2, 5} {
		r := run(t, text, setting{parallelism: p, batchRows: 1})
		got, late := r.rows("window_start", true), r.rows("window_start", false)
		slices.Sort(got)
		want := []string{
			sum("a", 100, 110, 105), sum("a", 200, 210, 603), sum("a", 300, 310, 300), sum("a", 90, 100, 95),
			sum("b", 100, 110, 106), sum("b", 120, 130, 121), sum("b", 50, 60, 50), sum("b", 90, 100, 97),
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("parallelism %d: got\n%s\nwant\n%s", p, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		for i, ts := range []int64{98, 107, 115} {
			if i >= len(late) || !strings.Contains(late[i], fmt.Sprintf(`"k":"b","v":%d`, ts)) || len(late) != 3 {
				t.Errorf("parallelism %d: late rows %v, want 98, 107, 115 of b", p, late)
				break
			}
		}
	}
}

// Stdin arrives when it is read, unless a column says when: then the time of
// reading is no clock of its own beside it.
func TestArrivalColumnOfStdin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watermark := "\n    watermark: {ascending: true, per: k, idle_after: 100us}\n    arrival: at"
		l := start(t, oneSource("-", watermark, "  - {id: w, from: in, key_by: [k], window: {tumbling: 10us}, select: {s: sum(v)}}", "w"))
		row := func(k string, ts int64) string {
			return fmt.Sprintf(`{"k":%q,"v":%d,"ts":%d,"at":%[2]d}`, k, ts, ts) + "\n"
		}
		l.write(row("silent", 1) + row("a", 2))
		time.Sleep(time.Minute) // the reader's clock goes on, and is now far beyond the rows'
		synctest.Wait()
		if got := l.local.Totals(); got.Watermark != 0 || got.Arrival != 2 {
			t.Errorf("watermark %v, arrival %v; want that of the silent one, and 2 µs", got.Watermark, got.Arrival)
		}
		l.write(row("a", 50) + row("a", 150))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := l.local.Totals(); got.Watermark != 149 || got.Arrival != 150 {
			t.Errorf("watermark %v, arrival %v; the silent one is silent for longer than 100 µs", got.Watermark, got.Arrival)
		}
		l.end(false)
	})
}

// until waits for something that the job's status shows.
func until(ctx context.Context, t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, context.Cause(ctx))
		}
	}
}
