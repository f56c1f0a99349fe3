package window

import (
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// The table `clock` has a row with the watermark, the arrival clock and the
// order of arrival. Of windows that can be late there is a second one, a note on
// which of them are gone, since the job may go on with another allowed lateness:
// a window that is gone has no state, and must not come back without its rows.
// The note has the same clocks and, where the first row has its seq, which is
// never negative, -1 minus how far behind the watermark windows are gone.
//
// A column would say it more plainly. But subtasks of one operator may be in
// agents of different releases, and a checkpoint has one schema of a table; and
// programs that know no notes take the least clocks and the greatest seq of all
// rows, so that to them a note says nothing.

// lateable tells whether rows can be late for windows of the spec.
func (s *Spec) lateable() bool { return s.Form.Timed() && !s.ProcessingTime }

// saveClock writes the clock, and the note.
func (o *core) saveClock(w *stateWriter) error {
	b := o.newState(o.ctx.Pool, o.clock)
	rows := 0
	add := func(seq int64) {
		for i, v := range []int64{o.wm, o.arrival, seq} {
			b.Cols[i].Ints = append(b.Cols[i].Ints, v)
		}
		rows++
	}
	add(o.in.seq)
	if o.spec.lateable() {
		add(-1 - o.lag())
	}
	return w.send(o.clock, b, rows, nil)
}

// lag is how far behind the watermark windows are gone: the allowed lateness, or
// less until the watermark has passed all that were gone with a smaller one.
func (o *core) lag() int64 {
	lateness := int64(o.spec.AllowedLateness)
	if gone := plus(o.before, -1); gone > plus(o.wm, -lateness) {
		return o.wm - gone
	}
	return lateness
}

// goneWith is the time before which windows end that are gone, by a note.
func goneWith(wm, lag int64) int64 {
	if wm < math.MinInt64+lag {
		return math.MinInt64
	}
	return plus(wm-lag, 1)
}

// restoreClock goes on from the least watermark of those that this operator
// descends from. Without a note, in state of an earlier release, the lateness is
// taken to be what it was.
func (o *core) restoreClock(b *batch.Batch) {
	for k := range b.Len() {
		r := b.Position(k)
		wm, arrival, seq := b.Cols[0].Ints[r], b.Cols[1].Ints[r], b.Cols[2].Ints[r]
		if seq < 0 {
			before := goneWith(wm, -1-seq)
			if o.noted {
				before = min(before, o.before)
			}
			o.before, o.noted = before, true
			continue
		}
		if o.revived {
			wm, arrival = min(wm, o.wm), min(arrival, o.arrival)
		}
		o.wm, o.arrival, o.revived = wm, arrival, true
		o.in.seq = max(o.in.seq, seq)
	}
	o.form.restored()
	o.count.KeysLive = int64(o.keys.Len())
}
