// Package worker decides what an agent does: it compares what the replicated
// state says should run here with what runs, and says what to open, begin, tell,
// and end; it keeps the logs of feeds at their epochs, and the lease. It is the
// other end of coordinator/leader.
//
// It is pure: Step takes one event with its time and returns what must be done.
package worker
