package dataflow

// Barrier is what travels in band through a job to take a checkpoint: rows
// before it are in the checkpoint, rows behind it are not.
type Barrier struct {
	ID   CheckpointID `cbor:"1,keyasint"`
	Full bool         `cbor:"2,keyasint,omitempty"` // snapshots hold everything, not only what changed since the last one
	Then Then         `cbor:"3,keyasint,omitempty"`
}

// Then is what sources do around a barrier.
type Then uint8

// What sources do.
const (
	GoOn  Then = iota // read on behind the barrier
	Halt              // read nothing behind it: the job stops with this savepoint, or is told to go on
	Drain             // end the input before it, with the watermark of the end; nothing comes behind it
)

// String is the name in logs and scripts.
func (t Then) String() string { return [...]string{"go on", "halt", "drain"}[t] }
