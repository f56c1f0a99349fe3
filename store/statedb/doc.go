// Package statedb owns the disk of keyed state that is larger than memory: an
// operator.Backing in a bbolt file, one for each operator of each subtask.
//
// The file is scratch. It holds what the operator's memory has no room for, and
// nothing that is not in the last checkpoint and the input since: it is never
// synced, made anew at Open and removed at Close, and after a crash the state is
// rebuilt from the checkpoint. So it promises nothing about crashes, and a file
// that is found is thrown away.
//
// A full disk, or a file at its limit, is an error of Sync, Get or Scan, which
// fails the job before anything wrong is emitted; it is never a row less.
//
// It knows nothing of keys, states and what the bytes mean: dataflow/state does.
package statedb
