// Package runtime drives tasks: one goroutine a subtask, which reads its inbox
// or its source, calls task.Step and performs the effects. It owns the bounded
// channels between subtasks of one process, the ends of those that lead to
// others, the commit interval of sinks, and the stops.
//
// It decides nothing about rows, time or state; that is dataflow/task. It opens
// no connector; agent hands them in.
//
// Two stops: Stop ends the sources and lets everything in flight arrive
// (drain); ending the context of Run stops now.
//
// A job may be spread over processes: each runs its part of the same plan
// (Subtask.Remote), in two phases, Open and RunPart, and whoever wires it carries
// the channels between them. Read message.go and facts.go for that.
//
// Checkpoints: durable.go has what a durable job promises whoever takes them,
// control.go how subtasks are told of them, commit.go what sinks do, restore.go
// how a job goes on from one.
package runtime
