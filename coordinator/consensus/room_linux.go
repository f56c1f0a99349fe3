package consensus

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate makes the first size bytes of f have blocks on disk. The file is as
// long afterwards, and its bytes are as they were.
func allocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return zeroFill(f, size)
		case err != nil:
			return os.NewSyscallError("fallocate", err)
		default:
			return f.Sync()
		}
	}
}
