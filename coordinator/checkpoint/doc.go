// Package checkpoint decides when a job's checkpoints and savepoints are taken,
// when they count, when they are given up, and which of them are kept.
//
// It is pure: Step takes one event with its time and returns what must be done.
// It stores nothing and sends nothing; agent performs the effects, and
// dataflow/runtime carries the barriers. One Coordinator looks after one attempt
// of a job; the next attempt has a new one with a higher fencing token.
//
// # The caller's duties
//
//  1. Give it every event in the order in which they happened, and perform the
//     effects of a Step in order before the next Step.
//  2. Call Step with a Tick when Wake says so, or later.
//  3. After Trigger, report one Stored or Failed for each subtask: Stored when
//     the subtask's rows are on disk and all that it took for earlier barriers
//     too. Rows that are gone for good are reported with Lost, whichever barrier
//     they belonged to.
//  4. After Write, report Written when the manifest is on disk, or Failed. If
//     only the savepoint of a checkpoint cannot be written, report Written, and
//     tell who asked for it.
//  5. After Fail, tear the attempt down. After Stop, let the job end.
//
// Read event.go for the words, coordinator.go for the states.
package checkpoint
