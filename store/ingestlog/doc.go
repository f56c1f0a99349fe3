// Package ingestlog owns the durable log of one feed: what came from a broker,
// in the order in which it came, with the arrival clock, so that a job reads it
// again from any offset and decides the same.
//
// A log has lanes, each a split with offsets of its own that number all its
// entries: messages, ticks of its clock, moments from which it is deaf, and the
// connector's notes. Append takes them, Commit makes them durable with one
// group commit, and only then readers see them and the connector may
// acknowledge. Segments are bbolt files; a whole one is deleted when retention
// lets it go.
//
// It never talks to a broker, never decodes a payload, and never reads a clock:
// time is what the records say. It keeps no cursor of a reader; who needs
// entries pins them.
//
// Read log.go for what the owner calls, commit.go for what happens when the
// disk is full or fails, reader.go for reading, block.go for the bytes;
// docs/INGEST_LOG.md has the format and the guarantees. It is large
// because the format's writer and reader are not parted.
package ingestlog
