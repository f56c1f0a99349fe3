package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/connect"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// DefaultMemory is the budget in bytes for batches in flight in one process.
const DefaultMemory = config.DefaultMemory

// DefaultCommit is how often sinks make their rows visible when the job names
// no checkpoint interval.
const DefaultCommit = time.Second

// LocalOptions are the surroundings of a job that runs in this process.
type LocalOptions struct {
	Stdin     io.Reader
	Stdout    io.Writer
	Overwrite bool          // file sinks may replace files that are not empty
	Memory    int64         // bytes for batches in flight; 0: DefaultMemory
	BatchRows int           // records that one read of a source hands out at most; 0: batch.MaxRows
	Clock     sensors.Clock // nil: the machine's
	Secrets   job.Resolver
	Events    func(string) // one line for each thing worth telling; must not block; nil: nobody listens

	// Wrap stands between a reader of a source and the job, to watch it or to slow
	// it down; nil: nothing does. The splits' names must come through.
	Wrap func(dataflow.OperatorID, sensors.Reader) sensors.Reader

	// Files is where file sinks write; nil: the disk.
	Files store.FS

	// State makes the job durable; nil: nothing outlives the run.
	State *State
	// From is a savepoint that the job begins at, by name or the path of an
	// exported file. Empty: it goes on where it was stopped or failed.
	From             string
	AllowNonRestored bool // state that no operator takes may go
	// Checkpoints is told each checkpoint that completes; must not block; nil:
	// nobody listens.
	Checkpoints func(durable.Completed)
	Claim       bool // From is the job's from now on, and deleted when it is not needed any more
}

// Local is a job in this process, without a mesh.
type Local struct {
	job     *job.Job
	opt     LocalOptions
	hearing *hearing
	durable *durableRun // nil: it keeps no state

	mu      sync.Mutex // guards present
	present *attempt   // that runs, or ran last
}

// attempt is a job built to be run once.
type attempt struct {
	graph      *graph.ExecutionGraph
	connectors *connect.Connectors
	plan       runtime.Plan
	run        *runtime.Job
	restarts   int // before it, in this process
}

// NewLocal builds a job to be run once. It opens nothing yet.
func NewLocal(j *job.Job, opt LocalOptions) (*Local, error) {
	if opt.Memory == 0 {
		opt.Memory = DefaultMemory
	}
	if opt.Clock == nil {
		opt.Clock = sensors.Wall{}
	}
	if opt.Events == nil {
		opt.Events = func(string) {}
	}
	l := &Local{job: j, opt: opt, hearing: newHearing(j)}
	if opt.State != nil {
		l.durable = newDurableRun(l)
	}
	a, err := l.build(j.Graph, nil)
	if err != nil {
		return nil, err
	}
	a.run = runtime.New(a.plan, l.runtimeOptions())
	l.present = a
	return l, nil
}

// build makes the connectors and the plan of an attempt that goes on from a
// manifest, or nil.
func (l *Local) build(g *graph.StreamGraph, from *manifest.Manifest) (*attempt, error) {
	a := &attempt{graph: graph.Expand(graph.Chain(g, graph.Options{}))}
	var d *surroundings
	if l.durable != nil {
		d = l.durable.around
	}
	a.connectors = connect.New(connectorsOf(l.job, l.opt, l.hearing, d, from))
	var err error
	if a.plan, err = runtime.NewPlan(a.graph, a.connectors); err != nil {
		return nil, fmt.Errorf("job %q: %w", l.job.Name, err)
	}
	connect.GiveDisk(l.job, &a.plan, l.scratchDir())
	return a, nil
}

func (l *Local) runtimeOptions() runtime.Options {
	commit := DefaultCommit
	if l.job.Checkpoint.Interval > 0 {
		commit = l.job.Checkpoint.Interval.Go()
	}
	return runtime.Options{
		Memory: l.opt.Memory, BatchRows: l.opt.BatchRows, CommitInterval: commit, Now: time.Now, Events: l.hear,
	}
}

