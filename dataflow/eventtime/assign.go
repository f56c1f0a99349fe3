package eventtime

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Assign gives the rows of a batch of one split their marks. The caller owns b,
// and nobody else has seen it; it has neither marks nor a selection. Times holds
// the event times, of which those of refused rows and of markers that are not
// data do not matter; for Ingestion they are set here.
//
// Afterwards b.Sel leaves out what is refused or taken out (nil: nothing), and
// b.Marks are set. The mark of a marker row stands after it, so the row comes
// under the old watermark.
func (s *Source) Assign(split int, b *batch.Batch, in Rows) Result {
	s.ready()
	sp := &s.splits[split]
	if sp.ended {
		panic("eventtime: rows of a split that has ended")
	}
	s.sel, s.markedAt = nil, -1
	s.refused, s.markers = s.refused[:0], 0
	switch {
	case s.cfg.Strategy == Ingestion:
		s.ingest(sp, b, &in)
	case !s.harmless(sp, b, &in):
		s.rows(sp, b, &in)
	case s.devices != nil:
		s.swiftDevices(sp, b, &in)
	default:
		s.swift(sp, b, &in)
	}
	if s.sel != nil {
		b.Sel = s.sel
	}
	s.publish(sp)
	if s.now != s.sent {
		s.mark(b, b.Rows)
	}
	return Result{Markers: s.markers, Refused: s.refused}
}

// rows goes through a batch row by row, whatever is in it.
func (s *Source) rows(sp *split, b *batch.Batch, in *Rows) {
	punctuated := s.cfg.Strategy == Punctuated && in.Marker != nil
	check := in.TimeValid != nil || s.cfg.MaxAhead > 0 || in.MarkerValid != nil
	slot := int32(-1)
	for i := range b.Rows {
		if in.Arrivals != nil && in.Arrivals[i] > int64(sp.clock) {
			s.advance(sp, dataflow.Time(in.Arrivals[i]))
			s.tell(sp, b, i)
		}
		marker := punctuated && in.Marker.Get(i)
		if check {
			if r := s.judge(sp, b, in, i, marker); r != accepted {
				s.refused = append(s.refused, Refusal{Row: int32(i), Reason: r})
				s.leaveOut(b, i)
				continue
			}
		}
		if s.devices == nil {
			s.alive(sp)
		} else {
			slot = s.touch(sp, in, i)
		}
		if s.moved() {
			s.tell(sp, b, i) // before the row that ends an idleness
		}
		s.pass(b, i, marker)
		var w dataflow.Time
		switch {
		case marker:
			w = min(dataflow.Time(in.MarkerAt[i]), lastWatermark)
		case s.bound > 0:
			w = behind(b.Times[i], s.bound)
		default:
			continue
		}
		if s.devices != nil {
			s.marked(slot, int64(w), marker)
		} else {
			sp.watermark = max(sp.watermark, w)
		}
		s.tell(sp, b, i+1)
	}
}

// pass lets the row at position i stay, or takes it out as a marker.
func (s *Source) pass(b *batch.Batch, i int, marker bool) {
	if marker && !s.cfg.KeepMarker {
		s.markers++
		s.leaveOut(b, i)
		return
	}
	if s.sel != nil {
		s.sel = append(s.sel, int32(i))
	}
}

// judge says whether the row at position i can be taken.
func (s *Source) judge(sp *split, b *batch.Batch, in *Rows, i int, marker bool) Reason {
	limit := dataflow.MaxTime
	if s.cfg.MaxAhead > 0 && sp.clock != dataflow.MinTime {
		limit = sp.clock.Add(s.cfg.MaxAhead)
	}
	if !marker || s.cfg.KeepMarker {
		if in.TimeValid != nil && !in.TimeValid.Get(i) {
			return NoEventTime
		}
		if b.Times[i] > int64(limit) {
			return Ahead
		}
	}
	if marker {
		if in.MarkerValid != nil && !in.MarkerValid.Get(i) {
			return MarkerNoTime
		}
		if in.MarkerAt[i] > int64(limit) {
			return Ahead
		}
	}
	return accepted
}

// ingest gives rows their arrival as event time: 1970 where there is no clock.
func (s *Source) ingest(sp *split, b *batch.Batch, in *Rows) {
	times := b.OwnTimes(b.Rows)
	for i := range times {
		if in.Arrivals != nil && in.Arrivals[i] > int64(sp.clock) {
			s.advance(sp, dataflow.Time(in.Arrivals[i]))
		}
		s.alive(sp)
		times[i] = int64(sp.clock)
		if sp.clock == dataflow.MinTime {
			times[i] = 0
			sp.watermark = max(sp.watermark, -1)
		}
		s.tell(sp, b, i)
	}
}

// leaveOut takes position i out of the batch.
func (s *Source) leaveOut(b *batch.Batch, i int) {
	if s.sel != nil {
		return
	}
	s.sel = b.OwnSel(b.Rows)
	for k := range i {
		s.sel = append(s.sel, int32(k))
	}
}

// moved tells whether the stream must be told of something before its next row.
func (s *Source) moved() bool {
	return s.now.Watermark != s.sent.Watermark || s.now.Idle != s.sent.Idle ||
		s.cfg.MarkArrivals && s.now.Arrival != s.sent.Arrival
}

// tell publishes what became of the split, and puts a mark at position row if
// the stream must be told before its next row.
func (s *Source) tell(sp *split, b *batch.Batch, row int) {
	s.publish(sp)
	if s.moved() {
		s.mark(b, row)
	}
}

// mark puts a mark of what is true at position row; every row before it has been
// let pass, taken out or refused.
func (s *Source) mark(b *batch.Batch, row int) {
	m := s.now
	m.Row = int32(row)
	kept := row - s.markers - len(s.refused)
	put(b, m, s.markedAt == kept)
	s.markedAt = kept
	s.sent = s.now
}

// behind is t less d, and MinTime where that does not fit.
func behind(t, d int64) dataflow.Time { return dataflow.Time(t).Add(-dataflow.Duration(d)) }
