package window

import (
	"bytes"
	"math"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// newExtreme is min or max for a type. Doubles are ordered as numbers with NaN
// above all of them; false is less than true; strings and bytes go by bytes.
func newExtreme(t batch.Type, greatest bool) acc {
	switch {
	case t.Variable():
		return &bytesExtreme{greatest: greatest}
	case t == batch.Double && greatest:
		return &doubleMax{doubles{neutral: math.Inf(-1)}}
	case t == batch.Double:
		return &doubleMin{doubles{neutral: math.NaN()}}
	case greatest:
		return &intMax{ints{neutral: math.MinInt64}}
	}
	return &intMin{ints{neutral: math.MaxInt64}}
}

// doubles is a column with one double a slot.
type doubles struct {
	v       []float64
	neutral float64
}

func (c *doubles) grow(n int)       { c.v = padded(c.v, n, c.neutral) }
func (c *doubles) clear(s int32)    { c.v[s] = c.neutral }
func (c *doubles) truncate()        { c.v = c.v[:0] }
func (c *doubles) bytes() int64     { return int64(8 * cap(c.v)) }
func (c *doubles) column() *doubles { return c }

func (c *doubles) columns(tell func([]byte)) {
	state.Large(tell, c.v)
}
func (c *doubles) copyFrom(from acc) { c.v = cloned(c.v, doublesOf(from)) }
func (c *doubles) save(cols []*batch.Column, at int, slots []int32) {
	putDoubles(cols[0], at, c.v, slots)
}
func (c *doubles) load(cols []*batch.Column, rows, slots []int32) {
	for i, s := range slots {
		c.v[s] = cols[0].Doubles[rows[i]]
	}
}

func doublesOf(a acc) []float64 { return a.(interface{ column() *doubles }).column().v }

// ints is a column with one integer a slot: bigint, timestamp or boolean.
type ints struct {
	v       []int64
	neutral int64
}

func (c *ints) grow(n int)    { c.v = padded(c.v, n, c.neutral) }
func (c *ints) clear(s int32) { c.v[s] = c.neutral }
func (c *ints) truncate()     { c.v = c.v[:0] }
func (c *ints) bytes() int64  { return int64(8 * cap(c.v)) }
func (c *ints) column() *ints { return c }

func (c *ints) columns(tell func([]byte)) {
	state.Large(tell, c.v)
}
func (c *ints) copyFrom(from acc) { c.v = cloned(c.v, intsOf(from)) }
func (c *ints) save(cols []*batch.Column, at int, slots []int32) {
	putFixed(cols[0], at, c.v, slots)
}
func (c *ints) load(cols []*batch.Column, rows, slots []int32) {
	for i, s := range slots {
		if r := int(rows[i]); !cols[0].IsNull(r) {
			c.v[s] = fixedAt(cols[0], r)
		}
	}
}

func intsOf(a acc) []int64 { return a.(interface{ column() *ints }).column().v }

// doubleSum is the plain sum of doubles.
type doubleSum struct{ doubles }

func (a *doubleSum) update(slots []int32, v *values) {
	sum, x := a.v, v.doubles[:len(slots)]
	for i, s := range slots {
		sum[s] += x[i]
	}
}

func (a *doubleSum) merge(dst []int32, from acc, src []int32) {
	sum, x := a.v, doublesOf(from)
	if src == nil {
		x = x[:len(dst)]
		for i, d := range dst {
			sum[d] += x[i]
		}
		return
	}
	for i, d := range dst {
		sum[d] += x[src[i]]
	}
}

// doubleMax has -Inf as its neutral value.
type doubleMax struct{ doubles }

func (a *doubleMax) update(slots []int32, v *values) {
	m, x := a.v, v.doubles[:len(slots)]
	for i, s := range slots {
		if x[i] > m[s] || x[i] != x[i] {
			m[s] = x[i]
		}
	}
}

func (a *doubleMax) merge(dst []int32, from acc, src []int32) {
	m, o := a.v, doublesOf(from)
	if src == nil {
		o = o[:len(dst)]
		for i, d := range dst {
			if x := o[i]; x > m[d] || x != x {
				m[d] = x
			}
		}
		return
	}
	for i, d := range dst {
		if x := o[src[i]]; x > m[d] || x != x {
			m[d] = x
		}
	}
}

// doubleMin has NaN as its neutral value, which is above all.
type doubleMin struct{ doubles }

func (a *doubleMin) update(slots []int32, v *values) {
	m, x := a.v, v.doubles[:len(slots)]
	for i, s := range slots {
		if x[i] < m[s] || m[s] != m[s] {
			m[s] = x[i]
		}
	}
}

func (a *doubleMin) merge(dst []int32, from acc, src []int32) {
	m, o := a.v, doublesOf(from)
	for i, d := range dst {
		if x := o[at(src, i)]; x < m[d] || m[d] != m[d] {
			m[d] = x
		}
	}
}

type intMax struct{ ints }

func (a *intMax) update(slots []int32, v *values) {
	m, x := a.v, v.ints[:len(slots)]
	for i, s := range slots {
		m[s] = max(m[s], x[i])
	}
}

func (a *intMax) merge(dst []int32, from acc, src []int32) {
	m, o := a.v, intsOf(from)
	for i, d := range dst {
		m[d] = max(m[d], o[at(src, i)])
	}
}

type intMin struct{ ints }

func (a *intMin) update(slots []int32, v *values) {
	m, x := a.v, v.ints[:len(slots)]
	for i, s := range slots {
		m[s] = min(m[s], x[i])
	}
}

func (a *intMin) merge(dst []int32, from acc, src []int32) {
	m, o := a.v, intsOf(from)
	for i, d := range dst {
		m[d] = min(m[d], o[at(src, i)])
	}
}

// putFixed writes ints to a column of bigint, timestamp or boolean.
func putFixed(c *batch.Column, at int, v []int64, slots []int32) {
	if c.Type != batch.Boolean {
		putInts(c, at, v, slots)
		return
	}
	for len(c.Bits) < batch.Words(at+len(slots)) {
		c.Bits = append(c.Bits, 0)
	}
	for i, s := range slots {
		c.Bits.Put(at+i, v[s] == 1)
		if v[s]>>1 != 0 { // a neutral value is neither 0 nor 1
			c.SetNull(at+i, batch.MaxRows)
		}
	}
}

func fixedAt(c *batch.Column, p int) int64 {
	if c.Type != batch.Boolean {
		return c.Ints[p]
	}
	if c.Bits.Get(p) {
		return 1
	}
	return 0
}

// text is a string or bytes value of a slot; its memory is the slot's own.
type text struct {
	b   []byte
	set bool
}

func (t *text) put(v []byte) {
	t.b = append(t.b[:0], v...)
	t.set = true
}

// texts is a column of them. Slots that are cut off keep their memory.
type texts struct {
	t    []text
	held int64 // bytes of all values, about
}

func (c *texts) grow(n int) {
	old := len(c.t)
	if n <= old {
		return
	}
	if n > cap(c.t) {
		c.t = slices.Grow(c.t[:cap(c.t)], n-cap(c.t))
	}
	c.t = c.t[:n]
	for i := old; i < n; i++ {
		c.t[i].set = false
	}
}

func (c *texts) columns(tell func([]byte)) { state.Large(tell, c.t) }

func (c *texts) put(s int32, v []byte) {
	before := cap(c.t[s].b)
	c.t[s].put(v)
	c.held += int64(cap(c.t[s].b) - before)
}

func (c *texts) copyFrom(o *texts) {
	c.t = c.t[:0]
	c.grow(len(o.t))
	for i := range o.t {
		if o.t[i].set {
			c.put(int32(i), o.t[i].b)
		}
	}
}

func (c *texts) bytes() int64 { return int64(32*cap(c.t)) + c.held }

func (c *texts) save(out *batch.Column, at int, slots []int32) {
	for i, s := range slots {
		if !c.t[s].set {
			out.AppendBytes(nil)
			out.SetNull(at+i, batch.MaxRows)
			continue
		}
		out.AppendBytes(c.t[s].b)
	}
}

func (c *texts) load(in *batch.Column, rows, slots []int32) {
	for i, s := range slots {
		if r := int(rows[i]); !in.IsNull(r) {
			c.put(s, in.At(r))
		}
	}
}

// bytesExtreme is min or max of strings and bytes.
type bytesExtreme struct {
	texts
	greatest bool
}

func (a *bytesExtreme) offer(s int32, v []byte) {
	t := &a.t[s]
	if t.set {
		if c := bytes.Compare(v, t.b); c == 0 || c > 0 != a.greatest {
			return
		}
	}
	a.put(s, v)
}

func (a *bytesExtreme) update(slots []int32, v *values) {
	for i, s := range slots {
		a.offer(s, v.col.At(int(v.pos[i])))
	}
}

func (a *bytesExtreme) merge(dst []int32, from acc, src []int32) {
	o := from.(*bytesExtreme)
	for i, d := range dst {
		s := at(src, i)
		if o.t[s].set {
			a.offer(d, o.t[s].b)
		}
	}
}

func (a *bytesExtreme) clear(s int32)     { a.t[s].set = false }
func (a *bytesExtreme) truncate()         { a.t = a.t[:0] }
func (a *bytesExtreme) copyFrom(from acc) { a.texts.copyFrom(&from.(*bytesExtreme).texts) }
func (a *bytesExtreme) save(cols []*batch.Column, at int, slots []int32) {
	a.texts.save(cols[0], at, slots)
}
func (a *bytesExtreme) load(cols []*batch.Column, rows, slots []int32) {
	a.texts.load(cols[0], rows, slots)
}
