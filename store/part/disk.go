package part

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tidemark-mesh/tidemark/store"
)

// Disk is the file system of the machine. What it makes only its user, and its
// group for reading, can see.
type Disk struct{}

var _ store.FS = Disk{}

// Open is os.OpenFile.
func (Disk) Open(name string, flag int) (store.File, error) {
	f, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Stat is os.Stat.
func (Disk) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// ReadDir is os.ReadDir.
func (Disk) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }

// MkdirAll is os.MkdirAll.
func (Disk) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o750) }

// Remove is os.Remove.
func (Disk) Remove(name string) error { return os.Remove(name) }

// Rename is os.Rename.
func (Disk) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// SyncDir makes names in dir durable. Windows has no call for that, and needs
// none: its journal has them in order.
func (Disk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(d), d.Close())
}

// kinds adds the store's kind to an error of the disk.
func kinds(err error, doing, name string) error {
	var of *fs.PathError
	if errors.As(err, &of) && of.Path == name {
		err = of.Err // the name is said once
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrMissing):
		return err
	case full(err):
		return fmt.Errorf("%s %s: %w", doing, name, store.Full(err))
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: %w: %w", doing, name, store.ErrMissing, err)
	}
	return fmt.Errorf("%s %s: %w", doing, name, err)
}
