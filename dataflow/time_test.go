package dataflow

import (
	"math"
	"testing"
)

// Durations that Go's cannot hold are not cut off at its bounds.
func TestLongDurationsAreWrittenOut(t *testing.T) {
	for d, want := range map[Duration]string{
		0:                    "0s",
		90 * Second:          "1m30s",
		-Microsecond:         "-1µs",
		math.MaxInt64 / 1000: "2562047h47m16.854775s",
		150_000*Day + Hour:   "150000d1h0m0s",
		-150_000 * Day:       "-150000d0s",
		math.MaxInt64:        "106751991d4h0m54.775807s",
		math.MinInt64:        "-106751991d4h0m54.775808s",
	} {
		if got := d.String(); got != want {
			t.Errorf("%d µs is %q, want %q", int64(d), got, want)
		}
	}
}
