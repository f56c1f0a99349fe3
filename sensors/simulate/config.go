package simulate

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Limit is the temperature in °C that a cold chain must not exceed.
const Limit = 8.0

// Span is a range to draw from, both ends included.
type Span struct{ Min, Max dataflow.Duration }

// Config describes a fleet. Shares and chances are between 0 and 1.
type Config struct {
	Seed     uint64
	Sensors  int
	Start    dataflow.Time     // true time of the beginning, whole milliseconds
	Duration dataflow.Duration // 0: endless
	Every    dataflow.Duration // between two readings of a sensor
	Interval dataflow.Duration // between two markers, at multiples of it since 1970
	Delay    dataflow.Duration // a message is sent up to this long after its reading or marker
	Settle   dataflow.Duration // a device that joined or came back stays cold until its clock shows this long after

	Excursions float64 // chance, per reading, that a warm spell above Limit begins
	Late       float64 // share of readings held back, once settled
	LateBy     Span
	Duplicates float64 // share of messages sent twice
	Silent     float64 // share of devices that fall silent again and again
	Talk       Span    // how long they are heard
	Silence    Span    // how long not; nobody falls silent in the last Silence.Min, so that with a shorter idle_after every window has closed when the last marker is in
	Gone       float64 // share of silences that never end
	Ahead      float64 // share of devices with a clock ahead
	AheadBy    dataflow.Duration
	Behind     float64 // share of devices with a clock behind
	BehindBy   dataflow.Duration
}

// Default is a fleet with every fault, for tumbling windows of an interval of
// 10 s and an idle_after of 30 s.
func Default(sensors int) Config {
	c := Config{
		Seed: 1, Sensors: sensors,
		Every: dataflow.Second, Interval: 10 * dataflow.Second,
		Delay: 50 * dataflow.Millisecond, Settle: 6 * dataflow.Second,
		Excursions: 0.01, Late: 0.01, Duplicates: 0.01,
		Silent: 0.1, Talk: Span{40 * dataflow.Second, 2 * dataflow.Minute}, Silence: Span{45 * dataflow.Second, 90 * dataflow.Second}, Gone: 0.2,
		Ahead: 0.02, AheadBy: 3 * dataflow.Hour,
		Behind: 0.02, BehindBy: 20 * dataflow.Second,
	}
	least := c.SureLate(c.Interval, 30*dataflow.Second, 5*dataflow.Second)
	c.LateBy = Span{least, least + 30*dataflow.Second}
	return c
}

// lag is how far the watermark may be behind the sending time, as the package
// comment derives it.
func (c *Config) lag(idleAfter dataflow.Duration) dataflow.Duration {
	d := 2*c.Interval + c.Delay + c.Every + idleAfter
	if c.Behind > 0 {
		d += c.BehindBy
	}
	return d
}

// SureLate is the least LateBy.Min with which every reading held back is
// surely late for a job with such windows and idle_after, given slack.
func (c *Config) SureLate(window, idleAfter, slack dataflow.Duration) dataflow.Duration {
	return window + c.lag(idleAfter) + slack
}

// Check says what is wrong with c.
func (c *Config) Check() error {
	const ms = dataflow.Millisecond
	whole := func(d dataflow.Duration) bool { return d >= ms && d%ms == 0 }
	switch {
	case c.Sensors < 1:
		return fmt.Errorf("simulate: %d sensors; at least 1", c.Sensors)
	case int64(c.Start)%int64(ms) != 0:
		return fmt.Errorf("simulate: start %v is not a whole millisecond", c.Start)
	case !whole(c.Every) || !whole(c.Interval):
		return fmt.Errorf("simulate: every %v and interval %v must be whole milliseconds", c.Every, c.Interval)
	case c.Duration != 0 && !whole(c.Duration):
		return fmt.Errorf("simulate: duration %v must be whole milliseconds", c.Duration)
	case c.Delay < 0 || c.Settle < 0:
		return fmt.Errorf("simulate: delay and settle must not be negative")
	case c.AheadBy%c.Interval != 0 || c.BehindBy%c.Interval != 0 || c.AheadBy < 0 || c.BehindBy < 0:
		return fmt.Errorf("simulate: clocks are wrong by whole intervals of %v, not by %v ahead or %v behind", c.Interval, c.AheadBy, c.BehindBy)
	case c.Silent > 0 && c.Talk.Min < 2*c.Interval:
		return fmt.Errorf("simulate: a device must be heard for at least two intervals (%v), not %v, to send a marker", 2*c.Interval, c.Talk.Min)
	case c.Silent > 0 && c.Silence.Min < c.Every:
		return fmt.Errorf("simulate: a silence of %v is none; at least %v", c.Silence.Min, c.Every)
	}
	for _, s := range []Span{c.LateBy, c.Talk, c.Silence} {
		if s.Min < 0 || s.Max < s.Min {
			return fmt.Errorf("simulate: the span from %v to %v is empty", s.Min, s.Max)
		}
	}
	for _, p := range []float64{c.Excursions, c.Late, c.Duplicates, c.Silent, c.Gone, c.Ahead, c.Behind, c.Ahead + c.Behind} {
		if !(p >= 0 && p <= 1) {
			return fmt.Errorf("simulate: shares are between 0 and 1, not %v", p)
		}
	}
	return nil
}

// Name is the id of sensor i, as in topics and payloads.
func Name(i int) string { return fmt.Sprintf("s-%04d", i) }
