package window

import (
	"math"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// newEdge is first or last for a type.
func newEdge(t batch.Type, last bool) acc {
	e := edge{last: last}
	switch {
	case t.Variable():
		return &bytesEdge{edge: e}
	case t == batch.Double:
		return &doubleEdge{edge: e}
	}
	return &intEdge{edge: e}
}

// edge orders values by event time and then by arrival. The neutral order of
// first is after everything, that of last before everything.
type edge struct {
	last  bool
	times []int64
	seqs  []int64
}

func (e *edge) grow(n int) {
	neutral := int64(math.MaxInt64)
	if e.last {
		neutral = math.MinInt64
	}
	e.times, e.seqs = padded(e.times, n, neutral), padded(e.seqs, n, neutral)
}

func (e *edge) clear(s int32) {
	e.times[s], e.seqs[s] = math.MaxInt64, math.MaxInt64
	if e.last {
		e.times[s], e.seqs[s] = math.MinInt64, math.MinInt64
	}
}

func (e *edge) truncate() { e.times, e.seqs = e.times[:0], e.seqs[:0] }
func (e *edge) copyFrom(o *edge) {
	e.times, e.seqs = cloned(e.times, o.times), cloned(e.seqs, o.seqs)
}
func (e *edge) bytes() int64 { return int64(8 * (cap(e.times) + cap(e.seqs))) }

func (e *edge) columns(tell func([]byte)) {
	state.Large(tell, e.times)
	state.Large(tell, e.seqs)
}

// takes tells whether (t, q) is to replace what slot s holds, and if so notes
// it.
func (e *edge) takes(s int32, t, q int64) bool {
	take := t < e.times[s] || t == e.times[s] && q < e.seqs[s]
	if e.last {
		take = t > e.times[s] || t == e.times[s] && q > e.seqs[s]
	}
	if take {
		e.times[s], e.seqs[s] = t, q
	}
	return take
}

func (e *edge) save(cols []*batch.Column, at int, slots []int32) {
	putInts(cols[1], at, e.times, slots)
	putInts(cols[2], at, e.seqs, slots)
}

func (e *edge) load(cols []*batch.Column, rows, slots []int32) {
	for i, s := range slots {
		e.times[s], e.seqs[s] = cols[1].Ints[rows[i]], cols[2].Ints[rows[i]]
	}
}

type doubleEdge struct {
	edge
	v []float64
}

func (a *doubleEdge) grow(n int) {
	a.edge.grow(n)
	a.v = padded(a.v, n, 0)
}

func (a *doubleEdge) update(slots []int32, v *values) {
	for i, s := range slots {
		if a.takes(s, v.times[i], v.seqs[i]) {
			a.v[s] = v.doubles[i]
		}
	}
}

func (a *doubleEdge) merge(dst []int32, from acc, src []int32) {
	o := from.(*doubleEdge)
	for i, d := range dst {
		if s := at(src, i); a.takes(d, o.times[s], o.seqs[s]) {
			a.v[d] = o.v[s]
		}
	}
}

func (a *doubleEdge) truncate() {
	a.edge.truncate()
	a.v = a.v[:0]
}

func (a *doubleEdge) copyFrom(from acc) {
	o := from.(*doubleEdge)
	a.edge.copyFrom(&o.edge)
	a.v = cloned(a.v, o.v)
}

func (a *doubleEdge) bytes() int64 { return a.edge.bytes() + int64(8*cap(a.v)) }

func (a *doubleEdge) columns(tell func([]byte)) {
	a.edge.columns(tell)
	state.Large(tell, a.v)
}

func (a *doubleEdge) save(cols []*batch.Column, at int, slots []int32) {
	putDoubles(cols[0], at, a.v, slots)
	a.edge.save(cols, at, slots)
}

func (a *doubleEdge) load(cols []*batch.Column, rows, slots []int32) {
	for i, s := range slots {
		a.v[s] = cols[0].Doubles[rows[i]]
	}
	a.edge.load(cols, rows, slots)
}

type intEdge struct {
	edge
	v []int64
}

func (a *intEdge) grow(n int) {
	a.edge.grow(n)
	a.v = padded(a.v, n, 0)
}

func (a *intEdge) update(slots []int32, v *values) {
	for i, s := range slots {
		if a.takes(s, v.times[i], v.seqs[i]) {
			a.v[s] = v.ints[i]
		}
	}
}

func (a *intEdge) merge(dst []int32, from acc, src []int32) {
	o := from.(*intEdge)
	for i, d := range dst {
		if s := at(src, i); a.takes(d, o.times[s], o.seqs[s]) {
			a.v[d] = o.v[s]
		}
	}
}

func (a *intEdge) truncate() {
	a.edge.truncate()
	a.v = a.v[:0]
}

func (a *intEdge) copyFrom(from acc) {
	o := from.(*intEdge)
	a.edge.copyFrom(&o.edge)
	a.v = cloned(a.v, o.v)
}

func (a *intEdge) bytes() int64 { return a.edge.bytes() + int64(8*cap(a.v)) }

func (a *intEdge) columns(tell func([]byte)) {
	a.edge.columns(tell)
	state.Large(tell, a.v)
}

func (a *intEdge) save(cols []*batch.Column, at int, slots []int32) {
	putFixed(cols[0], at, a.v, slots)
	a.edge.save(cols, at, slots)
}

func (a *intEdge) load(cols []*batch.Column, rows, slots []int32) {
	for i, s := range slots {
		a.v[s] = fixedAt(cols[0], int(rows[i]))
	}
	a.edge.load(cols, rows, slots)
}

type bytesEdge struct {
	edge
	texts
}

func (a *bytesEdge) grow(n int) {
	a.edge.grow(n)
	a.texts.grow(n)
}

func (a *bytesEdge) update(slots []int32, v *values) {
	for i, s := range slots {
		if a.takes(s, v.times[i], v.seqs[i]) {
			a.put(s, v.col.At(int(v.pos[i])))
		}
	}
}

func (a *bytesEdge) merge(dst []int32, from acc, src []int32) {
	o := from.(*bytesEdge)
	for i, d := range dst {
		if s := at(src, i); o.t[s].set && a.takes(d, o.times[s], o.seqs[s]) {
			a.put(d, o.t[s].b)
		}
	}
}

func (a *bytesEdge) clear(s int32) {
	a.edge.clear(s)
	a.t[s].set = false
}

func (a *bytesEdge) truncate() {
	a.edge.truncate()
	a.t = a.t[:0]
}

func (a *bytesEdge) copyFrom(from acc) {
	o := from.(*bytesEdge)
	a.edge.copyFrom(&o.edge)
	a.texts.copyFrom(&o.texts)
}

func (a *bytesEdge) bytes() int64 { return a.edge.bytes() + a.texts.bytes() }

func (a *bytesEdge) columns(tell func([]byte)) {
	a.edge.columns(tell)
	a.texts.columns(tell)
}

func (a *bytesEdge) save(cols []*batch.Column, at int, slots []int32) {
	a.texts.save(cols[0], at, slots)
	a.edge.save(cols, at, slots)
}

func (a *bytesEdge) load(cols []*batch.Column, rows, slots []int32) {
	a.texts.load(cols[0], rows, slots)
	a.edge.load(cols, rows, slots)
}
