// Package task owns one subtask: the gate its inputs come through, the chain
// of operators in it, and the outputs its rows leave by. It is the pure core of
// the engine: Step takes one input and returns what must be done about it.
//
// # The caller's duties
//
// One goroutine (dataflow/runtime) drives a task:
//
//  1. Build it with New. Of a job that goes on from a checkpoint: give it its
//     rows with Restore, table by table in the order of Tables; set the reader
//     to Positions; if any task of the job says Moved, tell all tasks
//     SplitsMoved; and let Begin be the first Input.
//  2. Then call Step with one Input after another. Perform the effects of a
//     Step in order before the next Step. A Send or Write carries a reference to
//     its batch, and a Snapshot those of its rows, which the performer releases
//     after use. The slice of effects is valid until the next Step.
//  3. After an effect Again, the next input is Resume; effects are cut into
//     pieces so that a window over a million keys does not fill the memory. An
//     effect NeedState before it is to be performed first, like all others.
//  4. After Block, deliver nothing of that channel until Unblock: its data
//     waits where it is, and that is the back-pressure.
//  5. After a Trigger to halt or to drain, and after Exhausted, read nothing;
//     Triggers go on until Stop.
//  6. After Fail or Finished, call Close and nothing else.
//
// The task starts no goroutine, reads no clock and touches no disk, so a whole
// job runs in one test from one seed. Read gate.go for barriers, inputs.go and
// splits.go for what a checkpoint holds beside the operators' state, chain.go for
// the path of a batch, source.go for the path of a raw record.
package task
