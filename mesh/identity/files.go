package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// maxFile is far above what any of the files needs.
const maxFile = 64 << 10

// files reads and writes the files of one folder.
type files struct {
	fs  store.FS
	dir string
}

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// write replaces a file in one step: after a crash it is the old one or the new
// one.
func (f files) write(name string, data []byte) error {
	return disk.Replace(f.fs, f.path(name), data)
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
	return disk.Read(f.fs, f.path(name), maxFile)
}

// removeTemporary removes what crashes left.
func (f files) removeTemporary() error {
	list, err := f.fs.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		if filepath.Ext(e.Name()) == disk.Temp {
			err = errors.Join(err, f.fs.Remove(f.path(e.Name())))
		}
	}
	return err
}
