package job

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

type timeUnit struct {
	name string
	span dataflow.Duration
}

// timeUnits lists the units of a duration, greatest first.
func timeUnits() [6]timeUnit {
	return [...]timeUnit{
		{"d", dataflow.Day}, {"h", dataflow.Hour}, {"m", dataflow.Minute},
		{"s", dataflow.Second}, {"ms", dataflow.Millisecond}, {"us", dataflow.Microsecond},
	}
}

// ParseDuration reads a job's durations: 250us, 10ms, 5s, 2m, 1h, 7d, and sums
// of them, 1h30m. A minus sign in front makes all of it negative. 0 needs no
// unit.
func ParseDuration(s string) (dataflow.Duration, error) {
	rest, negative := strings.CutPrefix(s, "-")
	if rest == "0" {
		return 0, nil
	}
	if rest == "" {
		return 0, fmt.Errorf("%q is not a duration; write 250us, 10ms, 5s, 2m, 1h or 7d", s)
	}
	var total dataflow.Duration
	for rest != "" {
		digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 0 {
			return 0, fmt.Errorf("%q has no unit; write %[1]ss for seconds, or one of us, ms, m, h, d", s)
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if digits == 0 || err != nil {
			return 0, fmt.Errorf("%q is not a duration; write whole numbers and units: 250us, 10ms, 5s, 2m, 1h, 7d", s)
		}
		rest = rest[digits:]
		end := strings.IndexAny(rest, "0123456789")
		if end < 0 {
			end = len(rest)
		}
		if rest[0] == '.' {
			return 0, fmt.Errorf("%q is not a whole number; write 1500ms for 1.5s", s)
		}
		span := unitNamed(rest[:end])
		if span == 0 {
			return 0, fmt.Errorf("%q has an unknown unit %q; the units are us, ms, s, m, h, d", s, rest[:end])
		}
		if n > (math.MaxInt64-int64(total))/int64(span) {
			return 0, fmt.Errorf("%q is too long", s)
		}
		total += dataflow.Duration(n) * span
		rest = rest[end:]
	}
	if negative {
		total = -total
	}
	return total, nil
}

func unitNamed(name string) dataflow.Duration {
	for _, u := range timeUnits() {
		if u.name == name {
			return u.span
		}
	}
	return 0
}

// FormatDuration is the shortest form that ParseDuration reads back: 90s.
func FormatDuration(d dataflow.Duration) string {
	if d == 0 {
		return "0s"
	}
	for _, u := range timeUnits() {
		if d%u.span == 0 {
			return fmt.Sprintf("%d%s", d/u.span, u.name)
		}
	}
	return fmt.Sprintf("%dus", d)
}
