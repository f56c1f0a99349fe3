package bench

import (
	"fmt"
	"math/rand/v2"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// row is a row of the input as a Go programmer would hold it. Rows with the
// same key share its string, which spares the loop most reads of its bytes.
type row struct {
	key    string
	a, b   float64
	time   int64 // µs
	marker bool
}

// inputColumns is the same row in columns.
var inputColumns = []batch.Field{
	{Name: "sensor", Type: batch.String},
	{Name: "a", Type: batch.Double},
	{Name: "b", Type: batch.Double},
	{Name: "ts", Type: batch.Timestamp},
	{Name: "marker", Type: batch.Boolean},
}

const tsColumn = 3

// input is the rows of one pass, made beforehand. They are replayed with later
// event times: shift moves them in place between passes.
type input struct {
	shape
	schema  *batch.Schema
	batches []*batch.Batch
	structs []row // the same rows for a hand-written loop; nil unless asked for
	pass    int   // the times are those of this pass
}

// shape says what the rows of an input look like.
type shape struct {
	rows      int // of one pass
	keys      int
	perSecond int  // rows in a second of event time; times are whole milliseconds
	markEvery int  // rows between marker rows; 0: the last row of each batch only
	structs   bool // also as structs
	draw      draw
}

// draw says which key row i has.
type draw uint8

const (
	uniform draw = iota // any
	inTurn              // each key once, in an order drawn anew, then all again
	silent              // inTurn, but a tenth of the keys is missing, another tenth in each half of a pass
)

// epoch is where the event time of all inputs begins.
const epoch = int64(1_750_000_000_000_000)

// span is how much event time a pass takes.
func (s shape) span() int64 { return int64(s.rows) * int64(dataflow.Second) / int64(s.perSecond) }

// makeInput draws the rows of the first pass: a is uniform in [0, 100), so that
// a >= 5 keeps 95 % of them.
func makeInput(s shape) *input {
	r := rand.New(rand.NewPCG(1, 1))
	keys := make([]string, s.keys)
	for i := range keys {
		keys[i] = fmt.Sprintf("sensor-%07d", i)
	}
	next := s.drawing(r)
	in := &input{shape: s, schema: batch.MustSchema(inputColumns...)}
	if s.structs {
		in.structs = make([]row, s.rows)
	}
	bl := batch.NewBuilder(batch.NewPool(0, nil), in.schema)
	for i := range s.rows {
		last := i%batch.MaxRows == batch.MaxRows-1 || i == s.rows-1
		w := row{
			key: keys[next(i)], a: r.Float64() * 100, b: r.Float64(),
			time:   epoch + (int64(i)*1000/int64(s.perSecond))*int64(dataflow.Millisecond),
			marker: last || s.markEvery > 0 && i%s.markEvery == s.markEvery-1,
		}
		bl.SetString(0, w.key)
		bl.SetDouble(1, w.a)
		bl.SetDouble(2, w.b)
		bl.SetInt(tsColumn, w.time)
		bl.SetBool(4, w.marker)
		bl.EndRow(dataflow.Time(w.time))
		if bl.Full() || i == s.rows-1 {
			in.batches = append(in.batches, bl.Take())
		}
		if s.structs {
			in.structs[i] = w
		}
	}
	return in
}

// drawing gives the key of each row, asked for in order.
func (s shape) drawing(r *rand.Rand) func(i int) int {
	if s.draw == uniform {
		return func(int) int { return r.IntN(s.keys) }
	}
	order := r.Perm(s.keys)
	at := 0
	return func(i int) int {
		for {
			if at == len(order) {
				r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
				at = 0
			}
			k := order[at]
			at++
			if s.draw == inTurn || k%10 != 2*i/s.rows {
				return k
			}
		}
	}
}

// shift makes the times those of a pass. Nobody else may be reading.
func (in *input) shift(pass int) {
	d := int64(pass-in.pass) * in.span()
	in.pass = pass
	if d == 0 {
		return
	}
	for _, b := range in.batches {
		ts := b.Cols[tsColumn].Ints[:b.Rows]
		for i := range ts {
			ts[i] += d
		}
	}
	for i := range in.structs {
		in.structs[i].time += d
	}
}
