// Package sim runs the cores of a whole site from one seed: no clock, no socket,
// no disk, no goroutine. Its checkers judge every step.
//
// It stands for the drivers: agent/node (process.go, office.go), the consensus
// library (raft.go), links (stream.go), agent/executor with dataflow/runtime
// (attempt.go, subtask.go, channel.go, shares.go), agent/feed (feed.go,
// owner.go), the broker. What they drive is real. docs/SIMULATION.md says which
// is which, and how to replay a seed.
package sim
