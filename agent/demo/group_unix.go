//go:build unix

package demo

import (
	"os/exec"
	"syscall"
)

// apart keeps a terminal's Ctrl-C from a child: the demo ends it in order.
func apart(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// ask has a process end in order.
func ask(c *exec.Cmd) error { return c.Process.Signal(syscall.SIGTERM) }
