package dataflow

import (
	"math"
	"strconv"
	"time"
)

// Time is an instant in microseconds since 1970-01-01T00:00:00Z. It stands for
// event time, watermarks and the arrival clock alike.
type Time int64

const (
	// MinTime is the watermark every operator starts with: nothing is known.
	MinTime Time = math.MinInt64
	// MaxTime is the watermark at the end of input: nothing more will come.
	MaxTime Time = math.MaxInt64
)

// Duration is a span in microseconds, the unit of Time.
type Duration int64

// The spans a job may name.
const (
	Microsecond Duration = 1
	Millisecond          = 1000 * Microsecond
	Second               = 1000 * Millisecond
	Minute               = 60 * Second
	Hour                 = 60 * Minute
	Day                  = 24 * Hour
)

// Add returns t+d, saturating at MinTime and MaxTime: a window that would end
// after the end of time ends there, and never wraps to its beginning.
func (t Time) Add(d Duration) Time {
	s := t + Time(d)
	if d > 0 && s < t {
		return MaxTime
	}
	if d < 0 && s > t {
		return MinTime
	}
	return s
}

// GoTime converts t for printing. MinTime and MaxTime are outside what
// time.Time formats as RFC 3339; use String for those.
func (t Time) GoTime() time.Time { return time.UnixMicro(int64(t)).UTC() }

// String is RFC 3339 with as many fractional digits as t needs, or "-inf" and
// "+inf" for the two ends of time.
func (t Time) String() string {
	switch t {
	case MinTime:
		return "-inf"
	case MaxTime:
		return "+inf"
	}
	return t.GoTime().Format(time.RFC3339Nano)
}

// FromGo converts a wall-clock instant, cutting it to the microsecond.
func FromGo(t time.Time) Time { return Time(t.UnixMicro()) }

// String is the span in Go's notation, "1m30s"; what Go cannot hold has its days
// in front, "150000d1h0m0s".
func (d Duration) String() string {
	if span := d.Go(); Duration(span/time.Microsecond) == d {
		return span.String()
	}
	rest := d % Day
	return strconv.FormatInt(int64(d/Day), 10) + "d" + max(rest, -rest).Go().String()
}

// Go converts to a time.Duration, saturating at its bounds (about 292 years).
func (d Duration) Go() time.Duration {
	const most = Duration(math.MaxInt64 / 1000)
	switch {
	case d > most:
		return math.MaxInt64
	case d < -most:
		return math.MinInt64
	}
	return time.Duration(d) * time.Microsecond
}
