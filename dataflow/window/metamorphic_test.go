package window_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
)

// example is a random step and a random input for it.
type example struct {
	spec  window.Spec
	exprs []string
	input optest.Stream
}

var someAggregates = []string{"count(*)", "count(v)", "sum(v)", "sum(v + 1)", "avg(v)", "avg(d)", "sum(d)", "min(v)", "max(d * 2.0)", "min(d)",
	"min(s)", "max(s)", "first(s)", "last(s)", "last(v)", "first(d)", "last(d)", "stddev(d)", "var(v)", "distinct(s)", "distinct(v)", "distinct(d)",
	"min(b)", "last(b)", "max(t)", "first(t)"}

func drawExample(t *rapid.T) example {
	in := input()
	s := window.Spec{Input: in, Form: window.Form(rapid.IntRange(1, 6).Draw(t, "form"))}
	span := func(name string, most int) dataflow.Duration {
		return dataflow.Duration(rapid.IntRange(1, most).Draw(t, name))
	}
	switch s.Form {
	case window.Tumbling:
		s.Size = span("size", 12)
		s.Offset = dataflow.Duration(rapid.IntRange(-int(s.Size)+1, int(s.Size)-1).Draw(t, "offset"))
	case window.Sliding:
		s.Size, s.Slide = span("size", 40), span("slide", 8)
		s.Offset = dataflow.Duration(rapid.IntRange(-int(s.Slide)+1, int(s.Slide)-1).Draw(t, "offset"))
	case window.Session:
		s.Gap = span("gap", 10)
	case window.Count, window.SlidingCount:
		s.Rows, s.EachRows = int64(span("rows", 9)), int64(span("each", 9))
		if s.Form == window.Count {
			s.EachRows = 0
		}
	}
	if s.Form.Timed() {
		if s.ProcessingTime = rapid.IntRange(0, 7).Draw(t, "processing") == 0; !s.ProcessingTime {
			s.AllowedLateness = dataflow.Duration(max(0, rapid.IntRange(-10, 30).Draw(t, "lateness")))
			s.Firing = window.Firing(rapid.IntRange(0, 1).Draw(t, "firing"))
		}
	}
	s.Keys = rapid.SampledFrom([][]int{{0}, {0}, {}, {1}, {0, 4}, {2}, {4}}).Draw(t, "keys")
	list := rapid.SliceOfNDistinct(rapid.SampledFrom(someAggregates), 1, 5, rapid.ID).Draw(t, "aggregates")
	s.Aggregates = aggregates(t, in, list...)
	e := example{spec: s, input: drawInput(t, in)}
	if s.ProcessingTime { // the reference does not know how the ends of time are cut
		first := optest.Element{Mark: batch.Mark{Watermark: dataflow.MinTime}}
		e.input.Elements = append([]optest.Element{first}, e.input.Elements...)
		e.input = e.input.Coalesced()
	}
	for _, text := range list {
		e.exprs = append(e.exprs, strings.TrimSuffix(text[strings.Index(text, "(")+1:], ")"))
	}
	return e
}

// drawInput draws rows whose times wander forward with disorder, and marks that
// mostly follow them.
func drawInput(t *rapid.T, in *batch.Schema) optest.Stream {
	s := optest.Stream{Schema: in}
	at, wm, arrival := int64(rapid.IntRange(-20, 20).Draw(t, "begin")), int64(math.MinInt64), int64(0)
	pace := rapid.IntRange(0, 4).Draw(t, "pace")
	value := rapid.IntRange(-4, 4)
	n := rapid.IntRange(1, 70).Draw(t, "elements")
	for range n {
		kind := rapid.IntRange(0, 9).Draw(t, "kind")
		if kind > 3 {
			at += int64(rapid.IntRange(0, pace).Draw(t, "step"))
			s.Elements = append(s.Elements, optest.Element{Row: drawRow(t, in, at, value)})
			continue
		}
		if kind == 0 && rapid.IntRange(0, 5).Draw(t, "jump") == 0 {
			at += int64(rapid.IntRange(0, 200).Draw(t, "far"))
		}
		wm = max(wm, at-int64(rapid.IntRange(-8, 12).Draw(t, "behind")))
		arrival += int64(rapid.IntRange(0, 9).Draw(t, "arrival"))
		m := batch.Mark{Watermark: dataflow.Time(wm), Arrival: dataflow.Time(arrival), Idle: rapid.IntRange(0, 9).Draw(t, "idle") == 0}
		s.Elements = append(s.Elements, optest.Element{Mark: m})
	}
	if rapid.IntRange(0, 3).Draw(t, "end") > 0 {
		s.Elements = append(s.Elements, optest.Element{Mark: batch.Mark{Watermark: dataflow.MaxTime, Arrival: dataflow.Time(arrival)}})
		for range rapid.IntRange(0, 2).Draw(t, "after") {
			s.Elements = append(s.Elements, optest.Element{Row: drawRow(t, in, at, value)})
		}
	}
	return s.Coalesced()
}

