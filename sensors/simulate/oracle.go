package simulate

import (
	"cmp"
	"sort"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Settings is what the oracle must know of the job: readings with temp >
// Threshold go by sensor into tumbling windows without allowed lateness, under
// one punctuated watermark a device.
type Settings struct {
	Threshold float64
	Window    dataflow.Duration
	IdleAfter dataflow.Duration // on the scale of Event.At; 0: never
	MaxAhead  dataflow.Duration // on the scale of Event.At; 0: no bound
	Slack     dataflow.Duration // see the package comment
	Dedupe    bool              // the job drops re-sends by (sensor, seq)
}

// Window is what one window must hold.
type Window struct {
	Sensor     int
	Start, End dataflow.Time
	Count      int64
	Sum        float64
	Min, Max   float64
	Unsure     bool // a reading of it may or may not have been counted: no judgement
}

// Avg is the mean of its readings.
func (w *Window) Avg() float64 { return w.Sum / float64(w.Count) }

// Totals counts messages. Every reading is exactly one of Filtered, Counted,
// Late, Refused, Dropped and Unsure.
type Totals struct {
	Messages   int64
	Readings   int64
	Markers    int64 // without refused and unsure ones
	Duplicates int64 // messages that repeat the one before, of either kind
	Filtered   int64
	Counted    int64
	Late       int64
	Refused    int64 // readings too far ahead
	RefusedM   int64 // markers too far ahead
	Dropped    int64 // re-sent readings, with Dedupe
	Unsure     int64 // readings that may have gone either way
	UnsureM    int64 // markers that may have been refused
}

// Oracle computes what a job must make of the messages of a fleet. It looks at
// when a message was sent and what it says, never at Event.Fault. It keeps one
// Window for each that has readings, until Forget.
type Oracle struct {
	cfg     Config
	set     Settings
	totals  Totals
	devices []heard
	windows map[windowKey]*Window
	names   map[string]int
	last    int64 // sending time of the last accepted message of any device
	awake   int64 // since when some device surely lives
}

type windowKey struct {
	sensor int
	start  int64
}

// heard is what the oracle knows of a device.
type heard struct {
	seen   bool
	seq    int64 // of the last message
	last   int64 // sending time of the last accepted message
	joined int64 // of the first since it joined
	marked bool  // there was a marker since then
	holds  int64 // since when it surely holds the watermark
	mark   int64 // its largest marker
}

// NewOracle makes an oracle for a fleet with configuration c.
func NewOracle(c Config, s Settings) *Oracle {
	o := &Oracle{cfg: c, set: s, devices: make([]heard, c.Sensors), windows: make(map[windowKey]*Window), names: make(map[string]int, c.Sensors), last: int64(dataflow.MinTime)}
	for i := range o.devices {
		o.devices[i].mark = int64(dataflow.MinTime)
		o.devices[i].seq = -1
		o.names[Name(i)] = i
	}
	return o
}

// Totals is the count so far.
func (o *Oracle) Totals() Totals { return o.totals }

// Add takes the next message in the order of sending.
func (o *Oracle) Add(ev *Event) {
	t, d := &o.totals, &o.devices[ev.Sensor]
	at, ts := int64(ev.At), int64(ev.Row.TS)
	again := d.seq == ev.Row.Seq
	d.seq = ev.Row.Seq
	t.Messages++
	if again {
		t.Duplicates++
	}
	if !ev.Row.Marker {
		t.Readings++
	}
	if ahead := ts - at - int64(o.set.MaxAhead); o.set.MaxAhead > 0 && ahead > 0 {
		o.tooFar(ev, ahead > int64(o.set.Slack))
		return
	}
	patience := int64(o.set.IdleAfter - o.set.Slack)
	if o.set.IdleAfter == 0 {
		patience = int64(dataflow.MaxTime)
	}
	if o.last == int64(dataflow.MinTime) || at-o.last > patience {
		o.awake = at
	}
	o.last = at
	if !d.seen || at-d.last > patience {
		d.seen, d.joined, d.marked, d.holds = true, at, false, at
	}
	if !d.marked && at-d.joined > patience { // it may have lost its hold: only what it finds now is sure
		d.holds = at
	}
	d.last = at
	switch {
	case ev.Row.Marker:
		t.Markers++
		d.mark, d.marked = max(d.mark, ts), true
	case again && o.set.Dedupe:
		t.Dropped++
	case !(ev.Row.Temp > o.set.Threshold):
		t.Filtered++
	default:
		o.judge(ev, d)
	}
}

// tooFar takes a message that is, surely or perhaps, too far ahead.
func (o *Oracle) tooFar(ev *Event, surely bool) {
	t := &o.totals
	switch {
	case surely && ev.Row.Marker:
		t.RefusedM++
	case surely:
		t.Refused++
	case ev.Row.Marker:
		t.UnsureM++
	default:
		t.Unsure++
		if ev.Row.Temp > o.set.Threshold {
			o.window(ev).Unsure = true
		}
	}
}

// judge applies rules 1 and 2 of the package comment.
func (o *Oracle) judge(ev *Event, d *heard) {
	start := floor(int64(ev.Row.TS), int64(o.set.Window))
	closes := start + int64(o.set.Window) - 1
	switch {
	case closes > max(d.holds+int64(o.set.Slack), d.mark):
		o.totals.Counted++
		w := o.window(ev)
		if w.Count == 0 {
			w.Min, w.Max = ev.Row.Temp, ev.Row.Temp
		}
		w.Count++
		w.Sum += ev.Row.Temp
		w.Min, w.Max = min(w.Min, ev.Row.Temp), max(w.Max, ev.Row.Temp)
	case o.passes() && max(closes, o.awake) <= int64(ev.At)-int64(o.set.Slack)-int64(o.cfg.lag(o.set.IdleAfter)):
		o.totals.Late++
	default:
		o.totals.Unsure++
		o.window(ev).Unsure = true
	}
}

// passes tells whether the watermark is sure to follow: a device that is
// silent for ever holds it for ever, unless idleness leaves it out.
func (o *Oracle) passes() bool { return o.set.IdleAfter > 0 || o.cfg.Silent == 0 }

func (o *Oracle) window(ev *Event) *Window {
	start := floor(int64(ev.Row.TS), int64(o.set.Window))
	k := windowKey{ev.Sensor, start}
	w := o.windows[k]
	if w == nil {
		w = &Window{Sensor: ev.Sensor, Start: dataflow.Time(start), End: dataflow.Time(start).Add(o.set.Window)}
		o.windows[k] = w
	}
	return w
}

// Windows lists the windows that were sent readings, by start, then sensor.
func (o *Oracle) Windows() []Window {
	out := make([]Window, 0, len(o.windows))
	for _, w := range o.windows {
		out = append(out, *w)
	}
	sort.Slice(out, func(i, j int) bool {
		return cmp.Or(cmp.Compare(out[i].Start, out[j].Start), cmp.Compare(out[i].Sensor, out[j].Sensor)) < 0
	})
	return out
}
