package work

import (
	"context"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
	"github.com/tidemark-mesh/tidemark/sensors/file"
)

// connectors makes what an attempt's job names: sources read feeds, which the
// subtask opens itself; file sinks are the real ones, on a disk that loses what
// was not synced.
type connectors struct{ a *attempt }

// Source is runtime.Connectors'.
func (c connectors) Source(n *graph.Node, _ int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	return nowhere{}.Source(n, 0)
}

// Sink is runtime.Connectors'.
func (c connectors) Sink(n *graph.Node, subtask int, in *batch.Schema) (func() (sensors.Writer, error), error) {
	a, s := c.a, n.Sink.(*job.Sink)
	if s.Blackhole != nil || !a.here(dataflow.SubtaskID{Task: a.spec.task[n.ID], Index: subtask}) {
		return func() (sensors.Writer, error) { return &file.Blackhole{}, nil }, nil
	}
	e := encode.NewJSON(in, encode.Options{})
	if s.File != nil {
		e = encode.NewJSON(in, encode.Options{Timestamps: encode.Times(s.File.Timestamps)})
	} else {
		return func() (sensors.Writer, error) { return &publisher{a: a, encode: e}, nil }, nil
	}
	placed := sensors.Placed{Node: string(a.x.p.ID), Attempt: a.ref.Token}
	for i := range n.Parallelism {
		placed.Nodes = append(placed.Nodes, string(a.place(dataflow.SubtaskID{Task: a.spec.task[n.ID], Index: i})))
	}
	if a.asked.From != nil {
		placed.From = a.asked.From.ID
	}
	for _, k := range a.asked.Job.Sinks {
		if k.Operator == n.ID {
			placed.Commits = append(placed.Commits, sensors.Commit{Target: k.Target, Through: k.Through, Length: k.Length})
		}
	}
	return func() (sensors.Writer, error) {
		return file.OpenSink(file.SinkConfig{Path: s.File.Path, Subtask: subtask, Parallelism: n.Parallelism, Encoder: e, Durable: true,
			FS: a.x.p.Disk.FS, Permit: permit{a.x.p}, Placed: placed})
	}, nil
}

// nowhere makes connectors of which only the shape is wanted.
type nowhere struct{}

// Source is runtime.Connectors'.
func (nowhere) Source(n *graph.Node, _ int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	return sourceConfig(n.Source.(*job.Source)), func() (sensors.Reader, error) { return nil, nil }, nil, nil
}

// Sink is runtime.Connectors'.
func (nowhere) Sink(*graph.Node, int, *batch.Schema) (func() (sensors.Writer, error), error) {
	return func() (sensors.Writer, error) { return &file.Blackhole{}, nil }, nil
}

// publisher is a sink that publishes to a broker, at least once: nothing there
// looks at tokens, so only the lease keeps a zombie from it.
type publisher struct {
	a      *attempt
	encode file.Encoder
	rows   [][]byte
}

// mostRows that wait to be published.
const mostRows = 4096

// Write is sensors.Writer's.
func (p *publisher) Write(_ context.Context, b *batch.Batch) error {
	if len(p.rows) >= mostRows {
		return sensors.ErrFull
	}
	p.rows = append(p.rows, splitLines(p.encode.Append(nil, b))...)
	return nil
}

// Commit publishes what was written; the permit is asked for each message.
func (p *publisher) Commit(context.Context) error {
	for len(p.rows) > 0 {
		if err := sensors.Permitted(permit{p.a.x.p}); err != nil {
			return err
		}
		p.a.x.p.Judge.Publishes(p.a.x.p.ID, p.a.x.p.Lease, p.a.ref, p.rows[0])
		p.rows = p.rows[1:]
	}
	return nil
}

// Close is sensors.Writer's.
func (p *publisher) Close() error { return nil }

func splitLines(b []byte) (all [][]byte) {
	for len(b) > 0 {
		i := slices.Index(b, '\n')
		if i < 0 {
			return append(all, b)
		}
		all = append(all, b[:i])
		b = b[i+1:]
	}
	return all
}
