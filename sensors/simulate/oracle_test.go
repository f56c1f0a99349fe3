package simulate

import (
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// job is the plainest model of a source with a watermark a device, a filter
// and tumbling windows; everything is looked up in loops.
type job struct {
	set       Settings
	live      map[int]*liveDevice
	watermark dataflow.Time
	now       dataflow.Time
	open      map[windowKey]*Window
	fired     []Result
	late      int64
	refused   int64
	filtered  int64
	dropped   int64
	seen      map[[2]int64]bool
	slept     bool // for a time it was not sure that any device lives
}

type liveDevice struct {
	at, heard, joined dataflow.Time
	marked            bool // it holds the watermark until then, but no longer than idle_after
}

func newJob(s Settings) *job {
	return &job{set: s, live: map[int]*liveDevice{}, watermark: dataflow.MinTime, open: map[windowKey]*Window{}, seen: map[[2]int64]bool{}}
}

func (j *job) arrive(now dataflow.Time, sensor int, r Row) {
	j.idle(now)
	if j.set.MaxAhead > 0 && r.TS > now.Add(j.set.MaxAhead) {
		j.refused++
		return
	}
	d := j.live[sensor]
	if d == nil {
		d = &liveDevice{at: j.watermark, joined: now}
		j.live[sensor] = d
	}
	d.heard = now
	if r.Marker {
		d.at, d.marked = max(d.at, r.TS, j.watermark), true
		j.advance()
		return
	}
	id := [2]int64{int64(sensor), r.Seq}
	if j.set.Dedupe && j.seen[id] {
		j.dropped++
		return
	}
	j.seen[id] = true
	if r.Temp <= j.set.Threshold {
		j.filtered++
		return
	}
	begin := dataflow.Time(floor(int64(r.TS), int64(j.set.Window)))
	end := begin.Add(j.set.Window)
	if end-1 <= j.watermark {
		j.late++
		return
	}
	k := windowKey{sensor, int64(begin)}
	w := j.open[k]
	if w == nil {
		w = &Window{Sensor: sensor, Start: begin, End: end, Max: -1e9}
		j.open[k] = w
	}
	w.Count++
	w.Sum += r.Temp
	w.Max = max(w.Max, r.Temp)
}

func (j *job) idle(now dataflow.Time) {
	if j.set.IdleAfter == 0 {
		return
	}
	for s, d := range j.live {
		if now-d.heard > dataflow.Time(j.set.IdleAfter) {
			delete(j.live, s)
		}
	}
	j.now = now
	j.advance()
}

func (j *job) advance() {
	least := dataflow.MaxTime
	for _, d := range j.live {
		if d.marked || j.set.IdleAfter == 0 || j.now-d.joined <= dataflow.Time(j.set.IdleAfter) {
			least = min(least, d.at)
		}
	}
	if least != dataflow.MaxTime && least > j.watermark {
		j.watermark = least
		j.fire()
	}
}

func (j *job) fire() {
	for k, w := range j.open {
		if w.End-1 <= j.watermark {
			j.fired = append(j.fired, Result{Sensor: Name(w.Sensor), Start: w.Start, Count: w.Count, Avg: w.Avg(), Max: w.Max})
			delete(j.open, k)
		}
	}
}

// deliver plays the fleet to a job over a network that keeps the order of each
// device and delays its messages by up to slack.
func deliver(t testing.TB, c Config, s Settings, skew dataflow.Duration, seed uint64) (*Oracle, *job) {
	type arrival struct {
		at     dataflow.Time
		sensor int
		row    Row
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	oracle, j := NewOracle(c, s), newJob(s)
	last := make([]dataflow.Time, c.Sensors)
	var in []arrival
	lives := c.Start
	run(t, c, func(ev *Event) {
		oracle.Add(ev)
		if ev.Row.TS <= ev.At.Add(s.MaxAhead) {
			j.slept = j.slept || s.IdleAfter > 0 && ev.At > lives.Add(s.IdleAfter-s.Slack)
			lives = ev.At
		}
		at := max(last[ev.Sensor], ev.At.Add(dataflow.Duration(rnd.Int64N(int64(skew)+1))))
		last[ev.Sensor] = at
		in = append(in, arrival{at, ev.Sensor, ev.Row})
	})
	sort.SliceStable(in, func(a, b int) bool { return in[a].at < in[b].at })
	for _, a := range in {
		j.arrive(a.at, a.sensor, a.row)
	}
	return oracle, j
}

func settings(c Config) Settings {
	return Settings{Threshold: Limit, Window: c.Interval, IdleAfter: 30 * second, MaxAhead: minute, Slack: 5 * second}
}

// TestExpectedWindowsAreExact: whatever the network does among devices within
// the slack, the model job fires the windows that the oracle expects, and
// counts late, refused and re-sent readings as it does, with none in doubt.
func TestExpectedWindowsAreExact(t *testing.T) {
	var right, late int64
	rapid.Check(t, func(rt *rapid.T) {
		c := Default(rapid.IntRange(2, 30).Draw(rt, "sensors"))
		c.Seed = rapid.Uint64().Draw(rt, "seed")
		c.Start, c.Duration = start, 6*minute
		c.Excursions, c.Late, c.Duplicates, c.Silent, c.Behind = 0.05, 0.2, 0.05, 0.4, 0.1
		s := settings(c)
		s.Dedupe = rapid.Bool().Draw(rt, "dedupe")
		skew := dataflow.Duration(rapid.Int64Range(0, int64(s.Slack)).Draw(rt, "skew"))
		o, j := deliver(t, c, s, skew, c.Seed)
		got, v := o.Totals(), o.Compare(j.fired, j.watermark+1)
		if v.Wrong+v.Missing+v.Surplus > 0 || !j.slept && v.Unsure+int(got.Unsure+got.UnsureM) > 0 {
			rt.Fatalf("%+v\n%+v\n%s", got, v, strings.Join(v.Details, "\n"))
		}
		if got.Unsure > 0 {
			return // rule 2 asks for a device that lives, and for a time none did
		}
		if j.watermark != start.Add(c.Duration) {
			for _, d := range j.live {
				if d.at == start.Add(c.Duration) {
					rt.Fatalf("the watermark stays at %v, but a device lived to the end", j.watermark)
				}
			}
			return // every device fell silent for good: rule 2 asks for one that lives
		}
		if j.late != got.Late || j.refused != got.Refused+got.RefusedM || j.filtered != got.Filtered || j.dropped != got.Dropped {
			rt.Fatalf("late %d, refused %d, filtered %d, dropped %d, but the oracle says %+v", j.late, j.refused, j.filtered, j.dropped, got)
		}
		right += int64(v.Right)
		late += got.Late
	})
	t.Logf("%d windows, %d late readings", right, late)
	if right == 0 || late == 0 {
		t.Error("nothing was compared")
	}
}

// TestNobodyLives: one of two devices is silent for good, and the other one for a
// while: what it held back before comes when the watermark has not moved, and may
// be on time.
func TestNobodyLives(t *testing.T) {
	c := Default(2)
	c.Seed, c.Start, c.Duration = 0x4d2ad81, start, 6*minute
	c.Excursions, c.Late, c.Duplicates, c.Silent, c.Behind = 0.05, 0.2, 0.05, 0.4, 0.1
	s := settings(c)
	s.Dedupe = true
	o, j := deliver(t, c, s, 3344, c.Seed)
	if v := o.Compare(j.fired, j.watermark+1); !v.Good() || v.Unsure != 2 || o.Totals().Late > 0 || !j.slept {
		t.Errorf("%+v\n%+v", o.Totals(), v)
	}
}

// TestTotalsAddUp: every reading is exactly one thing, and the windows hold
// what a plain recount of the fault flags says.
func TestTotalsAddUp(t *testing.T) {
	c := Default(200)
	c.Start, c.Duration = start, 8*minute
	s := settings(c)
	o := NewOracle(c, s)
	var counted, late, ahead, resent, markers int64
	sums := map[windowKey]float64{}
	run(t, c, func(ev *Event) {
		o.Add(ev)
		if ev.Fault&Duplicate != 0 {
			resent++
		}
		switch hot := ev.Row.Temp > Limit; {
		case ev.Fault&Ahead != 0:
			if !ev.Row.Marker {
				ahead++
			}
		case ev.Row.Marker:
			markers++
		case hot && ev.Fault&Late != 0:
			late++
		case hot:
			counted++
			sums[windowKey{ev.Sensor, floor(int64(ev.Row.TS), int64(s.Window))}] += ev.Row.Temp
		}
	})
	n := o.Totals()
	t.Logf("%+v", n)
	if n.Readings != n.Filtered+n.Counted+n.Late+n.Refused+n.Dropped+n.Unsure || n.Messages != n.Readings+n.Markers+n.RefusedM+n.UnsureM {
		t.Errorf("does not add up: %+v", n)
	}
	if n.Counted != counted || n.Late != late || n.Refused != ahead || n.Duplicates != resent || n.Markers != markers || n.Unsure != 0 {
		t.Errorf("recount: counted %d, late %d, ahead %d, resent %d, markers %d", counted, late, ahead, resent, markers)
	}
	windows := o.Windows()
	for _, w := range windows {
		if sums[windowKey{w.Sensor, int64(w.Start)}] != w.Sum {
			t.Errorf("window %+v has another sum", w)
		}
	}
	if len(windows) != len(sums) || len(sums) == 0 {
		t.Errorf("%d windows, %d recounted", len(windows), len(sums))
	}
}

// TestWhatMayGoEitherWayIsUnsure: readings held back too short, and devices
// that do not settle, are not judged; and yet nothing is judged wrongly.
func TestWhatMayGoEitherWayIsUnsure(t *testing.T) {
	for name, spoil := range map[string]func(*Config, *Settings){
		"late by too little": func(c *Config, _ *Settings) { c.LateBy = Span{0, 20 * second} },
		"not settled":        func(c *Config, _ *Settings) { c.Settle = 0 },
		"hardly ahead":       func(c *Config, s *Settings) { c.AheadBy = 60 * second; s.MaxAhead = 57 * second; c.Ahead = 0.1 },
		"never idle":         func(_ *Config, s *Settings) { s.IdleAfter = 0 },
		"hardly idle":        func(_ *Config, s *Settings) { s.IdleAfter = 5500 * dataflow.Millisecond },
		"silent about as long": func(c *Config, s *Settings) {
			c.Sensors, c.Duration, c.Every = 3, 60*minute, 200*dataflow.Millisecond // few, so that the others' markers overtake a device that comes back
			c.Silence, c.Settle, c.Silent, c.Gone, c.Excursions = Span{36 * second, 44 * second}, 0, 1, 0, 1
			s.IdleAfter = 40 * second
		},
		"idle before a mark": func(_ *Config, s *Settings) { s.IdleAfter, s.Slack = 7*second, second },
	} {
		t.Run(name, func(t *testing.T) {
			c := Default(40)
			c.Start, c.Duration = start, 8*minute
			c.Excursions, c.Late, c.Silent = 0.1, 0.1, 0.3
			s := settings(c)
			spoil(&c, &s)
			unsure := int64(0)
			for seed := range uint64(3) {
				o, j := deliver(t, c, s, s.Slack, seed)
				v := o.Compare(j.fired, 0)
				unsure += o.Totals().Unsure
				if v.Wrong+v.Surplus > 0 || v.Right == 0 && s.IdleAfter > 0 {
					t.Errorf("judged wrongly: %+v", v)
				}
				if n := o.Totals(); j.late < n.Late || j.late > n.Late+n.Unsure {
					t.Errorf("%d late, the oracle says %d to %d", j.late, n.Late, n.Late+n.Unsure)
				}
			}
			if unsure == 0 {
				t.Error("nothing was unsure")
			}
		})
	}
}

func TestCompareFindsWhatIsWrong(t *testing.T) {
	c := Default(20)
	c.Start, c.Duration = start, 4*minute
	o, j := deliver(t, c, settings(c), second, 3)
	end := start.Add(c.Duration)
	if v := o.Compare(j.fired, end); !v.Good() {
		t.Fatalf("%+v", v)
	}
	first := j.fired[0]
	spoilt := func(change func(*Result)) []Result {
		r := append([]Result(nil), j.fired...)
		change(&r[0])
		return r
	}
	for name, x := range map[string]struct {
		results []Result
		count   func(Verdict) int
	}{
		"count":      {spoilt(func(r *Result) { r.Count++ }), func(v Verdict) int { return v.Wrong }},
		"average":    {spoilt(func(r *Result) { r.Avg += 1e-6 }), func(v Verdict) int { return v.Wrong }},
		"maximum":    {spoilt(func(r *Result) { r.Max += 0.01 }), func(v Verdict) int { return v.Wrong }},
		"missing":    {j.fired[1:], func(v Verdict) int { return v.Missing }},
		"twice":      {append(spoilt(func(*Result) {}), first), func(v Verdict) int { return v.Surplus }},
		"no sensor":  {append(spoilt(func(*Result) {}), Result{Sensor: "x"}), func(v Verdict) int { return v.Surplus }},
		"not a time": {append(spoilt(func(*Result) {}), Result{Sensor: first.Sensor, Start: 5}), func(v Verdict) int { return v.Surplus }},
	} {
		v := o.Compare(x.results, end)
		if v.Good() || x.count(v) != 1 || v.Wrong+v.Missing+v.Surplus != 1 || len(v.Details) != 1 {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := o.Compare(nil, 0); v.Good() || v.Missing != 0 {
		t.Errorf("nothing fired and nothing due: %+v", v)
	}
}
