//go:build unix

package part

import (
	"errors"
	"os"
	"syscall"
)

func syncDir(d *os.File) error { return d.Sync() }

// full tells whether the disk, or what this user may have of it, is used up.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
