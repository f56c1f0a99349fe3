// Package jobmanager is a site's replicated state machine: Apply takes the
// committed commands one after the other, and every agent of the site, voter or
// not, comes to the same coordinator.State.
//
// It is pure and deterministic: no clock but Command.At, no random number, no
// order of a map. It decides nothing that a leader could decide: it checks that
// a command still holds, changes the state, and says what changed. Each agent
// compares what changed with what it runs (coordinator/worker); the leader
// decides what is next (coordinator/leader).
package jobmanager
