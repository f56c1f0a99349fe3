package store

import (
	"io"
	"io/fs"
)

// FS is the file system that durable things are written through, so that a
// test can lose power or fill the disk at any write. Errors are those of
// package os. The machine's is store/disk; storetest has one that crashes.
type FS interface {
	// Open takes the flags of os.OpenFile.
	Open(name string, flag int) (File, error)
	Stat(name string) (fs.FileInfo, error)
	ReadDir(dir string) ([]fs.DirEntry, error)
	MkdirAll(dir string) error
	Remove(name string) error
	// Rename replaces newname in one step, as far as readers can see. It is
	// durable when SyncDir of newname's folder has returned.
	Rename(oldname, newname string) error
	// SyncDir makes names made, renamed and removed in dir durable.
	SyncDir(dir string) error
}

// File is an open file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
	// Sync makes what was written durable. After it failed nothing is known of
	// what was written since the Sync before.
	Sync() error
	Close() error
}
