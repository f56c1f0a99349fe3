package runtime

import (
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
)

// Collector is whoever takes the checkpoints of a job. Subtasks' goroutines
// call it; it must not block.
//
// With a Collector a job is durable: nothing is acknowledged to sources by
// commit intervals, transactional sinks commit when the collector says that a
// checkpoint completed (Job.Completed), and a source at the end of its input
// says so (Exhausted) and stays to take part in checkpoints until Job.Stop.
type Collector interface {
	// Taken is one subtask's share of a checkpoint.
	Taken(SnapshotTaken)
	// Exhausted: the source subtask has sent all it ever will, the mark of the
	// end included. Once a subtask.
	Exhausted(dataflow.SubtaskID)
	// Committed: the subtask's sinks have committed all transactions up to id's.
	// Only from subtasks that have transactional sinks.
	Committed(dataflow.SubtaskID, dataflow.CheckpointID)
}

// SnapshotTaken is the state of one subtask at one barrier.
type SnapshotTaken struct {
	Subtask   dataflow.SubtaskID
	Barrier   dataflow.Barrier
	State     []task.StateRows // the receiver owns the references
	Positions []SplitPosition  // of a source
	Pause     time.Duration    // how long the task stood still for it
	Align     time.Duration    // from the first to the last barrier
	Err       error            // the snapshot could not be taken; nothing else is set
}

// SplitPosition is where a source's split goes on.
type SplitPosition struct {
	Operator dataflow.OperatorID
	Split    string // its name
	Offset   int64
	Ended    bool
}

// TableOf is a table of an operator's state that subtasks of a job have. The
// tables that the task keeps itself (its inputs' watermarks, a source's splits
// and headers, a sink's pending rows) are among them, under the operator at
// whose place they are kept; their names begin with "task.".
type TableOf struct {
	Operator dataflow.OperatorID
	operator.StateTable
}
