package window

import (
	"math"
	"math/bits"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// intSum is an exact sum of 64-bit integers in 128 bits: whatever the order, a
// sum that fits is right, and one that does not is known not to fit.
type intSum struct {
	high []int64
	low  []uint64
}

func (a *intSum) grow(n int) { a.high, a.low = padded(a.high, n, 0), padded(a.low, n, 0) }

func (a *intSum) update(slots []int32, v *values) {
	high, low, x := a.high, a.low, v.ints[:len(slots)]
	for i, s := range slots {
		l, carry := bits.Add64(low[s], uint64(x[i]), 0)
		low[s] = l
		high[s] += x[i]>>63 + int64(carry)
	}
}

func (a *intSum) merge(dst []int32, from acc, src []int32) {
	o := from.(*intSum)
	for i, d := range dst {
		s := at(src, i)
		l, carry := bits.Add64(a.low[d], o.low[s], 0)
		a.low[d] = l
		a.high[d] += o.high[s] + int64(carry)
	}
}

func (a *intSum) clear(s int32) { a.high[s], a.low[s] = 0, 0 }
func (a *intSum) truncate()     { a.high, a.low = a.high[:0], a.low[:0] }
func (a *intSum) copyFrom(from acc) {
	o := from.(*intSum)
	a.high, a.low = cloned(a.high, o.high), cloned(a.low, o.low)
}
func (a *intSum) bytes() int64 { return int64(8 * (cap(a.high) + cap(a.low))) }

func (a *intSum) columns(tell func([]byte)) {
	state.Large(tell, a.high)
	state.Large(tell, a.low)
}

func (a *intSum) save(cols []*batch.Column, at int, slots []int32) {
	putInts(cols[0], at, a.high, slots)
	low := extended(cols[1].Ints, at, len(slots))
	for i, s := range slots {
		low[at+i] = int64(a.low[s])
	}
	cols[1].Ints = low
}

func (a *intSum) load(cols []*batch.Column, rows, slots []int32) {
	for i, s := range slots {
		a.high[s], a.low[s] = cols[0].Ints[rows[i]], uint64(cols[1].Ints[rows[i]])
	}
}

// fits tells whether the sum of the slot is a bigint.
func (a *intSum) fits(s int32) bool { return a.high[s] == int64(a.low[s])>>63 }

// double is the sum of the slot as a double.
func (a *intSum) double(s int32) float64 {
	if a.fits(s) {
		return float64(int64(a.low[s]))
	}
	high, low := a.high[s], a.low[s]
	if high >= 0 {
		return float64(high)*(1<<64) + float64(low)
	}
	l, borrow := bits.Sub64(0, low, 0)
	return -(float64(-high-int64(borrow))*(1<<64) + float64(l))
}

// variance keeps count, mean and the sum of squared distances from the mean
// (Welford; merged by Chan, Golub and LeVeque's formula).
type variance struct {
	n        []int64
	mean, m2 []float64
}

func (a *variance) grow(n int) {
	a.n, a.mean, a.m2 = padded(a.n, n, 0), padded(a.mean, n, 0), padded(a.m2, n, 0)
}

func (a *variance) update(slots []int32, v *values) {
	x := v.doubles[:len(slots)]
	for i, s := range slots {
		a.n[s]++
		d := x[i] - a.mean[s]
		a.mean[s] += d / float64(a.n[s])
		a.m2[s] += d * (x[i] - a.mean[s])
	}
}

func (a *variance) merge(dst []int32, from acc, src []int32) {
	o := from.(*variance)
	for i, d := range dst {
		s := at(src, i)
		na, nb := float64(a.n[d]), float64(o.n[s])
		if nb == 0 {
			continue
		}
		if na == 0 {
			a.n[d], a.mean[d], a.m2[d] = o.n[s], o.mean[s], o.m2[s]
			continue
		}
		delta := o.mean[s] - a.mean[d]
		a.n[d] += o.n[s]
		a.mean[d] += delta * nb / (na + nb)
		a.m2[d] += o.m2[s] + delta*delta*na*nb/(na+nb)
	}
}

func (a *variance) clear(s int32) { a.n[s], a.mean[s], a.m2[s] = 0, 0, 0 }
func (a *variance) truncate()     { a.n, a.mean, a.m2 = a.n[:0], a.mean[:0], a.m2[:0] }
func (a *variance) copyFrom(from acc) {
	o := from.(*variance)
	a.n, a.mean, a.m2 = cloned(a.n, o.n), cloned(a.mean, o.mean), cloned(a.m2, o.m2)
}
func (a *variance) bytes() int64 { return int64(8 * (cap(a.n) + cap(a.mean) + cap(a.m2))) }

func (a *variance) columns(tell func([]byte)) {
	state.Large(tell, a.n)
	state.Large(tell, a.mean)
	state.Large(tell, a.m2)
}

func (a *variance) save(cols []*batch.Column, at int, slots []int32) {
	putInts(cols[0], at, a.n, slots)
	putDoubles(cols[1], at, a.mean, slots)
	putDoubles(cols[2], at, a.m2, slots)
}

func (a *variance) load(cols []*batch.Column, rows, slots []int32) {
	for i, s := range slots {
		r := rows[i]
		a.n[s], a.mean[s], a.m2[s] = cols[0].Ints[r], cols[1].Doubles[r], cols[2].Doubles[r]
	}
}

// sample is the sample variance of a slot; ok is false below two values.
func (a *variance) sample(s int32) (v float64, ok bool) {
	if a.n[s] < 2 {
		return 0, false
	}
	return math.Max(a.m2[s], 0) / float64(a.n[s]-1), true
}

func putInts(c *batch.Column, at int, v []int64, slots []int32) {
	out := extended(c.Ints, at, len(slots))
	for i, s := range slots {
		out[at+i] = v[s]
	}
	c.Ints = out
}

func putDoubles(c *batch.Column, at int, v []float64, slots []int32) {
	out := extended(c.Doubles, at, len(slots))
	for i, s := range slots {
		out[at+i] = v[s]
	}
	c.Doubles = out
}
