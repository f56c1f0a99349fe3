package lease

import (
	"errors"
	"sync/atomic"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// ErrExpired: this agent must not act on the world until the leader has answered
// a heartbeat again. What it was about to do can be tried again then.
var ErrExpired = errors.New("the lease of this agent has expired: nothing is connected, published, acknowledged or committed until the leader of the site is reached again")

// Lease is the permission of one agent. Any goroutine may call it.
type Lease struct {
	now   func() dataflow.Time
	until atomic.Int64
}

// New makes a lease that has expired. now is a clock that never goes back and
// counts the time in which the machine slept; any goroutine may call it.
func New(now func() dataflow.Time) *Lease {
	l := &Lease{now: now}
	l.until.Store(int64(dataflow.MinTime))
	return l
}

// Extend lets the lease run until then; it never makes it shorter.
func (l *Lease) Extend(until dataflow.Time) {
	for {
		was := l.until.Load()
		if int64(until) <= was || l.until.CompareAndSwap(was, int64(until)) {
			return
		}
	}
}

// Err is nil while the lease runs, else ErrExpired. Ask right before each act,
// not once before several.
func (l *Lease) Err() error {
	if int64(l.now()) < l.until.Load() {
		return nil
	}
	return ErrExpired
}

// Until is when it ends, or ended; MinTime if there never was one.
func (l *Lease) Until() dataflow.Time { return dataflow.Time(l.until.Load()) }
