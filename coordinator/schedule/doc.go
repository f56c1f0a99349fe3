// Package schedule places the slots of a job on agents: constraints first, then
// where the subtasks ran and their data is, then evenly. It chooses who owns and
// who copies a feed's log. It is made of pure functions, and says for what a job
// waits if there is no room.
//
// Hard are: a slot is free, the memory is there, labels and site are as the
// constraints say, and a pinned subtask is at its pin. A placement is found
// whenever there is one.
//
// The subtasks of a slot go together. Only where no agent can take them all
// (one is pinned to n1, another to n2 or constrained to a label that n1 has not)
// the slot is cut in pieces, each of which takes a slot of its own: it costs a
// slot, and the job runs.
//
// Read place.go, then feed.go; graph.go makes requests of execution graphs.
package schedule
