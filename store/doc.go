// Package store is the vocabulary of what survives a crash: parts (immutable
// files named by their content), the file system that everything durable is
// written through, and the kinds of errors a store may meet.
//
// It stores nothing itself. Parts are in store/part, the manifests that name
// them in store/manifest, the ingest log in store/ingestlog, state larger than
// memory in store/statedb.
package store
