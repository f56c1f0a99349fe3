package file

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/tidemark-mesh/tidemark/store"
)

// Probe says why a durable sink could not begin with its file, as far as can be
// known without making it: the file holds what no checkpoint of the job knows, or it
// or its folder cannot be written. It leaves nothing behind.
func Probe(cfg SinkConfig) error {
	cfg.Durable = true
	s, err := OpenSink(cfg)
	if err != nil {
		return err
	}
	size, err := s.kind()
	if err != nil {
		return err
	}
	if _, known := s.cfg.Placed.Recorded(s.target); !known {
		if err := s.empty(size); err != nil {
			return err
		}
	}
	if size >= 0 {
		return s.usableFile(s.name, os.O_RDWR)
	}
	dir, err := s.nearest()
	if err != nil {
		return err
	}
	return s.usableFolder(dir)
}

// usableFolder makes a file in a folder and removes it. Its name is none that is
// there, whoever made that.
func (s *Sink) usableFolder(dir string) error {
	name := filepath.Join(dir, fmt.Sprintf(".tidemark-probe-%016x", rand.Uint64()))
	f, err := s.cfg.FS.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err == nil {
		err = f.Close()
		if gone := s.cfg.FS.Remove(name); err == nil && !errors.Is(gone, fs.ErrNotExist) {
			err = gone
		}
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) { // the same sentence each time
		err = &fs.PathError{Op: p.Op, Path: dir, Err: p.Err}
	}
	if err != nil {
		return s.fault(err)
	}
	return nil
}

// nearest is the nearest folder of the target that there is.
func (s *Sink) nearest() (string, error) {
	for dir := filepath.Dir(s.name); ; dir = filepath.Dir(dir) {
		_, err := s.cfg.FS.Stat(dir)
		switch {
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir:
			return "", s.fault(err)
		}
	}
}

func (s *Sink) usableFile(name string, flag int) error {
	var f store.File
	f, err := s.cfg.FS.Open(name, flag)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return s.fault(err)
	}
	return nil
}
