package eventtime

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Merge combines the marks of the inputs of an operator, or of the splits of a
// source. An update costs O(log n).
//
// Watermark: the least of the aligned inputs; an input is aligned while it is
// active and not behind the output. One that is idle is left out; when it comes
// back behind the output it stays left out until it has caught up. When all
// are idle the output first goes to the greatest watermark seen, in whatever
// order they went idle, and is idle then. An input that has ended is left out
// for good. MaxTime is put out when all have ended and never before: it means
// the end.
//
// Arrival clock: the least of the inputs that have one and are active; if none
// is, the greatest seen. It never goes back: an input that comes back with an
// older clock is carried at the merged one. So it is a function of the order in
// which marks and rows are taken from the inputs and of nothing else; with one
// live input it is that input's clock.
//
// A Merge belongs to one goroutine.
type Merge struct {
	in       []Input
	out      batch.Mark
	live     int           // inputs that have not ended
	active   int           // live inputs that are not idle
	greatest dataflow.Time // watermark, over all inputs and all time, without MaxTime
	latest   dataflow.Time // arrival, over all inputs and all time
	marks    minTree       // watermarks of the aligned inputs
	arrivals minTree       // arrival clocks of the active inputs that have one
}

// Input is what a Merge knows of one input: all there is to save of it.
type Input struct {
	Watermark dataflow.Time // the last before the end, never MaxTime
	Arrival   dataflow.Time
	Idle      bool
	Ended     bool
}

// NewMerge makes a merge of n inputs, all active and at MinTime.
func NewMerge(n int) *Merge {
	in := make([]Input, n)
	for i := range in {
		in[i] = Input{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	}
	return RestoreMerge(batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}, in)
}

// RestoreMerge makes a merge that goes on where another one stood: out is its
// Out, in its inputs. It keeps in.
func RestoreMerge(out batch.Mark, in []Input) *Merge {
	m := &Merge{
		in: in, out: out, live: len(in), active: len(in), greatest: dataflow.MinTime, latest: dataflow.MinTime,
		marks: newMinTree(len(in)), arrivals: newMinTree(len(in)),
	}
	m.out.Row = 0
	for i := range in {
		if in[i].Ended {
			m.live--
		}
		if in[i].Ended || in[i].Idle {
			m.active--
		}
		m.greatest = max(m.greatest, in[i].Watermark)
		m.latest = max(m.latest, in[i].Arrival)
		m.place(i)
	}
	if m.live == 0 {
		m.settle()
	}
	return m
}

// Out is the merged mark as it is now; its Row is 0.
func (m *Merge) Out() batch.Mark { return m.out }

// Inputs is the number of inputs.
func (m *Merge) Inputs() int { return len(m.in) }

// Input is what is known of input i.
func (m *Merge) Input(i int) Input { return m.in[i] }

// Mark takes a mark of an input and returns the merged mark (Row 0), and
// whether it is another one than before. A mark that is not idle makes an idle
// input active; one with watermark MaxTime ends it; smaller times are ignored.
func (m *Merge) Mark(input int, mk batch.Mark) (out batch.Mark, changed bool) {
	in := &m.in[input]
	if in.Ended {
		return m.out, false
	}
	if mk.Arrival > in.Arrival {
		in.Arrival = mk.Arrival
		m.latest = max(m.latest, mk.Arrival)
	}
	if mk.Watermark == dataflow.MaxTime {
		return m.End(input)
	}
	if in.Idle && !mk.Idle {
		in.Idle = false
		m.active++
	}
	if mk.Watermark > in.Watermark {
		in.Watermark = mk.Watermark
		m.greatest = max(m.greatest, mk.Watermark)
	}
	m.place(input)
	before := m.out
	if mk.Idle && !in.Idle {
		// Its watermark counts before it leaves: as if the mark had been two.
		m.settle()
		in.Idle = true
		m.active--
		m.place(input)
	}
	m.settle()
	return m.out, m.out != before
}

// End says that nothing more will come on the input.
func (m *Merge) End(input int) (out batch.Mark, changed bool) {
	in := &m.in[input]
	if in.Ended {
		return m.out, false
	}
	in.Ended = true
	m.live--
	if !in.Idle {
		m.active--
	}
	in.Idle = false
	m.place(input)
	before := m.out
	m.settle()
	return m.out, m.out != before
}

// place puts the input where it belongs in the two minima.
func (m *Merge) place(i int) {
	in := &m.in[i]
	w, a := int64(none), int64(none)
	if !in.Idle && !in.Ended {
		if in.Watermark >= m.out.Watermark {
			w = int64(in.Watermark)
		}
		if in.Arrival != dataflow.MinTime {
			a = int64(in.Arrival)
		}
	}
	m.marks.set(i, w)
	m.arrivals.set(i, a)
}

// settle brings the output up to date with the inputs.
func (m *Merge) settle() {
	m.out.Idle = false
	switch {
	case m.live == 0:
		m.out.Watermark = dataflow.MaxTime
	case m.active == 0:
		m.out.Idle = true
		m.out.Watermark = max(m.out.Watermark, m.greatest)
	default:
		if w := m.marks.least(); w != none {
			m.out.Watermark = max(m.out.Watermark, dataflow.Time(w))
		}
	}
	a := dataflow.Time(m.arrivals.least())
	if a == none {
		a = m.latest
	}
	m.out.Arrival = max(m.out.Arrival, a)
}

// Rewrite takes a batch of an input and returns it with the merged marks in
// place of the input's: rows and columns are shared. The caller owns the
// reference that it returns, and still owns its own of b.
func (m *Merge) Rewrite(input int, b *batch.Batch, p *batch.Pool) *batch.Batch {
	n := len(b.Marks)
	if n == 0 {
		return b.Retain()
	}
	if len(m.in) == 1 {
		m.Mark(input, b.Marks[n-1]) // what it would make of each is the mark itself
		return b.Retain()
	}
	d := p.DeriveAll(b)
	d.OwnMarks()
	rank, last := 0, -1 // rows before the mark at hand, and before the last one put out
	for _, mk := range b.Marks {
		if b.Sel == nil {
			rank = int(mk.Row)
		} else {
			for rank < len(b.Sel) && b.Sel[rank] < mk.Row {
				rank++
			}
		}
		if out, changed := m.Mark(input, mk); changed {
			out.Row = mk.Row
			put(d, out, last == rank)
			last = rank
		}
	}
	return d
}

// put adds a mark to b. Marks with no row between them become one, except that
// idle and active do not: a merge further on must see both.
func put(b *batch.Batch, m batch.Mark, noRowBetween bool) {
	if n := len(b.Marks); noRowBetween && n > 0 && b.Marks[n-1].Idle == m.Idle {
		b.Marks[n-1] = m
		return
	}
	b.AddMark(m)
}
