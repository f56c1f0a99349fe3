package batch_test

import (
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
)

// allTypes has a column of every type.
func allTypes() *batch.Schema {
	return batch.MustSchema(
		batch.Field{Name: "s", Type: batch.String},
		batch.Field{Name: "n", Type: batch.Bigint},
		batch.Field{Name: "d", Type: batch.Double},
		batch.Field{Name: "f", Type: batch.Boolean},
		batch.Field{Name: "y", Type: batch.Bytes},
		batch.Field{Name: "t", Type: batch.Timestamp},
	)
}

func drawValue(t *rapid.T, typ batch.Type) any {
	if rapid.IntRange(0, 3).Draw(t, "null") == 0 {
		return nil
	}
	switch typ {
	case batch.Boolean:
		return rapid.Bool().Draw(t, "bool")
	case batch.Bigint, batch.Timestamp:
		return rapid.Int64().Draw(t, "int")
	case batch.Double:
		return rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1.5, -2e300, math.Inf(1), math.NaN()}).Draw(t, "double")
	default:
		return rapid.StringN(0, 20, 40).Draw(t, "string")
	}
}

func drawRow(t *rapid.T, s *batch.Schema) optest.Row {
	r := optest.Row{Time: dataflow.Time(rapid.Int64().Draw(t, "time")), Values: make([]any, s.Len())}
	for i := range r.Values {
		r.Values[i] = drawValue(t, s.Field(i).Type)
	}
	return r
}

// setRow sets the values of r, in any order and some of them twice, and does
// not end the row.
func setRow(t *rapid.T, bl *batch.Builder, r optest.Row) {
	order := rapid.Permutation([]int{0, 1, 2, 3, 4, 5}).Draw(t, "order")
	for _, i := range order[:min(len(order), len(r.Values))] {
		if i >= len(r.Values) {
			continue
		}
		if rapid.IntRange(0, 4).Draw(t, "twice") == 0 {
			setValue(bl, i, drawValue(t, bl.Schema().Field(i).Type))
			bl.SetNull(i)
		}
		setValue(bl, i, r.Values[i])
	}
}

func setValue(bl *batch.Builder, i int, v any) {
	switch v := v.(type) {
	case bool:
		bl.SetBool(i, v)
	case int64:
		bl.SetInt(i, v)
	case float64:
		bl.SetDouble(i, v)
	case string:
		bl.SetString(i, v)
	}
}

// drawBatch makes a batch of any shape: nulls, marks, kinds, hashes, selection.
func drawBatch(t *rapid.T, p *batch.Pool, s *batch.Schema) *batch.Batch {
	bl := batch.NewBuilder(p, s)
	m := batch.Mark{Watermark: dataflow.MinTime, Arrival: dataflow.MinTime}
	kinds := rapid.Bool().Draw(t, "kinds")
	n := rapid.IntRange(0, 150).Draw(t, "rows")
	for range n {
		m = drawMark(t, bl, m)
		r := drawRow(t, s)
		setRow(t, bl, r)
		bl.EndRow(r.Time)
		if kinds {
			bl.Kind(batch.Kind(rapid.IntRange(0, 3).Draw(t, "kind")))
		}
	}
	drawMark(t, bl, m)
	b := bl.Take()
	if b == nil {
		b = p.MarksOnly(s, batch.Mark{Watermark: 5, Arrival: dataflow.MinTime})
	}
	if rapid.Bool().Draw(t, "hashes") {
		for i := range b.OwnHashes(b.Rows) {
			b.Hashes[i] = rapid.Uint64().Draw(t, "hash")
		}
	}
	if rapid.Bool().Draw(t, "selected") {
		sel := b.OwnSel(b.Rows)
		for i := range b.Rows {
			if rapid.Bool().Draw(t, "there") {
				sel = append(sel, int32(i))
			}
		}
		b.Sel = sel
	}
	return b
}

// drawMark sometimes marks, later than m, and returns the mark.
func drawMark(t *rapid.T, bl *batch.Builder, m batch.Mark) batch.Mark {
	if rapid.IntRange(0, 3).Draw(t, "mark") > 0 {
		return m
	}
	later := func(from dataflow.Time) dataflow.Time {
		return rapid.SampledFrom([]dataflow.Time{from, from.Add(1), from.Add(1000), from.Add(math.MaxInt64)}).Draw(t, "later")
	}
	m = batch.Mark{Watermark: later(m.Watermark), Arrival: later(m.Arrival), Idle: rapid.Bool().Draw(t, "idle")}
	bl.Mark(m)
	return m
}

// flat is what a reader sees of b: rows and marks in order, marks coalesced.
func flat(b *batch.Batch) string {
	s := optest.Stream{Schema: b.Schema}
	s.Flatten(b)
	return s.Coalesced().String()
}

// hashesOf lists the hashes of the rows that are there.
func hashesOf(b *batch.Batch) []uint64 {
	if b.Hashes == nil {
		return nil
	}
	h := []uint64{}
	for k := range b.Len() {
		h = append(h, b.Hashes[b.Position(k)])
	}
	return h
}

func mustCheck(t optest.TB, b *batch.Batch) {
	t.Helper()
	if err := b.Check(); err != nil {
		t.Fatalf("%v", err)
	}
}

// noneOut fails if batches were leaked.
func noneOut(t optest.TB, p *batch.Pool) {
	t.Helper()
	if p.Out() != 0 || p.Used() != 0 {
		t.Fatalf("%d batches, %d bytes still out", p.Out(), p.Used())
	}
}

func sameHashes(t optest.TB, got, want []uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("hashes %x, want %x", got, want)
	}
}

// poisoned is a pool that shows reads after release.
func poisoned() *batch.Pool {
	p := batch.NewPool(0, nil)
	p.PoisonReleased()
	return p
}
