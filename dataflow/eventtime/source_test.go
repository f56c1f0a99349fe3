package eventtime

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// runScript plays a script: a line of words, each one thing that happens. After
// the words so far, "=9" demands that the watermark is 9, "=min" that there is
// none, and "=9i" that the stream is idle as well.
//
//	e5        a row with event time 5          e5/m9    ... that is a marker of 9
//	m9        a marker of 9 that is no data    e-, m-   ... without a time
//	t20       a tick: the arrival clock is 20  deaf20, hearing20, end
//
// "e5@20" arrives at 20, "e5:a" is device a's, "1>e5" comes on split 1. Rows keep
// the clock where it is unless they say more.
func runScript(t *testing.T, cfg Config, splits int, script string) *rig {
	t.Helper()
	numbers := make([]int, splits)
	for i := range numbers {
		numbers[i] = i
	}
	r := newRig(cfg, numbers, 1)
	clocks := make([]dataflow.Time, splits)
	for i := range clocks {
		clocks[i] = minT
	}
	for n, word := range strings.Fields(script) {
		if want, ok := strings.CutPrefix(word, "="); ok {
			if got := stateOf(r.src.Now()); got != want {
				t.Errorf("word %d of %q: =%s, want =%s", n, script, got, want)
			}
			continue
		}
		e := parseEvent(t, word, n)
		if e.arrival == minT {
			e.arrival = clocks[e.split]
		}
		clocks[e.split] = max(clocks[e.split], e.arrival)
		if err := r.do(e); err != nil {
			t.Fatalf("word %d of %q: %v", n, script, err)
		}
	}
	return r
}

func stateOf(m batch.Mark) string {
	s := fmt.Sprint(int64(m.Watermark))
	switch m.Watermark {
	case minT:
		s = "min"
	case maxT:
		s = "max"
	}
	if m.Idle {
		s += "i"
	}
	return s
}

func parseEvent(t *testing.T, word string, n int) event {
	t.Helper()
	e := event{kind: "row", arrival: minT, name: n}
	rest := word
	if split, after, ok := strings.Cut(rest, ">"); ok {
		e.split, rest = int(number(t, split)), after
	}
	if before, dev, ok := strings.Cut(rest, ":"); ok {
		e.device, rest = dev, before
	}
	if before, at, ok := strings.Cut(rest, "@"); ok {
		e.arrival, rest = number(t, at), before
	}
	for prefix, kind := range map[string]string{"deaf": "deaf", "hearing": "hearing", "t": "tick"} {
		if at, ok := strings.CutPrefix(rest, prefix); ok {
			e.kind, e.arrival = kind, number(t, at)
			return e
		}
	}
	if rest == "end" {
		e.kind = "end"
		return e
	}
	data, marker, both := strings.Cut(rest, "/")
	if strings.HasPrefix(data, "m") {
		data, marker, both = "e0", data, true
	}
	if e.timeless = data == "e-"; !e.timeless {
		e.time = number(t, data[1:])
	}
	if e.marker = both; both {
		if e.atNull = marker == "m-"; !e.atNull {
			e.at = number(t, marker[1:])
		}
	}
	return e
}

func number(t *testing.T, s string) dataflow.Time {
	t.Helper()
	if s == "max" {
		return maxT
	}
	var n int64
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return dataflow.Time(n)
}

var (
	drop = Config{Strategy: Punctuated}
	keep = Config{Strategy: Punctuated, KeepMarker: true}
)

