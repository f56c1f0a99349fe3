package file

import (
	"io/fs"
	"os"
	"runtime"

	"github.com/tidemark-mesh/tidemark/store"
)

// Disk is the machine's file system.
type Disk struct{}

var _ store.FS = Disk{}

// MkdirAll makes a folder and those above it.
func (Disk) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o755) }

// Open opens a file; a new one is 0644.
func (Disk) Open(name string, flag int) (store.File, error) {
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		return nil, err // not a File that holds a nil pointer
	}
	return f, nil
}

// Stat follows links.
func (Disk) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// ReadDir lists a folder, sorted by name.
func (Disk) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }

// Remove removes a file.
func (Disk) Remove(name string) error { return os.Remove(name) }

// Rename replaces a file.
func (Disk) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

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
