// Package file owns the connectors to files and standard streams: the bounded
// source (a path, a glob, stdin, gzip), the file sink whose commits are whole,
// the writer to stdout, and the sink that only counts.
//
// It cuts bytes into records and puts encoded bytes into files. It never
// decodes a record nor encodes a row: the cut is a SplitFunc, the encoding an
// Encoder, both given by the caller. Regular files are reached through a
// store.FS, so that a test can fill the disk, or lose power, at any write.
//
// Read reader.go for the source; sink.go for the sink, transaction.go for its
// part in checkpoints, recover.go for what becomes of the files at a restart;
// docs/FILES.md for what a user may rely on.
package file