func TestScripts(t *testing.T) {
	ascending := Config{Strategy: Ascending}
	bounded3 := Config{Strategy: Bounded, Bound: 3}
	silent := func(c Config) Config { c.IdleAfter = 1000; return c }
	ahead := func(c Config) Config { c.MaxAhead = 60; return c }
	for _, c := range []struct {
		name   string
		cfg    Config
		splits int
		script string
	}{
		{"E26 bounded", bounded3, 1, "=min e5 =1 e10 =6 e7 =6 e15 =11 e12 =11"},
		{"E26 ascending", ascending, 1, "e5 =4 e6 =5 e6 =5 e9 =8"},
		{"E27", bounded3, 1, "e5 =1 e10 =6 e7 =6 e13 =9 e12 =9 e14 =10 e8 =10"},
		{"E28", drop, 1, "e1 e4 =min m5 =5 e3 =5 e7 m8 =8 m6 =8 m9 =9"},
		{"E29 no marker, no watermark", drop, 1, "e1 e100 e1000 =min"},
		{"E29 nor does time passing help", silent(drop), 1, "t0 e1 e100 t900 =min e1000 t1500 =min t9000 =mini"},
		{"E30 marker on the record", keep, 1, "e3 =min e9/m9 =9 e9 =9 e12/m19 =19"},
		{"E31 one jump is one watermark", drop, 1, "e5 e15 e35 =min m40 =40"},
		{"E32", drop, 1, "e5 m10 =10 e9 =10 m14 =14 e8 =14"},
		{"E33", drop, 1, "e1 e4 m8 =8 e7 m11 =11 m12 =12"},
		{"E34", drop, 1, "e3 e8 m4 =4 m9 =9 e6 =9 m14 =14"},
		{"E35 two splits", silent(drop), 2, "0>t0 1>t0 0>m100 =min 1>e90 =min 0>e50@600 =min 1>t1001 =100 1>m90 =100 1>e95 =100 1>m120 =100 0>m130 =120"},
		{"E36 two splits", drop, 2, "0>m10 =min 1>m7 =7 1>m12 =10 0>m11 =11"},
		{"E37", drop, 1, "m10 =10 m10 =10 m10 =10"},
		{"E38 without a limit", drop, 1, "t0 m9223372036854775806 =9223372036854775806"},
		{"E38 not even the end of time ends the input", drop, 1, "mmax =9223372036854775806 end =max"},
		{"E38 max_ahead", ahead(drop), 1, "t0 m61 =min m60 =60 m161@100 =60 m160@100 =160"},
		{"E38 rows too", ahead(ascending), 1, "t0 e61 =min e60 =59"},
		{"E38 a file has no arrivals", ahead(drop), 1, "m9000 =9000"},
		// E39: our rule is "silent for strictly more than T by the arrival clock",
		// looked at on every arrival and tick. Its ticks at 200, 400 .. are ticks of
		// that clock: after the last event at 0 and with T=1000 the one at 1000 finds
		// 1000, which is not more, and the one at 1200 finds 1200. There is no tick to
		// start a countdown, so idle is declared at 1200, not 1600: never before T.
		{"E39", silent(drop), 1, "m5@0 =5 t200 t400 t600 t800 t1000 =5 t1200 =5i t1600 =5i"},
		{"E39 strictly more", silent(drop), 1, "m5@0 t1000 =5 t1001 =5i e1 =5"},
		{"E42 all splits idle", silent(drop), 2, "0>m10@0 1>m5@0 =5 1>t1001 =10 0>t1001 =10i"},
		{"E42 the other order", silent(drop), 2, "0>m10@0 1>m5@0 =5 0>t1001 =5 1>t1001 =10i"},
		{"E43", silent(drop), 3, "0>m20@0 1>m10@0 2>m5@0 =5 0>t1001 2>t1001 =10 2>e1 =10 1>t1001 =10 2>t2003 =20i"},
		{"E41", silent(drop), 3, "0>m10@0 1>m7@0 =min 2>m3@0 =3 0>t500 1>t500 0>e1 1>e1 2>t1001 =7 2>e1 =7 2>m6 =7 2>m9 =7 1>m20 =9"},
		{"none", Config{}, 1, "e5 e9 =min end =max"},
		{"a split that ends is left out", ascending, 2, "0>e5 1>e9 =4 0>end =8 1>e20 =19 1>end =max"},
		{"ingestion", Config{Strategy: Ingestion}, 1, "e0@100 =99 e0@100 =99 e0@90 =99 t200 =199 end =max"},
		{"ingestion of a file", Config{Strategy: Ingestion}, 1, "=min e77 =-1 e88 =-1 end =max"},
		{"deaf time is nobody's silence", silent(drop), 1, "m5@0 t900 deaf900 t5000 =5 hearing6000 =5 t6100 =5 t6101 =5i"},
		{"deaf twice is deaf once", silent(drop), 1, "m5@0 deaf900 deaf950 hearing2000 hearing2001 t2100 =5 t2101 =5i"},
	} {
		t.Run(c.name, func(t *testing.T) { runScript(t, c.cfg, c.splits, c.script) })
	}
}

