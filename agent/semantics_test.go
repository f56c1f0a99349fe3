package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// source is a source of rows k, v, ts and, for markers, wm; all in µs.
const source = `
    format: json
    fields: {k: string, v: bigint, ts: {type: timestamp, unit: us}, wm: {type: timestamp, unit: us}, at: {type: timestamp, unit: us}}
    event_time: ts`

const (
	dropped = "\n    watermark: {punctuated: {when: wm is not null, at: wm, emit: false}}"
	kept    = "\n    watermark: {punctuated: {when: wm is not null, at: wm}}"
)

// oneSource is a job of steps over one file; sinks are "id: stream", and write
// to stdout.
func oneSource(file, watermark, steps string, streams ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: example\nsources:\n  in:\n    file: {path: %q}%s%s\nsteps:\n%s\nsinks:\n", file, source, watermark, steps)
	for i, s := range streams {
		fmt.Fprintf(&b, "  - {id: out%d, from: %s, stdout: {timestamps: us}}\n", i, s)
	}
	return b.String()
}

// e is a row, m a marker that is no data.
func e(k string, ts int64) string { return fmt.Sprintf(`{"k":%q,"v":%d,"ts":%d}`, k, ts, ts) + "\n" }
func m(wm int64) string           { return fmt.Sprintf(`{"wm":%d}`, wm) + "\n" }

// rowsOf are rows of one key at the times.
func rowsOf(k string, times ...int64) (text string) {
	for _, t := range times {
		text += e(k, t)
	}
	return text
}

// expect runs the job at all settings and compares the lines of its sinks, per
// stream in order: a line belongs to the first stream of which it has the
// column.
func expect(t *testing.T, text string, column string, with, without []string) {
	t.Helper()
	for _, s := range settings() {
		r := run(t, text, s)
		if got := r.rows(column, true); !slices.Equal(got, with) {
			t.Errorf("%v: got\n%s\nwant\n%s", s, strings.Join(got, "\n"), strings.Join(with, "\n"))
		}
		if got := r.rows(column, false); !slices.Equal(got, without) {
			t.Errorf("%v: beside: got\n%s\nwant\n%s", s, strings.Join(got, "\n"), strings.Join(without, "\n"))
		}
	}
}

func sum(k string, from, to, s int64) string {
	return fmt.Sprintf(`{"k":%q,"window_start":%d,"window_end":%d,"s":%d}`, k, from, to, s)
}

func lateRow(k string, ts int64) string {
	return fmt.Sprintf(`{"k":%q,"v":%d,"ts":%d,"wm":null,"at":null}`, k, ts, ts)
}

func TestE03LocalDays(t *testing.T) {
	const ms = 1000
	in := write(t, "in.jsonl", e("a", 1609430400000*ms)+e("b", 1609430399999*ms))
	text := oneSource(in, "", "  - {id: w, from: in, key_by: [k], window: {tumbling: 1d, offset: -8h}, select: {s: count(*)}}", "w")
	for _, s := range settings() {
		got := run(t, text, s).lines
		slices.Sort(got)
		want := []string{sum("a", 1609430400000*ms, 1609516800000*ms, 1), sum("b", 1609344000000*ms, 1609430400000*ms, 1)}
		if !slices.Equal(got, want) {
			t.Errorf("%v: got %v, want %v", s, got, want)
		}
	}
}

