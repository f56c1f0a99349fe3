// Package restore owns the question what becomes of saved state in a job: which
// operator takes it up, whether the job can still read it, and which subtask
// gets which rows.
//
// Check compares a manifest with a job and says everything at once, before
// anything is stopped. A Report without refusals has a Plan; it names, for each
// table of each new subtask, the old subtasks to read and the rows to keep. The
// package reads no part itself and starts nothing: whoever restores fetches the
// parts, merges deltas, and hands the rows that the Plan keeps to the tasks.
//
// The rules are in docs/RESTORE.md. Schemas are compared by dataflow/avro;
// manifests are store/manifest's.
package restore
