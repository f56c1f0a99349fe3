// Package consensus drives the Raft library: it runs a site's group over the
// streams of a mesh.Transport, with log, vote and snapshots on disk, feeds
// committed commands to the replicated state machine, and chooses the voters.
//
// It never learns what a command means: Machine does. It decides nothing about
// jobs, and never who belongs to the site: AddNonvoter and Remove are called by
// who does. Begin with node.go; the rules by which voters are chosen are in
// voters.go, the files in logstore.go; docs/RAFT.md says all of it for people.
package consensus
