// Package simnet is a mesh.Transport in memory, for tests: links that are cut,
// also one way, streams that break, delay. It has no socket and draws nothing at
// random, and it waits only for conditions and timers, so that time is virtual
// inside testing/synctest.
//
// Suite is the contract of mesh.Transport as tests; mesh/link passes it too.
package simnet
