package runtime

import (
	"context"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Collector is whoever takes the checkpoints of a job. Subtasks' goroutines
// call it; it must not block.
//
// With a Collector a job is durable: a reader's Ack comes when a checkpoint that
// holds the position has completed, transactional sinks commit when the
// collector says so (Job.Completed), other sinks at their interval and at each
// barrier, and a source at the end of its input says so (Exhausted) and stays to
// take part in checkpoints until Job.Stop.
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

// Recorder is a Collector of a site, where the commits of sinks are put on
// record.
type Recorder interface {
	Collector
	// SinksCommitted is called in the place of Committed: commits are what the
	// subtask's sensors.Recorders say. It is also called once before the subtask's
	// first step, with the zero id, if any of its sinks is one: with what its
	// targets are then. Whoever passes on this and Taken keeps their order: what
	// was committed before a barrier is on record before its checkpoint is
	// complete.
	SinksCommitted(s dataflow.SubtaskID, id dataflow.CheckpointID, commits []SinkCommit)
}

// Watcher is a Collector that wants to know when rows come into sinks.
type Watcher interface {
	Collector
	// Flowed: the subtask has the first row in one of its sinks that show rows at
	// once, or, with commits, in one that commits them with a checkpoint. At most once
	// each; it must not block.
	Flowed(s dataflow.SubtaskID, commits bool)
}

// SinkCommit is how far a target of a sink is committed.
type SinkCommit struct {
	Operator dataflow.OperatorID
	sensors.Commit
}

// SnapshotTaken is the state of one subtask at one barrier.
type SnapshotTaken struct {
	Subtask   dataflow.SubtaskID
	Barrier   dataflow.Barrier
	State     []task.StateRows      // the receiver owns the references
	Whole     []dataflow.OperatorID // whose rows are all that they have although the barrier is not Full, as nothing is there that they could go on from
	Positions []SplitPosition       // of a source; splits that were never read are left out
	Pause     time.Duration         // how long the task stood still for it
	Align     time.Duration         // from the first to the last barrier
	Wrote     time.Time             // when a sink that shows rows at once got the last one; zero: none did
	Err       error                 // the snapshot could not be taken; nothing else but Subtask and Barrier is set
}

// SplitPosition is where a source's split goes on.
type SplitPosition = task.SplitPosition

// TableOf is a table of an operator's state that subtasks of a job have: their
// operators', those that the task keeps itself (its inputs' watermarks, a
// source's splits), and a sink's pending rows.
type TableOf = task.TableOf

// Restore gives a subtask its state back: it calls Give with the rows of one
// table after the other, in the order of Job.Tables, any number of batches each.
// Deltas have been merged, and the rows are those that the
// table's spread gives to the subtask. It is called before anything runs, for
// several subtasks at once.
type Restore func(id dataflow.SubtaskID, to Restored) error

// Restored is what takes a subtask's state back.
type Restored struct {
	// Give takes rows of a table; it borrows them.
	Give func(op dataflow.OperatorID, table string, b *batch.Batch) error
	// Expect is told about how many rows of a table are going to come, before the
	// first of them, so that there is room for them at once. Nil: it is of no use.
	Expect func(op dataflow.OperatorID, table string, rows int64)
}

// Backing is the disk of one operator of one subtask. The subtask's goroutine
// calls it.
type Backing interface {
	operator.Backing
	// Sync performs what was noted since the last Sync: it is called when the
	// operator needs what it asked for, and between batches.
	Sync(ctx context.Context) error
	Close() error
}
