package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/store/disk"
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
	return last, writeBoot(dir, last)
}

func writeBoot(dir string, last uint64) error {
	return replace(filepath.Join(dir, "boot"), fmt.Appendln(nil, last))
}

// replace replaces a small file in one step, durably.
func replace(name string, text []byte) error { return full(disk.Replace(disk.Secret, name, text)) }

// full says of a full disk what to do about it.
func full(err error) error {
	if disk.IsFull(err) {
		return fmt.Errorf("%w; make room on the disk of the data folder", err)
	}
	return err
}
