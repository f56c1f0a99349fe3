package operator

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

// RowUndoer is an operator with state in which a row that panicked leaves
// nothing behind: one that calls code of a user, row by row.
type RowUndoer interface {
	// UndoRow is called when Process or Resume has panicked. The operator takes
	// back what the row at hand has done so far, to state, timers, output and
	// counters; the rows before it stay done. It returns the batch that it works
	// on and the row's position in it; the caller borrows the batch until the next
	// call. Then the row is rejected, and Resume goes on behind it, as after More.
	//
	// ok is false when the panic was not in the middle of a row, or cannot be
	// undone: then the job fails.
	UndoRow() (b *batch.Batch, row int, ok bool)
}
