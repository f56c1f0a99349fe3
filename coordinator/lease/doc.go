// Package lease owns the permission to act on the world: an agent publishes,
// acknowledges, commits and connects to brokers only while it holds one. It runs
// from the sending of a heartbeat that the leader granted, on a clock that
// counts the time in which the machine slept.
package lease