func drawRow(t *rapid.T, in *batch.Schema, at int64, value *rapid.Generator[int]) *optest.Row {
	r := &optest.Row{Time: dataflow.Time(at - int64(max(0, rapid.IntRange(-12, 16).Draw(t, "disorder")))), Values: make([]any, in.Len())}
	for i := range r.Values {
		v := value.Draw(t, in.Field(i).Name)
		if v == 4 {
			continue // null
		}
		switch in.Field(i).Type {
		case batch.Boolean:
			r.Values[i] = v > 0
		case batch.Bigint, batch.Timestamp:
			r.Values[i] = int64(v)
			if v == -4 {
				r.Values[i] = int64(math.MinInt64) + 3
			}
		case batch.Double:
			r.Values[i] = float64(v) / 4
		default:
			r.Values[i] = [...]string{"", "a", "b", "key three", "d"}[(v+4)/2]
		}
	}
	return r
}

// TestAgainstReference runs random steps on random input, in all ways of the
// harness, against the rules written down literally: rows, their order for each
// key, their places between the marks, late rows and counts.
func TestAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawExample(t)
		t.Logf("%s\n%s", e.spec.Describe(), e.input)
		f := factory(t, e.spec)
		r := newReference(e.spec, e.exprs, f.Output())
		r.run(e.input)
		c := optest.Case{Factory: f, Input: e.input, Want: r.out.String(), HashBy: e.spec.Keys, Seed: rapid.Uint64().Draw(t, "seed")}
		if c.Want == "" {
			c.Want = "none"
		}
		for _, k := range e.spec.Keys {
			c.OrderBy = append(c.OrderBy, e.spec.Input.Field(k).Name)
		}
		if e.spec.Form.Timed() {
			c.WantSide = map[operator.Side]string{operator.Late: strings.Join(r.late, "")}
		}
		c.WantCounters = func(got operator.Counters) error {
			if got.Late != r.count.Late || got.NoWindow != r.count.NoWindow || got.Fired != r.count.Fired {
				return fmt.Errorf("late %d, in no window %d, fired %d; want %d, %d, %d", got.Late, got.NoWindow, got.Fired, r.count.Late, r.count.NoWindow, r.count.Fired)
			}
			return nil
		}
		optest.Check(t, c)
	})
}

// TestLongSliding runs windows of many slices over long input with disorder
// behind the watermark, so that all the parts of their sums are in use: several
// blocks ahead, the back, and repairs of each.
func TestLongSliding(t *testing.T) {
	for seed := range uint64(25) {
		in := input()
		r := rand.New(rand.NewPCG(seed, 1))
		s := window.Spec{Form: window.Sliding, Size: dataflow.Duration(20 + r.IntN(120)), Slide: dataflow.Duration(1 + r.IntN(7)), Input: in, Keys: []int{0}}
		if r.IntN(3) == 0 {
			s.AllowedLateness, s.Firing = dataflow.Duration(r.IntN(60)), window.Firing(r.IntN(2))
		}
		list := []string{"sum(v)", "first(d)", "max(s)", "distinct(v)"}
		e := example{spec: s, exprs: []string{"v", "d", "s", "v"}, input: optest.Stream{Schema: in}}
		e.spec.Aggregates = aggregates(t, in, list...)
		at, pause := int64(0), 1+r.IntN(4)
		for n := range 700 {
			at += int64(r.IntN(pause))
			if r.IntN(150) == 0 {
				at += int64(r.IntN(200))
			}
			v := int64(r.IntN(9))
			e.input.Elements = append(e.input.Elements, optest.Element{Row: &optest.Row{
				Time:   dataflow.Time(at - int64(r.IntN(1+r.IntN(int(s.Size))))),
				Values: []any{string(rune('a' + r.IntN(4))), v, float64(v) / 2, fmt.Sprint(v), nil, nil},
			}})
			if r.IntN(4) == 0 {
				e.input.Elements = append(e.input.Elements, optest.Element{Mark: batch.Mark{Watermark: dataflow.Time(at)}})
			}
			if n == 699 {
				e.input.Elements = append(e.input.Elements, optest.Element{Mark: batch.Mark{Watermark: dataflow.MaxTime}})
			}
		}
		want, got := map[string][]string{}, map[string][]string{}
		ref := newReference(e.spec, e.exprs, factory(t, e.spec).Output())
		e.input = sorted(e.input).Coalesced()
		ref.run(e.input)
		addPerKey(want, ref.out, 1)
		f := newFleet(t, e, batch.NewPool(0, nil), 1)
		f.feed(e.input.Elements, 1+r.IntN(300))
		f.perKey(got)
		for _, k := range []string{"a", "b", "c", "d"} {
			k = fmt.Sprintf("%#v", []any{k})
			if x, y := fmt.Sprint(got[k]), fmt.Sprint(want[k]); x != y {
				t.Fatalf("seed %d, %s: key %s:\n got %s\nwant %s", seed, e.spec.Describe(), k, x, y)
			}
		}
	}
}

// sorted makes the watermarks of a stream ascend.
func sorted(s optest.Stream) optest.Stream {
	wm := dataflow.MinTime
	for i := range s.Elements {
		if e := &s.Elements[i]; e.Row == nil {
			wm = max(wm, e.Mark.Watermark)
			e.Mark.Watermark = wm
		}
	}
	return s
}
