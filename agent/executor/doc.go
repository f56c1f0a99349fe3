// Package executor performs what coordinator/worker decides: it opens, runs and
// ends attempts of jobs on this agent, stores their checkpoints with their
// copies, keeps the manifests of what the site keeps, and passes on what the
// logs of feeds are to be.
//
// It decides nothing: when a checkpoint is taken, what is deployed where, who
// owns a log. It answers with events, of which attempt.go says which follow what.
//
//	DIR/out                     files of sinks whose path is relative
//	DIR/jobs/JOBID/checkpoints  manifests of the job's kept checkpoints, whoever ran it
//	DIR/jobs/JOBID/sinks        what transactional MQTT sinks keep
//	DIR/jobs/JOBID/scratch      state that memory has no room for; of no use later
//	DIR/savepoints, DIR/parts   agent/durable's
//
// Read executor.go for the doors, attempt.go for the life of an attempt,
// prepare.go for how it is opened, shares.go for its checkpoints, kept.go for
// what is kept and collected, feeds.go for logs.
package executor
