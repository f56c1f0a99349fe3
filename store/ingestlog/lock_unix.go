//go:build unix && !solaris && !aix

package ingestlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// lock takes the folder: for one writer, or for readers only. The system lets it
// go when the process ends, however it ends.
func lock(dir string, readOnly bool) (*os.File, error) {
	path := filepath.Join(dir, "LOCK")
	flag, how := os.O_RDWR|os.O_CREATE, syscall.LOCK_EX
	if readOnly {
		flag, how = os.O_RDONLY, syscall.LOCK_SH
	}
	f, err := os.OpenFile(path, flag, 0o644)
	if err != nil {
		if readOnly && errors.Is(err, os.ErrNotExist) {
			return nil, nil // no writer of this version was ever here
		}
		return nil, fmt.Errorf("ingestlog: %w", disk.Full(err))
	}
	err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("ingestlog: %s: %w; stop the job that writes it first", dir, store.ErrLocked)
	}
	return nil, fmt.Errorf("ingestlog: locking %s: %w", path, err)
}

// unlock gives up the lock of a file, whoever has it open still. A file that is
// closed has none.
func unlock(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
