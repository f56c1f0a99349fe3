// Package channel carries the channels between subtasks of different agents over
// streams of the mesh: each channel its own stream, so that one that is full
// holds up no other.
package channel
