//go:build !unix

package disk

import (
	"errors"
	"os"
	"syscall"
)

func syncDir(*os.File) error { return nil }

// isFull: ERROR_HANDLE_DISK_FULL and ERROR_DISK_FULL of Windows, and what tests
// make.
func isFull(err error) bool {
	var no syscall.Errno
	return errors.Is(err, syscall.ENOSPC) || errors.As(err, &no) && (no == 39 || no == 112)
}
