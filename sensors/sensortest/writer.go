package sensortest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// WriterSchema is the schema of the rows that the Writer suite writes. The
// column n counts them from 0 and is how the suite knows them again.
func WriterSchema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "name", Type: batch.String}, batch.Field{Name: "n", Type: batch.Bigint})
}

// WriterCase tells the Writer suite about one connector.
type WriterCase struct {
	// Open makes a writer of WriterSchema that no other test shares.
	Open func(t *testing.T) Sink
	// Immediate: rows may be visible before their Commit.
	Immediate bool
}

// Sink is a writer and a look at what it wrote.
type Sink struct {
	Writer sensors.Writer
	// Visible returns the column n of the rows a reader of the target sees, in
	// order. It waits until there are at least n of them; with 0 it only looks.
	Visible func(t *testing.T, n int) []int64
}

// Writer runs the suite.
func Writer(t *testing.T, c WriterCase) {
	t.Run("order and commit", c.order)
	t.Run("selected rows", c.selected)
	t.Run("commit of nothing", c.nothing)
	t.Run("close twice", c.closeTwice)
	t.Run("ended context", c.ended)
	if !c.Immediate {
		t.Run("pending is invisible", c.pending)
	}
}

func (c WriterCase) open(t *testing.T) (Sink, context.Context) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s := c.Open(t)
	t.Cleanup(func() { _ = s.Writer.Close() })
	return s, ctx
}

// rows makes a batch of the rows from..to-1.
func rows(p *batch.Pool, s *batch.Schema, from, to int) *batch.Batch {
	bl := batch.NewBuilder(p, s)
	for i := from; i < to; i++ {
		bl.SetString(0, fmt.Sprintf("row-%d", i))
		bl.SetInt(1, int64(i))
		bl.EndRow(dataflow.Time(i))
	}
	return bl.Take()
}

func (c WriterCase) want(t *testing.T, s Sink, want []int64) {
	t.Helper()
	got := s.Visible(t, len(want))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("visible rows are %v, want %v", got, want)
	}
}

func upTo(n int) []int64 {
	w := make([]int64, n)
	for i := range w {
		w[i] = int64(i)
	}
	return w
}

func (c WriterCase) order(t *testing.T) {
	s, ctx := c.open(t)
	p, schema := batch.NewPool(0, nil), WriterSchema()
	for from := 0; from < 300; from += 30 {
		for _, cut := range [][2]int{{from, from + 1}, {from + 1, from + 30}} {
			b := rows(p, schema, cut[0], cut[1])
			if err := s.Writer.Write(ctx, b); err != nil {
				t.Fatal(err)
			}
			if !b.LastReference() {
				t.Fatal("Write kept the batch it only borrowed")
			}
			b.Release()
		}
		if err := s.Writer.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		c.want(t, s, upTo(from+30))
	}
}

func (c WriterCase) selected(t *testing.T) {
	s, ctx := c.open(t)
	p := batch.NewPool(0, nil)
	b := rows(p, WriterSchema(), 0, 10)
	defer b.Release()
	b.Sel = append(b.OwnSel(3), 1, 4, 9)
	if err := errors.Join(s.Writer.Write(ctx, b), s.Writer.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
	c.want(t, s, []int64{1, 4, 9})
}

func (c WriterCase) nothing(t *testing.T) {
	s, ctx := c.open(t)
	p := batch.NewPool(0, nil)
	b := rows(p, WriterSchema(), 0, 3)
	defer b.Release()
	b.Sel = b.OwnSel(1)
	if err := errors.Join(s.Writer.Commit(ctx), s.Writer.Write(ctx, b), s.Writer.Commit(ctx), s.Writer.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
	c.want(t, s, nil)
}

func (c WriterCase) pending(t *testing.T) {
	s, ctx := c.open(t)
	p := batch.NewPool(0, nil)
	b := rows(p, WriterSchema(), 0, 5)
	defer b.Release()
	if err := s.Writer.Write(ctx, b); err != nil {
		t.Fatal(err)
	}
	if got := s.Visible(t, 0); len(got) != 0 {
		t.Errorf("%v visible before the commit", got)
	}
	if err := s.Writer.Close(); err != nil {
		t.Fatal(err)
	}
	if got := s.Visible(t, 0); len(got) != 0 {
		t.Errorf("%v visible after a Close without commit", got)
	}
}

func (c WriterCase) closeTwice(t *testing.T) {
	s, _ := c.open(t)
	if err := errors.Join(s.Writer.Close(), s.Writer.Close()); err != nil {
		t.Error(err)
	}
}

// ended asks only that an ended context never blocks: a writer that can do the
// work without waiting may.
func (c WriterCase) ended(t *testing.T) {
	s, ctx := c.open(t)
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	p := batch.NewPool(0, nil)
	b := rows(p, WriterSchema(), 0, 3)
	defer b.Release()
	for _, err := range []error{s.Writer.Write(ctx, b), s.Writer.Commit(ctx)} {
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
	}
}
