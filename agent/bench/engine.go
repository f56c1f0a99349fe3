package bench

import (
	"context"
	"fmt"
	"time"

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
	"github.com/tidemark-mesh/tidemark/sensors/file"
)

// job is the benchmarks' job: where (keeps 95 %) → select with arithmetic →
// key_by → window of avg, max, count → blackhole.
type job struct {
	in          *input
	window      func(*window.Spec) // sets the form
	time        eventtime.Config
	device      bool
	parallelism int // of the window
}

// The columns after select.
const (
	filterText  = "a >= 5"
	scoreText   = "a * 1.8 + 32 - b"
	rowsAWarmUp = 0
)

// tumbling10s is the window of most benchmarks.
func tumbling10s(s *window.Spec) { s.Form, s.Size = window.Tumbling, 10*dataflow.Second }

// punctuated is the watermark of most benchmarks: the marker column carries it,
// and the marker is data too.
func punctuated() eventtime.Config {
	return eventtime.Config{Strategy: eventtime.Punctuated, KeepMarker: true}
}

// source is the benchmarks' source as the graph sees it.
type source struct{ schema *batch.Schema }

func (source) Connector() string                { return "prepared" }
func (s source) Schema() *batch.Schema          { return s.schema }
func (source) Side(operator.Side) *batch.Schema { return nil }

type sink struct{}

func (sink) Connector() string { return "blackhole" }

// connect gives a plan its prepared rows and its black hole.
type connect struct {
	job  *job
	hole *file.Blackhole
}

func (c *connect) Source(*graph.Node, int) (*task.SourceConfig, func() (sensors.Reader, error), func(*batch.Pool) (sensors.BatchReader, error), error) {
	schema := c.job.in.schema
	cfg := &task.SourceConfig{Schema: schema, EventAt: schema.Index("ts"), DeviceAt: -1, Arrival: -1, Time: c.job.time}
	if c.job.time.Strategy == eventtime.Punctuated {
		var err error
		if cfg.When, err = expr.CompileBool("marker", schema); err != nil {
			return nil, nil, nil, err
		}
		if cfg.At, err = expr.Compile("ts", schema); err != nil {
			return nil, nil, nil, err
		}
	}
	if c.job.device {
		cfg.DeviceAt = schema.Index("sensor")
		cfg.Arrival = schema.Index("ts")
	}
	return cfg, nil, func(p *batch.Pool) (sensors.BatchReader, error) { return &reader{in: c.job.in, pool: p}, nil }, nil
}

func (c *connect) Sink(*graph.Node, int, *batch.Schema) (func() (sensors.Writer, error), error) {
	return func() (sensors.Writer, error) { return c.hole, nil }, nil
}

// build compiles the job's graph.
func (j *job) build() (*graph.StreamGraph, error) {
	schema := j.in.schema
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
	b := graph.NewBuilder("bench", 1)
	b.Source("in", source{schema}).Then("where", filter).Then("select", project).
		KeyBy("sensor").Then("window", win).Parallelism(max(1, j.parallelism)).Sink("out", sink{}).Parallelism(max(1, j.parallelism))
	return b.Build()
}

// run runs the job over its input and returns how long it took.
func (j *job) run() (time.Duration, error) {
	g, err := j.build()
	if err != nil {
		return 0, err
	}
	c := &connect{job: j, hole: &file.Blackhole{}}
	plan, err := runtime.NewPlan(graph.Expand(graph.Chain(g, graph.Options{})), c)
	if err != nil {
		return 0, err
	}
	r := runtime.New(plan, runtime.Options{CommitInterval: time.Second, Now: time.Now})
	began := time.Now()
	if err := r.Run(context.Background()); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if c.hole.Rows() == 0 {
		return 0, fmt.Errorf("the job put out nothing")
	}
	return took, nil
}

// side is the job as one of the things that are compared.
func (j *job) side(name string) side {
	return side{name: name, rows: len(j.in.rows), run: func() (time.Duration, error) { return onOneCore(j.run) }}
}

// engine compares the job with a loop.
func engine(ctx context.Context, o Options) ([]Figure, error) {
	in := makeInput(shape{rows: 2_000_000, keys: 1000, rowsAMs: 100, seed: 1})
	j := &job{in: in, window: tumbling10s, time: punctuated()}
	m, err := inTurn(ctx, o, "engine", j.side("engine"), side{name: "hand loop", rows: len(in.rows), run: func() (time.Duration, error) {
		return onOneCore(func() (time.Duration, error) { return handLoop(in.rows, 10_000_000) })
	}})
	if err != nil {
		return nil, err
	}
	f := ratio("engine", m[0].nsARow, m[1].nsARow, "ns/row", 2.5)
	f.AllocsARow = m[0].allocsARow
	return []Figure{f}, nil
}

// accumulator is what the loop keeps of a key in the open window.
type accumulator struct {
	sum, max float64
	n        int64
}

// result is a row that the loop puts out.
type result struct {
	key        string
	start, end int64
	avg, max   float64
	n          int64
}

// handLoop does the job's work as one would write it by hand: the same filter,
// arithmetic and windows; a window closes when a marker passes its end. Event
// times never go back in this input, so one window is open at a time.
func handLoop(rows []row, size int64) (time.Duration, error) {
	began := time.Now()
	open := make(map[string]*accumulator)
	out := make([]result, 0, batch.MaxRows)
	var results int64
	start, watermark := int64(-1), int64(-1)
	closeWindow := func() {
		for k, a := range open {
			out = append(out, result{key: k, start: start, end: start + size, avg: a.sum / float64(a.n), max: a.max, n: a.n})
			if len(out) == cap(out) {
				results += int64(len(out))
				out = out[:0]
			}
		}
		clear(open)
	}
	for i := range rows {
		r := &rows[i]
		if r.a >= 5 && r.time > watermark {
			if w := r.time - r.time%size; w != start {
				closeWindow()
				start = w
			}
			score := r.a*1.8 + 32 - r.b
			acc := open[r.key]
			if acc == nil {
				acc = &accumulator{max: score}
				open[r.key] = acc
			}
			acc.sum += score
			acc.max = max(acc.max, score)
			acc.n++
		}
		if r.marker {
			watermark = r.time
			if watermark >= start+size-1 {
				closeWindow()
			}
		}
	}
	closeWindow()
	results += int64(len(out))
	if results == 0 {
		return 0, fmt.Errorf("the loop put out nothing")
	}
	return time.Since(began), nil
}
