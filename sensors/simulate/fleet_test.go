package simulate

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

const (
	second = dataflow.Second
	minute = dataflow.Minute
	start  = dataflow.Time(1_700_000_000_000_000)
)

// anyConfig draws a fleet with every fault in it.
func anyConfig(t *rapid.T) Config {
	c := Default(rapid.IntRange(1, 40).Draw(t, "sensors"))
	c.Seed = rapid.Uint64().Draw(t, "seed")
	c.Start = start.Add(dataflow.Duration(rapid.Int64Range(0, 20_000).Draw(t, "start ms")) * dataflow.Millisecond)
	c.Duration = dataflow.Duration(rapid.Int64Range(1, 400_000).Draw(t, "duration ms")) * dataflow.Millisecond
	c.Every = dataflow.Duration(rapid.SampledFrom([]int64{1, 7, 250, 1000, 15_000}).Draw(t, "every ms")) * dataflow.Millisecond
	if c.Every < 100*dataflow.Millisecond {
		c.Duration %= 5 * second
		c.Duration += dataflow.Millisecond
	}
	c.Duplicates, c.Late, c.Silent = 0.2, 0.2, 0.5
	c.Ahead, c.Behind = 0.2, 0.2
	return c
}

func run(t testing.TB, c Config, each func(*Event)) {
	t.Helper()
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var ev Event
	for f.Next(&ev) {
		each(&ev)
	}
}

func line(ev *Event) string {
	return fmt.Sprintf("%d %s %s %d", ev.At, ev.Topic, ev.Payload, ev.Fault)
}

func TestFleetIsAFunctionOfItsSeed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := anyConfig(rt)
		var a, b []string
		run(t, c, func(ev *Event) { a = append(a, line(ev)) })
		run(t, c, func(ev *Event) { b = append(b, line(ev)) })
		if fmt.Sprint(a) != fmt.Sprint(b) {
			rt.Fatal("two runs differ")
		}
		// One device's messages are the same in a larger fleet.
		var alone, among []string
		run(t, c, func(ev *Event) {
			if ev.Sensor == 0 {
				alone = append(alone, line(ev))
			}
		})
		c.Sensors += 3
		run(t, c, func(ev *Event) {
			if ev.Sensor == 0 {
				among = append(among, line(ev))
			}
		})
		if fmt.Sprint(alone) != fmt.Sprint(among) {
			rt.Fatal("a device depends on the size of the fleet")
		}
	})
	c := Default(5)
	c.Duration = minute
	var a, b string
	run(t, c, func(ev *Event) { a += line(ev) })
	c.Seed++
	run(t, c, func(ev *Event) { b += line(ev) })
	if a == b {
		t.Error("the seed changes nothing")
	}
}

func TestPayloadSaysTheRow(t *testing.T) {
	c := Default(30)
	c.Start, c.Duration = start, 10*minute
	run(t, c, func(ev *Event) {
		var p struct {
			Sensor, Kind string
			TS, Seq      int64
			Data         *struct{ Temp float64 }
		}
		if err := json.Unmarshal(ev.Payload, &p); err != nil {
			t.Fatalf("%s: %v", ev.Payload, err)
		}
		kind := map[bool]string{false: "reading", true: "flush"}[ev.Row.Marker]
		ok := p.Sensor == Name(ev.Sensor) && p.Kind == kind && p.TS*1000 == int64(ev.Row.TS) && p.Seq == ev.Row.Seq &&
			(p.Data == nil) == ev.Row.Marker && (p.Data == nil || p.Data.Temp == ev.Row.Temp) &&
			ev.Topic == "plant/"+p.Sensor+"/telemetry"
		if !ok {
			t.Fatalf("%s on %s is not %+v", ev.Payload, ev.Topic, ev.Row)
		}
	})
}

