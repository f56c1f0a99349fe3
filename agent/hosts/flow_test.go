//go:build hosts

package hosts

import (
	"testing"
	"time"
)

// sameWindows compares a run's windows with what they must be; without n, how
// often a reading came does not matter.
func sameWindows(t *testing.T, r files, want map[windowKey]window, n bool) {
	t.Helper()
	wrong := 0
	fail := func(format string, args ...any) {
		t.Helper()
		if wrong++; wrong <= 10 {
			t.Errorf(format, args...)
		}
	}
	got := make(map[windowKey]bool)
	for _, w := range rows[window](t, r, "windows.jsonl") {
		k := windowKey{w.Device, w.Start}
		if got[k] {
			fail("window %v fired twice", k)
		}
		got[k] = true
		exp := want[k]
		if !n {
			exp.N, exp.Total = w.N, w.Total
		}
		if w != exp {
			fail("window %+v, want %+v", w, exp)
		}
	}
	for k, w := range want {
		if !got[k] {
			fail("no window %+v", w)
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d windows wrong", wrong, len(want))
	}
}

// A hundred thousand messages at QoS 1 of eight publishers, with punctuated
// watermarks a device: every window is what the publishers' record says, and
// what comes in is what was sent.
func TestHostsMosquittoHundredThousandMessages(t *testing.T) {
	s := scale{publishers: 8, devices: 5, intervals: 100, readings: 24}
	m := startMosquitto(t, raised)
	f := newFleet(s, m.url(), 1)
	r := run(t, job(m.url(), 1, false))
	r.says(t, "subscribed")
	f.hello(t, s)

	began := time.Now()
	f.send(t, s.messages()/s.publishers)
	sent := time.Since(began)
	r.lines(t, "windows.jsonl", s.windows())
	took := time.Since(began)
	got := r.stop(t)

	if n := int64(s.messages()); n != 100_000 || got.In != n || got.Late != 0 || got.Rejected != 0 {
		t.Errorf("sent %d, totals %+v", n, got)
	}
	sameWindows(t, r, f.windows(func(*message) bool { return true }), true)
	t.Logf("%d messages acknowledged in %v (%.0f/s); all %d windows in the file after %v (%.0f messages/s)",
		s.messages(), sent.Round(time.Millisecond), float64(s.messages())/sent.Seconds(), s.windows(), took.Round(time.Millisecond), float64(s.messages())/took.Seconds())
}
