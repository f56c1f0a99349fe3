// Package simnet is a mesh.Transport in memory, for tests: partitions, also one
// way, broken streams, delay; no socket, and nothing random but from its seed.
package simnet
