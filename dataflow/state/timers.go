package state

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Domain is the clock that a timer waits for.
type Domain uint8

// The clocks.
const (
	EventTime   Domain = 1 // the watermark
	ArrivalTime Domain = 2 // the arrival clock
	expiryTime  Domain = 3 // keys to be looked at for expired entries
)

// noTime is no time to wait for.
const noTime = int64(dataflow.MaxTime)

// Step is how far a call came.
type Step uint8

// The steps.
const (
	None Step = iota // there is nothing (more)
	Wait             // entries are wanted from the Backing: Arrived, then again
	Got              // here it is
)

// timerCells are timers as state: a map from times to nothing, so that they
// are saved, evicted, undone and moved like all else. The queues only say which
// key to look at when.
func (s *Store) timerCells(name string, d Domain) *cells {
	c := newMapping(name, batch.Field{Name: "time", Type: batch.Timestamp}, TTL{}, nil)
	c.store, c.number, c.domain = s, len(s.states), d
	s.states = append(s.states, c)
	return c
}

// SetTimer sets a timer of the current key; one for the same time and clock is
// the same timer. It fires at the mark at which the clock has reached the time:
// the next one, if it has already.
func (s *Store) SetTimer(d Domain, at dataflow.Time) {
	c := s.timers[d-1]
	key, ok := s.current(c)
	if !ok {
		return
	}
	if e := c.findTimer(key, at); e >= 0 && c.flags[e]&live != 0 {
		return
	}
	c.putSub(key, int64(at), nil)
}

func (c *cells) findTimer(key int32, at dataflow.Time) int32 {
	return c.findSub(key, int64(at), nil, hashSub(key, int64(at), nil, false))
}

// DeleteTimer deletes a timer of the current key, if there is one.
func (s *Store) DeleteTimer(d Domain, at dataflow.Time) {
	c := s.timers[d-1]
	key, ok := s.current(c)
	if !ok {
		return
	}
	if e := c.findTimer(key, at); e >= 0 && c.flags[e]&live != 0 {
		c.remove(e)
	}
}

// Timers is the number of timers of a clock that the current key has.
func (s *Store) Timers(d Domain) int {
	if key, ok := s.current(s.timers[d-1]); ok {
		return s.timers[d-1].countOf(key)
	}
	return 0
}

// schedule puts a timer that was set into its queue.
func (s *Store) schedule(c *cells, e int32) {
	s.queues[c.domain-1].push(c.subs.ints[e], c.owner[e])
}

// NextTimer is the key and time of the earliest timer of a clock that is due at
// until. The key is in memory. The caller makes it current, calls DeleteTimer, and
// does what the timer is for.
func (s *Store) NextTimer(d Domain, until dataflow.Time) (key int32, at dataflow.Time, step Step) {
	q, c := &s.queues[d-1], s.timers[d-1]
	for {
		key, t, step := q.next(int64(until))
		if step != Got {
			return 0, 0, step
		}
		q.stale--
		if e := c.findTimer(key, dataflow.Time(t)); e >= 0 && c.flags[e]&live != 0 {
			return key, dataflow.Time(t), Got
		}
	}
}

// expireLater has the key of an entry looked at when the entry can have expired,
// unless it is looked at before that.
func (s *Store) expireLater(c *cells, e int32) {
	if c.touched[e] == untouched {
		return
	}
	key := c.owner[e]
	if at := int64(dataflow.Time(c.touched[e]).Add(c.ttl.After)); at < s.due[key] {
		s.due[key] = at
		s.queues[expiryTime-1].push(at, key)
	}
}

// maxExpiries is how many keys one mark has looked at for expired entries; more
// are left to the next one. What has expired is never seen in any case.
const maxExpiries = 4096

// SetClock says how far the clocks have come. The caller calls Expire next.
func (s *Store) SetClock(watermark, arrival dataflow.Time) {
	s.clock = [2]dataflow.Time{watermark, arrival}
	s.now = arrival
}

// Clock is what SetClock was last told, before a restore too.
func (s *Store) Clock() (watermark, arrival dataflow.Time) { return s.clock[0], s.clock[1] }

// Expire removes entries whose time has come. Wait: it is to be called again
// when what it wants has Arrived.
func (s *Store) Expire() Step {
	if len(s.expiry) == 0 {
		return None
	}
	q := &s.queues[expiryTime-1]
	for range maxExpiries {
		key, t, step := q.next(int64(s.now))
		if step != Got {
			return step
		}
		if s.due[key] != t {
			continue
		}
		s.due[key] = noTime
		s.expireKey(key)
	}
	return None
}

func (s *Store) expireKey(key int32) {
	first := int32(-1)
	var of *cells
	for _, c := range s.expiry {
		for n := c.heads[key]; n != 0; {
			e := n - 1
			n = c.next[e]
			switch {
			case c.flags[e]&live == 0 || c.touched[e] == untouched:
			case c.expired(e):
				c.remove(e)
			case first < 0 || c.deadline(e) < of.deadline(first):
				first, of = e, c
			}
		}
	}
	if first >= 0 {
		s.expireLater(of, first)
	}
	s.Commit()
}

func (c *cells) deadline(e int32) dataflow.Time { return dataflow.Time(c.touched[e]).Add(c.ttl.After) }
