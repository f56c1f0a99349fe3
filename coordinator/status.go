package coordinator

import "slices"

// Status is what a job is at.
type Status uint8

// The states of a job.
//
//	created     it was accepted; nothing runs
//	restoring   its state is read, its connectors are opened
//	running     rows flow
//	restarting  an attempt failed, and another begins after a while
//	stopping    it was told to stop, and takes the savepoint that it stops with
//	stopped     it can be started again where it stopped
//	finished    all its input was read to the end, and all its output is committed
//	failed      an attempt failed, and there is to be no other
//	cancelled   somebody gave it up; there is no savepoint, and its checkpoints can be started from
//
// and these transitions:
//
//	created    -> restoring, finished (it had finished before), stopped, failed
//	restoring  -> running, restarting, stopping, stopped, failed
//	running    -> restarting, stopping, stopped, finished, failed
//	restarting -> restoring, finished (all but the end had succeeded), stopped, failed
//	stopping   -> stopped, finished, restarting, failed
//	any but these: cancelled, in a mesh
//	stopped, finished, failed, cancelled: none
const (
	Created Status = iota
	Restoring
	Running
	Restarting
	Stopping
	Stopped
	Finished
	Failed
	Cancelled
)

var statusNames = [...]string{Created: "created", Restoring: "restoring", Running: "running", Restarting: "restarting", Stopping: "stopping",
	Stopped: "stopped", Finished: "finished", Failed: "failed", Cancelled: "cancelled"}

// String is the name that a user sees.
func (s Status) String() string { return statusNames[s] }

var next = [...][]Status{
	Created:    {Restoring, Stopped, Finished, Failed, Cancelled},
	Restoring:  {Running, Restarting, Stopping, Stopped, Failed, Cancelled},
	Running:    {Restarting, Stopping, Stopped, Finished, Failed, Cancelled},
	Restarting: {Restoring, Finished, Stopped, Failed, Cancelled},
	Stopping:   {Stopped, Finished, Restarting, Failed, Cancelled},
	Stopped:    nil, Finished: nil, Failed: nil, Cancelled: nil,
}

// CanBecome tells whether to may follow s.
func (s Status) CanBecome(to Status) bool { return slices.Contains(next[s], to) }

// Ended tells whether nothing follows s.
func (s Status) Ended() bool { return len(next[s]) == 0 }
