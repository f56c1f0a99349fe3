//go:build !linux

package consensus

import "os"

// allocate makes the first size bytes of f have blocks on disk.
func allocate(f *os.File, size int64) error { return zeroFill(f, size) }
