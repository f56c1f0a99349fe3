package bench

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
)

// collector is a sink that keeps the rows of windows.
type collector struct {
	mu   sync.Mutex // the subtasks of a sink share it
	rows []result
}

func (c *collector) Write(_ context.Context, b *batch.Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	col := func(name string) *batch.Column { return b.Cols[b.Schema.Index(name)] }
	for k := range b.Len() {
		p := b.Position(k)
		c.rows = append(c.rows, result{
			key: string(col("sensor").At(p)), start: col("window_start").Ints[p], end: col("window_end").Ints[p],
			avg: col("avg").Doubles[p], max: col("max").Doubles[p], n: col("n").Ints[p],
		})
	}
	return nil
}
func (c *collector) Commit(context.Context) error { return nil }
func (c *collector) Close() error                 { return nil }

func sorted(rows []result) []result {
	slices.SortFunc(rows, func(a, b result) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.key, b.key)) })
	return rows
}

// runPasses is what a job puts out over a few passes.
func runPasses(t *testing.T, j *job, in *input, passes int) []result {
	t.Helper()
	out := &collector{}
	in.shift(0)
	s, err := j.open(in, out)
	if err != nil {
		t.Fatal(err)
	}
	for p := range passes {
		in.shift(p)
		if err := s.pass(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	return sorted(out.rows)
}

// loopPasses is what the loop puts out over the same.
func loopPasses(t *testing.T, size dataflow.Duration, in *input, passes int) []result {
	t.Helper()
	var rows []result
	l := newLoop(int64(size), func(r []result) { rows = append(rows, r...) })
	for p := range passes {
		in.shift(p)
		l.rows(in.structs)
	}
	if l.late > 0 {
		t.Fatalf("%d rows are late", l.late)
	}
	return sorted(rows)
}

// TestSidesAgree: what is compared does the same work. Sums are compared
// exactly: both add a key's values in the order of the rows.
func TestSidesAgree(t *testing.T) {
	const passes = 3
	s := shape{rows: 30_000, keys: 100, perSecond: 1000, structs: true}
	for _, c := range []struct {
		name        string
		markEvery   int
		parallelism int
	}{{"engine", 0, 1}, {"marker a row", 1, 1}, {"each 100", 100, 1}, {"four subtasks", 0, 4}, {"four, marker a row", 1, 4}} {
		t.Run(c.name, func(t *testing.T) {
			s.markEvery = c.markEvery
			in := makeInput(s)
			want := loopPasses(t, engineWindow, in, passes)
			if len(want) < 8*100 { // nine windows, the last of them still open
				t.Fatalf("the loop put out %d rows", len(want))
			}
			j := &job{window: tumbling(engineWindow), time: punctuatedTime(), parallelism: c.parallelism}
			got := runPasses(t, j, in, passes)
			if !slices.Equal(got, want) {
				t.Errorf("the job put out %d rows, the loop %d, or others", len(got), len(want))
			}
		})
	}
}

// TestDevicesAgree: a watermark a device makes nothing late, it only comes
// later; so what both have put out is the same.
func TestDevicesAgree(t *testing.T) {
	one, each := deviceTimes()
	in := makeInput(shape{rows: 30_000, keys: 100, perSecond: 3000, draw: silent})
	job := func(c eventtime.Config) *job { return &job{window: tumbling(engineWindow), arrivals: true, time: c} }
	want, got := runPasses(t, job(one), in, 4), runPasses(t, job(each), in, 4)
	if len(got) < 3*100 || !slices.Equal(got, want[:len(got)]) || len(want)-len(got) > 100 {
		t.Errorf("%d rows with a watermark a device, %d with one", len(got), len(want))
	}
}

// TestSlidingIsFull: once it is measured, every window has all the rows of its
// size, and each row is in as many windows as it should be.
func TestSlidingIsFull(t *testing.T) {
	for _, c := range slidingCases(Options{Scale: 0.001}) {
		in := makeInput(c.shape)
		if int64(c.warm())*in.span() < int64(c.size) {
			t.Errorf("%s: measured after %d passes of %v", c.id, c.warm(), dataflow.Duration(in.span()))
		}
		kept := int64(0)
		for _, b := range in.batches {
			for _, a := range b.Cols[1].Doubles {
				if a >= 5 {
					kept++
				}
			}
		}
		rows := runPasses(t, c.job(), in, c.warm()+1)
		last := rows[len(rows)-1].start
		n := int64(0)
		for _, r := range rows {
			if r.start == last {
				n += r.n
			}
		}
		if want := kept * int64(c.size) / in.span(); n != want {
			t.Errorf("%s: the last window has %d rows, want %d", c.id, n, want)
		}
	}
}

// TestFullSizes: at the scale that counts, the inputs are what the ids mean.
func TestFullSizes(t *testing.T) {
	s := Options{}.engineShape()
	if s.keys != 1000 || s.perSecond != 100*1000 {
		t.Errorf("engine: %+v", s)
	}
	cases := slidingCases(Options{})
	if c := cases[1]; c.shape.keys != 10_000 || c.shape.perSecond != 20*1000 || c.size != 600*dataflow.Second {
		t.Errorf("10m: %+v", c)
	}
	for _, c := range cases {
		if int64(c.warm())*c.shape.span() < int64(c.size) {
			t.Errorf("%s: measured before the window is full", c.id)
		}
	}
	m, ends := makeMessages(1000)
	for i, e := range ends {
		if e != messageBytes*(i+1) {
			t.Fatalf("message %d ends at %d: %q", i, e, m[:e])
		}
	}
}

func TestSilentDevices(t *testing.T) {
	in := makeInput(shape{rows: 20_000, keys: 100, perSecond: 1000, structs: true, draw: silent})
	for half := range 2 {
		seen := make(map[string]bool)
		for _, r := range in.structs[half*10_000 : (half+1)*10_000] {
			seen[r.key] = true
		}
		if len(seen) != 90 || seen["sensor-0000000"] == (half == 0) || seen["sensor-0000001"] == (half == 1) {
			t.Errorf("half %d has %d devices", half, len(seen))
		}
	}
}

func TestLoop(t *testing.T) {
	sec := int64(dataflow.Second)
	at := func(key string, a float64, ms int64, marker bool) row {
		return row{key: key, a: a, time: ms * sec / 1000, marker: marker}
	}
	var got []result
	l := newLoop(10*sec, func(r []result) { got = append(got, r...) })
	l.rows([]row{
		at("a", 10, 1000, false), at("b", 4, 1500, false), // b is filtered out
		at("a", 20, 12_000, true), // belongs to the next window, and closes the first
		at("a", 30, 9000, false),  // late
		at("b", 10, 25_000, false),
		at("b", 20, 15_000, false), // out of order, its window is open
		at("c", 10, 29_999, true),  // ends two windows up to 20 s
		at("c", 10, 30_000, true),
	})
	score := func(a float64) float64 { return a*1.8 + 32 }
	want := []result{
		{"a", 0, 10 * sec, score(10), score(10), 1},
		{"a", 10 * sec, 20 * sec, score(20), score(20), 1}, {"b", 10 * sec, 20 * sec, score(20), score(20), 1},
		{"b", 20 * sec, 30 * sec, score(10), score(10), 1}, {"c", 20 * sec, 30 * sec, score(10), score(10), 1},
	}
	if !slices.Equal(got, want) || l.late != 1 {
		t.Errorf("%v, %d late", got, l.late)
	}
}
