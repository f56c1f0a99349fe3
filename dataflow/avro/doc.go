// Package avro owns the bytes of state: rows of tables as Avro object container
// files, called parts, and what may change between the schema that wrote them
// and the one that reads them. Any Avro tool reads a part. Equal rows in equal
// order make equal bytes, so that a part can be named by its digest and merged
// again elsewhere.
//
// It never touches a disk and knows no checkpoint: who calls it gives it a
// writer or a reader. Damaged bytes are an error that wraps store.ErrCorrupt,
// never a panic, and take no more memory than they have bytes, times a small
// constant.
//
// docs/PART_FORMAT.md has the bytes. Read store/part next.
package avro
