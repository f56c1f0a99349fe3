package part

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/store"
)

// Lock is the right to write to a state directory. It ends with the process,
// however that ends.
type Lock struct{ f *os.File }

// LockDir makes dir if need be and takes its lock, the file LOCK. If another
// process has it, the error is store.ErrLocked and names the process.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, kinds(err, "making", dir)
	}
	name := filepath.Join(dir, "LOCK")
	f, err := lockFile(name)
	if err != nil {
		return nil, fmt.Errorf("state directory %s: %w%s", dir, err, holder(name))
	}
	if err := f.Truncate(0); err == nil { // who holds it is only a courtesy
		_, _ = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	}
	return &Lock{f: f}, nil
}

// holder names the process that wrote itself into the file, if it can be read.
func holder(name string) string {
	b, err := os.ReadFile(name)
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}

// Close gives the lock up. The file stays: removing it would let two processes
// lock two files of one name.
func (l *Lock) Close() error { return l.f.Close() }

var errLocked = fmt.Errorf("%w; stop it, or use another directory", store.ErrLocked)
