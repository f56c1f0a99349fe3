//go:build unix

package demo

import (
	"os"
	"syscall"
)

// again puts this program, to run from its beginning with one more variable, in
// the place of this process: what runs in it is over at once, wherever it is. It
// returns if that cannot be.
func again(variable string) {
	path, err := os.Executable()
	if err != nil {
		return
	}
	_ = syscall.Exec(path, os.Args, append(os.Environ(), variable))
}
