//go:build unix

package part

import (
	"errors"
	"os"
	"syscall"
)

// syncDir syncs a folder. File systems that have no such call (some of a
// network's) say that it is invalid; there is nothing better to do on them.
func syncDir(d *os.File) error {
	if err := d.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// full tells whether the disk, or what this user may have of it, is used up.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
