// Package window owns the stateful heart of a job: which windows a row belongs
// to, the aggregates that hang on a key and a window, when they fire, and what
// is too late. Its rules are Flink's, in microseconds (R1 to R10 of the
// semantics).
//
// A Spec says what a step is; NewFactory makes operators of it. Time windows
// lie on a grid (grid.go) and are kept as slices, one column table of
// accumulators each (table.go, acc*.go); sliding windows add up slices without
// subtracting any (sliding.go). Sessions, count windows and running aggregates
// keep one slot a key or session in one table. The driver that walks rows and
// marks and resumes after a refused output is in core.go; start there.
//
// Processing time is the same machinery on the arrival clock: a row's time is
// the arrival of the last mark before it, the watermark is that clock minus
// one microsecond. At the end of input pending windows fire, as they do in
// event time.
//
// What the forms of a job cannot say: purging triggers, evictors, delta and
// continuous triggers (E11, E22 to E25).
//
// Nothing here looks at a clock, starts a goroutine or knows a job's text.
//
// It is large because all forms of windows share one table of accumulators, one
// driver and one layout of state; each form has a file of its own.
package window
