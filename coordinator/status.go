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
//	suspended   it was stopped with a savepoint for a move to another site, and nothing of it runs until that is decided; it has its name, its feeds and its checkpoints
//	moved       another site has it: it was handed over, or taken by force; it may come back under the same id
//	quarantined another site has it at the same epoch, by force; nothing of it runs at either until a person decides
//
// and these transitions:
//
//	created    -> restoring, finished (it had finished before), stopped, failed
//	restoring  -> running, restarting, stopping, stopped, failed
//	running    -> restarting, stopping, stopped, finished, failed
//	restarting -> restoring, finished (all but the end had succeeded), stopped, failed
//	stopping   -> stopped, finished, restarting, failed
//	any but these, and but suspended: cancelled, in a mesh
//	stopped, finished, failed, cancelled: none
//
// Moves add these (docs/MIGRATION.md has what orders them). A job that halts for
// one goes through stopping like one that is told to stop; if it fails meanwhile it
// is restarted, and then told to stop again, until it is suspended or the move is
// aborted.
//
//	stopping, restarting -> suspended (its last savepoint is complete)
//	stopping, suspended  -> restarting (the move was aborted: it goes on from its newest checkpoint)
//	suspended            -> moved (handed over)
//	any                  -> moved (another site has it at a greater epoch)
//	any live one         -> quarantined
//	quarantined          -> restarting (a person has decided: it goes on here, at a greater epoch), cancelled
//	moved, and what has ended -> created (it arrives)
//
// Only a command about a move, or about the loss of a site, makes a job restarting
// from suspended or quarantined, moved, quarantined, or created.
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
	Suspended
	Moved
	Quarantined
)

var statusNames = [...]string{Created: "created", Restoring: "restoring", Running: "running", Restarting: "restarting", Stopping: "stopping",
	Stopped: "stopped", Finished: "finished", Failed: "failed", Cancelled: "cancelled",
	Suspended: "suspended", Moved: "moved", Quarantined: "quarantined"}

// String is the name that a user sees.
func (s Status) String() string { return statusNames[s] }

var next = [...][]Status{
	Created:    {Restoring, Stopped, Finished, Failed, Cancelled, Moved, Quarantined},
	Restoring:  {Running, Restarting, Stopping, Stopped, Failed, Cancelled, Moved, Quarantined},
	Running:    {Restarting, Stopping, Stopped, Finished, Failed, Cancelled, Moved, Quarantined},
	Restarting: {Restoring, Finished, Stopped, Failed, Cancelled, Suspended, Moved, Quarantined},
	Stopping:   {Stopped, Finished, Restarting, Failed, Cancelled, Suspended, Moved, Quarantined},
	Suspended:  {Restarting, Moved, Quarantined},
	Stopped:    {Created, Moved}, Finished: {Created, Moved}, Failed: {Created, Moved}, Cancelled: {Created, Moved},
	Moved:       {Created},
	Quarantined: {Restarting, Cancelled, Moved},
}

// CanBecome tells whether to may follow s.
func (s Status) CanBecome(to Status) bool { return slices.Contains(next[s], to) }

// Ended tells whether nothing of the job runs at this site any more, or is to: its
// name is free. Only an arrival brings it back.
func (s Status) Ended() bool {
	return s == Stopped || s == Finished || s == Failed || s == Cancelled || s == Moved
}

// Known tells whether there is such a status.
func (s Status) Known() bool { return s <= Quarantined }