func (l *Local) hear(e runtime.Event) {
	if e.Kind != runtime.SubtaskFinished && e.Kind != runtime.SubtaskFailed { // Run returns why it failed
		l.opt.Events(e.String())
	}
}

// Run runs the job until its inputs end, it is stopped, it fails for good or
// ctx ends.
func (l *Local) Run(ctx context.Context) error {
	if l.durable != nil {
		return l.durable.runAll(ctx)
	}
	return l.present.run.Run(ctx)
}

// now is the present attempt, or the last one.
func (l *Local) now() *attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.present
}

// Heard is closed when the brokers have granted every MQTT source its topics
// for the first time: what is published after that arrives.
func (l *Local) Heard() <-chan struct{} { return l.hearing.heard }

// Stop ends the sources and lets what is in flight arrive; open windows do not
// fire. A durable job stops with a savepoint.
func (l *Local) Stop() {
	if l.durable != nil {
		l.durable.stopWith(dataflow.Halt)
		return
	}
	l.present.run.Stop()
}

// Totals is what a job has done: where its rows went. A durable job counts from
// where its present attempt began, like each of its subtasks.
type Totals struct {
	Restarts int `json:"restarts,omitempty"` // in this process; what follows is since the last of them

	In         int64 `json:"rows_in"`  // rows of all sources, rejected payloads and markers included
	Out        int64 `json:"rows_out"` // rows that went into sinks
	Late       int64 `json:"late"`
	NoWindow   int64 `json:"in_no_window"`
	Rejected   int64 `json:"rejected"`
	Markers    int64 `json:"markers"`
	Filtered   int64 `json:"filtered"`
	Duplicates int64 `json:"duplicates"`       // rows that dedupe took out
	Forgotten  int64 `json:"dedupe_forgotten"` // ids that it had no room to remember: their duplicates may have passed
	DivByZero  int64 `json:"division_by_zero"`
	Overflow   int64 `json:"overflow"`

	FirstRejected string `json:"first_rejected,omitempty"` // why a first one was rejected; of several operators the first in the graph

	Watermark dataflow.Time `json:"-"` // the least of all sources'
	Arrival   dataflow.Time `json:"-"` // the greatest arrival clock of all sources
	Busy      time.Duration `json:"-"`
	Blocked   time.Duration `json:"-"`
}

// Totals adds up the job's counters as they are now.
func (l *Local) Totals() Totals {
	t := Totals{Watermark: dataflow.MaxTime, Arrival: dataflow.MinTime}
	a := l.now()
	ran := false
	t.Restarts = a.restarts
	for i, s := range a.run.Status() {
		task := a.graph.Subtasks[i].Task
		t.Busy += s.Busy
		t.Blocked += s.Blocked
		for k, o := range s.Operators {
			switch task.Links[k].Node.Role {
			case graph.SourceNode:
				ran = true
				t.In += o.In
				t.Watermark = min(t.Watermark, s.Watermark)
				t.Arrival = max(t.Arrival, s.Arrival)
			case graph.SinkNode:
				t.Out += o.In
			}
			t.Late += o.Late
			t.NoWindow += o.NoWindow
			t.Rejected += o.Rejected
			t.Markers += o.Markers
			t.Filtered += o.Filtered
			t.Duplicates += o.Duplicates
			t.Forgotten += o.Forgotten
			t.DivByZero += o.DivByZero
			t.Overflow += o.Overflow
			if t.FirstRejected == "" {
				t.FirstRejected = o.FirstRejected
			}
		}
	}
	if !ran { // no source has been opened
		t.Watermark = dataflow.MinTime
	}
	return t
}

// scratchDir is where the files are: what is in it is of no use to a later run.
// A run without a state folder has its own, where temporary files go.
func (l *Local) scratchDir() string {
	if l.durable != nil {
		return filepath.Join(l.opt.State.store.Dir(), "jobs", l.job.Name, "scratch")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("tidemark-%d-%s", os.Getpid(), l.job.Name))
}
