package node

import (
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// A clock that steps far ahead is believed when it has stood for a day.
func TestSteadyClock(t *testing.T) {
	const day = 24 * time.Hour
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	up, wrong := 30*time.Hour, time.Duration(0)
	c := newSteadyClock(func() time.Time { return begin.Add(up + wrong) }, func() dataflow.Time { return dataflow.Time(up.Microseconds()) })
	for i, s := range []struct{ pass, wrong, want time.Duration }{
		{time.Second, 0, 0},
		{time.Second, 50 * time.Minute, 50 * time.Minute}, // as a time server may have it
		{time.Second, 0, 0},
		{time.Second, 700 * day, 0},
		{time.Second, 0, 0},
		{time.Second, 700 * day, 0}, // it counts from here
		{23 * time.Hour, 700 * day, 0},
		{time.Second, 300 * day, 0}, // another one: from here
		{23 * time.Hour, 300*day + 30*time.Minute, 0},
		{2 * time.Hour, 300 * day, 300 * day},
		{time.Second, 301 * day, 300 * day},
		{time.Second, 0, 0},                 // set right: at once
		{time.Second, 300 * day, 300 * day}, // as before
		{time.Second, 0, 0},
		{25 * time.Hour, 0, 0}, // that has stood
		{time.Second, 300 * day, 0},
		{time.Second, -300 * day, -300 * day}, // back, and right again
		{time.Second, 0, 0},
		{400 * day, 0, 0}, // asleep: uptime goes on
	} {
		up, wrong = up+s.pass, s.wrong
		if got := c.now().Sub(begin.Add(up)); got != s.want {
			t.Fatalf("step %d: %v ahead, want %v", i, got, s.want)
		}
	}
}

// A machine without a clock of its own is set to the right time soon after it was
// started: that counts at once, and so does what a clock says first.
func TestSteadyClockAtTheStart(t *testing.T) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	up, wall := time.Minute, time.Unix(60, 0)
	c := newSteadyClock(func() time.Time { return wall }, func() dataflow.Time { return dataflow.Time(up.Microseconds()) })
	up, wall = 2*time.Minute, begin
	if got := c.now(); !got.Equal(begin) {
		t.Errorf("set after a minute: %v", got)
	}
	up, wall = 2*time.Hour, begin.Add(300*24*time.Hour)
	if got := c.now(); !got.Equal(begin.Add(2*time.Hour - 2*time.Minute)) {
		t.Errorf("set after two hours: %v", got)
	}
	c = newSteadyClock(c.wall, c.uptime)
	if got := c.now(); !got.Equal(wall) {
		t.Errorf("at the start of a process: %v", got)
	}
	up, wall = 70*time.Minute, time.Unix(70*60, 0)
	c = newSteadyClock(c.wall, c.uptime)
	c.after(func() time.Time { return begin })
	c.now()
	up, wall = 80*time.Minute, begin.Add(time.Hour)
	if got := c.now(); !got.Equal(wall) {
		t.Errorf("set late, after a time before the newest that is known: %v", got)
	}
	up, wall = 81*time.Minute, begin.Add(300*24*time.Hour)
	if got := c.now(); !got.Equal(begin.Add(61 * time.Minute)) {
		t.Errorf("set far ahead after that: %v", got)
	}
}

// The site's time is what the last command says: that of a leader whose clock was ahead
// for a moment passes.
func TestSiteTimeGoesBack(t *testing.T) {
	n := new(Node)
	for _, at := range []dataflow.Time{7, 9_000, 8} {
		n.applied(1, &coordinator.Command{At: at}, jobmanager.Result{}, nil)
	}
	if got := n.siteTime.Load(); got != 8 {
		t.Error(got)
	}
}
