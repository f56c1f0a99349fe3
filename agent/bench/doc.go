// Package bench owns the benchmarks of `tidemark bench`: each runs the engine
// and, in turn with it, the thing it is measured
// against, in the same process or each in one of its own, and reports the ratio of the medians.
//
// A benchmark is never a test: nothing fails because a machine is slow. What
// the ids mean, and the figures, are in docs/BENCHMARKS.md. Read bench.go for
// how figures are made, rows.go for the common input, job.go and session.go for
// the job that most of them run, child.go for parts that are processes, then a
// file for each.
//
// It is large because each benchmark brings its own rival to be measured against;
// none knows of another.
package bench
