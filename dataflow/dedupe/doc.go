// Package dedupe owns the memory by which a source knows readings again that
// were delivered twice: ids, each with the arrival of the first row that had it.
//
// A Filter says which rows of a batch are new. It is a function of the order of
// the rows and their arrivals alone, so a replay decides the same; what it
// remembers is state, by split. It never looks at a clock, and does not know
// what becomes of the rows: the head of a source task (dataflow/task) takes the
// duplicates out and counts them, before event time is assigned.
package dedupe
