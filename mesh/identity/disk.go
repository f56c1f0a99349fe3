package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// FS is the file system that the identity is kept on, so that a test can lose
// power at any write. It is store.FS with modes: secrets are made unreadable to
// others, not changed to be so. Errors are those of package os.
type FS interface {
	Open(name string, flag int, mode fs.FileMode) (File, error)
	Stat(name string) (fs.FileInfo, error)
	ReadDir(dir string) ([]fs.DirEntry, error)
	MkdirAll(dir string, mode fs.FileMode) error
	Remove(name string) error
	Rename(oldname, newname string) error // replaces newname in one step
	SyncDir(dir string) error             // makes names in dir durable
}

// File is an open file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// Disk is the file system of the machine.
type Disk struct{}

var _ FS = Disk{}

// Open is os.OpenFile.
func (Disk) Open(name string, flag int, mode fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, mode)
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
func (Disk) MkdirAll(dir string, mode fs.FileMode) error { return os.MkdirAll(dir, mode) }

// Remove is os.Remove.
func (Disk) Remove(name string) error { return os.Remove(name) }

// Rename is os.Rename.
func (Disk) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// SyncDir syncs a folder, where the system has a call for that.
func (Disk) SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // its journal has names in order
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || strings.Contains(fmt.Sprint(err), "invalid argument") {
		err = nil // a file system without that call
	}
	return errors.Join(err, d.Close())
}

const (
	secretMode = 0o600
	folderMode = 0o700
	maxFile    = 64 << 10 // far above what any of the files needs
	temporary  = ".tmp"
)

// files reads and writes the files of one folder.
type files struct {
	fs  FS
	dir string
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// makeDir makes the folder, and the data folder around it, durably.
func (f files) makeDir() error {
	data := filepath.Dir(f.dir)
	_, missing := f.fs.Stat(data)
	if err := f.fs.MkdirAll(f.dir, folderMode); err != nil {
		return err
	}
	if missing != nil {
		if err := f.fs.SyncDir(filepath.Dir(data)); err != nil {
			return err
		}
	}
	return f.fs.SyncDir(data)
}

// write replaces a file in one step: after a crash it is the old one or the new
// one.
func (f files) write(name string, data []byte) error {
	tmp := f.path(name) + temporary
	// One that a crash left has an unknown mode.
	if err := f.fs.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w, err := f.fs.Open(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, secretMode)
	if err != nil {
		return err
	}
	_, err = w.WriteAt(data, 0)
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	if err := f.fs.Rename(tmp, f.path(name)); err != nil {
		return err
	}
	return f.fs.SyncDir(f.dir)
}

// read returns a file's bytes; fs.ErrNotExist. secret: only this user may be
// able to read it.
func (f files) read(name string, secret bool) (data []byte, err error) {
	st, err := f.fs.Stat(f.path(name))
	if err != nil {
		return nil, err
	}
	if mode := st.Mode().Perm(); secret && mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s has mode %04o: %w: find out who did, then chmod 600 it", f.path(name), mode, ErrOpen)
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, more than it can have: %w", f.path(name), st.Size(), ErrDamaged)
	}
	r, err := f.fs.Open(f.path(name), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(io.NewSectionReader(r, 0, maxFile))
}

// removeTemporary removes what crashes left.
func (f files) removeTemporary() error {
	list, err := f.fs.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		if filepath.Ext(e.Name()) == temporary {
			err = errors.Join(err, f.fs.Remove(f.path(e.Name())))
		}
	}
	return err
}
