// Package batch owns the columns: what a row looks like, how a few thousand of
// them travel together, and how their bytes look on a wire.
//
// A Batch is up to MaxRows rows in Arrow's layout (values, offsets + bytes,
// validity bits), each with an event time, and between the rows the marks that
// carry watermarks and the arrival clock. Operators are loops over columns;
// nothing here is boxed, and nothing is allocated for a row.
//
// # Ownership
//
//  1. A Batch comes from a Pool with one reference. Whoever holds the last
//     reference calls Release, and its memory goes back to the pool.
//  2. Until it is handed on for the first time, its maker may write to it.
//     After that nobody may: a batch may be read in several places at once.
//  3. A callee that is passed a batch borrows it until it returns. To keep it
//     longer it calls Retain, and Release later.
//  4. A batch made with Derive shares columns with its parent and holds a
//     reference to it; releasing the child releases that reference.
//
// # Rows and positions
//
// Columns, Times, Kinds and Hashes have Rows entries, by position. Sel, if not
// nil, lists the positions that are really there, ascending; a filter makes
// one and copies nothing. Marks speak of positions too, so a filter leaves
// them alone. What stands at a position that Sel leaves out is undefined but
// readable.
//
// The package never looks at a clock, never starts a goroutine and knows no
// operator. Read dataflow/operator next.
package batch