// TestMarkersAreTrue checks what a fleet promises of each device.
func TestMarkersAreTrue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := anyConfig(rt)
		end := c.Start.Add(c.Duration)
		type told struct {
			mark dataflow.Time
			prev Event
			key  string
			seen map[int64]int
		}
		devices := make([]told, c.Sensors)
		for i := range devices {
			devices[i] = told{mark: dataflow.MinTime, seen: map[int64]int{}}
		}
		last := dataflow.MinTime
		run(t, c, func(ev *Event) {
			d := &devices[ev.Sensor]
			if ev.At < last {
				rt.Fatalf("sent at %v after %v", ev.At, last)
			}
			last = ev.At
			d.seen[ev.Row.Seq]++
			again := ev.Fault&Duplicate != 0
			if again != (string(ev.Payload) == d.key) || again != (d.seen[ev.Row.Seq] == 2) || d.seen[ev.Row.Seq] > 2 {
				rt.Fatalf("%s: duplicate %v after %s", ev.Payload, again, d.key)
			}
			switch {
			case ev.Row.Marker && again:
			case ev.Row.Marker:
				onGrid := ev.Row.TS == dataflow.Time(floor(int64(ev.Row.TS), int64(c.Interval)))
				if ev.Row.TS <= d.mark || !onGrid && ev.Row.TS != end && ev.Row.TS != end.Add(c.AheadBy) {
					rt.Fatalf("marker %v after %v", ev.Row.TS, d.mark)
				}
				d.mark = ev.Row.TS
			case ev.Fault&Late != 0:
				if d.key == "" || d.prev.Row.Marker || d.prev.Fault&Late != 0 {
					rt.Fatal("a reading held back does not follow one on time")
				}
			case ev.Row.TS <= d.mark:
				rt.Fatalf("a reading of %v after the marker %v", ev.Row.TS, d.mark)
			}
			offset := map[Fault]dataflow.Duration{Ahead: c.AheadBy, Behind: -c.BehindBy}[ev.Fault&(Ahead|Behind)]
			if wait := int64(ev.At - ev.Row.TS.Add(-offset)); ev.Fault&Late == 0 && !ev.Row.Marker && (wait < 0 || wait > int64(c.Delay+c.Every+c.Every/8)) {
				rt.Fatalf("a reading was sent %d µs after it was made", wait)
			}
			d.prev, d.key = *ev, string(ev.Payload)
		})
	})
}

// TestEveryFaultHappens: a fleet without faults proves nothing.
func TestEveryFaultHappens(t *testing.T) {
	c := Default(200)
	c.Start, c.Duration = start, 15*minute
	count := map[Fault]int{}
	last := make([]dataflow.Time, c.Sensors)
	hot, n, returns := 0, 0, 0
	run(t, c, func(ev *Event) {
		n++
		for _, f := range []Fault{Late, Duplicate, Ahead, Behind} {
			if ev.Fault&f != 0 {
				count[f]++
			}
		}
		if ev.Row.Temp > Limit {
			hot++
		}
		if l := last[ev.Sensor]; l != 0 && ev.At > l.Add(c.Silence.Min) {
			if ev.Row.Marker || ev.Fault&Late != 0 {
				t.Errorf("came back from silence with %s", ev.Payload)
			} else {
				returns++
			}
		}
		last[ev.Sensor] = ev.At
	})
	gone := 0
	for _, l := range last {
		if l < start.Add(c.Duration-2*c.Silence.Max) {
			gone++
		}
	}
	t.Logf("%d messages, hot %d, late %d, duplicate %d, ahead %d, behind %d, returns %d, gone %d",
		n, hot, count[Late], count[Duplicate], count[Ahead], count[Behind], returns, gone)
	if hot*100 < n || count[Late] == 0 || count[Duplicate] == 0 || count[Ahead] == 0 || count[Behind] == 0 || returns == 0 || gone == 0 {
		t.Error("a fault is missing")
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	c := Default(1000)
	c.Start = start
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var ev Event
	f.Next(&ev)
	if n := testing.AllocsPerRun(10_000, func() { f.Next(&ev) }); n != 0 {
		t.Errorf("%v allocations a message", n)
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"no sensors":        func(c *Config) { c.Sensors = 0 },
		"half a ms":         func(c *Config) { c.Every = 500 },
		"odd start":         func(c *Config) { c.Start = 1 },
		"odd duration":      func(c *Config) { c.Duration = 1500 },
		"negative delay":    func(c *Config) { c.Delay = -1 },
		"odd clock":         func(c *Config) { c.BehindBy = 7 * second },
		"short talk":        func(c *Config) { c.Talk.Min = second },
		"no silence":        func(c *Config) { c.Silence.Min = 0 },
		"turned span":       func(c *Config) { c.LateBy = Span{2, 1} },
		"share above 1":     func(c *Config) { c.Late = 1.5 },
		"too many are off":  func(c *Config) { c.Ahead, c.Behind = 0.6, 0.6 },
		"negative duration": func(c *Config) { c.Duration = -second },
	} {
		c := Default(3)
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		spoil(&c)
		if c.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	f, err := New(Default(1000))
	if err != nil {
		b.Fatal(err)
	}
	var ev Event
	b.ReportAllocs()
	for b.Loop() {
		f.Next(&ev)
	}
}
