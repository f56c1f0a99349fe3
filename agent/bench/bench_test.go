package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if !Child() {
		goleak.VerifyTestMain(m)
	}
}

// unitBars are the ids whose bar has a unit.
var unitBars = []string{"json/ns", "latency/qos0", "latency/qos1", "checkpoint/pause-1", "checkpoint/rate-1", "recovery", "leader", "migration", "replication", "footprint/rss", "footprint/binary", "scale/statedb"}

// reported are the ids without a bar, alone those of figures beside which
// nothing is measured.
var (
	reported = []string{"durability/off", "durability/10s", "durability/1s", "checkpoint/pause-100", "checkpoint/rate-100", "migration/sent", "migration/back"}
	alone    = []string{"checkpoint/pause-1", "checkpoint/rate-1", "checkpoint/pause-100", "checkpoint/rate-100", "scale/statedb"}
)

func TestIDs(t *testing.T) {
	want := []string{"engine", "engine-sliding/60s", "engine-sliding/10m", "punctuated/1", "punctuated/100", "punctuated/1-p4", "punctuated/100-p4",
		"devices/1k", "devices/100k", "json/ns", "json/ratio", "latency/qos0", "latency/qos1", "mqtt", "durability/off", "durability/10s", "durability/1s", "checkpoint/pause-1", "checkpoint/rate-1", "checkpoint/pause-100", "checkpoint/rate-100",
		"exchange", "recovery", "leader", "migration", "migration/sent", "migration/back", "replication", "footprint/rss", "footprint/binary", "scale/keys", "scale/statedb", "scale/agents", "scale/jobs"}
	var got []string
	for _, b := range All() {
		got = append(got, b.IDs...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("ids %v, want %v", got, want)
	}
}

// TestEachRuns runs every benchmark once with little input. What it measures
// then means nothing.
func TestEachRuns(t *testing.T) {
	for _, b := range All() {
		t.Run(b.Name, func(t *testing.T) {
			var heard bool
			figures, err := b.Run(context.Background(), Options{Rounds: 1, Scale: 0.001, Progress: func(string) { heard = true }})
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, f := range figures {
				ids = append(ids, f.ID)
				checkFigure(t, f)
			}
			if !slices.Equal(ids, b.IDs) {
				t.Errorf("figures %v, want %v", ids, b.IDs)
			}
			if !heard {
				t.Error("no progress was told")
			}
		})
	}
}

func checkFigure(t *testing.T, f Figure) {
	t.Helper()
	byUnit, noBar := slices.Contains(unitBars, f.ID), slices.Contains(reported, f.ID)
	reached := func(v, bar float64) bool { return v <= bar && f.Better == "lower" || v >= bar && f.Better == "higher" }
	switch {
	case (f.Limit == nil) != slices.Contains(alone, f.ID) || f.Unit == "" || f.Better != "lower" && f.Better != "higher" || math.IsNaN(f.Value) || math.IsInf(f.Value, 0):
		t.Errorf("%+v lacks something", f)
	case noBar && (f.Bar != nil || f.Ratio != nil || !f.OK):
		t.Errorf("%s: it is reported only, and nothing of it can be missed", f.ID)
	case noBar:
	case f.Bar == nil || byUnit != (f.Ratio == nil):
		t.Errorf("%s: a ratio belongs to a bar without a unit, and only there", f.ID)
	case byUnit && f.OK != reached(f.Value, *f.Bar), !byUnit && (f.OK != reached(*f.Ratio, *f.Bar) || *f.Ratio != f.Value / *f.Limit):
		t.Errorf("%s: %+v does not add up", f.ID, f)
	case !byUnit && f.Allocs == nil:
		t.Errorf("%s: allocations are not reported", f.ID)
	}
}

func TestFigureAsJSON(t *testing.T) {
	limit := 2.0
	for _, c := range []struct {
		f    Figure
		want string
	}{
		{ratio("a/b", 3, 2, "ns/row", 1), `{"id":"a/b","value":3,"limit":2,"ratio":1.5,"unit":"ns/row","bar":1,"better":"lower","ok":false}`},
		{absolute("c", 3, &limit, "ms", 4), `{"id":"c","value":3,"limit":2,"ratio":null,"unit":"ms","bar":4,"better":"lower","ok":true}`},
		{Figure{ID: "d", Value: 1, Unit: "s", Better: "higher", OK: true}, `{"id":"d","value":1,"limit":null,"ratio":null,"unit":"s","bar":null,"better":"higher","ok":true}`},
	} {
		got, err := json.Marshal(c.f)
		if err != nil || string(got) != c.want {
			t.Errorf("%s, %v\nwant %s", got, err, c.want)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct{ ask, names, figures string }{
		{"", "engine engine-sliding punctuated devices json latency/qos0 latency/qos1 mqtt durability checkpoint-1 checkpoint-100 exchange recovery leader migration replication footprint/rss footprint/binary scale/keys scale/statedb scale/agents scale/jobs", "34"},
		{"engine", "engine", "engine"},
		{"json/ns engine-sliding", "engine-sliding json", "engine-sliding/60s engine-sliding/10m json/ns"},
		{"scale/keys", "scale/keys", "scale/keys"},
		{"checkpoint/rate-1", "checkpoint-1", "checkpoint/rate-1"},
		{"punctuated/1", "punctuated", "punctuated/1"},
	} {
		chosen, wanted, wrong := Choose(strings.Fields(c.ask))
		var names, figures []string
		for _, b := range chosen {
			names = append(names, b.Name)
			for _, id := range b.IDs {
				if wanted(id) {
					figures = append(figures, id)
				}
			}
		}
		got := strings.Join(figures, " ")
		if c.ask == "" {
			got = fmt.Sprint(len(figures))
		}
		if strings.Join(names, " ") != c.names || got != c.figures || wrong != "" {
			t.Errorf("%q: %v, %v, %q", c.ask, names, figures, wrong)
		}
	}
	if _, _, wrong := Choose([]string{"engine", "engin", "nope"}); wrong != "engin" {
		t.Errorf("wrong %q", wrong)
	}
}

// TestInTurn: A B A B, the warm-up does not count, a round is the sum of its
// passes.
func TestInTurn(t *testing.T) {
	var trace []string
	pass := func(name string, err error) side {
		return side{name, func() error { trace = append(trace, name); return err }}
	}
	c := course{id: "x", rows: 10, warm: 1, passes: 2, rounds: 2, ready: func(p int) { trace = append(trace, fmt.Sprint(p)) }}
	m, err := c.run(context.Background(), Options{}, pass("a", nil), pass("b", nil))
	if err != nil || len(m) != 2 {
		t.Fatal(m, err)
	}
	if got := strings.Join(trace, " "); got != "0 a b 1 a b 2 a b 3 a b 4 a b" {
		t.Error(got)
	}
	if _, err := c.run(context.Background(), Options{}, pass("a", context.DeadlineExceeded)); err == nil || !strings.HasPrefix(err.Error(), "bench x: a: ") {
		t.Error(err)
	}
	var s samples
	s.add(work{cpu: 10, mallocs: 1}, true, 2)
	s.add(work{cpu: 30, mallocs: 1}, false, 2)
	s.add(work{cpu: 8}, true, 2)
	s.add(work{cpu: 600}, true, 2)
	if m := s.median(); m.ns != 20 || m.allocs != 0 {
		t.Errorf("median %+v", m)
	}
	if v := median([]float64{4, 1, 3, 2}); math.Abs(v-2.5) > 1e-12 {
		t.Errorf("median of an even number: %v", v)
	}
}
