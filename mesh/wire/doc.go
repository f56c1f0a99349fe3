// Package wire owns how messages are cut out of a stream: the preface that says
// what a stream is, and frames with their length, kind and checksum. What a
// frame's payload means is its owner's. docs/WIRE.md has golden bytes.
//
// It opens nothing and never waits by itself: a Reader reads from, and a Writer
// writes to, what it is given. Both use their memory again, so nothing is
// allocated for a frame. Read mesh/link or mesh/simnet next for the streams.
package wire
