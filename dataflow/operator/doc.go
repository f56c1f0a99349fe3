// Package operator owns the contract between a task and the operators in its
// chain, and the operators that keep no windows: where, select, flat_map and
// the head of a keyed exchange.
//
// An operator is a loop over columns. It never blocks, reads no clock, starts
// no goroutine and touches no disk; all it knows of time is in the marks.
// Windows are in dataflow/window; the chain is driven by dataflow/task.
package operator