func TestDeviceScripts(t *testing.T) {
	punctuated := Config{Strategy: Punctuated, PerDevice: true, IdleAfter: 10}
	bounded3 := Config{Strategy: Bounded, Bound: 3, PerDevice: true, IdleAfter: 10}
	ahead := punctuated
	ahead.MaxAhead = 60
	for _, c := range []struct {
		name   string
		cfg    Config
		splits int
		script string
	}{
		{"least of the live", punctuated, 1, "e1@0:a e1@0:b =min m7:a =min m5:b =5 m9:b =7 m8:a =8"},
		{"a new one starts at the source's", punctuated, 1, "m5@0:a =5 e1:b m9:a =5 m3:b =5 m7:b =7"},
		{"new, no marker, until idle_after", punctuated, 1, "m5@0:a e1@2:b m9@10:a e1@11:b =5 t12 =5 m10@13:a =10 e1@14:b m11@14:a =11"},
		{"its first marker after that", punctuated, 1, "m5@0:a e1@2:b m9@10:a e1@11:b m10@13:a =10 m3@13:b =10 m12:a =10 m11:b =11"},
		{"one marker is enough to stay", punctuated, 1, "m5@0:a e1@0:b m4@0:b m9@8:a e1@8:b e1@14:b m12@14:a =5 m6:b =6"},
		{"silent ones are left out", punctuated, 1, "m5@0:a e1@0:b m4@0:b =5 m9@8:a =5 t10 =5 t11 =9 e1@12:a m11:a =11"},
		{"back as new", punctuated, 1, "m5@0:a e1@0:b m5:b m9@8:a t11 =9 e1@12:b m12@12:a =9 m1:b m13:a =9 m11:b =11"},
		{"all silent holds, is not idle", punctuated, 1, "m5@0:a e1@3:b =5 m9@4:a =5 t14 =9 t15 =9 t900 =9"},
		{"silent at the same time", punctuated, 1, "m5@0:a e1@0:b m5:b m9@4:a e1@4:b =5 t500 =5 m6:c =6"},
		{"deaf", punctuated, 1, "m5@0:a e1@0:b m9@4:a deaf5 t90 hearing100 t105 =5 t106 =9"},
		{"refused rows are no sign of life", ahead, 1, "m5@0:a e1@1:b m9@8:a m9000@10:b =5 t11 =5 t12 =9 e9000@13:c m13:a =13"},
		{"bounded, first beyond", bounded3, 1, "e10@0:a =6 e8:b =6 e20:a =6 e10:b =6 e14:b =10 e13:b =10"},
		{"bounded, far behind", bounded3, 1, "e100@0:a =96 e1@1:b e110@9:a e2@11:b =96 e120@12:a =116 e3@13:b =116 e130@13:a =126 e150:b e160:a =146"},
		{"a file is never silent", punctuated, 1, "m5:a e1:b m9:a =5 e1:a end =max"},
		{"splits wait for each other's first", punctuated, 2, "0>m5@0:a =min 1>m3@0:b =3 1>m9:b =5 0>end =9 1>end =max"},
		{"a split without any is not waited for", punctuated, 2, "1>t0 0>m5@0:a =min 1>t10 =min 1>t11 =5 1>e1:b 0>m9:a =5"},
		{"a subtask that never saw one is idle", punctuated, 1, "t0 =min t10 =min t11 =mini e1@12:a =min m5:a =5"},
		{"the null device is one", punctuated, 1, "m5@0 e1@0:a m9:a =5 m7 =7"},
	} {
		t.Run(c.name, func(t *testing.T) { runScript(t, c.cfg, c.splits, c.script) })
	}
}

// TestE30RowFirst: a marker row that is data comes under the old watermark.
func TestE30RowFirst(t *testing.T) {
	r := runScript(t, keep, 1, "e3 e9/m9 e9")
	want := "row 0 at 3, row 1 at 9, wm 9, row 2 at 9"
	if got := strings.Join(r.stream, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestE37OneMark: three equal markers are one watermark.
func TestE37OneMark(t *testing.T) {
	r := runScript(t, drop, 1, "m10 m10 m10")
	if got := strings.Join(r.stream, ", "); got != "wm 10" || len(r.rows) != 3 {
		t.Errorf("got %s and %d markers, want one watermark and 3", got, len(r.rows))
	}
}

func TestRefusals(t *testing.T) {
	cfg := keep
	cfg.MaxAhead = 60
	for _, c := range []struct {
		cfg    Config
		script string
		want   string
	}{
		{cfg, "t0 e- e61 e60 e1/m- e1/m61 e-/m5 e1/m60", "1 no event time, 2 ahead, 4 marker without time, 5 ahead, 6 no event time"},
		// A marker that is not data needs no event time of its own.
		{drop, "e-/m5 m- e-", "0 marker, 1 marker without time, 2 no event time"},
		{Config{Strategy: Ingestion, MaxAhead: 1}, "e-@5 e99@5", ""},
	} {
		if got := strings.Join(runScript(t, c.cfg, 1, c.script).rows, ", "); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.script, got, c.want)
		}
	}
}

