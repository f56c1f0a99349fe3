package runtime

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// A source of one split has parallelism 3. Neither the split nor the subtasks
// without one end before a watermark has come through to a witness: so it comes
// only if those with nothing to read hold nothing back, whether they stand
// right before the witness or behind another task.
func TestSubtasksWithoutSplitsHoldNoWatermarkBack(t *testing.T) {
	for k := range 12 {
		between, n := k%2 == 1, 1+k/2%3
		synctest.Test(t, func(t *testing.T) {
			c := &oneSplit{passed: make(chan struct{}, 9)}
			plan := func() Plan {
				b := graph.NewBuilder("one split", 3)
				s := b.Source("in", c)
				if between {
					s = s.Then("between", operator.NewPass(times)).Chain(graph.ChainNever)
				}
				s.KeyBy("ts").Then("witness", witnessFactory{operator.NewPass(times), c}).Sink("out", c)
				g, err := b.Build()
				if err != nil {
					t.Fatal(err)
				}
				plan, err := NewPlan(graph.Expand(graph.Chain(g, graph.Options{})), c)
				if err != nil {
					t.Fatal(err)
				}
				return plan
			}
			p := newParts(plan, Options{Now: time.Now, CommitInterval: time.Second}, n, func(id dataflow.SubtaskID) int { return scatter(uint64(k), id, n) })
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("no watermark came through"))
			defer cancel()
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

var times = batch.MustSchema(batch.Field{Name: "ts", Type: batch.Timestamp})

// oneSplit is a source of one record, a witness's ear, and a sink.
type oneSplit struct{ passed chan struct{} }

func (*oneSplit) Connector() string                { return "one split" }
func (*oneSplit) Schema() *batch.Schema            { return times }
func (*oneSplit) Side(operator.Side) *batch.Schema { return nil }

func (c *oneSplit) Source(_ *graph.Node, subtask int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	cfg := &task.SourceConfig{
		Schema: times, DeviceAt: -1, Arrival: -1, Time: eventtime.Config{Strategy: eventtime.Ascending},
		Decoder: func() (task.Decoder, error) { return fives{}, nil }, NoRoom: errors.New("no room"),
	}
	return cfg, func() (sensors.Reader, error) {
		r := &splitReader{c: c, splits: 1}
		if subtask > 0 {
			r.splits = 0
		}
		return r, nil
	}, nil, nil
}

func (*oneSplit) Sink(*graph.Node, int, *batch.Schema) (func() (sensors.Writer, error), error) {
	return func() (sensors.Writer, error) { return dropping{}, nil }, nil
}

// splitReader hands out a record, if it has a split, and ends when a watermark
// has come through to each of the three witnesses.
type splitReader struct {
	c      *oneSplit
	splits int
	given  bool
}

func (r *splitReader) Splits() int { return r.splits }

func (r *splitReader) Read(ctx context.Context, rec *sensors.Records, _ int) error {
	rec.Reset(0)
	if r.splits > 0 && !r.given {
		r.given = true
		rec.Append([]byte("5"))
		return nil
	}
	for range 3 {
		select {
		case <-r.c.passed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return io.EOF
}

func (*splitReader) Ack(sensors.Position)        {}
func (*splitReader) Seek(sensors.Position) error { return nil }
func (*splitReader) Close() error                { return nil }

// fives makes of each payload a row at 5.
type fives struct{}

func (fives) Decode(_, _ []byte, bl *batch.Builder) (int, error) {
	bl.SetInt(0, 5)
	bl.EndRow(0)
	return 1, nil
}
func (fives) Split(int)                {}
func (fives) Header(int, []byte) error { return nil }

type witnessFactory struct {
	operator.Factory
	c *oneSplit
}

func (f witnessFactory) New() operator.Operator { return &witness{f.Factory.New(), f.c} }

// witness tells each of the three readers of a watermark that is not the end.
type witness struct {
	operator.Operator
	c *oneSplit
}

func (w *witness) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	for _, m := range b.Marks {
		if m.Watermark == dataflow.Time(4) {
			for range 3 {
				w.c.passed <- struct{}{}
			}
		}
	}
	return w.Operator.Process(b, out)
}

type dropping struct{}

func (dropping) Write(context.Context, *batch.Batch) error { return nil }
func (dropping) Commit(context.Context) error              { return nil }
func (dropping) Close() error                              { return nil }

// A source subtask is alone unless its stream meets that of another one that
// reads anything.
func TestSourcesThatMeetNobodyAreAlone(t *testing.T) {
	c := &oneSplit{}
	for _, v := range []struct {
		name  string
		build func(b *graph.Builder)
		want  string // by subtask of the sources
	}{
		{"one split of three subtasks", func(b *graph.Builder) {
			b.Source("x", c).KeyBy("ts").Then("w", operator.NewPass(times)).Sink("out", c)
		}, "x/0"},
		{"two jobs in one", func(b *graph.Builder) {
			b.Source("x", c).Sink("out", c)
			b.Source("y", c).Sink("out2", c)
		}, "x/0 y/0"},
		{"union", func(b *graph.Builder) {
			x, y := b.Source("x", c), b.Source("y", c)
			b.Union("both", operator.NewPass(times), x, y).Sink("out", c)
			b.Source("z", c).Sink("out2", c)
		}, "z/0"},
		{"two splits", func(b *graph.Builder) {
			b.Source("x", &counting{n: 1}).Parallelism(2).Sink("out", c)
		}, ""},
	} {
		b := graph.NewBuilder("job", 3)
		v.build(b)
		g, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		var connectors Connectors = c
		if v.name == "two splits" {
			connectors = &counting{n: 1}
		}
		plan, err := NewPlan(graph.Expand(graph.Chain(g, graph.Options{})), connectors)
		if err != nil {
			t.Fatal(err)
		}
		j := New(plan, Options{Now: time.Now})
		all, err := j.Open(t.Context())
		if err == nil {
			err = j.learn(all)
		}
		if err != nil {
			t.Fatal(err)
		}
		var alone []string
		for _, d := range j.local {
			if d.sub.Config.Source != nil && d.sub.Config.Source.Alone {
				alone = append(alone, d.sub.Config.ID.String())
			}
		}
		if got := strings.Join(alone, " "); got != v.want {
			t.Errorf("%s: alone are %q, want %q", v.name, got, v.want)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
