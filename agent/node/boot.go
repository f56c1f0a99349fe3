package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tidemark-mesh/tidemark/store/part"
)

// nextBoot numbers the processes of a data folder, durably: each is greater than
// all before it. A clock would not do: a box without a battery wakes up in 1970.
func nextBoot(dir string) (uint64, error) {
	name := filepath.Join(dir, "boot")
	text, err := os.ReadFile(name)
	last := uint64(0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, err
	default:
		if last, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil {
			return 0, fmt.Errorf("%s: %q is no number of a start; write one that is greater than any the others have seen of this agent, such as 1000000", name, text)
		}
	}
	last++
	return last, replace(name, fmt.Appendln(nil, last))
}

// replace replaces a small file in one step, durably.
func replace(name string, text []byte) error {
	temp := name + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, name)
	}
	if err == nil {
		err = part.Disk{}.SyncDir(filepath.Dir(name))
	}
	return full(err)
}

// full says of a full disk what to do about it.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w; make room on the disk of the data folder", err)
	}
	return err
}