// TestMarkArrivals: each row stands behind a mark of its own arrival.
func TestMarkArrivals(t *testing.T) {
	r := newRig(Config{Strategy: Ascending, MarkArrivals: true}, []int{0}, 100)
	for i, a := range []dataflow.Time{10, 10, 30, 20, 40} {
		if err := r.do(event{kind: "row", arrival: a, time: 5, name: i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("wm %d arrival 10, row 0 at 5, wm 4 arrival 10, row 1 at 5, wm 4 arrival 30, row 2 at 5, row 3 at 5, wm 4 arrival 40, row 4 at 5", int64(minT))
	if got := strings.Join(r.stream, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// assigned makes a batch of markers of these times, in one split, and assigns it.
func assigned(t *testing.T, s *Source, at ...int64) *batch.Batch {
	t.Helper()
	bl := batch.NewBuilder(batch.NewPool(0, nil), deviceSchema())
	for range at {
		bl.EndRow(0)
	}
	b := bl.Take()
	marker := make(batch.Bitmap, batch.Words(len(at)))
	for i, w := range at {
		marker.Put(i, w > 0)
	}
	s.Assign(0, b, Rows{Marker: marker, MarkerAt: at})
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMarksBetweenRowsAreOne: markers that are taken out are no rows, so the
// marks of a run of them become the last.
func TestMarksBetweenRowsAreOne(t *testing.T) {
	b := assigned(t, NewSource(drop, []int{0}, nil), 0, 5, 6, 7, 0, 8)
	defer b.Release()
	want := "[{4 false 7} {6 false 8}] [0 4]"
	var marks []string
	for _, m := range b.Marks {
		marks = append(marks, fmt.Sprintf("{%d %v %d}", m.Row, m.Idle, m.Watermark))
	}
	if got := fmt.Sprint(marks, " ", b.Sel); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestSelectionOnlyIfARowIsOut: what stays whole has none, what is all markers
// has an empty one.
func TestSelectionOnlyIfARowIsOut(t *testing.T) {
	s := NewSource(drop, []int{0}, nil)
	whole, none := assigned(t, s, 0, 0), assigned(t, s, 5, 6)
	defer whole.Release()
	defer none.Release()
	if whole.Sel != nil || none.Sel == nil || none.Len() != 0 {
		t.Errorf("selections %v and %v", whole.Sel, none.Sel)
	}
}

// TestArrivalAtTheEndOfABatch: without MarkArrivals one mark tells the clock.
func TestArrivalAtTheEndOfABatch(t *testing.T) {
	pool := batch.NewPool(0, nil)
	bl := batch.NewBuilder(pool, deviceSchema())
	for range 3 {
		bl.EndRow(0)
	}
	b := bl.Take()
	defer b.Release()
	NewSource(Config{}, []int{0}, pool).Assign(0, b, Rows{Arrivals: []int64{10, 20, 30}})
	if len(b.Marks) != 1 || b.Marks[0] != (batch.Mark{Row: 3, Watermark: minT, Arrival: 30}) || b.Sel != nil {
		t.Errorf("marks %+v, selection %v", b.Marks, b.Sel)
	}
}

func TestNoSplitsIsTheEnd(t *testing.T) {
	if w := NewSource(Config{}, nil, nil).Now().Watermark; w != maxT {
		t.Errorf("a source without splits is at %v, want %v", w, maxT)
	}
}

// TestRowsAllocateNothing: neither rows with markers, nor rows of known devices,
// whose queues are in motion.
func TestRowsAllocateNothing(t *testing.T) {
	for _, cfg := range []Config{
		{Strategy: Bounded, Bound: 50, MarkArrivals: true},
		{Strategy: Punctuated},
		{Strategy: Bounded, Bound: 50, PerDevice: true, IdleAfter: 1_000_000},
		{Strategy: Ingestion},
	} {
		_, l := devicesLoad(1000, true)
		l.markers(3)
		s := NewSource(cfg, []int{0, 1}, batch.NewPool(0, nil))
		var at int64
		step := func() {
			for split := range 2 {
				b, in := l.next(&at)
				s.Assign(split, b, in)
			}
		}
		for range 20 {
			step()
		}
		if n := testing.AllocsPerRun(20, step); n >= 1 {
			t.Errorf("%+v: %v allocations for %d rows", cfg, n, 2*batch.MaxRows)
		}
	}
}

// TestSilenceWithinABatch: each row of a batch is a sign of life, at its own
// arrival.
func TestSilenceWithinABatch(t *testing.T) {
	r := newRig(Config{Strategy: Ascending, IdleAfter: 10}, []int{0, 1}, 100)
	for _, e := range []event{
		{kind: "row", split: 1, arrival: 0, time: 100},
		{kind: "tick", split: 0, arrival: 0},
		{kind: "row", split: 0, arrival: 0, time: 5},
		{kind: "row", split: 0, arrival: 5, time: 5},
		{kind: "row", split: 0, arrival: 12, time: 5},
		{kind: "tick", split: 0, arrival: 22},
	} {
		if err := r.do(e); err != nil {
			t.Fatal(err)
		}
	}
	if w := r.src.Now().Watermark; w != 4 {
		t.Errorf("watermark %d, want 4: split 0 was never silent for more than 10", w)
	}
}
