// Package state owns keyed state: how a key is hashed into its key group, the
// table that finds a key's slot, the columns that hang on the slots, and the
// kinds of state that a function sees: value, list, map, reducing, aggregating,
// timers; and operator state: list, union, broadcast.
//
// A Store is all of that for one operator of one subtask. Entries are rows of
// typed columns; nothing is boxed, and access allocates nothing. With an
// operator.Backing the Store is a write-back cache: what one key has is read
// and evicted together.
//
// Nothing here knows windows, checkpoints, a clock or a disk; it is pure, and
// a Store or a table belongs to one subtask. docs/STATE.md has the tables'
// formats. Read dataflow/process for the user of a Store, dataflow/window for
// the largest user of KeyTable alone.
//
// It is large because eviction, undo, expiry, timers and snapshots are one
// matter: all of them touch the same entries.
package state