// Offsets that have the same effect, and one as large as the size, refused.
func TestE04Offsets(t *testing.T) {
	const minute, ts = int64(60_000_000), int64(1625011204000000) // 2021-06-30 00:00:04
	in := write(t, "in.jsonl", e("k", ts))
	job4 := func(offset int64) string {
		return oneSource(in, "", fmt.Sprintf("  - {id: w, from: in, key_by: [k], window: {tumbling: 10m, offset: %dm}, select: {s: count(*)}}", offset), "w")
	}
	for offset, start := range map[int64]int64{-6: -6, 4: -6, 6: -4, -4: -4, 0: 0} {
		from := ts - 4_000_000 + start*minute
		if got, want := run(t, job4(offset), setting{}).lines, []string{sum("k", from, from+10*minute, 1)}; !slices.Equal(got, want) {
			t.Errorf("offset %d: got %v, want %v", offset, got, want)
		}
	}
	for _, offset := range []int64{-16, 10, 16} {
		if _, err := job.Load("job.yaml", []byte(job4(offset)), job.Options{}); err == nil || !strings.Contains(err.Error(), "steps.w.window.offset") {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
}

// Three ways to treat a late row.
func TestE13Late(t *testing.T) {
	in := write(t, "in.jsonl", e("k", 1)+m(9)+e("k", 2))
	step := "  - {id: w, from: in, key_by: [k], window: {tumbling: 10us%s}, select: {s: sum(v)}}"
	t.Run("dropped", func(t *testing.T) {
		text := oneSource(in, dropped, fmt.Sprintf(step, ""), "w")
		expect(t, text, "window_start", []string{sum("k", 0, 10, 1)}, nil)
		if n := run(t, text, setting{}).totals.Late; n != 1 {
			t.Errorf("%d late rows counted, want 1", n)
		}
	})
	t.Run("side stream", func(t *testing.T) {
		expect(t, oneSource(in, dropped, fmt.Sprintf(step, ""), "w", "w.late"), "window_start", []string{sum("k", 0, 10, 1)}, []string{lateRow("k", 2)})
	})
	t.Run("allowed", func(t *testing.T) {
		expect(t, oneSource(in, dropped, fmt.Sprintf(step, ", allowed_lateness: 5us"), "w", "w.late"), "window_start",
			[]string{sum("k", 0, 10, 1), sum("k", 0, 10, 3)}, nil)
	})
}

func TestE20CountWindow(t *testing.T) {
	in := write(t, "in.jsonl", rowsOf("k", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)+m(1000))
	steps := `  - {id: four, from: in, key_by: [k], window: {count: 4}, select: {lo: min(v), hi: max(v), n: count(*), s: sum(v)}}
  - {id: w, from: four, key_by: [k], window: {tumbling: 5us}, select: {fours: count(*)}}`
	want := func(lo, hi, s int) string {
		return fmt.Sprintf(`{"k":"k","window_start":null,"window_end":null,"lo":%d,"hi":%d,"n":4,"s":%d}`, lo, hi, s)
	}
	// The time of a result is its last row's: 4 and 8.
	expect(t, oneSource(in, dropped, steps, "four", "w"), "lo", []string{want(1, 4, 10), want(5, 8, 26)},
		[]string{`{"k":"k","window_start":0,"window_end":5,"fours":1}`, `{"k":"k","window_start":5,"window_end":10,"fours":1}`})
}

func TestE21SlidingCount(t *testing.T) {
	in := write(t, "in.jsonl", rowsOf("k", 1, 2, 3, 4, 5, 6, 7, 8))
	var want []string
	for _, w := range [][2]int{{1, 2}, {1, 4}, {2, 6}, {4, 8}} {
		n := w[1] - w[0] + 1
		want = append(want, fmt.Sprintf(`{"k":"k","window_start":null,"window_end":null,"lo":%d,"hi":%d,"n":%d,"s":%d}`, w[0], w[1], n, n*(w[0]+w[1])/2))
	}
	expect(t, oneSource(in, "", "  - {id: w, from: in, key_by: [k], window: {count: {size: 5, slide: 2}}, select: {lo: min(v), hi: max(v), n: count(*), s: sum(v)}}", "w"),
		"lo", want, nil)
}

// The watermark after each row, told by probes: in windows of 1 µs a row at the
// watermark is late, and the one above it is not.
func TestE26WatermarkAfterEachRow(t *testing.T) {
	for _, c := range []struct {
		watermark   string
		rows, after []int64
	}{
		{"bounded: 3us", []int64{5, 10, 7, 15, 12}, []int64{1, 6, 6, 11, 11}},
		{"ascending: true", []int64{5, 6, 6, 9}, []int64{4, 5, 5, 8}},
	} {
		t.Run(c.watermark, func(t *testing.T) {
			var in string
			var late, inTime []string
			for i, ts := range c.rows {
				in += e(fmt.Sprint("row ", i), ts) + e(fmt.Sprint("probe at ", i), c.after[i]) + e(fmt.Sprint("probe above ", i), c.after[i]+1)
				late = append(late, lateRow(fmt.Sprint("probe at ", i), c.after[i]))
				inTime = append(inTime, sum(fmt.Sprint("row ", i), ts, ts+1, ts), sum(fmt.Sprint("probe above ", i), c.after[i]+1, c.after[i]+2, c.after[i]+1))
			}
			slices.Sort(inTime)
			slices.Sort(late)
			text := oneSource(write(t, "in.jsonl", in), "\n    watermark: {"+c.watermark+"}",
				"  - {id: w, from: in, key_by: [k], window: {tumbling: 1us}, select: {s: sum(v)}}", "w", "w.late")
			for _, s := range settings() {
				r := run(t, text, s)
				got := r.rows("window_start", true)
				slices.Sort(got)
				if !slices.Equal(got, inTime) {
					t.Errorf("%v: in time %v, want %v", s, got, inTime)
				}
				gotLate := r.rows("window_start", false)
				slices.Sort(gotLate)
				if !slices.Equal(gotLate, late) {
					t.Errorf("%v: late %v, want %v", s, gotLate, late)
				}
			}
		})
	}
}

// E27 as a source says it, with bounded instead of a marker on each row.
func TestE27Bounded(t *testing.T) {
	in := write(t, "in.jsonl", rowsOf("k", 5, 10, 7, 13, 12, 14, 8))
	expect(t, oneSource(in, "\n    watermark: {bounded: 3us}", "  - {id: w, from: in, key_by: [k], window: {tumbling: 10us}, select: {s: sum(v)}}", "w", "w.late"),
		"window_start", []string{sum("k", 0, 10, 12), sum("k", 10, 20, 49)}, []string{lateRow("k", 8)})
}

// A marker on a record that is kept: the record first, then the watermark.
func TestE30RecordFirst(t *testing.T) {
	in := write(t, "in.jsonl", e("k", 3)+`{"k":"k","v":9,"ts":9,"wm":9}`+"\n"+e("k", 9)+`{"k":"k","v":12,"ts":12,"wm":19}`+"\n")
	expect(t, oneSource(in, kept, "  - {id: w, from: in, key_by: [k], window: {tumbling: 10us}, select: {s: sum(v)}}", "w", "w.late"),
		"window_start", []string{sum("k", 0, 10, 12), sum("k", 10, 20, 12)}, []string{lateRow("k", 9)})
}

// A marker that is sent again is no new watermark: what fires at the next
// watermark waits for the next one.
func TestE37DuplicateMarkers(t *testing.T) {
	in := write(t, "in.jsonl", e("k", 5)+m(10)+m(10)+e("k", 6)+m(10)+m(10)+e("k", 7)+m(10)+m(11)+m(11))
	expect(t, oneSource(in, dropped, "  - {id: w, from: in, key_by: [k], window: {tumbling: 10us, allowed_lateness: 1s, late_firing: at_watermark}, select: {s: sum(v)}}", "w", "w.late"),
		"window_start", []string{sum("k", 0, 10, 5), sum("k", 0, 10, 18)}, nil)
}

// A marker far in the future ends everything, unless max_ahead refuses it.
func TestE38MarkerFarAhead(t *testing.T) {
	const far = `{"wm":9223372036854775806,"at":20}` + "\n"
	row := func(ts, at int64) string { return fmt.Sprintf(`{"k":"k","v":%d,"ts":%d,"at":%d}`, ts, ts, at) + "\n" }
	in := write(t, "in.jsonl", row(1, 10)+row(12, 15)+far+row(2, 25)+row(140, 30)+row(3, 35)+`{"wm":9,"at":40}`+"\n"+row(4, 45))
	step := "  - {id: w, from: in, key_by: [k], window: {tumbling: 10us}, select: {s: sum(v)}}"
	late := func(ts, at int64) string {
		return fmt.Sprintf(`{"k":"k","v":%d,"ts":%d,"wm":null,"at":%d}`, ts, ts, at)
	}

	t.Run("believed", func(t *testing.T) {
		text := oneSource(in, dropped+"\n    arrival: at", step, "w", "w.late")
		expect(t, text, "window_start", []string{sum("k", 0, 10, 1), sum("k", 10, 20, 12)}, []string{late(2, 25), late(140, 30), late(3, 35), late(4, 45)})
	})
	t.Run("refused", func(t *testing.T) {
		ahead := strings.Replace(dropped, "emit: false}", "emit: false}, max_ahead: 100us", 1) + "\n    arrival: at"
		text := oneSource(in, ahead, step, "w", "w.late")
		expect(t, text, "window_start", []string{sum("k", 0, 10, 6), sum("k", 10, 20, 12)}, []string{late(4, 45)})
		rejected := oneSource(in, ahead, step, "in.rejected")
		for _, s := range settings() {
			r := run(t, rejected, s)
			if len(r.lines) != 2 || r.totals.Rejected != 2 || r.totals.FirstRejected != "ahead" || strings.Count(strings.Join(r.lines, ""), `"reason":"ahead"`) != 2 {
				t.Errorf("%v: rejected %d, first %q: %v", s, r.totals.Rejected, r.totals.FirstRejected, r.lines)
			}
			if got := r.totals; got.In != 8 || got.Markers != 1 || got.Late != 1 || got.Filtered != 0 || got.NoWindow != 0 {
				t.Errorf("%v: totals %+v", s, got)
			}
		}
	})
}

// A source that is idle for a moment, and nobody else to go on meanwhile: windows
// behind windows must not see one channel's idleness before the others', or
// results that are in time would be late there.
func TestIdlenessOfTheOnlySourceMakesNothingLate(t *testing.T) {
	var in string
	for i := range int64(400) { // twenty rows, then nothing for long
		at := i%20 + i/20*1000
		if i%20 == 0 { // a row that is refused moves the clock, and is no sign of life
			in += fmt.Sprintf(`{"at":%d}`, at-500) + "\n"
		}
		in += fmt.Sprintf(`{"k":"k%d","v":1,"ts":%d,"at":%d}`, i%20, at, at) + "\n"
	}
	watermark := "\n    watermark: {bounded: 2us, idle_after: 50us}\n    arrival: at"
	text := oneSource(write(t, "in.jsonl", in), watermark, `  - {id: w, from: in, key_by: [k], window: {tumbling: 5us}, select: {n: count(*)}}
  - {id: all, from: w, key_by: [k], window: {tumbling: 5us}, select: {n: sum(n)}}
  - {id: total, from: all, key_by: [k], window: {tumbling: 1h}, select: {total: sum(n)}}`, "total")
	for _, s := range settings() {
		for range 5 {
			r := run(t, text, s)
			if r.operators["all"].Late != 0 || r.operators["total"].Late != 0 || r.operators["w"].Late != 0 {
				t.Fatalf("%v: late: %d, behind it %d, %d", s, r.operators["w"].Late, r.operators["all"].Late, r.operators["total"].Late)
			}
		}
	}
}

// A side stream is a stream like any other: its rows stand at their place among
// the watermarks, not before those of the whole batch they came in.
func TestWindowsOverSideStreams(t *testing.T) {
	in := write(t, "in.jsonl", e("k", 1)+m(9)+e("k", 2)+e("k", 8)+m(19)+e("k", 3)+e("k", 4)+m(29)+e("k", 5)+e("k", 15)+m(60)+e("k", 6))
	t.Run("late", func(t *testing.T) {
		// 2 and 8 come at 9, in time for [0,20); 3 and 4 at 19, when that has fired
		// and is kept; 5 and 15 at 29, when it is gone.
		text := oneSource(in, dropped, `  - {id: w, from: in, key_by: [k], window: {tumbling: 10us}, select: {s: sum(v)}}
  - {id: again, from: w.late, key_by: [k], window: {tumbling: 20us, allowed_lateness: 8us}, select: {s: sum(v)}}`, "again", "again.late")
		for _, n := range []int{1, 2, 3, 7, 4096} {
			r := run(t, text, setting{parallelism: 1, batchRows: n}) // of several subtasks, one's rows would meet another's watermark
			if got, want := r.rows("window_start", true), []string{sum("k", 0, 20, 10), sum("k", 0, 20, 13), sum("k", 0, 20, 17)}; !slices.Equal(got, want) {
				t.Errorf("batches of %d: got %v, want %v", n, got, want)
			}
			if got, want := r.rows("window_start", false), []string{lateRow("k", 5), lateRow("k", 15), lateRow("k", 6)}; !slices.Equal(got, want) {
				t.Errorf("batches of %d: late: got %v, want %v", n, got, want)
			}
		}
	})
	t.Run("rejected", func(t *testing.T) {
		var late []string
		for _, ts := range []int64{2, 8, 3, 4, 5, 15, 6} {
			late = append(late, lateRow("k", ts))
		}
		expect(t, oneSource(in, dropped, `  - {id: number, from: in, select: {k: k, x: cast(k as bigint)}}
  - {id: bad, from: number.rejected, select: {k: k, v: v, ts: ts, wm: wm, at: at}}
  - {id: w, from: bad, key_by: [k], window: {tumbling: 10us}, select: {s: sum(v)}}`, "w", "w.late"),
			"window_start", []string{sum("k", 0, 10, 1)}, late)
	})
}
