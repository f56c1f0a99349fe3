package node

import (
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

const (
	// A step of the clock that is at most so far is followed at once.
	mostStep = dataflow.Hour
	// One that is farther counts when it has stood for so long.
	stands = dataflow.Day
	// Until the machine has run for so long its clock may be set to any time: many have
	// none that survives a power cut, and ask a time server first.
	sets = dataflow.Hour
)

// steadyClock is the machine's clock as far as it may be relied on for what lasts: for
// certificates that are signed, and the newest time seen. A clock that is far ahead for
// a moment would be in them for months. How the clock goes is measured against uptime.
// What it says first is taken: how long the machine was off nobody knows. So is what it
// says after a time that it cannot have been: that one was a guess.
type steadyClock struct {
	wall   func() time.Time
	uptime func() dataflow.Time

	mu    sync.Mutex       // guards what follows
	seen  func() time.Time // the newest time that it is known to have been; nil: nothing is
	known reading          // the newest that was relied on
	other reading          // the newest that is not as known says; invalid when it is
	since dataflow.Time
}

// reading is what a clock said at an uptime.
type reading struct {
	wall  time.Time
	at    dataflow.Time
	valid bool
}

// near tells whether another reading is what this one says of its time.
func (r reading) near(o reading) bool {
	return r.valid && o.wall.Sub(r.then(o.at)).Abs() <= mostStep.Go()
}

// then is what time it is at an uptime.
func (r reading) then(at dataflow.Time) time.Time {
	return r.wall.Add(dataflow.Duration(at - r.at).Go())
}

func newSteadyClock(wall func() time.Time, uptime func() dataflow.Time) *steadyClock {
	c := &steadyClock{wall: wall, uptime: uptime}
	c.now()
	return c
}

// after says what time it is known to have been; it may grow.
func (c *steadyClock) after(seen func() time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = seen
}

// now is the machine's time; while that is ahead of what it was, and has not been for
// long, what it would be without that. Call it every second or so.
func (c *steadyClock) now() time.Time {
	r := reading{c.wall().Round(0), c.uptime(), true} // Round: what it measures itself does not see steps
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen != nil && c.known.valid && c.known.then(r.at).Before(c.seen()) {
		c.known = reading{}
	}
	if !c.other.near(r) {
		c.since = r.at
	}
	if c.other = r; !c.known.valid || c.known.near(r) || r.at < dataflow.Time(sets) || r.at >= c.since.Add(stands) {
		c.known, c.other = r, reading{}
	}
	if known := c.known.then(r.at); known.Before(r.wall) {
		return known
	}
	return r.wall
}
