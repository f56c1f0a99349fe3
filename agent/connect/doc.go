// Package connect makes what a job names: the readers of its sources, the
// writers of its sinks, and the disk under state that is larger than memory, as
// dataflow/runtime wants them. It is for a job in one process and for the part
// of one that runs on an agent alike.
//
// It opens nothing itself, and it decides nothing about rows, time or
// checkpoints. Feeds are the caller's.
package connect
