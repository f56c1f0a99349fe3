package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// row is a row of the input as a Go programmer would hold it.
type row struct {
	key    string
	a, b   float64
	time   int64 // µs
	marker bool
}

// inputSchema is the same row in columns.
var inputColumns = []batch.Field{
	{Name: "sensor", Type: batch.String},
	{Name: "a", Type: batch.Double},
	{Name: "b", Type: batch.Double},
	{Name: "ts", Type: batch.Timestamp},
	{Name: "marker", Type: batch.Boolean},
}

// input is the rows of a benchmark, made beforehand, in both forms.
type input struct {
	schema  *batch.Schema
	rows    []row
	batches []*batch.Batch
}

// shape says what the rows of an input look like.
type shape struct {
	rows      int
	keys      int
	rowsAMs   int // event time goes on 1 ms each so many rows
	markEvery int // rows between marker rows; 0: the last of each batch only
	seed      uint64
}

// epoch is where the event time of all inputs begins.
const epoch = int64(1_750_000_000_000_000)

// makeInput draws the rows: keys uniformly, a uniform in [0, 100), so that
// a >= 5 keeps 95 % of them.
func makeInput(s shape) *input {
	r := rand.New(rand.NewPCG(s.seed, 1))
	keys := make([]string, s.keys)
	for i := range keys {
		keys[i] = fmt.Sprintf("sensor-%05d", i)
	}
	in := &input{schema: batch.MustSchema(inputColumns...), rows: make([]row, s.rows)}
	for i := range in.rows {
		last := i%batch.MaxRows == batch.MaxRows-1 || i == s.rows-1
		in.rows[i] = row{
			key: keys[r.IntN(s.keys)], a: r.Float64() * 100, b: r.Float64(),
			time:   epoch + int64(i/s.rowsAMs)*int64(dataflow.Millisecond),
			marker: last || s.markEvery > 0 && i%s.markEvery == s.markEvery-1,
		}
	}
	bl := batch.NewBuilder(batch.NewPool(0, nil), in.schema)
	for i := range in.rows {
		w := &in.rows[i]
		bl.SetString(0, w.key)
		bl.SetDouble(1, w.a)
		bl.SetDouble(2, w.b)
		bl.SetInt(3, w.time)
		bl.SetBool(4, w.marker)
		bl.EndRow(dataflow.Time(w.time))
		if bl.Full() || i == len(in.rows)-1 {
			in.batches = append(in.batches, bl.Take())
		}
	}
	return in
}

// reader hands the batches of an input out, without copying them.
type reader struct {
	in   *input
	pool *batch.Pool
	next int
}

var _ sensors.BatchReader = (*reader)(nil)

func (r *reader) ReadBatch(context.Context, int) (*batch.Batch, []int64, sensors.Position, error) {
	if r.next == len(r.in.batches) {
		return nil, nil, sensors.Position{}, io.EOF
	}
	b := r.pool.DeriveAll(r.in.batches[r.next])
	b.OwnMarks() // the source gives it its own
	r.next++
	return b, nil, sensors.Position{Offset: int64(r.next)}, nil
}

func (r *reader) Seek(sensors.Position) error { return nil }
func (r *reader) Close() error                { return nil }
