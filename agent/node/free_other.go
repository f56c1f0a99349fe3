//go:build !unix

package node

// freeBytes is not known here; agents are for Linux.
func freeBytes(string) (int64, bool) { return 0, false }
