// Package channel carries the channels between subtasks of different agents over
// streams of the mesh: each channel its own stream, so that one that is full
// holds up no other.
//
// A Sender has the sending ends of an attempt's channels on an agent: each an
// Outlet for dataflow/runtime, with a small ring and a goroutine that encodes
// and writes. Handler is the receiving end: one goroutine a stream, which
// decodes into the job's pool and waits for room in the subtask's inbox; as it
// does not read meanwhile, the stream's flow control stops the sender.
//
// A channel is delivered when the receiver has said so behind its end. Anything
// else that ends it is a failure of the attempt: a channel is never mended,
// since nobody knows which rows of it arrived. frame.go has the bytes, as
// docs/WIRE.md describes them. The package decides nothing about attempts: whom
// to let in, and what to do about a failure, is the caller's.
package channel
