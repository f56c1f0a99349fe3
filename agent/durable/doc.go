// Package durable keeps jobs of one process on disk: the state folder with its
// lock, the attempts of each job, its checkpoints and everybody's savepoints,
// and the goroutine that takes checkpoints of a running job.
//
//	DIR/LOCK                                one process at a time
//	DIR/parts/ab/<sha256>.avro              state, of all jobs
//	DIR/jobs/JOB/attempt                    the last fencing token that was given out
//	DIR/jobs/JOB/checkpoints/NAME.manifest
//	DIR/savepoints/NAME.manifest
//	DIR/feeds/NAME/                         agent/feed's
//
// It decides nothing about when a checkpoint is due or counts
// (coordinator/checkpoint does) and nothing about which rows go where when a job
// is restored (dataflow/restore does). It never touches rows of a running task
// but those that it was handed. Read state.go, then checkpointer.go for a
// checkpoint's way to the disk, recover.go for the way back; docs/CHECKPOINTS.md
// for what a user may rely on.
package durable
