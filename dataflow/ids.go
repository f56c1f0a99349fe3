package dataflow

import "fmt"

// OperatorID is the uid that a user gives an operator in the job. State is
// stored under it, so it survives every change of the graph around it.
type OperatorID string

// TaskID names a job vertex: the chain of operators that run together. It is
// the id of the chain's head.
type TaskID string

// SubtaskID is one parallel instance of a task.
type SubtaskID struct {
	Task  TaskID `cbor:"1,keyasint"`
	Index int    `cbor:"2,keyasint"`
}

// String is "task/index", the form logs and metrics use.
func (s SubtaskID) String() string { return fmt.Sprintf("%s/%d", s.Task, s.Index) }

// CheckpointID is (fencing token, counter): never a clock, never used twice.
type CheckpointID struct {
	Token   FencingToken `cbor:"1,keyasint"`
	Counter uint64       `cbor:"2,keyasint"`
}

// Less orders checkpoints by when they were taken: by fencing token, then by counter.
// The zero id is before all.
func (id CheckpointID) Less(o CheckpointID) bool {
	if id.Token != o.Token {
		return id.Token.Less(o.Token)
	}
	return id.Counter < o.Counter
}

// FencingToken names one deployment of a job and orders them all. Epoch counts
// the job's owners across sites, Attempt the deployments within the owner.
type FencingToken struct {
	Epoch   uint64 `cbor:"1,keyasint"`
	Site    string `cbor:"2,keyasint"`
	Attempt uint64 `cbor:"3,keyasint"`
}

// Less orders tokens by epoch, site, attempt; whoever holds the lower one is
// refused.
func (t FencingToken) Less(o FencingToken) bool {
	if t.Epoch != o.Epoch {
		return t.Epoch < o.Epoch
	}
	if t.Site != o.Site {
		return t.Site < o.Site
	}
	return t.Attempt < o.Attempt
}
