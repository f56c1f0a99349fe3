// Package node is the agent as a daemon: it builds everything, starts it in
// order, and stops it in reverse.
package node
