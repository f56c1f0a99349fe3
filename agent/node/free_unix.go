//go:build unix

package node

import "golang.org/x/sys/unix"

// freeBytes is what a user may still write where dir is; if that is known.
func freeBytes(dir string) (free int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
