package task

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// InputKind says what an Input is.
type InputKind uint8

// The inputs. A task with input channels gets Data, Barrier and End; a source
// task gets Raw or Columns, Trigger and Stop.
const (
	Data    InputKind = iota + 1 // Batch on Channel; the task takes the reference
	Barrier                      // Barrier came on Channel
	End                          // Channel has ended: nothing follows on it; of a source: all its splits have
	Begin                        // first, if the job was restored: the task says again where it stands
	Raw                          // Records from the reader, of one split
	Columns                      // Batch from a BatchReader, with Arrivals and Position
	Trigger                      // a source puts Barrier into the stream here
	Stop                         // a source shall end without the watermark of the end of input
	Resume                       // go on after Again
)

// Input is one thing that happens to a task.
type Input struct {
	Kind     InputKind
	Channel  int
	Batch    *batch.Batch
	Records  *sensors.Records
	Arrivals []int64
	Position sensors.Position
	Barrier  dataflow.Barrier
}

// EffectKind says what an Effect asks for.
type EffectKind uint8

// The effects.
const (
	Send        EffectKind = iota + 1 // Batch to Channel of Output
	SendBarrier                       // Barrier to all channels of all outputs
	SendEnd                           // the end to all channels of all outputs
	Write                             // Batch to the sink of Link
	Block                             // deliver nothing of Channel
	Unblock                           // deliver Channel again
	Snapshot                          // State and Positions are the task's state at Barrier
	Aborted                           // the alignment of Barrier was given up: a newer one began
	Ack                               // everything before Position has been taken
	NeedState                         // the operator of Link waits for its Backing: have it read, then Resume
	Again                             // there is more: the next input is Resume
	Exhausted                         // of a durable source: all it will ever send was sent, the end's mark included
	Fail                              // the subtask cannot go on: Err
	Finished                          // all inputs ended, all output was sent
)

var effectNames = [...]string{Send: "send", SendBarrier: "barrier", SendEnd: "end", Write: "write", Block: "block", Unblock: "unblock",
	Snapshot: "snapshot", Aborted: "aborted", Ack: "ack", NeedState: "need state", Again: "again", Exhausted: "exhausted", Fail: "fail", Finished: "finished"}

// String is the name of the effect in scripts and logs.
func (k EffectKind) String() string { return effectNames[k] }

// Effect is one thing that the driver must do.
type Effect struct {
	Kind      EffectKind
	Output    int
	Channel   int
	Link      int
	Batch     *batch.Batch
	Barrier   dataflow.Barrier
	State     []StateRows
	Whole     []dataflow.OperatorID // of a snapshot for a barrier that is not Full: whose rows are nevertheless all that they have
	Positions []SplitPosition       // of a source: where its splits go on; those never read are left out
	Position  sensors.Position
	Err       error
}

// StateRows is a batch of one table of one operator's state. The receiver of
// the snapshot owns the reference.
type StateRows struct {
	Operator dataflow.OperatorID
	Table    string
	Batch    *batch.Batch
}

// SplitPosition is where a source's split goes on.
type SplitPosition struct {
	Operator dataflow.OperatorID
	Split    string // its name
	Offset   int64
	Ended    bool
}

// TableOf is a table of an operator's state. The tables that the task keeps
// itself are among them, under the operator at whose place they are kept; their
// names begin with "task.".
type TableOf struct {
	Operator dataflow.OperatorID
	operator.StateTable
}

// A Step that has put out maxEffects, or in which operators have emitted
// maxEmits batches, returns Again: one row may make more than fits into memory,
// or work without end of which a filter or an unread stream leaves nothing.
const (
	maxEffects = 64
	maxEmits   = 1024
)

// Config is everything a task is made of. Links are in topological order, the
// head first.
type Config struct {
	ID             dataflow.SubtaskID
	Parallelism    int
	MaxParallelism int
	Pool           *batch.Pool
	Channels       int    // input channels; 0 for a source
	Edges          []Edge // whose channels they are, in order; nil: all are one edge's
	Empty          []int  // channels on which no row will come: they hold no watermark back. Set by the driver
	AtLeastOnce    bool   // barriers do not block
	Durable        bool   // the job takes checkpoints: a source at its end stays, to take part in them, until Stop
	Source         *SourceConfig
	Links          []LinkConfig
	Outputs        []OutputConfig
	Large          func(memory []byte) // operator.Context.Large. Set by the driver
}

// Edge is one input of a task: the channels from the subtasks of one upstream
// operator. State is found again by its name.
type Edge struct {
	Stream   string // STEP or STEP.late; unique in the task
	First    int    // the upstream subtask of its first channel; the next follow
	Channels int
	Of       int // the upstream operator's parallelism
	Schema   *batch.Schema
}

// LinkConfig is one operator of the chain. Exactly one of Factory and Sink is
// set; the head of a source task has neither.
type LinkConfig struct {
	ID      dataflow.OperatorID
	Factory operator.Factory
	Sink    bool
	Parent  int              // the link it is chained to; -1 for the head
	Backing operator.Backing // nil: its state stays in memory. Set by the driver
}

// Task is one subtask. See the package comment.
type Task struct {
	cfg       Config
	gate      gate
	merge     *eventtime.Merge // nil: a source
	inputs    operator.StateTable
	saved     []savedInput // rows of the table of inputs, until the first Step
	moved     bool         // splits are read by other subtasks than before
	links     []*link
	source    *source
	effects   []Effect
	emitted   int               // batches, by all operators in this Step
	draining  *dataflow.Barrier // to be sent when the end's mark is out
	err       error
	done      bool
	stopped   bool
	exhausted bool // said, or not to be said
}
