package disk

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/tidemark-mesh/tidemark/store"
)

// FS is the file system of the machine. Its value is the mode of the files that
// it makes; who may read them may enter the folders that it makes.
type FS fs.FileMode

// Whom the files are for.
const (
	Secret FS = 0o600 // this user
	Group  FS = 0o640 // and its group, for reading
	Shared FS = 0o644 // everybody, for reading
)

var _ store.FS = Group

// Open is os.OpenFile.
func (d FS) Open(name string, flag int) (store.File, error) {
	f, err := os.OpenFile(name, flag, fs.FileMode(d))
	if err != nil {
		return nil, err // not a File that holds a nil pointer
	}
	return f, nil
}

// Stat is os.Stat.
func (FS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// ReadDir is os.ReadDir.
func (FS) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }

// MkdirAll is os.MkdirAll.
func (d FS) MkdirAll(dir string) error {
	return os.MkdirAll(dir, fs.FileMode(d|(d&0o444)>>2))
}

// Remove is os.Remove.
func (FS) Remove(name string) error { return os.Remove(name) }

// Rename is os.Rename.
func (FS) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// SyncDir makes names in dir durable. File systems that have no such call (some
// of a network's) say that it is invalid; there is nothing better to do on them.
// Windows has none either, and needs none: its journal has names in order.
func (FS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(d), d.Close())
}

// IsFull tells whether the disk, or what this user may have of it, is used up.
func IsFull(err error) bool {
	if err == nil {
		return false
	}
	return errors.Is(err, store.ErrFull) || isFull(err) ||
		strings.Contains(err.Error(), syscall.ENOSPC.Error()) // bbolt, when it cannot grow a file, says it in words only
}

// Full makes the error of a full disk a store.ErrFull, and leaves every other as
// it is.
func Full(err error) error {
	if !IsFull(err) || errors.Is(err, store.ErrFull) {
		return err
	}
	return store.Full(err)
}
