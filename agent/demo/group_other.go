//go:build !unix

package demo

import "os/exec"

// apart does nothing: there are no process groups to part.
func apart(*exec.Cmd) {}

// ask ends a process at once: there is no way to ask.
func ask(c *exec.Cmd) error { return c.Process.Kill() }
