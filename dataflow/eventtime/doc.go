// Package eventtime owns what is known of time in a stream: how a source makes
// a watermark out of its rows, markers, devices and arrival times (Source), and
// how an operator with several inputs combines theirs (Merge).
//
// Its only clocks are the watermark and the arrival clock, both of which come
// with the rows, never go back, and are in every checkpoint; it never asks what
// time it is, so the same input always gives the same marks. It fires no
// windows: dataflow/window does. Read docs/EVENT_TIME.md for the rules as a
// user sees them, then merge.go and source.go.
package eventtime
