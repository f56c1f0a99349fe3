// Package consensus drives the Raft library: it runs a site's group over the
// streams of a mesh.Transport, with log, vote and snapshots on disk, feeds
// committed commands to the replicated state machine, and chooses the voters.
package consensus
