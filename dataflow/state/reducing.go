package state

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// Reduce folds two values of a type into one. The function of the state's type
// is set; Bytes appends its result to dst, which may share nothing with a or b.
type Reduce struct {
	Ints    func(a, b int64) int64
	Doubles func(a, b float64) float64
	Bytes   func(dst, a, b []byte) []byte
}

// Reducing is one value for each key, that each added value is folded into:
// reducing state. Its value is read as a Value's column 0.
type Reducing struct {
	Value
	f       Reduce
	scratch []byte
}

// Reducing declares reducing state.
func (s *Store) Reducing(name string, ttl TTL, field batch.Field, f Reduce) *Reducing {
	return &Reducing{Value: *s.Value(name, ttl, field), f: f}
}

// AddInt folds a value in.
func (r *Reducing) AddInt(x int64) {
	if !r.Null(0) {
		x = r.f.Ints(r.Int(0), x)
	}
	r.SetInt(0, x)
}

// AddDouble folds a value in.
func (r *Reducing) AddDouble(x float64) {
	if !r.Null(0) {
		x = r.f.Doubles(r.Double(0), x)
	}
	r.SetDouble(0, x)
}

// AddBytes folds a value in.
func (r *Reducing) AddBytes(x []byte) {
	if !r.Null(0) {
		r.scratch = r.f.Bytes(r.scratch[:0], r.Bytes(0), x)
		x = r.scratch
	}
	r.SetBytes(0, x)
}

// Aggregate is how values are gathered into an accumulator and what it gives.
type Aggregate struct {
	Accumulator []batch.Field
	// Add adds the value of a row to the accumulator, which may be empty.
	Add func(acc *Value, from *batch.Column, row int)
	// Result sets a column of the row being built to what the accumulator, which
	// is not empty, gives.
	Result func(acc *Value, to *batch.Builder, col int)
}

// Aggregating is an accumulator for each key: aggregating state.
type Aggregating struct {
	acc *Value
	f   Aggregate
}

// Aggregating declares aggregating state.
func (s *Store) Aggregating(name string, ttl TTL, f Aggregate) *Aggregating {
	return &Aggregating{acc: s.Value(name, ttl, f.Accumulator...), f: f}
}

// Add adds the value of a row.
func (a *Aggregating) Add(from *batch.Column, row int) { a.f.Add(a.acc, from, row) }

// Get sets a column of the row being built to the result; false: there is none.
func (a *Aggregating) Get(to *batch.Builder, col int) bool {
	if !a.acc.Exists() {
		return false
	}
	a.f.Result(a.acc, to, col)
	return true
}

// Clear removes the accumulator.
func (a *Aggregating) Clear() { a.acc.Clear() }
