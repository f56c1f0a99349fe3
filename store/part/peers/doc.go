// Package peers carries parts between the nodes of a site: it pushes those of a
// checkpoint to where its copies are to be, and fetches those that a job is
// restored from.
//
// It decides nothing: whom to push to, and what a checkpoint needs, its callers
// know. A part that was pushed, or was found there, is held at the receiver
// (part.Holds) before it is promised, so that it is there when the checkpoint
// completes. docs/PARTS_PROTOCOL.md has the bytes; frame.go is its code, serve.go
// the answering end, peers.go the asking one.
package peers
