package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidemark-mesh/tidemark/store"
)

// Temp is behind the name of a file that is being replaced. One that a crash left
// is gone with the next Replace of its file; a folder whose files are not
// replaced again is cleared of them when it is opened.
const Temp = ".tmp"

// Replace makes data the content of a file, in one step and durably: after a
// crash it has all of data or what it had before, and when Replace returned, all
// of data. After an error it has either, and nothing is left of the attempt. A
// full disk is store.ErrFull.
func Replace(fsys store.FS, name string, data []byte) error {
	return ReplaceWith(fsys, name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// ReplaceWith is Replace with what write writes.
func ReplaceWith(fsys store.FS, name string, write func(io.Writer) error) error {
	tmp := name + Temp
	// One that a crash left may be somebody's to read.
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return Full(err)
	}
	if err = write(io.NewOffsetWriter(f, 0)); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		_ = fsys.Remove(tmp)
		return Full(err)
	}
	return Full(fsys.SyncDir(filepath.Dir(name)))
}

// Read is a small file's content; one of more than limit bytes is an error. The
// error of one that is not there wraps fs.ErrNotExist.
func Read(fsys store.FS, name string, limit int64) (_ []byte, err error) {
	f, err := fsys.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: %w: it has more than %d bytes", name, store.ErrCorrupt, limit)
	}
	return data, err
}

// MkdirAll makes a folder, and those above it, durably: also those that are
// there, whose names a crash could still take back.
func MkdirAll(fsys store.FS, dir string) error {
	if err := fsys.MkdirAll(dir); err != nil {
		return Full(err)
	}
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if err := fsys.SyncDir(d); err != nil && !errors.Is(err, fs.ErrPermission) { // those above need not be ours
			return Full(err)
		}
		if filepath.Dir(d) == d {
			return nil
		}
	}
}

// RemoveAll removes a folder with all that is in it; one that is not there is
// fine. It is not durable before SyncDir of the folder around it.
func RemoveAll(fsys store.FS, dir string) error {
	list, err := fsys.ReadDir(dir)
	for _, e := range list {
		remove := fsys.Remove // of a link the link alone
		if e.IsDir() {
			remove = func(name string) error { return RemoveAll(fsys, name) }
		}
		err = errors.Join(err, remove(filepath.Join(dir, e.Name())))
	}
	if err == nil {
		err = fsys.Remove(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
