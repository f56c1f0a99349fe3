package file

import (
	"io"
	"os"
	"runtime"
)

// FS is the disk as this package needs it. Errors are those of package os.
type FS interface {
	MkdirAll(dir string) error
	// Open opens a file with flags of package os; a new one is 0644.
	Open(name string, flag int) (File, error)
	Stat(name string) (os.FileInfo, error)
	Remove(name string) error
	// SyncDir makes the entries of a folder durable, where the system can.
	SyncDir(dir string) error
}

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.WriterAt
	io.Seeker
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// Disk is the machine's file system.
type Disk struct{}

// MkdirAll makes a folder and those above it.
func (Disk) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o755) }

// Open opens a file.
func (Disk) Open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		return nil, err // not a File that holds a nil pointer
	}
	return f, nil
}

// Stat follows links.
func (Disk) Stat(name string) (os.FileInfo, error) { return os.Stat(name) }

// Remove removes a file.
func (Disk) Remove(name string) error { return os.Remove(name) }

// SyncDir fsyncs a folder. Windows cannot, and makes entries durable itself.
func (Disk) SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
