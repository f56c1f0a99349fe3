package eventtime

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// hash is that of the device at position i, whose key is given.
func (in *Rows) hash(i int, key []byte) uint64 {
	if in.DeviceHash != nil {
		return in.DeviceHash[i]
	}
	return hashKey(key)
}

// touch notes a row of the device at position i, and returns its slot.
func (s *Source) touch(sp *split, in *Rows, i int) int32 {
	var scratch [8]byte
	t := s.devices
	key, null := keyAt(in.Device, i, &scratch)
	tag := tagOf(in.hash(i, key), sp.index)
	slot := t.find(tag, uint16(sp.index), key, null)
	if slot < 0 {
		slot = s.join(sp, tag, key, null)
	}
	d := &t.slots[slot]
	d.last = int64(sp.heard)
	d.bits |= dirty
	return slot
}

// join adds a device that was not there: it holds the source where it is.
func (s *Source) join(sp *split, tag uint32, key []byte, null bool) int32 {
	t := s.devices
	slot := t.add(tag, uint16(sp.index), key, null)
	d := &t.slots[slot]
	d.become(joining)
	d.watermark = int64(s.now.Watermark)
	t.count(slot)
	if s.cfg.IdleAfter > 0 {
		sp.silence.lower(slot, int64(sp.heard))
		sp.fresh.push(entry{key: int64(sp.heard), id: slot, gen: d.gen})
		if sp.clock != dataflow.MinTime {
			sp.deadline = min(sp.deadline, sp.heard.Add(s.cfg.IdleAfter))
		}
	}
	if !sp.started {
		sp.started = true
		s.started++
		if !sp.waived {
			s.holding--
		}
	}
	s.settle()
	return slot
}

// marked takes the watermark w that a row of a device gave: by a marker, or by
// its event time.
func (s *Source) marked(slot int32, w int64, marker bool) {
	t := s.devices
	d := &t.slots[slot]
	switch d.state() {
	case member:
		if w <= d.watermark {
			return
		}
		least := d.watermark
		d.watermark = w
		if slot == s.least && t.at(slot+1, least) {
			s.least++ // devices that come in turn, several at a time
			return
		}
	case joining:
		if !marker && w <= d.watermark {
			return
		}
		d.become(member)
		d.watermark = max(d.watermark, w)
	case waiting:
		if !marker && w <= int64(s.now.Watermark) {
			return
		}
		d.become(member)
		d.watermark = max(w, int64(s.now.Watermark))
		t.count(slot)
	}
	if slot == s.least || s.least < 0 {
		s.settle()
	}
}

// settle brings the watermark up to date with the devices that count. As they
// start at the source's and never go back, none is behind it.
func (s *Source) settle() {
	s.least = -1
	s.now.Idle = s.open > 0 && s.started == 0 && s.holding == 0
	if s.holding > 0 {
		return
	}
	s.least = s.devices.least()
	if s.least >= 0 {
		w := dataflow.Time(s.devices.slots[s.least].watermark)
		s.now.Watermark = max(s.now.Watermark, w)
	}
}

// expireDevices lets go of the devices whose time is up, earliest first and
// those of the same microsecond together.
func (s *Source) expireDevices(sp *split) {
	t := s.devices
	for {
		due := t.quietest(sp)
		due = min(due, t.freshest(sp))
		if !sp.started && !sp.waived {
			due = min(due, int64(sp.last))
		}
		if due == none {
			sp.deadline = dataflow.MaxTime
			return
		}
		if d := dataflow.Time(due).Add(s.cfg.IdleAfter); d >= sp.heard {
			sp.deadline = d
			return
		}
		if !sp.started && !sp.waived && int64(sp.last) == due {
			sp.waived = true
			s.holding--
		}
		t.forgetSilent(sp, due)
		for t.freshest(sp) == due {
			e, _ := sp.fresh.least()
			sp.fresh.drop()
			t.slots[e.id].become(waiting)
		}
		s.settle()
	}
}

// endDevices forgets the devices of a split that has ended.
func (s *Source) endDevices(sp *split) {
	if sp.started {
		s.started--
	} else if !sp.waived {
		s.holding--
	}
	t := s.devices
	for slot := range t.slots {
		if d := &t.slots[slot]; d.state() != 0 && int(d.split) == sp.index {
			t.forget(int32(slot))
		}
	}
	sp.silence, sp.fresh = laggard{}, queue{}
	if s.open > 0 {
		s.settle()
	}
}

// quietest is when the device of the split was heard of that has been silent
// for longest, or none.
func (t *devices) quietest(sp *split) int64 {
	_, last := t.quietestIn(sp)
	return last
}

// quietestIn is quietest, and a group of slots that has such a device.
func (t *devices) quietestIn(sp *split) (group int, last int64) {
	return sp.silence.least(func(group int) int64 {
		last := int64(none)
		from := group * fan
		for i := range t.slots[from:min(from+fan, len(t.slots))] {
			if d := &t.slots[from+i]; d.state() != 0 && int(d.split) == sp.index {
				last = min(last, d.last)
			}
		}
		return last
	})
}

// forgetSilent forgets the devices of the split last heard of at a time, which is
// that of the quietest.
func (t *devices) forgetSilent(sp *split, at int64) {
	for group, last := t.quietestIn(sp); last == at; group, last = t.quietestIn(sp) {
		from := group * fan
		for i := from; i < min(from+fan, len(t.slots)); i++ {
			if d := &t.slots[i]; d.last == at && d.state() != 0 && int(d.split) == sp.index {
				t.forget(int32(i))
			}
		}
	}
}

// freshest is when the device joined that has been new for longest, or none.
func (t *devices) freshest(sp *split) int64 {
	for {
		e, ok := sp.fresh.least()
		if !ok {
			if !sp.fresh.refill(t.joinedNow) {
				return none
			}
			continue
		}
		if _, ok := t.joinedNow(e); ok {
			return e.key
		}
		sp.fresh.drop()
	}
}

// startClock makes the devices that came before the split had a clock as old as
// the clock.
func (t *devices) startClock(sp *split) {
	for i := range t.slots {
		if d := &t.slots[i]; d.state() != 0 && int(d.split) == sp.index {
			d.last = int64(sp.heard)
			d.bits |= dirty
		}
	}
	var anew queue
	sp.fresh.each(func(e entry) {
		e.key = int64(sp.heard)
		anew.push(e)
	})
	sp.fresh = anew
}
