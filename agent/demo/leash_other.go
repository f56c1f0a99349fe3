//go:build !unix

package demo

// again cannot be done here: the process goes on until it exits.
func again(string) {}
