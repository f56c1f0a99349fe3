package job

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
)

// Job is a checked job.
type Job struct {
	File    string
	Name    string
	Graph   *graph.StreamGraph // its nodes carry the Sources, factories and Sinks below
	Sources []*Source          // in the order of the file
	Sinks   []*Sink

	State       State
	Checkpoint  Checkpoint
	Restart     Restart
	Replicas    int // copies of log and checkpoint parts within the site; 0: not given
	WhenShort   WhenShort
	ReplicateTo []string
	OnIsolation OnIsolation
	Constraints Constraints
	Placement   map[dataflow.OperatorID]Constraints // of operators that have any

	NotYet    []Notice // valid keys that this version does not act on
	WithState []Notice // keys that act only where the run keeps state (--state); the fatal ones cannot do without
	Warnings  []Notice // legal, but probably not meant
}

// Notice is a remark on a job that is no error.
type Notice struct {
	Line  int    // 0: it came from an override
	Path  string // the key it is about
	Msg   string
	Fatal bool // results would differ from what the job says: a run must refuse
}

// String is "path: message (line N)".
func (n Notice) String() string { return n.Path + ": " + n.Msg + lineSuffix(n.Line) }

// Backend is where keyed state lives while a job runs.
type Backend uint8

// The forms of `state: {backend}`.
const (
	InMemory Backend = iota
	OnDisk           // a cache in memory, the rest in files
)

// DefaultStateMemory is what the cache of the disk backend takes unless the job
// says otherwise.
const DefaultStateMemory = 256 << 20

// State is `state:`.
type State struct {
	Backend Backend
	Memory  int64 // bytes of cache that the disk backend may take for the whole job; 0 in memory
}

// CheckpointMode is how often a row may count after a failure.
type CheckpointMode uint8

// The modes of `checkpoint: {mode}`.
const (
	ExactlyOnce CheckpointMode = iota
	AtLeastOnce
)

// Checkpoint is `checkpoint:`.
type Checkpoint struct {
	Given             bool
	Interval          dataflow.Duration // 0: none, unless a sink has to commit (then 1 s)
	Timeout           dataflow.Duration // default 10 min
	MinPause          dataflow.Duration
	TolerableFailures int
	Mode              CheckpointMode
}

// RestartStrategy is what happens after a failure.
type RestartStrategy uint8

// The strategies of `restart: {strategy}`.
const (
	ExponentialDelay RestartStrategy = iota
	FixedDelay
	FailureRate
	NoRestart
)

// Restart is `restart:`. A strategy uses only its own fields.
type Restart struct {
	Given       bool
	Strategy    RestartStrategy
	Initial     dataflow.Duration // exponential-delay
	Max         dataflow.Duration
	Multiplier  float64
	ResetAfter  dataflow.Duration
	Jitter      float64           // part of the delay, 0..1
	Attempts    int               // exponential-delay (0: no limit), fixed-delay
	Delay       dataflow.Duration // fixed-delay, failure-rate
	MaxFailures int               // failure-rate
	Interval    dataflow.Duration // failure-rate
}

// WhenShort is what to do with too few agents for the copies.
type WhenShort uint8

// The forms of `when_short:`.
const (
	Block WhenShort = iota
	Degrade
)

// OnIsolation is what a replicated job's site does when it restarts without
// contact to the others.
type OnIsolation uint8

// The forms of `on_isolation:`.
const (
	StopIsolated OnIsolation = iota
	ContinueIsolated
)

// Constraints say where something may run.
type Constraints struct {
	Site   string
	Labels []Label // by name
}

// Label is one `labels: {K: V}`.
type Label struct{ Name, Value string }

// Empty tells whether there is no constraint.
func (c Constraints) Empty() bool { return c.Site == "" && len(c.Labels) == 0 }
