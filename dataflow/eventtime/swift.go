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
	punctuated := s.cfg.Strategy == Punctuated && in.Marker != nil
	t := s.devices
	clock, attention, heard := int64(sp.clock), s.attention(sp), int64(sp.heard)
	var slots [block]int32
	var scratch [8]byte
	names := in.Device.Valid == nil && in.Device.Type.Variable()
	for i, at := range b.Times {
		if i%block == 0 {
			t.foresee(in, i, sp.index, slots[:min(block, b.Rows-i)])
		}
		if in.Arrivals != nil && in.Arrivals[i] > clock {
			heard += in.Arrivals[i] - clock
			clock = in.Arrivals[i]
			if clock > attention {
				s.advance(sp, dataflow.Time(clock))
				s.tell(sp, b, i)
				attention = s.attention(sp)
			}
		}
		var key []byte
		null := false
		if names {
			key = in.Device.Data[in.Device.Offsets[i]:in.Device.Offsets[i+1]]
		} else {
			key, null = keyAt(in.Device, i, &scratch)
		}
		slot := slots[i%block]
		if !t.is(slot, uint16(sp.index), key, null) {
			s.advance(sp, dataflow.Time(clock))
			slot = s.touch(sp, in, i)
			s.tell(sp, b, i)
			attention = s.attention(sp)
		}
		d := &t.slots[slot]
		d.last = heard
		d.bits |= dirty
		marker := punctuated && in.Marker.Get(i)
		if marker || s.sel != nil {
			s.pass(b, i, marker)
		}
		w := at - s.bound
		switch {
		case marker:
			w = min(in.MarkerAt[i], int64(lastWatermark))
		case s.bound == 0:
			continue
		case w > at:
			w = int64(dataflow.MinTime)
		}
		if d.state() == member {
			if w <= d.watermark {
				continue
			}
			if slot != s.least {
				d.watermark = w
				continue
			}
		}
		s.advance(sp, dataflow.Time(clock))
		s.marked(slot, w, marker)
		s.tell(sp, b, i+1)
	}
	s.advance(sp, dataflow.Time(clock))
}

// block is how many devices are looked up at a time.
const block = 64
