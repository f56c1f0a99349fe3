// Package executor performs what coordinator/worker decides: it opens, runs and
// ends attempts of jobs, stores their checkpoints with their copies, and keeps
// the logs of feeds.
package executor
