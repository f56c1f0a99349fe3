// Package schedule places the slots of a job on agents: constraints first, then
// where the data is, then evenly. It is a pure function, and says for what a
// job waits if there is no room.
package schedule
