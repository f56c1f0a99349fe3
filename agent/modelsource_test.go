package agent_test

import "fmt"

// mline is one line of an input: a payload that is no row, or the row's values,
// and, for a marker, what it says.
type mline struct {
	text string
	v    map[string]any // k g v d s m ts wm at; nil: it does not decode
}

// msource is the model of a source over one file.
type msource struct {
	strategy     string // "", bounded, ascending, punctuated
	bound        int64
	keep         bool   // emit: true
	per          string // column; empty: none
	idle, ahead  int64  // 0: none
	arrival      bool
	processing   bool // somebody wants to know when each row came
	still        bool // it has no watermark before the end
	wm, now      int64
	told, toldAt int64
	devices      map[string]*mdevice
	node         *mnode
}

// mdevice is what is known of a device.
type mdevice struct {
	wm, last, joined int64
	joining, waiting bool
}

func (s *msource) start() {
	s.wm, s.now, s.told, s.toldAt = minTime, minTime, minTime, minTime
	s.devices = make(map[string]*mdevice)
}

// line takes one line.
func (s *msource) line(l mline) {
	n := s.node
	n.count.In++
	if l.v == nil {
		s.reject(l.text)
		return
	}
	if at, ok := l.v["at"].(int64); ok && s.arrival && at > s.now {
		s.advance(at)
	}
	s.tell()
	marker := s.strategy == "punctuated" && l.v["m"] == true
	ts, hasTime := l.v["ts"].(int64)
	wm, hasMark := l.v["wm"].(int64)
	limit := maxTime
	if s.ahead > 0 && s.now != minTime {
		limit = plus(s.now, s.ahead)
	}
	data := !marker || s.keep
	switch {
	case data && !hasTime:
		s.reject(l.text) // no event time
		return
	case data && ts > limit, marker && hasMark && wm > limit:
		s.reject(l.text) // ahead
		return
	case marker && !hasMark:
		s.reject(l.text) // marker without time
		return
	}
	var d *mdevice
	if s.per != "" {
		d = s.device(fmt.Sprintf("%#v", l.v[s.per]))
	}
	s.tell()
	if data {
		n.emit(&mrow{ts: ts, v: l.v})
	} else {
		n.count.Markers++
	}
	switch {
	case marker:
		s.marked(d, wm, true)
	case s.strategy == "bounded", s.strategy == "ascending":
		s.marked(d, plus(plus(ts, -s.bound), -1), false)
	}
	s.tell()
}

func (s *msource) reject(payload string) {
	s.node.count.Rejected++
	send(s.node.bad, &mrow{v: map[string]any{"payload": payload}})
}

// tell passes on what is new.
func (s *msource) tell() {
	if s.wm > s.told || s.processing && s.now > s.toldAt {
		s.told, s.toldAt = s.wm, s.now
		s.node.mark(s.wm, s.now)
	}
}

// end is the end of the file.
func (s *msource) end() { s.node.mark(maxTime, s.now) }

// advance moves the arrival clock: devices that were silent for longer than
// idle by then are forgotten, those that joined so long ago and have not gone on
// hold nobody any more; each at its time.
func (s *msource) advance(at int64) {
	if s.now == minTime { // nobody was silent before there was a clock
		for _, d := range s.devices {
			d.last, d.joined = at, at
		}
	}
	s.now = at
	for s.idle > 0 {
		due := maxTime
		for _, d := range s.devices {
			due = min(due, d.last)
			if d.joining {
				due = min(due, d.joined)
			}
		}
		if due == maxTime || due+s.idle >= at {
			return
		}
		for name, d := range s.devices {
			if d.joining && d.joined == due {
				d.joining, d.waiting = false, true
			}
			if d.last == due {
				delete(s.devices, name)
			}
		}
		s.settle()
	}
}

func (s *msource) settle() {
	least := maxTime
	for _, d := range s.devices {
		if !d.waiting {
			least = min(least, d.wm)
		}
	}
	if least != maxTime {
		s.wm = max(s.wm, least)
	}
}

// device is the device of a row that was taken; a new one holds the watermark
// where it is.
func (s *msource) device(name string) *mdevice {
	d := s.devices[name]
	if d == nil {
		d = &mdevice{wm: s.wm, joined: s.now, joining: true}
		s.devices[name] = d
	}
	d.last = s.now
	return d
}

// marked takes the watermark of a row.
func (s *msource) marked(d *mdevice, w int64, marker bool) {
	switch {
	case s.still:
		return
	case d == nil:
		s.wm = max(s.wm, w)
		return
	case d.joining && (marker || w > d.wm):
		d.joining = false
		d.wm = max(d.wm, w)
	case d.waiting && (marker || w > s.wm):
		d.waiting = false
		d.wm = max(w, s.wm)
	case !d.joining && !d.waiting:
		d.wm = max(d.wm, w)
	}
	s.settle()
}
