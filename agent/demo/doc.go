// Package demo is `tidemark demo`: an embedded broker, a simulated cold-chain
// fleet with every fault, a job that watches it, a live view, and at the end a
// comparison of every window with what the fleet really sent.
//
// Nothing in it is shown that was not computed by the engine: the view reads
// the job's counters and its output. Read demo.go, then view.go.
package demo
