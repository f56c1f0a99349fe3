// Package state owns keyed state: how a key is hashed into its key group, the
// table that finds a key's slot, and the columns that hang on the slots.
//
// Nothing here knows windows or checkpoints; it is pure, and one table belongs
// to one subtask. Read dataflow/window for its largest user.
package state
