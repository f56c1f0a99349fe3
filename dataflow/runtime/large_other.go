//go:build !linux

package runtime

// largePages asks the system for large pages; this one is not asked.
func largePages() func(memory []byte) { return nil }
