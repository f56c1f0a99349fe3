//go:build unix

package node

import "golang.org/x/sys/unix"

// freeBytes is what a user may still write where dir is; 0: it is not known.
func freeBytes(dir string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0
	}
	return int64(s.Bavail) * int64(s.Bsize)
}
