package bench

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/expr"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/dataflow/window"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// job is the benchmarks' job: where (keeps 95 %) → select with arithmetic →
// key_by → window of avg, max, count → sink. It runs as two subtasks.
type job struct {
	window      func(*window.Spec) // sets the form
	time        eventtime.Config
	arrivals    bool // the rows arrive at their event time; otherwise there is no arrival clock
	parallelism int  // of the window; 0: 1
}

const (
	filterText = "a >= 5"
	scoreText  = "a * 1.8 + 32 - b"
)

func tumbling(size dataflow.Duration) func(*window.Spec) {
	return func(s *window.Spec) { s.Form, s.Size = window.Tumbling, size }
}

func sliding(size, slide dataflow.Duration) func(*window.Spec) {
	return func(s *window.Spec) { s.Form, s.Size, s.Slide = window.Sliding, size, slide }
}

// punctuatedTime is the watermark of most benchmarks: the marker column carries
// it, and the marker is data too.
func punctuatedTime() eventtime.Config {
	return eventtime.Config{Strategy: eventtime.Punctuated, KeepMarker: true}
}

// graph compiles the job for rows of a schema.
func (j *job) graph(schema *batch.Schema) (*graph.StreamGraph, error) {
	cond, err := expr.CompileBool(filterText, schema)
	if err != nil {
		return nil, err
	}
	score, err := expr.Compile(scoreText, schema)
	if err != nil {
		return nil, err
	}
	key, err := expr.Compile("sensor", schema)
	if err != nil {
		return nil, err
	}
	filter, err := operator.NewFilter(cond, schema, operator.FailOnError)
	if err != nil {
		return nil, err
	}
	project, err := operator.NewProject([]operator.Named{{Name: "sensor", Expr: key}, {Name: "score", Expr: score}}, schema, operator.FailOnError)
	if err != nil {
		return nil, err
	}
	arg, err := expr.Compile("score", project.Output())
	if err != nil {
		return nil, err
	}
	spec := window.Spec{Keys: []int{0}, Input: project.Output(), Aggregates: []window.Aggregate{
		{Name: "avg", Func: window.Avg, Arg: arg}, {Name: "max", Func: window.Max, Arg: arg}, {Name: "n", Func: window.CountRows},
	}}
	j.window(&spec)
	win, err := window.NewFactory(spec)
	if err != nil {
		return nil, err
	}
	p := max(1, j.parallelism)
	b := graph.NewBuilder("bench", 1)
	b.Source("in", source{schema}).Then("where", filter).Then("select", project).
		KeyBy("sensor").Then("window", win).Parallelism(p).Sink("out", sink{}).Parallelism(p)
	return b.Build()
}

// plan is the job ready to run, and its graph: it reads what open opens and
// writes to out.
func (j *job) plan(schema *batch.Schema, open func(*batch.Pool) sensors.BatchReader, out sensors.Writer) (runtime.Plan, *graph.ExecutionGraph, error) {
	g, err := j.graph(schema)
	if err != nil {
		return runtime.Plan{}, nil, err
	}
	x := graph.Expand(graph.Chain(g, graph.Options{}))
	p, err := runtime.NewPlan(x, &connect{job: j, schema: schema, open: open, out: out})
	return p, x, err
}

// source and sink are the ends of the job as the graph sees them.
type source struct{ schema *batch.Schema }

func (source) Connector() string                { return "prepared" }
func (s source) Schema() *batch.Schema          { return s.schema }
func (source) Side(operator.Side) *batch.Schema { return nil }

type sink struct{}

func (sink) Connector() string { return "blackhole" }

// connect is runtime.Connectors for a plan's ends.
type connect struct {
	job    *job
	schema *batch.Schema
	open   func(*batch.Pool) sensors.BatchReader
	out    sensors.Writer
}

func (c *connect) Source(*graph.Node, int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	cfg := &task.SourceConfig{Schema: c.schema, EventAt: tsColumn, DeviceAt: -1, Arrival: -1, Time: c.job.time}
	if c.job.time.Strategy == eventtime.Punctuated {
		var err error
		if cfg.When, err = expr.CompileBool("marker", c.schema); err != nil {
			return nil, nil, nil, err
		}
		if cfg.At, err = expr.Compile("ts", c.schema); err != nil {
			return nil, nil, nil, err
		}
	}
	if c.job.time.PerDevice {
		cfg.DeviceAt = c.schema.Index("sensor")
	}
	if c.job.arrivals {
		cfg.Arrival = tsColumn
	}
	return cfg, nil, func(p *batch.Pool) (sensors.BatchReader, error) {
		return c.open(p), nil
	}, nil
}

func (c *connect) Sink(*graph.Node, int, *batch.Schema) (func() (sensors.Writer, error), error) {
	return func() (sensors.Writer, error) { return c.out, nil }, nil
}
