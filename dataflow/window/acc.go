package window

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// acc is one accumulator column of a table: one accumulator a slot, in the
// form that its kind needs. All work is done by loops inside; an interface call
// is made once for a run of rows, never for a row.
//
// A fresh slot is the neutral element of merge, so merging needs no look at
// whether a slot has seen a value: that is the business of the counts.
type acc interface {
	// grow gives the column n slots, the new ones neutral.
	grow(n int)
	// update adds value i of v to slot slots[i].
	update(slots []int32, v *values)
	// merge adds slot src[i] of from, a column of the same kind, to slot dst[i];
	// a nil src means slot i. from may be the column itself if dst and src have
	// no slot in common.
	merge(dst []int32, from acc, src []int32)
	// clear makes a slot neutral again.
	clear(slot int32)
	// truncate drops all slots and keeps the memory.
	truncate()
	// copyFrom makes the column equal to from.
	copyFrom(from acc)
	bytes() int64
	// columns tells of memory that is large, see state.Large.
	columns(tell func([]byte))

	// save appends the slots' state to cols, which have at values; load reads
	// row rows[i] of cols into slot slots[i]. The columns are those of the
	// kind's fields.
	save(cols []*batch.Column, at int, slots []int32)
	load(cols []*batch.Column, rows, slots []int32)
}

// values are the arguments of a run of rows, aligned with the rows' slots:
// nulls are left out already.
type values struct {
	ints    []int64       // bigint, timestamp, boolean (0, 1)
	doubles []float64     // double; bigint where an accumulator computes in doubles
	times   []int64       // event times
	seqs    []int64       // order of arrival
	col     *batch.Column // string, bytes: value i stands at pos[i]
	pos     []int32
	ids     []int32 // count(distinct x): the values' ids in the dictionary
}

// accKind is what an accumulator column does.
type accKind uint8

const (
	sumDoubles accKind = iota + 1
	sumInts
	minimum
	maximum
	firstValue
	lastValue
	moments
	distinct
)

// at is the slot that merge reads for element i.
func at(src []int32, i int) int32 {
	if src == nil {
		return int32(i)
	}
	return src[i]
}

// padded returns s with at least n elements, the new ones v.
func padded[T any](s []T, n int, v T) []T {
	old := len(s)
	if n <= old {
		return s
	}
	s = slices.Grow(s, n-old)[:n]
	for i := old; i < n; i++ {
		s[i] = v
	}
	return s
}

// sized is s with length n and undefined contents.
func sized[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n, n+n/4)
}

// extended gives s room for n more elements after the first at, undefined.
func extended[T any](s []T, at, n int) []T { return slices.Grow(s[:at], n)[:at+n] }

// cloned is from, in the memory of to.
func cloned[T any](to, from []T) []T { return append(to[:0], from...) }

// newAcc makes an empty column of a kind for an argument's type. The dictionary
// serves distinct only.
func newAcc(k accKind, t batch.Type, dict *state.KeyTable) acc {
	switch k {
	case sumDoubles:
		return &doubleSum{}
	case sumInts:
		return &intSum{}
	case moments:
		return &variance{}
	case distinct:
		return &distinctSets{dict: dict}
	case firstValue, lastValue:
		return newEdge(t, k == lastValue)
	}
	return newExtreme(t, k == maximum)
}

// fields are the state columns of an accumulator, with the beginning of each
// name. Of a set, whose members have a table of their own, it is their number.
// The last one is null only where nothing was saved, or where the slot has no
// value.
func (k accKind) fields(t batch.Type) []batch.Field {
	switch k {
	case sumDoubles:
		return []batch.Field{{Name: "sum", Type: batch.Double}}
	case sumInts:
		return []batch.Field{{Name: "sum_high", Type: batch.Bigint}, {Name: "sum_low", Type: batch.Bigint}}
	case moments:
		return []batch.Field{{Name: "n", Type: batch.Bigint}, {Name: "mean", Type: batch.Double}, {Name: "m2", Type: batch.Double}}
	case minimum:
		return []batch.Field{{Name: "min", Type: t}}
	case maximum:
		return []batch.Field{{Name: "max", Type: t}}
	case firstValue:
		return []batch.Field{{Name: "first", Type: t}, {Name: "first_time", Type: batch.Bigint}, {Name: "first_seq", Type: batch.Bigint}}
	case lastValue:
		return []batch.Field{{Name: "last", Type: t}, {Name: "last_time", Type: batch.Bigint}, {Name: "last_seq", Type: batch.Bigint}}
	}
	return []batch.Field{{Name: "distinct", Type: batch.Bigint}}
}
