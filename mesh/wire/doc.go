// Package wire owns how messages are cut out of a stream: length, version and
// checksum of a frame, and its limits. docs/WIRE.md has golden bytes.
package wire
