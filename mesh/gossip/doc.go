// Package gossip drives memberlist: who is there, where, and who seems dead.
//
// A Pool is a set of agents that hear each other: those with the same key and
// the same label. It decides nothing about jobs or voters: what it says is a
// hint that comes soon, and may be wrong; leases and Raft decide. It keeps
// nothing on disk. docs/SECURITY.md says what its key protects.
package gossip
