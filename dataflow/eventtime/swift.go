package eventtime

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Most batches hold nothing out of the ordinary: no row is refused, nobody asks
// when each row came, and the split is not deaf. Those go through the loops
// below, which keep the clock in a register until somebody needs it. They say
// exactly what rows says.

// harmless tells whether a batch is one of those.
func (s *Source) harmless(sp *split, b *batch.Batch, in *Rows) bool {
	if in.TimeValid != nil || in.MarkerValid != nil || sp.deaf || s.cfg.MarkArrivals || in.Arrivals != nil && sp.clock == dataflow.MinTime {
		return false
	}
	if s.cfg.MaxAhead == 0 || sp.clock == dataflow.MinTime {
		return true
	}
	// The clock only goes up: what is not ahead of where it stands is not ahead.
	limit := int64(sp.clock.Add(s.cfg.MaxAhead))
	latest := int64(dataflow.MinTime)
	for _, t := range b.Times {
		latest = max(latest, t)
	}
	if s.cfg.Strategy == Punctuated && in.Marker != nil {
		for _, t := range in.MarkerAt[:b.Rows] {
			latest = max(latest, t)
		}
	}
	return latest <= limit
}

// swift is rows for harmless batches without devices.
func (s *Source) swift(sp *split, b *batch.Batch, in *Rows) {
	punctuated := s.cfg.Strategy == Punctuated && in.Marker != nil
	clock, attention := int64(sp.clock), s.attention(sp)
	attentive := sp.idle // the row ends the idleness
	alone := len(s.splits) == 1
	for i, t := range b.Times {
		if in.Arrivals != nil && in.Arrivals[i] > clock {
			if in.Arrivals[i] > attention {
				s.advance(sp, dataflow.Time(clock))
				if i > 0 {
					sp.last = sp.heard
				}
				s.advance(sp, dataflow.Time(in.Arrivals[i]))
				s.tell(sp, b, i)
				attentive = true
			}
			clock = in.Arrivals[i]
		}
		if attentive {
			s.advance(sp, dataflow.Time(clock))
			s.alive(sp)
			s.tell(sp, b, i)
			attention, attentive = s.attention(sp), false
		}
		marker := punctuated && in.Marker.Get(i)
		if marker || s.sel != nil {
			s.pass(b, i, marker)
		}
		w := dataflow.MinTime
		switch {
		case marker:
			w = min(dataflow.Time(in.MarkerAt[i]), lastWatermark)
		case s.bound > 0:
			w = behind(t, s.bound)
		}
		if w <= sp.watermark {
			continue
		}
		sp.watermark = w
		if alone && s.sel == nil && w > s.now.Watermark {
			// A marker after every row comes here each time: what advance, publish
			// and mark would do, and no more.
			s.now = batch.Mark{Watermark: w, Arrival: max(s.now.Arrival, dataflow.Time(clock))}
			s.sent, s.markedAt = s.now, i+1
			b.AddMark(batch.Mark{Row: int32(i + 1), Watermark: w, Arrival: s.now.Arrival})
			continue
		}
		s.advance(sp, dataflow.Time(clock))
		s.tell(sp, b, i+1)
	}
	s.advance(sp, dataflow.Time(clock))
	if b.Rows > 0 {
		sp.last = sp.heard
	}
}

// swiftDevices is rows for harmless batches with devices.
func (s *Source) swiftDevices(sp *split, b *batch.Batch, in *Rows) {
	var found [block]int32
	for from := 0; from < b.Rows; from += block {
		slots := found[:min(block, b.Rows-from)]
		s.devices.lookup(in, from, sp.index, slots)
		for k := 0; k < len(slots); {
			if slots[k] != s.least && slots[k] >= 0 {
				n := s.ordinary(sp, b, in, from+k, slots[k:])
				if k += n; k == len(slots) {
					break
				}
			}
			if s.deviceRow(sp, b, in, from+k, slots[k]) {
				s.devices.lookup(in, from+k, sp.index, slots[k:])
			}
			k++
		}
	}
}

// ordinary takes rows, from position i on, of members that are not the last one,
// and tells how many they are before one that is something else.
func (s *Source) ordinary(sp *split, b *batch.Batch, in *Rows, i int, slots []int32) int {
	all, least, bound, offset := s.devices.slots, s.least, s.bound, int64(sp.clock)-int64(sp.heard)
	clock, attention := int64(sp.clock), s.attention(sp)
	punctuated := s.cfg.Strategy == Punctuated
	n := len(slots)
	times := b.Times[i : i+n]
	var arrivals []int64
	if in.Arrivals != nil {
		arrivals = in.Arrivals[i : i+n]
	}
	for k, slot := range slots {
		now := clock
		if arrivals != nil {
			now = max(now, arrivals[k])
		}
		w := times[k] - bound
		if punctuated {
			w = int64(dataflow.MinTime)
			if in.Marker != nil && in.Marker.Get(i+k) {
				if w = min(in.MarkerAt[i+k], int64(lastWatermark)); !s.cfg.KeepMarker {
					n = k
					break
				}
			}
		}
		if slot < 0 || slot == least || now > attention || all[slot].state() != member || !punctuated && w > times[k] {
			n = k
			break
		}
		clock = now
		d := &all[slot]
		d.last = now - offset
		d.bits |= dirty
		d.watermark = max(d.watermark, w)
	}
	if s.sel != nil {
		for k := range n {
			s.sel = append(s.sel, int32(i+k))
		}
	}
	s.advance(sp, dataflow.Time(clock))
	return n
}

// deviceRow takes any row; slot is where its device is, if not -1. It tells
// whether devices may be gone now.
func (s *Source) deviceRow(sp *split, b *batch.Batch, in *Rows, i int, slot int32) (gone bool) {
	if in.Arrivals != nil && dataflow.Time(in.Arrivals[i]) > sp.clock {
		gone = in.Arrivals[i] > s.attention(sp)
		s.advance(sp, dataflow.Time(in.Arrivals[i]))
		s.tell(sp, b, i)
	}
	if slot < 0 || gone {
		slot = s.touch(sp, in, i)
		s.tell(sp, b, i)
	}
	d := &s.devices.slots[slot]
	d.last = int64(sp.heard)
	d.bits |= dirty
	marker := s.cfg.Strategy == Punctuated && in.Marker != nil && in.Marker.Get(i)
	if marker || s.sel != nil {
		s.pass(b, i, marker)
	}
	var w dataflow.Time
	switch {
	case marker:
		w = min(dataflow.Time(in.MarkerAt[i]), lastWatermark)
	case s.bound > 0:
		w = behind(b.Times[i], s.bound)
	default:
		return gone
	}
	s.marked(slot, int64(w), marker)
	s.tell(sp, b, i+1)
	return gone
}

// block is how many devices are looked up at a time.
const block = 64
