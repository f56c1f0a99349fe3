// Package leader decides what a site's JobManager does: which agents are there,
// when a job is deployed, begun, failed, deployed again and ended, which
// checkpoints are taken (one coordinator/checkpoint machine a job), who owns the
// epochs of feeds' logs, and when all that is safe.
//
// It is pure: Step takes one event with its time and returns what must be done.
// It has the state of one term: a new leader begins with an empty one, learns
// from the replicated state and from the Hello of each agent what runs, and
// goes on; tasks notice nothing.
//
// It is a little large because agents, jobs and feeds' logs are decided in one
// step, from one look at the state; each has files of its own.
package leader
