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
	Barrier                      // the barrier of Checkpoint on Channel
	End                          // Channel has ended: nothing follows on it; of a source: all its splits have
	Raw                          // Records from the reader, of one split
	Columns                      // Batch from a BatchReader, with Arrivals and Position
	Trigger                      // begin Checkpoint: a source puts its barrier into the stream here
	Stop                         // a source shall end without the watermark of the end of input
	Resume                       // go on after Again
)

// Input is one thing that happens to a task.
type Input struct {
	Kind       InputKind
	Channel    int
	Batch      *batch.Batch
	Records    *sensors.Records
	Arrivals   []int64
	Position   sensors.Position
	Done       bool // Columns: the split has ended
	Checkpoint dataflow.CheckpointID
}

// EffectKind says what an Effect asks for.
type EffectKind uint8

// The effects.
const (
	Send        EffectKind = iota + 1 // Batch to Channel of Output
	SendBarrier                       // the barrier of Checkpoint to all channels of all outputs
	SendEnd                           // the end to all channels of all outputs
	Write                             // Batch to the sink of Link
	Block                             // deliver nothing of Channel
	Unblock                           // deliver Channel again
	Snapshot                          // State is the task's state at Checkpoint
	Aborted                           // the alignment of Checkpoint was given up: a newer one began
	Ack                               // everything before Position has been taken
	Again                             // there is more: the next input is Resume
	Fail                              // the subtask cannot go on: Err
	Finished                          // all inputs ended, all output was sent
)

var effectNames = [...]string{Send: "send", SendBarrier: "barrier", SendEnd: "end", Write: "write", Block: "block", Unblock: "unblock",
	Snapshot: "snapshot", Aborted: "aborted", Ack: "ack", Again: "again", Fail: "fail", Finished: "finished"}

// String is the name of the effect in scripts and logs.
func (k EffectKind) String() string { return effectNames[k] }

// Effect is one thing that the driver must do.
type Effect struct {
	Kind       EffectKind
	Output     int
	Channel    int
	Link       int
	Batch      *batch.Batch
	Checkpoint dataflow.CheckpointID
	State      []StateRows
	Position   sensors.Position
	Err        error
}

// StateRows is a batch of one table of one operator's state. The receiver of
// the snapshot owns the reference.
type StateRows struct {
	Operator dataflow.OperatorID
	Table    string
	Batch    *batch.Batch
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
	Channels       int   // input channels; 0 for a source
	Empty          []int // channels on which no row will come: they hold no watermark back. Set by the driver
	AtLeastOnce    bool  // barriers do not block
	Source         *SourceConfig
	Links          []LinkConfig
	Outputs        []OutputConfig
}

// LinkConfig is one operator of the chain. Exactly one of Factory and Sink is
// set; the head of a source task has neither.
type LinkConfig struct {
	ID      dataflow.OperatorID
	Factory operator.Factory
	Sink    bool
	Parent  int // the link it is chained to; -1 for the head
}

// Task is one subtask. See the package comment.
type Task struct {
	cfg     Config
	gate    gate
	merge   *eventtime.Merge
	links   []*link
	source  *source
	effects []Effect
	emitted int // batches, by all operators in this Step
	err     error
	done    bool
	stopped bool
}
